//! A disk in memory for simulations: what was not fsynced is lost when it crashes.
//!
//! ```text
//! write ─▶ current (what the process reads) ─▶ fsync delay ─▶ durable ─▶ callback
//!                                                  crash: current = durable + some first writes of the rest
//! ```

mod image;

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use openraft::entry::RaftEntry as _;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use tokio::sync::oneshot;

use self::image::{Image, Write};
use super::flushes::{FlushTicket, Flushes};
use super::record::payload_bytes;
use super::{READ_BYTES_MAX, half_open};
use crate::types::{LogId, RaftEntry, Types, Vote};

/// The disk of one simulated node: its log and its snapshot. Outlives the node; clones share it.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk(Arc<Mutex<Disk>>);

#[derive(Debug, Default)]
struct Disk {
    durable: Image,
    current: Image,
    /// Writes that no fsync covers yet, in their order.
    unsynced: VecDeque<(u64, Write)>,
    next_write: u64,
    /// Increases with each crash: fsyncs from before it mean nothing.
    life: u64,
    fsync_delay: Duration,
    bytes_left: Option<usize>,
    fsync_fails: bool,
    broken: bool,
    snapshot: Option<Bytes>,
}

impl MemoryDisk {
    /// An empty disk whose fsyncs take no time.
    pub fn new() -> Self {
        Self::default()
    }

    /// Loses what was not fsynced, except for its first `kept` writes (a disk may have written them early), and mends
    /// every fault. Callbacks of lost writes never come.
    pub fn crash(&self, kept: usize) {
        let mut disk = self.lock();
        let early: Vec<_> = disk.unsynced.drain(..).take(kept).collect();
        for (_, write) in early {
            disk.durable.apply(write);
        }
        disk.current = disk.durable.clone();
        disk.life += 1;
        disk.bytes_left = None;
        disk.fsync_fails = false;
        disk.broken = false;
    }

    /// How many writes are not covered by an fsync.
    pub fn unsynced(&self) -> usize {
        self.lock().unsynced.len()
    }

    /// From now on an fsync takes this long.
    pub fn set_fsync_delay(&self, delay: Duration) {
        self.lock().fsync_delay = delay;
    }

    /// From now on only so many bytes fit (`ENOSPC` beyond them).
    pub fn fill_up_after(&self, bytes: usize) {
        self.lock().bytes_left = Some(bytes);
    }

    /// From now on fsyncs fail (`EIO`).
    pub fn fail_fsync(&self) {
        self.lock().fsync_fails = true;
    }

    /// Whether the entry at `index` would survive a crash now and contains `content`.
    #[cfg(test)]
    pub(crate) fn holds(&self, index: u64, content: &[u8]) -> bool {
        let disk = self.lock();
        let Some(openraft::EntryPayload::Normal(entry)) =
            disk.durable.entries.get(&index).map(|e| &e.payload)
        else {
            return false;
        };
        entry.0.windows(content.len()).any(|window| window == content)
    }

    pub(crate) fn snapshot(&self) -> Option<Bytes> {
        self.lock().snapshot.clone()
    }

    pub(crate) fn put_snapshot(&self, snapshot: Bytes) {
        self.lock().snapshot = Some(snapshot);
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes without fsync.
    fn write(&self, writes: impl IntoIterator<Item = Write>) -> io::Result<()> {
        let mut disk = self.lock();
        if disk.broken {
            return Err(io::Error::other("an earlier write or fsync failed"));
        }
        for write in writes {
            if let (Write::Append(entry), Some(left)) = (&write, disk.bytes_left) {
                let bytes = payload_bytes(&entry.payload);
                let Some(left) = left.checked_sub(bytes) else {
                    disk.broken = true;
                    return Err(io::ErrorKind::StorageFull.into());
                };
                disk.bytes_left = Some(left);
            }
            let number = disk.next_write;
            disk.next_write += 1;
            disk.current.apply(write.clone());
            disk.unsynced.push_back((number, write));
        }
        Ok(())
    }

    /// Begins an fsync that covers everything written so far. It resolves to `None` if the disk crashes meanwhile.
    fn fsync(&self, ticket: FlushTicket) -> impl Future<Output = Option<io::Result<()>>> + Send + use<> {
        let (life, covered, delay) = {
            let disk = self.lock();
            (disk.life, disk.next_write, disk.fsync_delay)
        };
        self.clone().finish_fsync(life, covered, delay, ticket)
    }

    async fn finish_fsync(
        self,
        life: u64,
        covered: u64,
        delay: Duration,
        ticket: FlushTicket,
    ) -> Option<io::Result<()>> {
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let mut disk = self.lock();
        if disk.life != life {
            return None;
        }
        drop(ticket);
        if disk.fsync_fails || disk.broken {
            disk.broken = true;
            return Some(Err(io::Error::other("simulated: the device reports an error (EIO)")));
        }
        while disk.unsynced.front().is_some_and(|(number, _)| *number < covered) {
            if let Some((_, write)) = disk.unsynced.pop_front() {
                disk.durable.apply(write);
            }
        }
        Some(Ok(()))
    }
}

/// The log on a [`MemoryDisk`]. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct MemoryLog {
    disk: MemoryDisk,
    flushes: Flushes,
}

impl MemoryLog {
    pub(crate) fn open(disk: MemoryDisk, flushes: Flushes) -> Self {
        Self { disk, flushes }
    }

    fn read(&self, range: &impl RangeBounds<u64>, bytes_max: usize) -> Vec<RaftEntry> {
        let (start, end) = half_open(range);
        let disk = self.disk.lock();
        let mut bytes = 0;
        let mut entries = Vec::new();
        for entry in disk.current.entries.range(start..end).map(|(_, entry)| entry) {
            bytes += payload_bytes(&entry.payload);
            entries.push(entry.clone());
            if bytes >= bytes_max {
                break;
            }
        }
        entries
    }

    async fn write_and_fsync(&self, write: Write) -> io::Result<()> {
        self.disk.write([write])?;
        // In a task of its own: the fsync goes on if the caller is dropped.
        let fsync = self.disk.fsync(self.flushes.begin());
        let (done, synced) = oneshot::channel();
        tokio::spawn(async move {
            if let Some(result) = fsync.await {
                let _ = done.send(result);
            }
        });
        synced.await.unwrap_or_else(|_| Err(io::Error::other("the disk crashed")))
    }
}

impl RaftLogReader<Types> for MemoryLog {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<RaftEntry>> {
        Ok(self.read(&range, usize::MAX))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<RaftEntry>> {
        Ok(self.read(&(start..end), READ_BYTES_MAX))
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<RaftEntry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        super::stream_entries(half_open(&range), |range| Ok(self.read(&range, READ_BYTES_MAX)))
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.disk.lock().current.vote)
    }
}

impl RaftLogStorage<Types> for MemoryLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let disk = self.disk.lock();
        let last_purged_log_id = disk.current.purged;
        let last = disk.current.entries.last_key_value().map(|(_, entry)| entry.log_id());
        Ok(LogState { last_purged_log_id, last_log_id: last.or(last_purged_log_id) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.write_and_fsync(Write::Vote(*vote)).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.disk.write(committed.map(Write::Committed))
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.disk.lock().current.committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.disk.write(entries.into_iter().map(Write::Append))?;
        let fsync = self.disk.fsync(self.flushes.begin());
        tokio::spawn(async move {
            if let Some(result) = fsync.await {
                callback.io_completed(result);
            }
        });
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        self.write_and_fsync(Write::TruncateAfter(last_log_id)).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.write_and_fsync(Write::Purge(upto)).await
    }
}
