//! Polling and positions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use carnax_core::error_code::ErrorCode;
use carnax_core::http::OffsetResponse;
use carnax_core::id::TopicPartition;
use carnax_core::name::MemberId;
use carnax_core::offset::Offset;
use carnax_core::time::Timestamp;
use carnax_core::topic::TopicName;
use futures::StreamExt;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::commits::{Commits, PendingCommit, Wanted};
use super::membership::Assignment;
use super::rebalance::RebalanceListener;
use super::speaker::Shared;
use super::{GroupError, GroupPartition, named};
use crate::consumer::{ConsumeError, ConsumedRecord, Fetcher, OffsetReset, Reader, Start};

#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) reset: OffsetReset,
    pub(super) auto_commit: Option<Duration>,
    pub(super) wait: Duration,
}

/// A member of a group: reads the partitions that are assigned to it, as they come and go.
///
/// **Done.** The caller is done with the records of a batch when it calls [`poll`](Self::poll), [`commit`](Self::commit) or
/// [`commit_async`](Self::commit_async) again; from then on they count as consumed. Records are read again when they were not
/// committed: at least once, unless the caller stores offsets with its results, or lets [`process`](Self::process) do so.
///
/// **Order.** Offsets go up within a partition for as long as the member has it. Records of a partition that was lost are not
/// handed out any more.
///
/// **Life.** A task sends heartbeats, so a caller may take its time between polls; but it hands nothing over meanwhile, and
/// others that wait for its partitions wait for its next poll. It must not keep the threads of the runtime busy: when
/// no heartbeat was answered for the session time-out, everything that the member has is lost.
///
/// Dropping it ends its tasks and its fetches without leaving: the group waits for its session to expire.
/// [`close`](Self::close) leaves at once.
pub struct GroupConsumer {
    pub(super) shared: Arc<Shared>,
    pub(super) commits: Commits,
    pub(super) reader: Reader,
    pub(super) settings: Settings,
    pub(super) listener: Option<Arc<Mutex<Box<dyn RebalanceListener>>>>,
    /// Assigned, and not looked up yet where to begin.
    pub(super) starting: Assignment,
    pub(super) retry_starting: Instant,
    pub(super) start_failures: u32,
    /// Assigned, and nobody said where to begin.
    pub(super) undecided: Assignment,
    /// Kept back while they are handed over.
    pub(super) kept_back: Vec<TopicPartition>,
    next_auto_commit: Instant,
    speaker: JoinSet<()>,
}

impl std::fmt::Debug for GroupConsumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupConsumer").field("shared", &self.shared).finish_non_exhaustive()
    }
}

impl GroupConsumer {
    pub(super) fn new(
        shared: Arc<Shared>,
        commits: Commits,
        reader: Reader,
        settings: Settings,
        listener: Option<Box<dyn RebalanceListener>>,
        speaker: JoinSet<()>,
    ) -> Self {
        let now = Instant::now();
        Self {
            shared,
            commits,
            reader,
            next_auto_commit: now + settings.auto_commit.unwrap_or_default(),
            settings,
            listener: listener.map(|listener| Arc::new(Mutex::new(listener))),
            starting: Assignment::new(),
            retry_starting: now,
            start_failures: 0,
            undecided: Assignment::new(),
            kept_back: Vec::new(),
            speaker,
        }
    }

    /// Up to `max` records: waits for the first one at most as long as `wait`, and then takes those that are there already.
    /// Empty if none came. Hands partitions over first, which may take longer: offsets are committed and looked up.
    ///
    /// Dropping the future loses no record.
    ///
    /// # Errors
    /// [`GroupError::Join`], [`GroupError::Consume`] for what cannot be read and will not be by waiting,
    /// [`GroupError::NoOffset`]. Each is told once; the next poll goes on with the other partitions.
    pub async fn poll(&mut self, max: usize, wait: Duration) -> Result<Vec<ConsumedRecord>, GroupError> {
        let deadline = Instant::now() + wait;
        loop {
            self.settle_changes().await?;
            self.commit_if_due();
            let mut records = Vec::new();
            if max == 0 {
                return Ok(records);
            }
            match self.first(deadline).await {
                Wake::Record(Ok(record)) => records.push(record),
                Wake::Record(Err(error)) => {
                    self.judge(error)?;
                    continue;
                }
                Wake::Again => continue,
                Wake::Deadline => return Ok(records),
            }
            // The session may have ended while the record was waited for.
            if self.shared.lock().epoch(Instant::now()).is_none() {
                continue;
            }
            self.reader.take_at_hand(max, &mut records);
            return Ok(records);
        }
    }

    /// Commits the offsets of everything that was handed out, and waits until it is done.
    ///
    /// Dropping the future leaves open whether they are committed.
    ///
    /// # Errors
    /// [`GroupError::Lost`]: the member may not commit any more; [`GroupError::Request`].
    pub async fn commit(&mut self) -> Result<(), GroupError> {
        self.commit_async().await
    }

    /// Commits the offsets of everything that was handed out, without waiting. Commits are sent one after the other; those
    /// that wait go together. A failure is logged, and told to whoever awaits the answer.
    pub fn commit_async(&mut self) -> PendingCommit {
        let epoch = self.shared.lock().epoch(Instant::now()).unwrap_or_default();
        self.commits.commit(epoch, self.uncommitted(|_| true))
    }

    /// Commits chosen offsets, each the next one to read, with what the caller wants to remember about it (at most 4 KiB), and
    /// waits until it is done.
    ///
    /// # Errors
    /// [`GroupError::NotAssigned`], [`GroupError::Lost`]; [`GroupError::Request`], as with `offset_above_high_watermark`.
    pub async fn commit_offsets(
        &mut self,
        offsets: impl IntoIterator<Item = (GroupPartition, Offset, String)>,
    ) -> Result<(), GroupError> {
        let mut wanted = BTreeMap::new();
        for (partition, offset, metadata) in offsets {
            let (on, topic) = self.find(&partition)?;
            wanted.insert(on, Wanted { topic, offset, metadata });
        }
        let epoch = self.shared.lock().epoch(Instant::now()).ok_or(GroupError::Lost)?;
        self.commits.commit(epoch, wanted).await
    }

    /// What the group has committed for these partitions, whoever has them: the next offset to read, and what was said with
    /// it. Without those of which nothing is committed.
    ///
    /// # Errors
    /// [`GroupError::Request`].
    pub async fn committed(
        &self,
        partitions: &[GroupPartition],
    ) -> Result<BTreeMap<GroupPartition, (Offset, String)>, GroupError> {
        let topics: Vec<&str> = partitions.iter().map(|partition| partition.topic.as_str()).collect();
        let admin = self.shared.client.admin();
        let answer = Box::pin(admin.group_offsets(self.shared.group.as_str(), &topics)).await;
        let answer = answer.map_err(|error| GroupError::Request(Arc::new(error)))?;
        let found = answer.offsets.into_iter().filter_map(|known| {
            let partition = GroupPartition { topic: known.topic, partition: known.partition };
            Some((partition, (known.offset?, known.metadata)))
        });
        Ok(found.filter(|(partition, _)| partitions.contains(partition)).collect())
    }

    /// What the member has now. Empty before the first poll, and after a loss.
    pub fn assignment(&self) -> Vec<GroupPartition> {
        let held = self.shared.lock().held(Instant::now());
        held.iter().map(|(on, topic)| named(*on, topic)).collect()
    }

    /// Who this is.
    pub fn member(&self) -> &MemberId {
        &self.shared.member
    }

    /// Reads nothing of these partitions until they are resumed, or assigned anew. They stay assigned. Those that the member
    /// does not have are passed over.
    pub fn pause(&mut self, partitions: &[GroupPartition]) {
        for (on, _) in partitions.iter().filter_map(|partition| self.find(partition).ok()).collect::<Vec<_>>()
        {
            self.reader.pause(on);
        }
    }

    /// Goes on with partitions that were paused, or that could not be read.
    pub fn resume(&mut self, partitions: &[GroupPartition]) {
        for (on, _) in partitions.iter().filter_map(|partition| self.find(partition).ok()).collect::<Vec<_>>()
        {
            self.reader.resume_paused(on);
            self.reader.resume_failed(on);
        }
    }

    /// What is paused.
    pub fn paused(&self) -> Vec<GroupPartition> {
        let held = self.shared.lock().held(Instant::now());
        self.reader.paused().filter_map(|on| held.get(&on).map(|topic| named(on, topic))).collect()
    }

    /// Goes on elsewhere; records that were fetched ahead are forgotten. Also brings a partition back that could not be read, or
    /// for which nobody knew where to begin.
    ///
    /// # Errors
    /// [`GroupError::NotAssigned`]; [`GroupError::Request`], and then nothing has changed.
    pub async fn seek(&mut self, partition: &GroupPartition, start: Start) -> Result<(), GroupError> {
        let (on, topic) = self.find(partition)?;
        let fetcher = self.fetcher(on, &topic);
        let position = match start {
            Start::Offset(offset) => offset,
            start => fetcher.resolve(start).await.map_err(|error| GroupError::Request(Arc::new(error)))?,
        };
        if self.reader.contains(on) {
            self.reader.restart(on, position);
        } else {
            self.starting.remove(&on);
            self.undecided.remove(&on);
            self.reader.insert(fetcher, position);
        }
        Ok(())
    }

    /// For each of these partitions the first offset whose record has the timestamp or a later one; the high watermark, and no
    /// timestamp, where there is none.
    ///
    /// # Errors
    /// [`GroupError::Request`].
    pub async fn offsets_for_times(
        &self,
        times: impl IntoIterator<Item = (GroupPartition, Timestamp)>,
    ) -> Result<BTreeMap<GroupPartition, OffsetResponse>, GroupError> {
        let admin = self.shared.client.admin();
        let mut found = BTreeMap::new();
        for (partition, timestamp) in times {
            let start = Start::Timestamp(timestamp);
            let offset = admin.offset(partition.topic.as_str(), partition.partition, start).await;
            let offset = offset.map_err(|error| GroupError::Request(Arc::new(error)))?;
            found.insert(partition, offset);
        }
        Ok(found)
    }

    /// The offset that is read next: one past the last record that was handed out, or further where there are holes. None
    /// if the member does not have the partition, or has not begun to read it.
    pub fn position(&self, partition: &GroupPartition) -> Option<Offset> {
        self.reader.position(self.find(partition).ok()?.0)
    }

    /// How many records there are between the position and the end of each partition, as of its last fetch.
    pub fn lag(&self) -> BTreeMap<GroupPartition, u64> {
        let held = self.shared.lock().held(Instant::now());
        let lag = self.reader.positions().filter_map(|(on, position)| {
            let end = self.reader.high_watermark(on)?;
            Some((named(on, held.get(&on)?), end.0.saturating_sub(position.0)))
        });
        lag.collect()
    }

    /// Commits what was handed out if the consumer does so by itself, and leaves the group: its partitions are free at once.
    ///
    /// # Errors
    /// [`GroupError::Request`]: a commit or the leaving failed; the session expires, then.
    pub async fn close(mut self) -> Result<(), GroupError> {
        let committed = match self.settings.auto_commit {
            Some(_) if self.shared.lock().epoch(Instant::now()).is_some() => self.commit().await,
            _ => Ok(()),
        };
        self.commits.settle().await;
        self.speaker.shutdown().await;
        let epoch = self.shared.lock().close();
        self.reader.clear();
        if let Some(epoch) = epoch {
            let left = Box::pin(self.shared.send_leave(Some(epoch))).await;
            left.map_err(|error| GroupError::Request(Arc::new(error)))?;
        }
        committed
    }

    /// Waits for whatever comes first; a change of the assignment before a record.
    async fn first(&mut self, deadline: Instant) -> Wake {
        let session_end = self.shared.lock().deadline();
        let (reads, starts) = (self.reader.is_active(), !self.starting.is_empty());
        let commits = self.settings.auto_commit.is_some().then_some(self.next_auto_commit);
        tokio::select! {
            biased;
            () = self.shared.changed.notified() => Wake::Again,
            () = sleep_until(session_end) => Wake::Again,
            Some(record) = self.reader.next(), if reads => Wake::Record(record),
            () = tokio::time::sleep_until(deadline) => Wake::Deadline,
            () = tokio::time::sleep_until(self.retry_starting), if starts => Wake::Again,
            () = sleep_until(commits) => Wake::Again,
        }
    }

    /// Goes on with what waiting may mend, and keeps quiet about what the next assignment will take away.
    fn judge(&mut self, error: ConsumeError) -> Result<(), GroupError> {
        let ConsumeError::Fetch { source, .. } = &error else { return Err(error.into()) };
        let gone = [ErrorCode::TopicNotFound, ErrorCode::TopicRecreated].iter().any(|code| source.is(*code));
        if !gone && !error.retryable() {
            return Err(error.into());
        }
        tracing::warn!(group = %self.shared.group, %error, cause = %source, "fetch failed");
        if !gone {
            let failed: Vec<_> = self.reader.failed().collect();
            failed.into_iter().for_each(|on| self.reader.resume_failed(on));
        }
        Ok(())
    }

    fn commit_if_due(&mut self) {
        let now = Instant::now();
        if let Some(every) = self.settings.auto_commit.filter(|_| self.next_auto_commit <= now) {
            self.next_auto_commit = now + every;
            // Failures are logged by whoever sends it.
            drop(self.commit_async());
        }
    }

    /// Positions that are not committed yet, of some partitions.
    pub(super) fn uncommitted(
        &self,
        of: impl Fn(TopicPartition) -> bool,
    ) -> BTreeMap<TopicPartition, Wanted> {
        let positions = self.reader.positions().filter(|(on, _)| of(*on));
        let moved =
            positions.filter(|(on, position)| self.commits.committed(*on).flatten() != Some(*position));
        let wanted = moved.filter_map(|(on, offset)| {
            let topic = self.reader.fetcher(on)?.topic.clone();
            Some((on, Wanted { topic, offset, metadata: String::new() }))
        });
        wanted.collect()
    }

    pub(super) fn fetcher(&self, on: TopicPartition, topic: &TopicName) -> Fetcher {
        Fetcher {
            client: self.shared.client.clone(),
            topic: topic.clone(),
            on,
            fetch_bytes: self.reader.fetch_bytes(),
            wait: self.settings.wait,
            reset: self.settings.reset,
        }
    }

    pub(super) fn forget(&mut self, on: TopicPartition) {
        self.reader.remove(on);
        self.starting.remove(&on);
        self.undecided.remove(&on);
        self.commits.forget(on);
    }

    pub(super) fn forget_all(&mut self) {
        let all: Vec<_> = self.reader.positions().map(|(on, _)| on).collect();
        all.into_iter().for_each(|on| self.commits.forget(on));
        self.reader.clear();
        self.starting.clear();
        self.undecided.clear();
    }

    pub(super) fn find(&self, partition: &GroupPartition) -> Result<(TopicPartition, TopicName), GroupError> {
        let held = self.shared.lock().held(Instant::now());
        let mut found = held.into_iter().filter(|(on, topic)| named(*on, topic) == *partition);
        found.next().ok_or_else(|| GroupError::NotAssigned { partition: partition.clone() })
    }
}

enum Wake {
    Record(Result<ConsumedRecord, ConsumeError>),
    Again,
    Deadline,
}

async fn sleep_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
