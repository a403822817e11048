//! Offset commits of a member: one request under way at a time, and what comes meanwhile goes together into the next.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use carnax_core::http::{CommitOffsetsRequest, CommitOffsetsResponse, OffsetEntry};
use carnax_core::id::TopicPartition;
use carnax_core::limits::GROUP_COMMIT_OFFSETS_MAX;
use carnax_core::offset::Offset;
use carnax_core::topic::TopicName;
use http::Method;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::GroupError;
use super::speaker::Shared;
use crate::error::RequestError;
use crate::transport::ApiRequest;

/// What became of an offset commit, once it is known. Dropping it changes nothing.
#[derive(Debug)]
#[must_use = "an offset commit that is dropped tells nobody whether it was done"]
pub struct PendingCommit(oneshot::Receiver<Result<(), GroupError>>);

impl Future for PendingCommit {
    type Output = Result<(), GroupError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // Every commit is answered; the task that does it is gone only with its runtime.
        Pin::new(&mut self.0).poll(cx).map(|answer| answer.unwrap_or(Err(GroupError::Lost)))
    }
}

/// An offset that is to be committed.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) topic: TopicName,
    pub(super) offset: Offset,
    pub(super) metadata: String,
}

#[derive(Debug, Clone)]
pub(super) struct Commits {
    inner: Arc<Inner>,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    /// At most one a partition.
    waiting: BTreeMap<TopicPartition, Wanted>,
    /// Under which epoch they were asked for.
    epoch: u32,
    waiters: Vec<oneshot::Sender<Result<(), GroupError>>>,
    running: bool,
    /// Of the last request.
    number: u64,
    /// What is committed, as far as known: of partitions that the member has.
    committed: BTreeMap<TopicPartition, Option<Offset>>,
}

impl Commits {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let queue = Mutex::new(Queue::default());
        Self { inner: Arc::new(Inner { shared, queue }), tasks: TaskTracker::new() }
    }

    /// Commits after everything that was asked for earlier. What is lost by then is not sent.
    pub(super) fn commit(&self, epoch: u32, offsets: BTreeMap<TopicPartition, Wanted>) -> PendingCommit {
        let (waiter, pending) = oneshot::channel();
        if offsets.is_empty() {
            // Nobody but the caller has the other end: it cannot be gone.
            let _ = waiter.send(Ok(()));
            return PendingCommit(pending);
        }
        let mut queue = self.inner.lock();
        if queue.epoch != epoch {
            queue.epoch = epoch;
            queue.waiting.clear();
            queue.waiters.drain(..).for_each(|waiter| drop(waiter.send(Err(GroupError::Lost))));
        }
        queue.waiting.extend(offsets);
        queue.waiters.push(waiter);
        if !queue.running {
            queue.running = true;
            self.tasks.spawn(Arc::clone(&self.inner).run());
        }
        PendingCommit(pending)
    }

    /// Waits until nothing is under way.
    pub(super) async fn settle(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.tasks.reopen();
    }

    /// What is committed; none if it is not known.
    pub(super) fn committed(&self, on: TopicPartition) -> Option<Option<Offset>> {
        self.inner.lock().committed.get(&on).copied()
    }

    pub(super) fn note_committed(&self, on: TopicPartition, offset: Option<Offset>) {
        self.inner.lock().committed.insert(on, offset);
    }

    /// Forgets what is committed for partitions that the member lets go of or lost.
    pub(super) fn forget(&self, on: TopicPartition) {
        self.inner.lock().committed.remove(&on);
    }

    /// Sends one commit at once, outside of the queue; see [`Inner::send`].
    pub(super) async fn send(
        &self,
        epoch: u32,
        offsets: &[OffsetEntry],
    ) -> Result<CommitOffsetsResponse, RequestError> {
        self.inner.send(epoch, offsets).await
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_number(&self) -> u64 {
        let mut queue = self.lock();
        queue.number += 1;
        queue.number
    }

    async fn run(self: Arc<Self>) {
        loop {
            let (waiting, epoch, waiters) = {
                let mut queue = self.lock();
                if queue.waiting.is_empty() {
                    queue.running = false;
                    return;
                }
                let waiting = std::mem::take(&mut queue.waiting);
                (waiting, queue.epoch, std::mem::take(&mut queue.waiters))
            };
            let result = self.send_all(epoch, waiting).await;
            if let Err(error) = &result {
                let group = &self.shared.group;
                tracing::warn!(%group, %error, cause = ?std::error::Error::source(error), "offset commit failed");
            }
            // Who does not wait for it does not want to know.
            waiters.into_iter().for_each(|waiter| drop(waiter.send(result.clone())));
        }
    }

    async fn send_all(
        &self,
        epoch: u32,
        offsets: BTreeMap<TopicPartition, Wanted>,
    ) -> Result<(), GroupError> {
        let offsets: Vec<_> = offsets.into_iter().collect();
        for part in offsets.chunks(GROUP_COMMIT_OFFSETS_MAX) {
            if self.shared.lock().epoch(Instant::now()) != Some(epoch) {
                return Err(GroupError::Lost);
            }
            let entries = part.iter().map(|(on, wanted)| OffsetEntry {
                topic: wanted.topic.clone(),
                topic_id: Some(on.topic),
                partition: on.partition,
                offset: Some(wanted.offset),
                from: None,
                metadata: wanted.metadata.clone(),
            });
            let entries: Vec<_> = entries.collect();
            let sent = Box::pin(self.send(epoch, &entries)).await;
            match sent {
                // An attempt whose answer was lost had been there, and nobody knows how it ended: say it once more.
                Ok(CommitOffsetsResponse { ignored: true }) => {
                    let again = Box::pin(self.send(epoch, &entries)).await;
                    again.map_err(|error| GroupError::Request(Arc::new(error)))?;
                }
                Ok(_) => {
                    let mut queue = self.lock();
                    for (on, wanted) in part {
                        if let Some(known) = queue.committed.get_mut(on) {
                            *known = Some(wanted.offset);
                        }
                    }
                }
                Err(error) if self.shared.note_expulsion(epoch, &error) => return Err(GroupError::Lost),
                Err(error) => return Err(GroupError::Request(Arc::new(error))),
            }
        }
        Ok(())
    }

    /// Sends a commit under the next number, so that a late repeat of it undoes nothing that comes after it. `ignored` if an
    /// earlier attempt of the same had arrived, whatever became of that one.
    async fn send(&self, epoch: u32, offsets: &[OffsetEntry]) -> Result<CommitOffsetsResponse, RequestError> {
        let document = CommitOffsetsRequest {
            member: Some(self.shared.member.clone()),
            epoch: Some(epoch),
            number: Some(self.next_number()),
            offsets: offsets.to_vec(),
        };
        let path = format!("/v1/groups/{}/offsets", self.shared.group);
        let request = ApiRequest::new(Method::POST, path).json(&document)?;
        let client = &self.shared.client;
        client.execute(&request, client.operation(true)).await?.json()
    }
}
