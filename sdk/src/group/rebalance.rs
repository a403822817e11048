//! Hand-over: what happens when the assignment changes.

use std::sync::Arc;

use carnax_core::error_code::ErrorCode;
use carnax_core::http::{GroupOffsetResponse, GroupOffsetsResponse};
use carnax_core::id::TopicPartition;
use carnax_core::offset::Offset;
use futures::future::BoxFuture;
use tokio::time::Instant;

use super::consumer::GroupConsumer;
use super::membership::{Assignment, Change, Reach};
use super::{GroupError, GroupPartition, named};
use crate::consumer::OffsetReset;
use crate::error::RequestError;

/// Is told when partitions come and go: during [`GroupConsumer::poll`], never while the caller has a batch that it was just
/// given. Calls must not poll the consumer that they are given. If the poll is dropped meanwhile, the same call is made again by
/// the next one.
///
/// ```
/// use carnax::{GroupConsumer, GroupPartition, RebalanceListener};
/// use futures::future::BoxFuture;
///
/// struct Flush;
///
/// impl RebalanceListener for Flush {
///     fn on_revoked<'a>(
///         &'a mut self,
///         consumer: &'a mut GroupConsumer,
///         partitions: &'a [GroupPartition],
///     ) -> BoxFuture<'a, ()> {
///         Box::pin(async move {
///             // Write what is still in memory, then commit: the last chance to do so.
///             if let Err(error) = consumer.commit().await {
///                 eprintln!("{partitions:?} will be read again: {error}");
///             }
///         })
///     }
/// }
/// ```
pub trait RebalanceListener: Send + 'static {
    /// These partitions are the member's now; nothing of them was handed out yet. A [`seek`](GroupConsumer::seek) from here
    /// decides where they begin.
    fn on_assigned<'a>(
        &'a mut self,
        consumer: &'a mut GroupConsumer,
        partitions: &'a [GroupPartition],
    ) -> BoxFuture<'a, ()> {
        let _ = (consumer, partitions);
        Box::pin(std::future::ready(()))
    }

    /// These partitions are to be let go of: nothing of them is handed out any more, and offsets can still be committed. They
    /// go to others when this returns, and after the automatic commit if there is one.
    fn on_revoked<'a>(
        &'a mut self,
        consumer: &'a mut GroupConsumer,
        partitions: &'a [GroupPartition],
    ) -> BoxFuture<'a, ()> {
        let _ = (consumer, partitions);
        Box::pin(std::future::ready(()))
    }

    /// These partitions were lost: others may read them already, and offsets cannot be committed.
    fn on_lost<'a>(
        &'a mut self,
        consumer: &'a mut GroupConsumer,
        partitions: &'a [GroupPartition],
    ) -> BoxFuture<'a, ()> {
        let _ = (consumer, partitions);
        Box::pin(std::future::ready(()))
    }
}

#[derive(Clone, Copy)]
enum Event {
    Assigned,
    Revoked,
    Lost,
}

impl GroupConsumer {
    /// Does everything that has to be done before anything can be handed out.
    pub(super) async fn settle_changes(&mut self) -> Result<(), GroupError> {
        loop {
            let (change, refusal) = {
                let mut membership = self.shared.lock();
                let now = Instant::now();
                (membership.change(now), membership.take_refusal(now))
            };
            if let Some(error) = refusal {
                self.shared.wake.notify_one();
                return Err(GroupError::Join(error));
            }
            // What a poll that was dropped kept back may be the member's again.
            std::mem::take(&mut self.kept_back).into_iter().for_each(|on| self.reader.resume_paused(on));
            match change {
                Some(Change::Lost(lost)) => {
                    self.forget_all();
                    tracing::warn!(group = %self.shared.group, partitions = lost.len(), "partitions lost");
                    self.tell(Event::Lost, &lost).await;
                }
                Some(Change::Assigned { reach, revoked, added }) => {
                    self.hand_over(reach, &revoked, &added).await;
                }
                None => break,
            }
        }
        self.begin_added().await
    }

    /// Dropped half-way, it begins again with the next poll.
    async fn hand_over(&mut self, reach: Reach, revoked: &Assignment, added: &Assignment) {
        if !revoked.is_empty() {
            let paused: Vec<_> = self.reader.paused().collect();
            let reads = revoked.keys().filter(|on| !paused.contains(on)).copied();
            self.kept_back = reads.collect();
            self.kept_back.iter().for_each(|on| self.reader.pause(*on));
            self.tell(Event::Revoked, revoked).await;
            if self.settings.auto_commit.is_some() {
                let offsets = self.uncommitted(|on| revoked.contains_key(&on));
                if let Err(error) = self.commits.commit(reach.epoch, offsets).await {
                    tracing::warn!(group = %self.shared.group, %error, "records of revoked partitions are read again");
                }
            }
            // What the caller has asked for without waiting, too.
            self.commits.settle().await;
        }
        if !self.shared.lock().reached(reach, revoked, added, Instant::now()) {
            return;
        }
        self.shared.wake.notify_one();
        for on in revoked.keys() {
            self.forget(*on);
        }
        if !added.is_empty() {
            self.starting.extend(added.iter().map(|(on, topic)| (*on, topic.clone())));
            self.tell(Event::Assigned, added).await;
        }
        tracing::info!(group = %self.shared.group, added = added.len(), revoked = revoked.len(), "assignment changed");
    }

    async fn tell(&mut self, event: Event, partitions: &Assignment) {
        if partitions.is_empty() {
            return;
        }
        let Some(listener) = self.listener.clone() else { return };
        // Locked only while a listener polls the consumer that it was given, against its contract.
        let Ok(mut listener) = listener.try_lock() else { return };
        let partitions: Vec<_> = partitions.iter().map(|(on, topic)| named(*on, topic)).collect();
        match event {
            Event::Assigned => listener.on_assigned(self, &partitions).await,
            Event::Revoked => listener.on_revoked(self, &partitions).await,
            Event::Lost => listener.on_lost(self, &partitions).await,
        }
    }

    /// Begins to read what was added: where it was committed, or as the offset reset says.
    async fn begin_added(&mut self) -> Result<(), GroupError> {
        if self.starting.is_empty() || self.retry_starting > Instant::now() {
            return Ok(());
        }
        let known = match self.ask_committed(&self.starting).await {
            Ok(known) => known,
            Err(error) => {
                self.start_failures += 1;
                self.retry_starting = Instant::now() + self.shared.client.backoff(self.start_failures);
                // A topic that was deleted goes out of the assignment by itself.
                let passes = error.retryable() || error.is(ErrorCode::TopicNotFound);
                tracing::warn!(group = %self.shared.group, %error, "cannot ask for committed offsets");
                return if passes { Ok(()) } else { Err(GroupError::Request(Arc::new(error))) };
            }
        };
        self.start_failures = 0;
        if self.shared.lock().epoch(Instant::now()).is_none() {
            return Ok(());
        }
        let starting: Vec<_> = self.starting.keys().copied().collect();
        for on in starting {
            let Some(known) = known.iter().find(|known| place(known) == on) else { continue };
            let Some(topic) = self.starting.remove(&on) else { continue };
            self.commits.note_committed(on, known.offset);
            match start(known, self.settings.reset) {
                Some(position) => self.reader.insert(self.fetcher(on, &topic), position),
                None => {
                    let partition = named(on, &topic);
                    self.undecided.insert(on, topic);
                    return Err(GroupError::NoOffset { partition });
                }
            }
        }
        if !self.starting.is_empty() {
            // The topic is another one by now: the next assignment says so.
            self.retry_starting = Instant::now() + self.shared.client.backoff(4);
        }
        Ok(())
    }

    /// What is committed of all partitions of the topics of these.
    pub(super) async fn ask_committed(
        &self,
        partitions: &Assignment,
    ) -> Result<Vec<GroupOffsetResponse>, RequestError> {
        let topics: std::collections::BTreeSet<&str> =
            partitions.values().map(|topic| topic.as_str()).collect();
        let topics: Vec<&str> = topics.into_iter().collect();
        let admin = self.shared.client.admin();
        let answer: GroupOffsetsResponse =
            Box::pin(admin.group_offsets(self.shared.group.as_str(), &topics)).await?;
        Ok(answer.offsets)
    }
}

fn place(known: &GroupOffsetResponse) -> TopicPartition {
    TopicPartition { topic: known.topic_id, partition: known.partition }
}

fn start(known: &GroupOffsetResponse, reset: OffsetReset) -> Option<Offset> {
    known.offset.or(match reset {
        OffsetReset::Error => None,
        OffsetReset::Earliest => Some(known.log_start_offset),
        OffsetReset::Latest => Some(known.high_watermark),
    })
}
