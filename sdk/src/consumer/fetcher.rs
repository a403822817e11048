//! Fetches one partition ahead of whoever reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use carnax_core::error_code::ErrorCode;
use carnax_core::id::TopicPartition;
use carnax_core::offset::Offset;
use carnax_core::topic::TopicName;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::chunk::{self, Chunk, Of};
use super::{ConsumeError, OffsetReset, Start};
use crate::client::Client;
use crate::error::RequestError;
use crate::raw::FetchRequest;

/// An empty answer that came faster than this did not wait.
const PAUSE_BELOW: Duration = Duration::from_millis(50);

/// Reads one partition.
#[derive(Debug, Clone)]
pub(crate) struct Fetcher {
    pub(crate) client: Client,
    pub(crate) topic: TopicName,
    pub(crate) on: TopicPartition,
    /// How much a fetch asks for; the partitions of a reader share it.
    pub(crate) fetch_bytes: Arc<AtomicU64>,
    pub(crate) wait: Duration,
    pub(crate) reset: OffsetReset,
}

impl Fetcher {
    /// Fetches until the partition fails or nobody listens. Fetches one chunk while another one waits to be read.
    pub(super) async fn run(
        self,
        mut position: Offset,
        epoch: u64,
        high_watermark: Arc<AtomicU64>,
        chunks: mpsc::UnboundedSender<Chunk>,
    ) {
        let slots = Arc::new(Semaphore::new(1));
        loop {
            let started = Instant::now();
            let mut chunk = match Box::pin(self.fetch(&mut position)).await {
                Ok(answer) => {
                    high_watermark.store(answer.high_watermark.0, Ordering::Relaxed);
                    chunk::read(self.of(), epoch, position, &answer)
                }
                Err(error) => Chunk::failed(self.of(), epoch, position, self.failure(position, error)),
            };
            if chunk.is_empty() && chunk.next_offset == position {
                // A server that cannot wait must not be asked without a pause.
                if started.elapsed() < (self.wait / 2).max(PAUSE_BELOW) {
                    tokio::time::sleep(self.client.backoff(2)).await;
                }
                continue;
            }
            position = chunk.next_offset;
            let failed = chunk.failure.is_some();
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            chunk.slot = Some(slot);
            if chunks.send(chunk).is_err() || failed {
                return;
            }
        }
    }

    /// The offset at which reading from `start` begins.
    pub(crate) async fn resolve(&self, start: Start) -> Result<Offset, RequestError> {
        let topic = self.topic.as_str();
        Ok(self.client.admin().offset(topic, self.on.partition, start).await?.offset)
    }

    /// Fetches at a position, or, if the partition does not hold it and the policy says so, at another one.
    async fn fetch(&self, position: &mut Offset) -> Result<crate::raw::FetchResponse, RequestError> {
        let mut request = FetchRequest {
            partition: self.on.partition,
            offset: *position,
            max_bytes: self.fetch_bytes.load(Ordering::Relaxed),
            wait: self.wait,
            topic_id: Some(self.on.topic),
        };
        let result = self.client.raw().fetch(self.topic.as_str(), &request).await;
        let outside = result.as_ref().is_err_and(|error| {
            error.is(ErrorCode::OffsetBelowLogStart) || error.is(ErrorCode::OffsetAboveHighWatermark)
        });
        let start = match self.reset {
            OffsetReset::Earliest if outside => Start::Earliest,
            OffsetReset::Latest if outside => Start::Latest,
            _ => return result,
        };
        *position = self.resolve(start).await?;
        tracing::warn!(topic = %self.topic, partition = %self.on.partition, offset = %position, "offset is gone, reading elsewhere");
        request.offset = *position;
        self.client.raw().fetch(self.topic.as_str(), &request).await
    }

    fn of(&self) -> Of {
        Of { topic: self.topic.clone(), on: self.on }
    }

    fn failure(&self, offset: Offset, error: RequestError) -> ConsumeError {
        let document = error.problem().filter(|_| error.is(ErrorCode::DamagedBatch));
        match document {
            Some(document) => {
                let next = document.facts.next_offset.unwrap_or(Offset(offset.0 + 1));
                chunk::damaged(&self.of(), offset, next, &document.detail)
            }
            None => {
                let (topic, partition) = (self.topic.clone(), self.on.partition);
                ConsumeError::Fetch { topic, partition, offset, source: Arc::new(error) }
            }
        }
    }
}
