//! Follows what is committed and wakes those who wait for it.
//!
//! The feed is no source of truth: who is woken asks for a plan. When it was cut, lagged or overflowed, everybody is
//! woken, so that a lost notice costs a question and never an answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use carnax_core::id::{PartitionIndex, TopicId};
use carnax_core::metadata::{CommitNotice, WatchCommits};
use futures::StreamExt;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::MetadataClient;

const RECONNECT_MIN: Duration = Duration::from_millis(50);
const RECONNECT_MAX: Duration = Duration::from_secs(2);
/// Partitions that a waiter of a whole topic remembers one by one; beyond that, it looks at all of them.
const CHANGED_MAX: usize = 1_000;

/// Wakes waiters on commits.
#[derive(Debug, Default)]
pub(crate) struct CommitFeed {
    waiters: Mutex<Waiters>,
    /// How many wait.
    waiting: watch::Sender<usize>,
    /// Whether the feed is open, or being opened.
    open: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Waiters {
    next_id: u64,
    /// By what is waited for (a partition, or a whole topic), then by id.
    by_subject: BTreeMap<Subject, BTreeMap<u64, Arc<Waiter>>>,
}

type Subject = (TopicId, Option<PartitionIndex>);

#[derive(Debug, Default)]
struct Waiter {
    notify: Notify,
    changed: Mutex<Changed>,
}

/// What may have grown since the last look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Changed {
    /// Nothing.
    #[default]
    Nothing,
    /// These partitions.
    Partitions(BTreeSet<PartitionIndex>),
    /// Any.
    Everything,
}

/// A place among the waiters, given up when dropped.
#[derive(Debug)]
pub(crate) struct Registration {
    feed: Arc<CommitFeed>,
    subject: Subject,
    id: u64,
    waiter: Arc<Waiter>,
}

impl CommitFeed {
    /// Registers for one partition, or for all of a topic. Commits from now on are not missed.
    pub(crate) fn register(
        self: &Arc<Self>,
        topic: TopicId,
        partition: Option<PartitionIndex>,
    ) -> Registration {
        let waiter = Arc::new(Waiter::default());
        let subject = (topic, partition);
        let mut waiters = self.waiters();
        let id = waiters.next_id;
        waiters.next_id += 1;
        waiters.by_subject.entry(subject).or_default().insert(id, Arc::clone(&waiter));
        drop(waiters);
        self.waiting.send_modify(|waiting| *waiting += 1);
        Registration { feed: Arc::clone(self), subject, id, waiter }
    }

    /// Follows the feed until cancelled.
    pub(crate) async fn follow(&self, client: &MetadataClient, stop: &CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.stay_open(client) => {}
        }
    }

    /// Follows the feed until cancelled, but only while somebody waits: between two waiters it is closed.
    pub(crate) async fn follow_while_waited(&self, client: &MetadataClient, stop: &CancellationToken) {
        let mut waiting = self.waiting.subscribe();
        // The channel never closes: the sender is our own.
        let whole_life = async {
            loop {
                let _ = waiting.wait_for(|waiting| *waiting > 0).await.map(drop);
                self.open.send_replace(true);
                tokio::select! {
                    _ = waiting.wait_for(|waiting| *waiting == 0) => {}
                    () = self.stay_open(client) => {}
                }
                self.open.send_replace(false);
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = whole_life => {}
        }
    }

    /// Waits until the feed that is followed only while somebody waits is closed.
    pub(crate) async fn closed(&self) {
        let _ = self.open.subscribe().wait_for(|open| !open).await.map(drop);
    }

    /// Opens the feed, and opens it again whenever it was cut, with growing pauses while no node gives one.
    async fn stay_open(&self, client: &MetadataClient) {
        let mut pause = RECONNECT_MIN;
        loop {
            match client.stream(WatchCommits {}).await {
                Ok(mut notices) => loop {
                    match notices.next().await {
                        Some(Ok(notice)) => {
                            pause = RECONNECT_MIN;
                            self.wake(&notice);
                        }
                        Some(Err(error)) => {
                            tracing::debug!(%error, "the commit feed was cut");
                            break;
                        }
                        None => break,
                    }
                },
                Err(error) => tracing::debug!(%error, "no metadata node gives a commit feed"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RECONNECT_MAX);
        }
    }

    fn wake(&self, notice: &CommitNotice) {
        let waiters = self.waiters();
        // The first notice of a stream has no partitions: before it, anything may have been missed.
        if notice.lagged || notice.partitions.is_empty() {
            for waiter in waiters.by_subject.values().flat_map(BTreeMap::values) {
                waiter.wake(None);
            }
            return;
        }
        for grown in &notice.partitions {
            for subject in [(grown.topic, Some(grown.partition)), (grown.topic, None)] {
                for waiter in waiters.by_subject.get(&subject).into_iter().flat_map(BTreeMap::values) {
                    waiter.wake(Some(grown.partition));
                }
            }
        }
    }

    fn waiters(&self) -> MutexGuard<'_, Waiters> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiter {
    fn wake(&self, partition: Option<PartitionIndex>) {
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        changed.add(partition);
        drop(changed);
        self.notify.notify_one();
    }
}

impl Changed {
    fn add(&mut self, partition: Option<PartitionIndex>) {
        match (&mut *self, partition) {
            (Self::Everything, _) => {}
            (Self::Nothing, Some(partition)) => *self = Self::Partitions([partition].into()),
            (Self::Partitions(partitions), Some(partition)) if partitions.len() < CHANGED_MAX => {
                partitions.insert(partition);
            }
            (Self::Nothing | Self::Partitions(_), _) => *self = Self::Everything,
        }
    }
}

impl Registration {
    /// Waits for the next commit, or returns at once if there was one since the last look. Dropping the future loses
    /// nothing.
    pub(crate) async fn changed(&self) -> Changed {
        loop {
            let changed = {
                let mut changed = self.waiter.changed.lock().unwrap_or_else(PoisonError::into_inner);
                std::mem::take(&mut *changed)
            };
            if changed != Changed::Nothing {
                return changed;
            }
            self.waiter.notify.notified().await;
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut waiters = self.feed.waiters();
        if let Some(others) = waiters.by_subject.get_mut(&self.subject) {
            others.remove(&self.id);
            if others.is_empty() {
                waiters.by_subject.remove(&self.subject);
            }
        }
        drop(waiters);
        self.feed.waiting.send_modify(|waiting| *waiting = waiting.saturating_sub(1));
    }
}
