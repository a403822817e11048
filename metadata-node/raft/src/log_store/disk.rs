//! The log on a disk, in the files of `raft-log`.

use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::Stream;
use openraft::entry::RaftEntry as _;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use raft_log::api::raft_log_writer::RaftLogWriter;
use raft_log::{Callback, RaftLog};
use tokio::sync::oneshot;

use super::flushes::{FlushTicket, Flushes};
use super::record::{WalLogId, WalPayload, WalTypes, WalVote, payload_bytes};
use super::{READ_BYTES_MAX, half_open};
use crate::types::{LogId, RaftEntry, Types, Vote};

/// How long an fsync waits for company: long enough that a crowd shares it, too short to be felt by one alone.
const FLUSH_BATCH_WAIT: Duration = Duration::from_micros(70);
/// Purged entries give their disk space back in steps of a file.
const FILE_BYTES_MAX: usize = 64 * 1024 * 1024;
const FILE_RECORDS_MAX: usize = 262_144;
const READ_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// Recent entries are read from memory.
const CACHE_BYTES_MAX: usize = 128 * 1024 * 1024;
const CACHE_ENTRIES_MAX: usize = 100_000;

/// A log that cannot be opened. Its message tells an operator what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenLogError {
    /// Another process works on it.
    #[error(
        "the log in {} is in use by another process: stop that one first, or give this node another directory",
        directory.display()
    )]
    InUse {
        /// Where the log lies.
        directory: PathBuf,
        /// What `raft-log` said.
        #[source]
        reason: io::Error,
    },
    /// Bytes are damaged that may have been acknowledged.
    #[error(
        "the log in {} is damaged before its end, so acknowledged entries may be lost: do not delete anything \
         here; remove this node from the cluster, move the directory aside and let an empty one join as a new node",
        directory.display()
    )]
    Damaged {
        /// Where the log lies.
        directory: PathBuf,
        /// What `raft-log` said.
        #[source]
        reason: io::Error,
    },
    /// The file system refuses.
    #[error("the log in {} cannot be opened", directory.display())]
    Refused {
        /// Where the log lies.
        directory: PathBuf,
        /// What the operating system said.
        #[source]
        reason: io::Error,
    },
}

/// The log on a disk. Clones share it.
///
/// Reads of entries that left the cache block the calling thread for the time of a read of at most a mebibyte.
#[derive(Debug, Clone)]
pub(crate) struct DiskLog {
    log: Arc<Mutex<RaftLog<WalTypes>>>,
    flushes: Flushes,
}

impl DiskLog {
    /// Opens the log in a directory, which is made if it does not exist. A torn tail that was never acknowledged is cut
    /// off. Blocks; takes about three seconds for a million entries.
    pub(crate) fn open(directory: &Path, flushes: Flushes) -> Result<Self, OpenLogError> {
        let refused = |reason| OpenLogError::Refused { directory: directory.to_owned(), reason };
        std::fs::create_dir_all(directory).map_err(refused)?;
        let mut config = raft_log::Config::new(directory.display());
        config.wal.flush_batch_wait = Some(FLUSH_BATCH_WAIT);
        config.wal.read_buffer_size = Some(READ_BUFFER_BYTES);
        config.wal.chunk_max_size = Some(FILE_BYTES_MAX);
        config.wal.chunk_max_records = Some(FILE_RECORDS_MAX);
        config.log_cache_capacity = Some(CACHE_BYTES_MAX);
        config.log_cache_max_items = Some(CACHE_ENTRIES_MAX);
        let log = RaftLog::open(Arc::new(config)).map_err(|reason| explain(directory, reason))?;
        Ok(Self { log: Arc::new(Mutex::new(log)), flushes })
    }

    fn lock(&self) -> MutexGuard<'_, RaftLog<WalTypes>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, range: &impl RangeBounds<u64>, bytes_max: usize) -> io::Result<Vec<RaftEntry>> {
        let (start, end) = half_open(range);
        let log = self.lock();
        let mut entries = Vec::new();
        let mut bytes = 0;
        for record in log.read(start, end) {
            let (id, payload) = record?;
            bytes += payload_bytes(&payload.0);
            entries.push(RaftEntry::new(id.into(), payload.0));
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(entries)
    }

    /// Waits until everything written so far is on the disk.
    async fn flush(&self, write: impl FnOnce(&mut RaftLog<WalTypes>) -> io::Result<()>) -> io::Result<()> {
        let (done, flushed) = oneshot::channel();
        {
            let mut log = self.lock();
            write(&mut log)?;
            log.flush(true, Some(FlushCallback::wake(done, self.flushes.begin())))?;
        }
        flushed.await.unwrap_or_else(|_| Err(io::Error::other("the log's writer has stopped")))
    }
}

fn explain(directory: &Path, reason: io::Error) -> OpenLogError {
    let directory = directory.to_owned();
    match reason.kind() {
        io::ErrorKind::WouldBlock => OpenLogError::InUse { directory, reason },
        io::ErrorKind::PermissionDenied | io::ErrorKind::StorageFull | io::ErrorKind::NotFound => {
            OpenLogError::Refused { directory, reason }
        }
        _ if reason.raw_os_error().is_some() => OpenLogError::Refused { directory, reason },
        _ => OpenLogError::Damaged { directory, reason },
    }
}

/// Who is told of an fsync.
pub(super) struct FlushCallback {
    listener: Listener,
    ticket: FlushTicket,
}

enum Listener {
    Append(IOFlushed<Types>),
    Task(oneshot::Sender<io::Result<()>>),
}

impl FlushCallback {
    fn wake(task: oneshot::Sender<io::Result<()>>, ticket: FlushTicket) -> Self {
        Self { listener: Listener::Task(task), ticket }
    }
}

impl Callback for FlushCallback {
    fn send(self, result: io::Result<()>) {
        drop(self.ticket);
        match self.listener {
            Listener::Append(callback) => callback.io_completed(result),
            // Nobody waits any more: the node is stopping.
            Listener::Task(task) => drop(task.send(result)),
        }
    }
}

impl RaftLogReader<Types> for DiskLog {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<RaftEntry>> {
        self.read(&range, usize::MAX)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<RaftEntry>> {
        self.read(&(start..end), READ_BYTES_MAX)
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<RaftEntry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        super::stream_entries(half_open(&range), |range| self.read(&range, READ_BYTES_MAX))
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.lock().log_state().vote().copied().map(Vote::from))
    }
}

impl RaftLogStorage<Types> for DiskLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let log = self.lock();
        let state = log.log_state();
        let last_purged_log_id = state.purged().copied().map(LogId::from);
        let last_log_id = state.last().copied().map(LogId::from);
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.flush(|log| log.save_vote(WalVote::from(vote)).map(drop)).await
    }

    /// Not fsynced: an older committed id after a crash is one that the next leader corrects.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let Some(committed) = committed.as_ref().map(WalLogId::from) else { return Ok(()) };
        let mut log = self.lock();
        // A snapshot may be committed beyond the end of the log; `raft-log` takes only what the log reaches.
        let known = log.log_state().last().is_some_and(|last| committed <= *last)
            && log.log_state().committed().is_none_or(|before| *before < committed);
        if known {
            log.commit(committed)?;
            log.flush(false, None)?;
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.lock().log_state().committed().copied().map(LogId::from))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let records =
            entries.into_iter().map(|entry| (WalLogId::from(&entry.log_id), WalPayload(entry.payload)));
        let mut log = self.lock();
        log.append(records)?;
        let listener = Listener::Append(callback);
        log.flush(true, Some(FlushCallback { listener, ticket: self.flushes.begin() }))
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        let keep = last_log_id.as_ref().map(WalLogId::from);
        if self.lock().log_state().last() <= keep.as_ref() {
            return Ok(());
        }
        let index = last_log_id.map_or(0, |id| id.index + 1);
        self.flush(|log| log.truncate(index).map(drop)).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.flush(|log| log.purge(WalLogId::from(&upto)).map(drop)).await
    }
}
