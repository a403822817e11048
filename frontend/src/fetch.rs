//! The fetch path: resolve → plan → read → respond.
//!
//! ```text
//! request ──▶ resolve   the topic, and a time to an offset
//!         ──▶ plan      which bytes of which objects; waits here for records to come
//!         ──▶ read      the bytes, through the cache; batches with their offsets
//!         ──▶ respond   as JSON, NDJSON, batches or events
//! ```
//!
//! Invariants: every answer comes from a plan that was asked for after the request arrived, an empty one as well. A batch
//! that is damaged is named and never skipped. Nothing is read from the object store that no fetch asked for.

pub(crate) mod cache;
pub(crate) mod follow;
pub(crate) mod pages;
mod plan;
mod read;
pub(crate) mod resolve;
pub(crate) mod respond;

use std::sync::Arc;
use std::time::Duration;

use carnax_core::error_code::ErrorCode;
use carnax_core::id::{PartitionIndex, TopicId};
use carnax_core::limits;
use carnax_core::metadata::FetchFrom;
use carnax_core::name::TokenId;
use carnax_core::offset::Offset;
use carnax_core::problem::Problem;
use carnax_core::record::Batch;
use carnax_core::time::Timestamp;
use carnax_core::topic::TopicName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::config::FetchSettings;
use crate::deliberate_bugs::DeliberateBugs;
use crate::metadata_client::MetadataClient;
use crate::metadata_client::feed::CommitFeed;
use crate::metadata_client::topics::Topics;
use crate::metrics::Metrics;
use crate::quota::QuotaKeeper;
use crate::usage::Usage;

use cache::ReadCache;
use pages::PageCache;
use plan::OldPlans;
use read::{Footers, ReadFailure};

/// How long a fetch waits for memory before it is refused.
const MEMORY_WAIT: Duration = Duration::from_secs(5);

/// Serves fetches.
#[derive(Debug)]
pub(crate) struct Fetch {
    pub(crate) settings: FetchSettings,
    pub(crate) bugs: DeliberateBugs,
    pub(crate) client: Arc<MetadataClient>,
    pub(crate) topics: Arc<Topics>,
    pub(crate) feed: Arc<CommitFeed>,
    pub(crate) cache: Arc<ReadCache>,
    pub(crate) pages: PageCache,
    pub(crate) memory: Arc<Semaphore>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) usage: Arc<Usage>,
    pub(crate) quotas: Arc<QuotaKeeper>,
    pub(crate) draining: CancellationToken,
    pub(crate) footers: Footers,
    pub(crate) old_plans: OldPlans,
}

/// What a client asks for.
#[derive(Debug, Clone)]
pub(crate) struct FetchRequest {
    pub(crate) topic: TopicName,
    /// The id that the client knows the topic by.
    pub(crate) topic_id: Option<TopicId>,
    pub(crate) partition: PartitionIndex,
    pub(crate) from: FetchFrom,
    pub(crate) max_bytes: u64,
    pub(crate) max_records: u32,
    /// How long to wait for the first record.
    pub(crate) wait: Duration,
    /// With whose token, if with any.
    pub(crate) token: Option<TokenId>,
}

/// What was read.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) topic_id: TopicId,
    /// The first offset that was asked for; the first batch may begin before it.
    pub(crate) start: Offset,
    /// In order of their offsets.
    pub(crate) batches: Vec<FetchedBatch>,
    pub(crate) next_offset: Offset,
    pub(crate) high_watermark: Offset,
    pub(crate) log_start: Offset,
    /// What the answer takes of the memory for fetches, until it is sent.
    pub(crate) memory: Option<OwnedSemaphorePermit>,
}

/// One batch with its place.
#[derive(Debug, Clone)]
pub(crate) struct FetchedBatch {
    pub(crate) batch: Batch,
    pub(crate) base_offset: Offset,
    /// The timestamp of all its records, if the topic wants that.
    pub(crate) append_time: Option<Timestamp>,
}

/// How often a reader may find that an object of its plan is gone, each time another one.
const RACES_MAX: usize = 4;

impl Fetch {
    /// Fetches. Dropping the future gives up and changes nothing.
    ///
    /// # Errors
    /// Every problem of a fetch; `damaged_batch` only if nothing good comes before it.
    pub(crate) async fn fetch(&self, mut request: FetchRequest) -> Result<Fetched, Problem> {
        let mut topic = self.resolve(&mut request).await?;
        request.max_bytes = request.max_bytes.min(self.quotas.fetch_bytes(request.token.as_ref(), &topic)?);
        let mut gone = Vec::new();
        loop {
            let plan = self.plan_or_wait(&mut request, &mut topic).await?;
            let started = tokio::time::Instant::now();
            let memory = self.reserve(&plan, &request).await?;
            let read = match self.read(&plan, &request, topic.log_append_time).await {
                Ok(read) => read,
                // The object was merged away or deleted after the plan: a new plan knows better, if it names another one. A slow
                // reader may lose that race more than once.
                Err(ReadFailure::Gone(error))
                    if gone.len() < RACES_MAX && !gone.contains(&error.to_string()) =>
                {
                    tracing::debug!(%error, "an object of a plan is gone; planning again");
                    gone.push(error.to_string());
                    continue;
                }
                Err(failure) => return Err(failure.into_problem()),
            };
            self.metrics.fetch_seconds.observe(started.elapsed().as_secs_f64());
            let bytes: u64 = read.batches.iter().map(|batch| batch.batch.bytes().len() as u64).sum();
            self.metrics.fetched_bytes.inc_by(bytes);
            let records =
                read.batches.iter().map(|fetched| u64::from(fetched.batch.record_count())).sum::<u64>();
            self.quotas.fetched(request.token.as_ref(), &topic, bytes);
            self.usage.fetched(plan.topic_id, request.token.as_ref(), records, bytes);
            return Ok(Fetched {
                topic_id: plan.topic_id,
                start: plan.start,
                batches: read.batches,
                next_offset: read.next_offset,
                high_watermark: plan.high_watermark,
                log_start: plan.log_start,
                memory,
            });
        }
    }

    /// Takes memory for what will be read, or refuses after a while.
    async fn reserve(
        &self,
        plan: &carnax_core::metadata::FetchPlan,
        request: &FetchRequest,
    ) -> Result<Option<OwnedSemaphorePermit>, Problem> {
        let planned: u64 = plan.slices.iter().map(|slice| slice.bytes.length).sum();
        // The last slice may add as much again, and one batch is read whatever its size.
        let wanted = planned.min(request.max_bytes.saturating_mul(2).max(limits::BATCH_BYTES_MAX as u64));
        if wanted == 0 {
            return Ok(None);
        }
        let wanted = u32::try_from(wanted.min(self.settings.fetch_memory_bytes)).unwrap_or(u32::MAX);
        let memory = Arc::clone(&self.memory).acquire_many_owned(wanted);
        match tokio::time::timeout(MEMORY_WAIT, memory).await {
            Ok(Ok(memory)) => Ok(Some(memory)),
            Ok(Err(_)) | Err(_) => Err(Problem::new(
                ErrorCode::TooManyRequests,
                "too many bytes are being fetched; try again after a while",
            )
            .with(|facts| facts.retry_after_seconds = Some(1))),
        }
    }
}
