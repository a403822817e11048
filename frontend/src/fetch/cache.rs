//! The one cache through which all record bytes are read.
//!
//! Objects are read in blocks; several missing neighbours become one GET, and whoever needs a block that is being read
//! waits for that GET instead of making another one. What this frontend uploaded is there as a whole from the start.
//!
//! A plain least-recently-used map behind a lock, bounded by bytes: every use is a few map operations per block, far
//! below the cost of the copy into the answer, and what is evicted follows from the order of calls alone, so that a
//! simulation repeats. `moka` evicts in the background by sketches with random keys, and does not join reads of
//! overlapping ranges, which is most of what this file does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use carnax_core::object_key::SegmentKey;
use carnax_core::offset::ByteRange;
use carnax_object_store::{GetRange, ObjectStore, ObjectStoreError};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use tokio::sync::Semaphore;

use crate::config::FetchSettings;
use crate::metrics::Metrics;

/// Bytes of a block; the last one of an object is shorter.
pub(crate) const BLOCK_BYTES: u64 = 1024 * 1024;
/// Blocks that one GET reads at most.
const RUN_BLOCKS_MAX: u64 = 8;

/// Which limit on concurrent reads a reader counts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReaderKind {
    /// At the end of its partition.
    Tail,
    /// Somewhere behind.
    Lagging,
}

/// Why bytes cannot be had.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ReadError {
    #[error(transparent)]
    Store(#[from] ObjectStoreError),
    #[error("object store did not answer within {0:?}")]
    Late(Duration),
}

type Read = BoxFuture<'static, Result<Bytes, ReadError>>;
/// A whole object, or one of its blocks.
type CacheKey = (SegmentKey, Option<u64>);

/// Reads objects, and keeps what was read.
#[derive(Debug)]
pub(crate) struct ReadCache {
    store: Arc<dyn ObjectStore>,
    bytes_max: u64,
    deadline: Duration,
    tail: Semaphore,
    lagging: Semaphore,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: BTreeMap<CacheKey, Entry>,
    by_use: BTreeMap<u64, CacheKey>,
    uses: u64,
    bytes: u64,
    /// GETs in progress, by the blocks that they read, with the first block of each.
    reading: BTreeMap<(SegmentKey, u64), (u64, WeakShared<Read>)>,
}

#[derive(Debug)]
struct Entry {
    bytes: Bytes,
    last_use: u64,
}

/// Bytes from some position of an object on, there or on their way.
enum Piece {
    There(u64, Bytes),
    Coming(u64, Shared<Read>),
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (entries, reading) = (self.entries.len(), self.reading.len());
        f.debug_struct("State")
            .field("entries", &entries)
            .field("bytes", &self.bytes)
            .field("reading", &reading)
            .finish()
    }
}

impl ReadCache {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, settings: &FetchSettings, metrics: Arc<Metrics>) -> Self {
        Self {
            store,
            bytes_max: settings.cache_bytes,
            deadline: settings.read_deadline,
            tail: Semaphore::new(settings.tail_reads_max),
            lagging: Semaphore::new(settings.lagging_reads_max),
            metrics,
            state: Mutex::default(),
        }
    }

    /// Keeps an object that was just uploaded, unless it would push out most of the rest.
    pub(crate) fn insert_object(&self, key: SegmentKey, object: Bytes) {
        if object.len() as u64 <= self.bytes_max / 4 {
            self.insert((key, None), object);
        }
    }

    /// Reads a range of an object of `size` bytes. Dropping the future gives up, unless others wait for the same bytes.
    ///
    /// # Errors
    /// What the object store says; `ShortRead` for a range that the object does not have.
    pub(crate) async fn read(
        self: &Arc<Self>,
        key: SegmentKey,
        size: u64,
        range: ByteRange,
        kind: ReaderKind,
    ) -> Result<Bytes, ReadError> {
        let end = range.end().filter(|end| *end <= size).ok_or_else(|| {
            ReadError::Store(ObjectStoreError::ShortRead { key: key.to_string(), range, size })
        })?;
        // All at once: a GET begins when somebody waits for it.
        let pieces = self.pieces(key, size, range.start, end, kind).into_iter().map(|piece| async move {
            match piece {
                Piece::There(at, bytes) => Ok((at, bytes)),
                Piece::Coming(at, read) => read.await.map(|bytes| (at, bytes)),
            }
        });
        let pieces = futures::future::try_join_all(pieces).await?;
        Ok(join(&pieces, range.start, end))
    }

    /// Finds what is there and starts what is missing.
    fn pieces(
        self: &Arc<Self>,
        key: SegmentKey,
        size: u64,
        start: u64,
        end: u64,
        kind: ReaderKind,
    ) -> Vec<Piece> {
        let mut state = self.state();
        if let Some(object) = state.touch((key, None)) {
            self.metrics.cache_hits.inc();
            return vec![Piece::There(0, object)];
        }
        let last = end.saturating_sub(1).max(start) / BLOCK_BYTES;
        let mut block = start / BLOCK_BYTES;
        let mut pieces = Vec::new();
        while block <= last {
            if let Some(bytes) = state.touch((key, Some(block))) {
                self.metrics.cache_hits.inc();
                pieces.push(Piece::There(block * BLOCK_BYTES, bytes));
                block += 1;
            } else if let Some((first, read)) = state.being_read(key, block) {
                self.metrics.cache_hits.inc();
                pieces.push(Piece::Coming(first * BLOCK_BYTES, read));
                block += 1;
            } else {
                let mut behind = block + 1;
                while behind <= last && behind - block < RUN_BLOCKS_MAX && state.is_missing(key, behind) {
                    behind += 1;
                }
                self.metrics.cache_misses.inc();
                let read = Arc::clone(self).get(key, size, block, behind, kind).boxed().shared();
                for number in block..behind {
                    let weak = read.downgrade().expect("it has not been polled yet");
                    state.reading.insert((key, number), (block, weak));
                }
                pieces.push(Piece::Coming(block * BLOCK_BYTES, read));
                block = behind;
            }
        }
        pieces
    }

    /// One GET of the blocks `first .. behind`.
    async fn get(
        self: Arc<Self>,
        key: SegmentKey,
        size: u64,
        first: u64,
        behind: u64,
        kind: ReaderKind,
    ) -> Result<Bytes, ReadError> {
        let limit = match kind {
            ReaderKind::Tail => &self.tail,
            ReaderKind::Lagging => &self.lagging,
        };
        let permit = limit.acquire().await.expect("the limits are never closed");
        let start = first * BLOCK_BYTES;
        let range = ByteRange { start, length: (behind * BLOCK_BYTES).min(size) - start };
        let name = key.to_string();
        let result = tokio::time::timeout(self.deadline, self.store.get(&name, GetRange::Bytes(range))).await;
        drop(permit);
        let result = match result {
            Ok(Ok((bytes, _))) => Ok(bytes),
            Ok(Err(error)) => Err(ReadError::Store(error)),
            Err(_) => Err(ReadError::Late(self.deadline)),
        };
        for number in first..behind {
            self.state().reading.remove(&(key, number));
        }
        let bytes = result?;
        let block_bytes = usize::try_from(BLOCK_BYTES).expect("a block fits into memory");
        for (number, at) in (first..behind).zip((0..bytes.len()).step_by(block_bytes)) {
            let block = &bytes[at..(at + block_bytes).min(bytes.len())];
            // A part of a longer run would keep all of it in memory after its neighbours were evicted.
            let block = if behind - first == 1 { bytes.clone() } else { Bytes::copy_from_slice(block) };
            self.insert((key, Some(number)), block);
        }
        Ok(bytes)
    }

    fn insert(&self, key: CacheKey, bytes: Bytes) {
        let mut state = self.state();
        state.insert(key, bytes);
        while state.bytes > self.bytes_max && state.evict() {}
        self.metrics.cache_bytes.set(i64::try_from(state.bytes).unwrap_or(i64::MAX));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn touch(&mut self, key: CacheKey) -> Option<Bytes> {
        let entry = self.entries.get_mut(&key)?;
        self.by_use.remove(&entry.last_use);
        self.uses += 1;
        entry.last_use = self.uses;
        self.by_use.insert(self.uses, key);
        Some(entry.bytes.clone())
    }

    /// The GET that reads a block, unless everybody who waited for it has gone.
    fn being_read(&self, key: SegmentKey, block: u64) -> Option<(u64, Shared<Read>)> {
        let (first, read) = self.reading.get(&(key, block))?;
        Some((*first, read.upgrade()?))
    }

    fn is_missing(&self, key: SegmentKey, block: u64) -> bool {
        !self.entries.contains_key(&(key, Some(block))) && self.being_read(key, block).is_none()
    }

    fn insert(&mut self, key: CacheKey, bytes: Bytes) {
        self.uses += 1;
        self.bytes += bytes.len() as u64;
        self.by_use.insert(self.uses, key);
        if let Some(before) = self.entries.insert(key, Entry { bytes, last_use: self.uses }) {
            self.bytes -= before.bytes.len() as u64;
            self.by_use.remove(&before.last_use);
        }
    }

    fn evict(&mut self) -> bool {
        let Some((_, key)) = self.by_use.pop_first() else { return false };
        if let Some(entry) = self.entries.remove(&key) {
            self.bytes -= entry.bytes.len() as u64;
        }
        true
    }
}

/// Puts `start .. end` of the object together. Copies if it lies in several pieces, and if it is a small part of one:
/// a fetch over many objects would else keep a block of each in memory for a few bytes.
fn join(pieces: &[(u64, Bytes)], start: u64, end: u64) -> Bytes {
    let part = |at: u64, bytes: &Bytes, from: u64| {
        let index = |position: u64| usize::try_from(position - at).expect("positions lie in memory");
        let stop = end.min(at + bytes.len() as u64);
        bytes.slice(index(from)..index(stop.max(from)))
    };
    if let [(at, bytes)] = pieces {
        let wanted = part(*at, bytes, start);
        return if wanted.len() < bytes.len() / 2 { Bytes::copy_from_slice(&wanted) } else { wanted };
    }
    let mut joined = BytesMut::with_capacity(usize::try_from(end - start).unwrap_or(0));
    for (at, bytes) in pieces {
        let from = start + joined.len() as u64;
        // Two blocks may have come by the same GET: then its bytes stand here twice.
        if from < at + bytes.len() as u64 {
            joined.extend_from_slice(&part(*at, bytes, from));
        }
    }
    joined.freeze()
}

#[cfg(test)]
mod tests;
