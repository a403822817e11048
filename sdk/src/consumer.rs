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
mod reader;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use carnax_core::id::{PartitionIndex, TopicId, TopicPartition};
use carnax_core::offset::Offset;
use carnax_core::record::Header;
use carnax_core::time::Timestamp;
use carnax_core::topic::TopicName;
use futures::StreamExt;
use tokio::time::Instant;

use crate::error::RequestError;
pub(crate) use fetcher::Fetcher;
pub(crate) use reader::Reader;

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
    /// Its topic.
    pub topic: TopicName,
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
    #[error("cannot fetch partition {partition} of {topic} at offset {offset}")]
    Fetch {
        /// Of which topic.
        topic: TopicName,
        /// Of which partition.
        partition: PartitionIndex,
        /// Where.
        offset: Offset,
        /// Why; `offset_below_log_start` carries the bounds in its facts.
        #[source]
        source: Arc<RequestError>,
    },
    /// A record batch is damaged. Its neighbours can still be read: seek to `next_offset` to skip it knowingly.
    #[error(
        "records {offset} to before {next_offset} of partition {partition} of {topic} are damaged: {reason}"
    )]
    Damaged {
        /// Of which topic.
        topic: TopicName,
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
    /// The topic of that partition.
    pub fn topic(&self) -> &TopicName {
        match self {
            Self::Fetch { topic, .. } | Self::Damaged { topic, .. } => topic,
        }
    }

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
    topic_id: TopicId,
    reader: Reader,
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
        if max == 0 {
            return Ok(records);
        }
        let deadline = Instant::now() + wait;
        if let Ok(Some(first)) = tokio::time::timeout_at(deadline, self.reader.next()).await {
            records.push(first?);
            self.reader.take_at_hand(max, &mut records);
        }
        Ok(records)
    }

    /// The partitions that this consumer was made for.
    pub fn partitions(&self) -> impl Iterator<Item = PartitionIndex> + '_ {
        self.reader.positions().map(|(on, _)| on.partition)
    }

    /// The partitions that have failed and are not read.
    pub fn failed(&self) -> impl Iterator<Item = PartitionIndex> + '_ {
        self.reader.failed().map(|on| on.partition)
    }

    /// The offset that is read next: one past the last record that was handed out, or further where there are holes. None
    /// for a partition that this consumer was not made for.
    pub fn position(&self, partition: PartitionIndex) -> Option<Offset> {
        self.reader.position(self.on(partition))
    }

    /// One past the last record of the partition, as of the last fetch.
    pub fn high_watermark(&self, partition: PartitionIndex) -> Option<Offset> {
        self.reader.high_watermark(self.on(partition))
    }

    /// Goes on elsewhere; records that were fetched ahead are forgotten. Also brings a failed partition back.
    ///
    /// # Errors
    /// `partition_not_found`, or any other [`RequestError`]; then nothing has changed.
    pub async fn seek(&mut self, partition: PartitionIndex, start: Start) -> Result<(), RequestError> {
        let Some(fetcher) = self.reader.fetcher(self.on(partition)) else {
            return Err(RequestError::invalid(format_args!("consumer does not read partition {partition}")));
        };
        let offset = match start {
            Start::Offset(offset) => offset,
            start => fetcher.resolve(start).await?,
        };
        self.reader.restart(self.on(partition), offset);
        Ok(())
    }

    /// Brings a failed partition back where it failed. Does nothing for others.
    pub fn resume(&mut self, partition: PartitionIndex) {
        self.reader.resume_failed(self.on(partition));
    }

    fn on(&self, partition: PartitionIndex) -> TopicPartition {
        TopicPartition { topic: self.topic_id, partition }
    }
}
