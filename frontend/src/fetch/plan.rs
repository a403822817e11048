//! The second step: asks the metadata core which bytes to read, and waits for records to come.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use carnax_core::id::TopicPartition;
use carnax_core::limits;
use carnax_core::metadata::{FetchFrom, FetchPlan, PlanFetch, TopicRef};
use carnax_core::problem::Problem;
use tokio::time::Instant;

use super::cache::ReaderKind;
use super::pages::is_gone;
use super::{Fetch, FetchRequest};
use crate::deliberate_bugs::DeliberateBug;
use crate::metadata_client::topics::Topic;

/// The last plan of each partition, kept for the simulation's sake alone.
pub(crate) type OldPlans = Mutex<BTreeMap<TopicPartition, FetchPlan>>;

impl Fetch {
    /// Asks for a plan, again and again until there is something to read or the wait is over.
    ///
    /// Registers with the commit feed before it asks, so that no commit falls in between; an empty answer comes from a
    /// plan that was asked for when the wait was over.
    ///
    /// # Errors
    /// What the metadata core says of the question, or that no node could answer.
    pub(super) async fn plan_or_wait(
        &self,
        request: &mut FetchRequest,
        topic: &mut Arc<Topic>,
    ) -> Result<FetchPlan, Problem> {
        let end = Instant::now() + request.wait;
        let mut registration = self.register(request, topic);
        loop {
            let over = Instant::now() >= end || self.draining.is_cancelled();
            let plan = self.plan(request, topic).await?;
            // From now on the same topic and the same offset are meant, whatever happens meanwhile.
            request.topic_id = Some(plan.topic_id);
            request.from = FetchFrom::Offset(plan.start);
            if over || plan.start < plan.high_watermark {
                return Ok(plan);
            }
            if registration.as_ref().is_none_or(|(registered, _)| *registered != plan.topic_id) {
                registration = self.register(request, topic);
                continue;
            }
            let Some((_, waiter)) = &registration else { return Ok(plan) };
            tokio::select! {
                _ = waiter.changed() => {}
                () = self.draining.cancelled() => {}
                () = tokio::time::sleep_until(end) => {}
            }
        }
    }

    /// Asks for a plan once, and learns when the name means another topic now.
    ///
    /// # Errors
    /// As [`plan_or_wait`](Self::plan_or_wait).
    pub(super) async fn plan(
        &self,
        request: &FetchRequest,
        topic: &mut Arc<Topic>,
    ) -> Result<FetchPlan, Problem> {
        let on = TopicPartition { topic: topic.id, partition: request.partition };
        if let Some(old) = self.old_plan(on, request.from) {
            return Ok(old);
        }
        let question = PlanFetch {
            topic: TopicRef { name: request.topic.clone(), id: request.topic_id },
            partition: request.partition,
            from: request.from,
            max_bytes: request.max_bytes,
            max_slices: u32::try_from(limits::PLAN_SLICES_MAX).expect("the limit fits 32 bits"),
        };
        let plan = self.planned(question).await?;
        if plan.topic_id != topic.id {
            *topic = self.topics.refresh(&request.topic).await?;
        }
        if self.bugs.makes(DeliberateBug::AnswerFromOldPlan) {
            let mut plans = self.old_plans.lock().unwrap_or_else(PoisonError::into_inner);
            plans.insert(on, plan.clone());
        }
        Ok(plan)
    }

    /// Asks, and reads the manifest page that the plan begins in, if it does.
    async fn planned(&self, question: PlanFetch) -> Result<FetchPlan, Problem> {
        let mut planned_again = false;
        loop {
            let mut plan = self.client.query(question.clone()).await?;
            match self.pages.fill(&mut plan, question.from, question.max_bytes).await {
                Ok(()) => return Ok(plan),
                Err(failure) if is_gone(&failure) && !planned_again => {
                    tracing::debug!(page = ?plan.page, "a page of a plan is gone; planning again");
                    planned_again = true;
                }
                Err(failure) => return Err(failure.into_problem()),
            }
        }
    }

    fn register(
        &self,
        request: &FetchRequest,
        topic: &Topic,
    ) -> Option<(carnax_core::id::TopicId, crate::metadata_client::feed::Registration)> {
        (!request.wait.is_zero()).then(|| (topic.id, self.feed.register(topic.id, Some(request.partition))))
    }

    /// A deliberate mistake: says that there is nothing new because there was nothing new before.
    fn old_plan(&self, on: TopicPartition, from: FetchFrom) -> Option<FetchPlan> {
        if !self.bugs.makes(DeliberateBug::AnswerFromOldPlan) {
            return None;
        }
        let plans = self.old_plans.lock().unwrap_or_else(PoisonError::into_inner);
        let old = plans.get(&on).filter(|old| from == FetchFrom::Offset(old.high_watermark))?;
        Some(FetchPlan { start: old.high_watermark, slices: Vec::new(), ..old.clone() })
    }
}

impl ReaderKind {
    /// A reader whose plan reaches the end of the partition is no burden; others read a backlog.
    pub(super) fn of(plan: &FetchPlan) -> Self {
        match plan.slices.last() {
            Some(last) if last.end_offset < plan.high_watermark => Self::Lagging,
            _ => Self::Tail,
        }
    }
}
