//! Settings of a consumer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use carnax_core::http::TopicResponse;
use carnax_core::id::{PartitionIndex, TopicPartition};
use carnax_core::limits;
use carnax_core::offset::Offset;
use futures::{StreamExt, TryStreamExt, stream};

use super::fetcher::Fetcher;
use super::reader::Reader;
use super::{Consumer, OffsetReset, Start};
use crate::client::Client;
use crate::error::RequestError;
use crate::raw::parse_topic;

/// Offset look-ups at once.
const LOOKUPS_MAX: usize = 16;

/// Settings of a [`Consumer`].
#[derive(Debug, Clone)]
pub struct ConsumerBuilder {
    client: Client,
    topic: String,
    partitions: Option<Vec<PartitionIndex>>,
    start: Start,
    starts: BTreeMap<PartitionIndex, Start>,
    reset: OffsetReset,
    prefetch_bytes: u64,
    wait: Duration,
}

impl ConsumerBuilder {
    pub(crate) fn new(client: Client, topic: String) -> Self {
        Self {
            client,
            topic,
            partitions: None,
            start: Start::Earliest,
            starts: BTreeMap::new(),
            reset: OffsetReset::Error,
            prefetch_bytes: 32 * 1024 * 1024,
            wait: Duration::from_secs(5),
        }
    }

    /// Which partitions to read (default: all that the topic has now).
    #[must_use]
    pub fn partitions(mut self, partitions: impl IntoIterator<Item = PartitionIndex>) -> Self {
        self.partitions = Some(partitions.into_iter().collect());
        self
    }

    /// Where to begin (default: earliest).
    #[must_use]
    pub fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// Where to begin in one partition, whatever is said for all.
    #[must_use]
    pub fn start_of(mut self, partition: PartitionIndex, start: Start) -> Self {
        self.starts.insert(partition, start);
        self
    }

    /// What to do when records to be read are gone (default: fail).
    #[must_use]
    pub fn offset_reset(mut self, reset: OffsetReset) -> Self {
        self.reset = reset;
        self
    }

    /// Bytes of batches that are fetched ahead, over all partitions (default 32 MiB). A partition never has less than two
    /// fetches of 64 KiB, and each fetch brings at least one whole batch.
    #[must_use]
    pub fn prefetch_bytes(mut self, bytes: u64) -> Self {
        self.prefetch_bytes = bytes;
        self
    }

    /// How long a fetch waits at the end of a partition before it asks again (default 5 s, at most 30 s). A record that
    /// arrives meanwhile is answered at once.
    #[must_use]
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait.min(limits::FETCH_WAIT_MAX);
        self
    }

    /// Asks for the topic, finds out where to begin, and starts to fetch.
    ///
    /// # Errors
    /// `topic_not_found`, `partition_not_found`; any other [`RequestError`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn build(self) -> Result<Consumer, RequestError> {
        let name = parse_topic(&self.topic)?;
        let topic = self.client.admin().describe_topic(name.as_str()).await?;
        let partitions = match &self.partitions {
            Some(partitions) => partitions.clone(),
            None => (0..topic.partitions).map(PartitionIndex).collect(),
        };
        if let Some(unknown) = partitions.iter().find(|partition| partition.0 >= topic.partitions) {
            let count = topic.partitions;
            return Err(RequestError::invalid(format_args!(
                "topic {name} has no partition {unknown}, only {count}"
            )));
        }
        let mut reader = Reader::new(self.prefetch_bytes);
        let fetch_bytes = reader.fetch_bytes();
        let fetcher = |partition| Fetcher {
            client: self.client.clone(),
            topic: topic.name.clone(),
            on: TopicPartition { topic: topic.topic_id, partition },
            fetch_bytes: Arc::clone(&fetch_bytes),
            wait: self.wait,
            reset: self.reset,
        };
        let fetchers: Vec<_> = partitions.into_iter().map(fetcher).collect();
        let positions = self.positions(&topic, &fetchers).await?;
        for (fetcher, position) in fetchers.into_iter().zip(positions) {
            reader.insert(fetcher, position);
        }
        Ok(Consumer { topic_id: topic.topic_id, reader })
    }

    async fn positions(
        &self,
        topic: &TopicResponse,
        fetchers: &[Fetcher],
    ) -> Result<Vec<Offset>, RequestError> {
        let find = |fetcher: &Fetcher| {
            let fetcher = fetcher.clone();
            async move {
                let partition = fetcher.on.partition;
                let start = self.starts.get(&partition).copied().unwrap_or(self.start);
                let bounds = topic.partition_offsets.iter().find(|bounds| bounds.partition == partition);
                let known = bounds.and_then(|bounds| match start {
                    Start::Offset(offset) => Some(offset),
                    Start::Earliest => Some(bounds.log_start_offset),
                    Start::Latest => Some(bounds.high_watermark),
                    Start::Last(count) => Some(
                        Offset(bounds.high_watermark.0.saturating_sub(count)).max(bounds.log_start_offset),
                    ),
                    Start::Timestamp(_) => None,
                });
                match known {
                    Some(offset) => Ok(offset),
                    None => fetcher.resolve(start).await,
                }
            }
        };
        stream::iter(fetchers).map(find).buffered(LOOKUPS_MAX).try_collect().await
    }
}
