//! Reads records: fetches ahead within bounds, verifies, decodes, and hands them out one by one.
//!
//! ```text
//! fetcher of partition 0 ─┐
//! fetcher of partition 1 ─┼─▶ chunks of verified batches ─▶ Consumer ─▶ records
//! fetcher of partition … ─┘     at most two a partition       decodes one batch at a time
//! ```

mod builder;
mod chunk;
mod fetcher;
mod stream;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use carnax_core::id::PartitionIndex;
use carnax_core::offset::Offset;
use carnax_core::record::Header;
use carnax_core::time::Timestamp;
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use crate::error::RequestError;
use chunk::Chunk;
use fetcher::Fetcher;

pub use builder::ConsumerBuilder;

/// Where to begin to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the first readable record.
    Earliest,
    /// Behind the last record: only what is appended from now on.
    Latest,
    /// At this offset.
    Offset(Offset),
    /// At the first record with this timestamp or a later one; behind the last record if there is none.
    Timestamp(Timestamp),
    /// So many offsets before the end of each partition, or at its first readable record if there are fewer.
    Last(u64),
}

/// What to do when the offset to be read is outside of what the partition holds (because records were deleted meanwhile).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OffsetReset {
    /// Fail, so that nobody misses the loss.
    #[default]
    Error,
    /// Go on at the first readable record.
    Earliest,
    /// Go on behind the last record.
    Latest,
}

/// A record with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumedRecord {
    /// Its partition.
    pub partition: PartitionIndex,
    /// Its offset there.
    pub offset: Offset,
    /// The producer's timestamp, or the time of the append where the topic says so.
    pub timestamp: Timestamp,
    /// None is not the same as empty.
    pub key: Option<Bytes>,
    /// None is a tombstone.
    pub value: Option<Bytes>,
    /// In the order of the producer; keys may repeat.
    pub headers: Vec<Header>,
}

/// Why a partition is no longer read. It stays where it is until [`Consumer::seek`] or [`Consumer::resume`].
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConsumeError {
    /// A fetch failed for good, or for the operation time-out of the client.
    #[error("cannot fetch partition {partition} at offset {offset}")]
    Fetch {
        /// Of which partition.
        partition: PartitionIndex,
        /// Where.
        offset: Offset,
        /// Why; `offset_below_log_start` carries the bounds in its facts.
        #[source]
        source: Arc<RequestError>,
    },
    /// A record batch is damaged. Its neighbours can still be read: seek to `next_offset` to skip it knowingly.
    #[error("records {offset} to before {next_offset} of partition {partition} are damaged: {reason}")]
    Damaged {
        /// Of which partition.
        partition: PartitionIndex,
        /// The first damaged record that was to be read.
        offset: Offset,
        /// One past the last damaged record.
        next_offset: Offset,
        /// What is wrong.
        reason: String,
    },
}

impl ConsumeError {
    /// The partition that is no longer read.
    pub fn partition(&self) -> PartitionIndex {
        match self {
            Self::Fetch { partition, .. } | Self::Damaged { partition, .. } => *partition,
        }
    }

    /// Whether [`Consumer::resume`] may help.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Fetch { source, .. } => source.retryable(),
            Self::Damaged { .. } => false,
        }
    }
}

/// Reads partitions of one topic. A [`Stream`](futures::Stream) of records: in order of offsets within each partition,
/// mixed between partitions.
///
/// The stream ends only when every partition has failed. An error names its partition, which is then no longer read; the
/// others go on. Nothing is stored anywhere: keep [`position`](Self::position) where your results are kept.
///
/// Dropping a consumer ends its fetches; nothing is left behind.
///
/// ```no_run
/// # async fn example(client: carnax::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use carnax::{PartitionIndex, Start, Timestamp};
/// use futures::StreamExt;
///
/// let mut records = client
///     .consumer("flights")
///     .partitions([PartitionIndex(3)])
///     .start(Start::Timestamp(Timestamp::from_millis(1_700_000_000_000)))
///     .build()
///     .await?;
/// while let Some(record) = records.next().await {
///     println!("{}", record?.offset);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Consumer {
    fetcher: Fetcher,
    partitions: BTreeMap<PartitionIndex, Partition>,
    /// Gives each start of a partition a number, so that what an earlier one fetched is told apart.
    epoch: u64,
    chunks: mpsc::UnboundedReceiver<Chunk>,
    /// Bounded by the slots of the fetchers: each may have one chunk here.
    into_chunks: mpsc::UnboundedSender<Chunk>,
    fetches: JoinSet<()>,
    current: Option<stream::Current>,
}

#[derive(Debug)]
struct Partition {
    /// The next record to hand out.
    position: Offset,
    high_watermark: Arc<AtomicU64>,
    epoch: u64,
    /// None once it has failed.
    fetch: Option<AbortHandle>,
}

impl Consumer {
    /// Up to `max` records: waits for the first one at most as long as `wait`, and then takes those that are there already.
    /// Empty if none came.
    ///
    /// Dropping the future loses no record.
    ///
    /// # Errors
    /// Any [`ConsumeError`], as soon as it is next in line; records before it are handed out by the call before.
    pub async fn poll(&mut self, max: usize, wait: Duration) -> Result<Vec<ConsumedRecord>, ConsumeError> {
        let mut records = Vec::new();
        let deadline = Instant::now() + wait;
        while records.len() < max {
            let next = if records.is_empty() {
                match tokio::time::timeout_at(deadline, self.next()).await {
                    Ok(next) => next,
                    Err(_) => break,
                }
            } else {
                match self.next_at_hand() {
                    Some(record) => Some(Ok(record)),
                    None => break,
                }
            };
            match next {
                Some(record) => records.push(record?),
                None => break,
            }
        }
        Ok(records)
    }

    /// The partitions that this consumer was made for.
    pub fn partitions(&self) -> impl Iterator<Item = PartitionIndex> + '_ {
        self.partitions.keys().copied()
    }

    /// The partitions that have failed and are not read.
    pub fn failed(&self) -> impl Iterator<Item = PartitionIndex> + '_ {
        self.partitions.iter().filter(|(_, state)| state.fetch.is_none()).map(|(partition, _)| *partition)
    }

    /// The offset that is read next: one past the last record that was handed out, or further where there are holes. None
    /// for a partition that this consumer was not made for.
    pub fn position(&self, partition: PartitionIndex) -> Option<Offset> {
        self.partitions.get(&partition).map(|state| state.position)
    }

    /// One past the last record of the partition, as of the last fetch.
    pub fn high_watermark(&self, partition: PartitionIndex) -> Option<Offset> {
        self.partitions.get(&partition).map(|state| Offset(state.high_watermark.load(Ordering::Relaxed)))
    }

    /// Goes on elsewhere; records that were fetched ahead are forgotten. Also brings a failed partition back.
    ///
    /// # Errors
    /// `partition_not_found`, or any other [`RequestError`]; then nothing has changed.
    pub async fn seek(&mut self, partition: PartitionIndex, start: Start) -> Result<(), RequestError> {
        if !self.partitions.contains_key(&partition) {
            return Err(RequestError::invalid(format_args!("consumer does not read partition {partition}")));
        }
        let offset = match start {
            Start::Offset(offset) => offset,
            start => self.fetcher.resolve(partition, start).await?,
        };
        self.restart(partition, offset);
        Ok(())
    }

    /// Brings a failed partition back where it failed. Does nothing for others.
    pub fn resume(&mut self, partition: PartitionIndex) {
        let failed = self.partitions.get(&partition).filter(|state| state.fetch.is_none());
        if let Some(position) = failed.map(|state| state.position) {
            self.restart(partition, position);
        }
    }

    fn restart(&mut self, partition: PartitionIndex, position: Offset) {
        self.epoch += 1;
        let Some(state) = self.partitions.get_mut(&partition) else { return };
        if let Some(fetch) = state.fetch.take() {
            fetch.abort();
        }
        if self.current.as_ref().is_some_and(|current| current.partition() == partition) {
            self.current = None;
        }
        state.position = position;
        state.epoch = self.epoch;
        let watermark = Arc::clone(&state.high_watermark);
        let fetcher = self.fetcher.clone();
        let run = fetcher.run(partition, position, self.epoch, watermark, self.into_chunks.clone());
        state.fetch = Some(self.fetches.spawn(run));
        // Those that were aborted earlier have ended by now.
        while self.fetches.try_join_next().is_some() {}
    }
}
