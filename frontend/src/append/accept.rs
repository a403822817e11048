//! Checks a request, routes its records and waits for its answer.
//!
//! Routing goes by what is remembered of the topics. When that turns out to be old, they are asked for anew and the
//! request is routed again. A request that may be a repeat is never refused by what is known here of ids and partition
//! counts, nor for a topic that is gone: the state machine looks for its first answer before it looks at any of that.

pub(crate) mod atomic;
pub(crate) mod batch;
mod route;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use carnax_core::error_code::ErrorCode;
use carnax_core::id::TopicId;
use carnax_core::metadata::{IdempotencyStamp, ProducerStamp, UnitCommit};
use carnax_core::name::TokenId;
use carnax_core::problem::Problem;
use carnax_core::topic::TopicName;
use futures::{StreamExt, TryStreamExt};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::accumulate::{Content, Submission};
use super::{AppendContext, Appended, Arrival, draining};
use crate::metadata_client::topics::{Topic, Topics};
use atomic::AtomicAppend;

pub(crate) use route::{AppendBody, TopicAppend, check_partition};

/// How often a request is routed anew.
const ROUTINGS_MAX: usize = 4;
/// Topics that are asked for at the same time for one request.
const QUESTIONS_MAX: usize = 16;

/// Topics by name, as far as known.
pub(crate) type KnownTopics = BTreeMap<TopicName, Arc<Topic>>;

/// Takes appends.
#[derive(Debug)]
pub(crate) struct Accept {
    pub(crate) context: Arc<AppendContext>,
    pub(crate) topics: Arc<Topics>,
    pub(crate) submissions: mpsc::Sender<Arrival>,
}

/// An append as it came in.
#[derive(Debug)]
pub(crate) struct AppendRequest {
    pub(crate) records: AppendRecords,
    pub(crate) stamp: Stamp,
    /// What the request takes of the memory for appends, until it is answered.
    pub(crate) memory: Arc<OwnedSemaphorePermit>,
    /// With whose token it came, if with any.
    pub(crate) token: Option<TokenId>,
}

/// What is to be appended, and where.
#[derive(Debug)]
pub(crate) enum AppendRecords {
    /// To one topic.
    Topic(TopicAppend),
    /// To many, with what must hold.
    Atomic(Box<AtomicAppend>),
}

/// By what a request is told from its repeats.
#[derive(Debug, Clone)]
pub(crate) enum Stamp {
    /// Every request is a new one.
    None,
    Producer(ProducerStamp),
    Key(IdempotencyStamp),
}

impl Stamp {
    /// Whether a request may be a repeat.
    pub(crate) fn is_some(&self) -> bool {
        !matches!(self, Self::None)
    }

    /// The commit of a unit with nothing but this in it.
    fn commit(&self) -> UnitCommit {
        match self.clone() {
            Self::None => UnitCommit::default(),
            Self::Producer(stamp) => UnitCommit { producer: Some(stamp), ..UnitCommit::default() },
            Self::Key(stamp) => UnitCommit { idempotency: Some(stamp), ..UnitCommit::default() },
        }
    }
}

impl Accept {
    /// Appends, and answers when the records are in the log, with the topics as they were routed. Dropping the future does
    /// not take back what was accepted.
    ///
    /// # Errors
    /// Every problem of an append.
    pub(crate) async fn append(&self, request: AppendRequest) -> Result<(Appended, KnownTopics), Problem> {
        let started = tokio::time::Instant::now();
        let _in_progress = self.context.in_progress.token();
        let names = request.topic_names();
        let mut topics = self.resolve(&request, &names, false).await?;
        let by_topic = request.bytes_by_topic();
        let by_topic = by_topic.iter().filter_map(|(name, bytes)| Some((&**topics.get(*name)?, *bytes)));
        self.context.quotas.produce(request.token.as_ref(), by_topic)?;
        let mut fresh = false;
        for _ in 0..ROUTINGS_MAX {
            let submitted = match self.route(&request, &topics) {
                Ok(content) => self.submit_one(content, &request).await,
                Err(problem) if fresh => return Err(problem),
                Err(problem) => Err(problem),
            };
            let problem = match submitted {
                Ok(appended) => {
                    self.context.metrics.acknowledge_seconds.observe(started.elapsed().as_secs_f64());
                    return Ok((appended, topics));
                }
                Err(problem) if !may_be_old_knowledge(problem.code) => return Err(problem),
                Err(problem) => problem,
            };
            let now = self.resolve(&request, &names, true).await?;
            if now == topics {
                // Where ids were left to the state machine, it has found no repeat: so this is what is wrong.
                request.check_ids(&topics)?;
                return Err(problem);
            }
            (topics, fresh) = (now, true);
        }
        Err(Problem::new(
            ErrorCode::StaleRouting,
            "a topic changed again and again while records were routed",
        ))
    }

    /// What is known of topics; `fresh`: whatever was known before.
    async fn resolve(
        &self,
        request: &AppendRequest,
        names: &BTreeSet<TopicName>,
        fresh: bool,
    ) -> Result<KnownTopics, Problem> {
        let ask = |name: TopicName| async move {
            let answer = match fresh {
                true => self.topics.refresh(&name).await,
                false => self.topics.get(&name).await,
            };
            let topic = match answer {
                Err(problem) if problem.code == ErrorCode::TopicNotFound && request.stamp.is_some() => {
                    Arc::new(Topic::gone(name.clone()))
                }
                answer => answer?,
            };
            Ok((name, topic))
        };
        futures::stream::iter(names.iter().cloned().map(ask)).buffered(QUESTIONS_MAX).try_collect().await
    }

    fn route(&self, request: &AppendRequest, topics: &KnownTopics) -> Result<Content, Problem> {
        let (now, stamp) = (self.context.clock.wall(), &request.stamp);
        let spread = || self.context.entropy.next_u64();
        if !stamp.is_some() {
            request.check_ids(topics)?;
        }
        match &request.records {
            AppendRecords::Topic(records) => {
                records.route(known(topics, &records.topic)?, stamp, now, spread)
            }
            AppendRecords::Atomic(records) => {
                let unit = records.route(topics, stamp, now, spread)?;
                Ok(Content::Own(Box::new(unit)))
            }
        }
    }

    async fn submit_one(&self, content: Content, request: &AppendRequest) -> Result<Appended, Problem> {
        let (reply, answer) = oneshot::channel();
        self.send(vec![request.submission(content, reply)])?;
        answer.await.unwrap_or_else(|_| {
            Err(Problem::new(ErrorCode::OutcomeUnknown, "the append was given up without an answer"))
        })
    }

    /// Puts requests that came together into the line.
    fn send(&self, submissions: Arrival) -> Result<(), Problem> {
        if self.context.draining.is_cancelled() {
            return Err(draining());
        }
        self.submissions.try_send(submissions).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                Problem::new(ErrorCode::TooManyRequests, "too many appends wait; try again after a while")
                    .with(|facts| facts.retry_after_seconds = Some(1))
            }
            mpsc::error::TrySendError::Closed(_) => draining(),
        })
    }
}

impl AppendRequest {
    fn submission(&self, content: Content, reply: oneshot::Sender<Result<Appended, Problem>>) -> Submission {
        Submission { content, reply, memory: Arc::clone(&self.memory), token: self.token.clone() }
    }

    fn topic_names(&self) -> BTreeSet<TopicName> {
        match &self.records {
            AppendRecords::Topic(records) => BTreeSet::from([records.topic.clone()]),
            AppendRecords::Atomic(records) => records.topics().map(|(name, _)| name.clone()).collect(),
        }
    }

    /// Bytes that go to each topic: of a body, or where several topics share one, of their records.
    fn bytes_by_topic(&self) -> BTreeMap<&TopicName, u64> {
        match &self.records {
            AppendRecords::Topic(records) => BTreeMap::from([(&records.topic, records.body.length())]),
            AppendRecords::Atomic(records) => records.bytes_by_topic(),
        }
    }

    /// Whether topics are those that the client knows.
    fn check_ids(&self, topics: &KnownTopics) -> Result<(), Problem> {
        match &self.records {
            AppendRecords::Topic(records) => check_id(known(topics, &records.topic)?, records.topic_id),
            AppendRecords::Atomic(records) => {
                records.topics().try_for_each(|(name, id)| check_id(known(topics, name)?, id))
            }
        }
    }
}

/// Whether a failure may come from old knowledge of a topic.
fn may_be_old_knowledge(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::StaleRouting
            | ErrorCode::TopicRecreated
            | ErrorCode::TopicNotFound
            | ErrorCode::PartitionNotFound
            | ErrorCode::TooLarge
    )
}

fn known<'a>(topics: &'a KnownTopics, name: &TopicName) -> Result<&'a Arc<Topic>, Problem> {
    topics
        .get(name)
        .ok_or_else(|| Problem::new(ErrorCode::Internal, format!("topic {name} was not asked for")))
}

fn check_id(topic: &Topic, known: Option<TopicId>) -> Result<(), Problem> {
    if topic.is_gone() {
        let problem = Problem::new(ErrorCode::TopicNotFound, format!("there is no topic {}", topic.name));
        return Err(problem.with(|facts| facts.topic = Some(topic.name.to_string())));
    }
    let Some(known) = known.filter(|known| *known != topic.id) else { return Ok(()) };
    let detail = format!("topic {} has another id than {known}: it was deleted and made again", topic.name);
    Err(Problem::new(ErrorCode::TopicRecreated, detail).with(|facts| {
        facts.topic = Some(topic.name.to_string());
        facts.topic_id = Some(topic.id);
    }))
}
