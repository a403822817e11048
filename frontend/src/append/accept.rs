//! Checks a request, routes its records and waits for its answer.
//!
//! Routing goes by what is remembered of the topic. When that turns out to be old, the topic is asked for anew and the
//! request is routed again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use carnax_core::error_code::ErrorCode;
use carnax_core::http::read_frames;
use carnax_core::id::{PartitionIndex, TopicId};
use carnax_core::limits;
use carnax_core::partitioner::partition_of;
use carnax_core::problem::Problem;
use carnax_core::record::{Batch, BatchBuilder, NewRecord, RecordRefused};
use carnax_core::time::Timestamp;
use carnax_core::topic::TopicName;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::accumulate::{Content, RoutedRecord, Submission};
use super::{AppendContext, Appended, draining};
use crate::http::json_record::{Encoding, parse_json, parse_ndjson};
use crate::metadata_client::topics::{Topic, Topics};

/// How often a request is routed anew.
const ROUTINGS_MAX: usize = 4;
/// Bytes of a batch around a record without headers: the batch header and the record's lengths and deltas.
const AROUND_RECORD_BYTES: usize = 61 + 40;

/// Takes appends.
#[derive(Debug)]
pub(crate) struct Accept {
    pub(crate) context: Arc<AppendContext>,
    pub(crate) topics: Arc<Topics>,
    pub(crate) submissions: mpsc::Sender<Submission>,
}

/// An append as it came in.
#[derive(Debug)]
pub(crate) struct AppendRequest {
    pub(crate) topic: TopicName,
    /// The id that the client knows the topic by.
    pub(crate) topic_id: Option<TopicId>,
    /// The only partition, if the path names one.
    pub(crate) partition: Option<PartitionIndex>,
    /// By how many partitions the client routed.
    pub(crate) partition_count: Option<u32>,
    pub(crate) body: AppendBody,
    /// What the request takes of the memory for appends, until it is answered.
    pub(crate) memory: Arc<OwnedSemaphorePermit>,
}

/// The records, as they came in.
#[derive(Debug)]
pub(crate) enum AppendBody {
    Json(Bytes, Encoding),
    Ndjson(Bytes, Encoding),
    /// Concatenated for one partition, else framed.
    Batches(Bytes),
}

impl Accept {
    /// Appends, and answers when the records are in the log. Dropping the future does not take back what was accepted.
    ///
    /// # Errors
    /// Every problem of an append.
    pub(crate) async fn append(&self, request: AppendRequest) -> Result<Appended, Problem> {
        let started = tokio::time::Instant::now();
        let _in_progress = self.context.in_progress.token();
        let mut topic = self.topics.get(&request.topic).await?;
        let mut fresh = false;
        for _ in 0..ROUTINGS_MAX {
            let submitted = match route(&request, &topic, self.context.clock.wall()) {
                Ok((content, keyed)) => self.submit(&request, &topic, content, keyed).await,
                Err(problem) if fresh => return Err(problem),
                Err(problem) => Err(problem),
            };
            let problem = match submitted {
                Ok(appended) => {
                    self.context.metrics.acknowledge_seconds.observe(started.elapsed().as_secs_f64());
                    return Ok(appended);
                }
                Err(problem) if !may_be_old_knowledge(problem.code) => return Err(problem),
                Err(problem) => problem,
            };
            let now = self.topics.refresh(&request.topic).await?;
            if now == topic {
                return Err(problem);
            }
            (topic, fresh) = (now, true);
        }
        Err(Problem::new(
            ErrorCode::StaleRouting,
            "the topic changed again and again while records were routed",
        ))
    }

    async fn submit(
        &self,
        request: &AppendRequest,
        topic: &Arc<Topic>,
        content: Content,
        keyed: bool,
    ) -> Result<Appended, Problem> {
        if self.context.draining.is_cancelled() {
            return Err(draining());
        }
        let (reply, answer) = oneshot::channel();
        let memory = Arc::clone(&request.memory);
        let submission = Submission { topic: Arc::clone(topic), content, keyed, reply, memory };
        self.submissions.try_send(submission).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                Problem::new(ErrorCode::TooManyRequests, "too many appends wait; try again after a while")
                    .with(|facts| facts.retry_after_seconds = Some(1))
            }
            mpsc::error::TrySendError::Closed(_) => draining(),
        })?;
        answer.await.unwrap_or_else(|_| {
            Err(Problem::new(ErrorCode::OutcomeUnknown, "the append was given up without an answer"))
        })
    }
}

/// Whether a failure may come from old knowledge of the topic.
fn may_be_old_knowledge(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::StaleRouting
            | ErrorCode::TopicRecreated
            | ErrorCode::TopicNotFound
            | ErrorCode::PartitionNotFound
            | ErrorCode::TooLarge
    )
}

/// Parses and checks all records and says where they go, and whether that hung on the partition count.
fn route(request: &AppendRequest, topic: &Topic, now: Timestamp) -> Result<(Content, bool), Problem> {
    check_topic(request, topic)?;
    let records = match &request.body {
        AppendBody::Json(body, encoding) => parse_json(body, *encoding)?,
        AppendBody::Ndjson(body, encoding) => parse_ndjson(body, *encoding)?,
        AppendBody::Batches(body) => {
            let parts = route_batches(request, topic, body)?;
            return Ok((Content::Batches(parts), request.partition_count.is_some()));
        }
    };
    let mut keyed = false;
    let mut routed = Vec::with_capacity(records.len());
    for (index, record) in records.into_iter().enumerate() {
        let at_record =
            |problem: Problem| Problem { detail: format!("record {index}: {}", problem.detail), ..problem };
        let partition = match (request.partition, record.partition, &record.key) {
            (Some(path), Some(named), _) if path != named => {
                return Err(at_record(Problem::new(
                    ErrorCode::InvalidValue,
                    format!("partition {named} is not partition {path} of the path"),
                )));
            }
            (Some(named), _, _) | (None, Some(named), _) => Some(named),
            (None, None, Some(key)) => {
                keyed = true;
                Some(partition_of(key, topic.partition_count))
            }
            (None, None, None) => None,
        };
        let timestamp = record.timestamp.unwrap_or(now);
        let record = RoutedRecord {
            partition,
            timestamp,
            key: record.key,
            value: record.value,
            headers: record.headers,
        };
        if let Some(partition) = partition {
            check_partition(topic, partition).map_err(at_record)?;
        }
        check_record(topic, &record).map_err(at_record)?;
        routed.push(record);
    }
    let partitions: BTreeSet<_> = routed.iter().map(|record| record.partition).collect();
    if partitions.len() >= limits::UNIT_PARTITIONS_MAX {
        return Err(too_many_partitions());
    }
    Ok((Content::Records(routed), keyed))
}

fn check_topic(request: &AppendRequest, topic: &Topic) -> Result<(), Problem> {
    if let Some(known) = request.topic_id.filter(|known| *known != topic.id) {
        let detail =
            format!("topic {} has another id than {known}: it was deleted and made again", topic.name);
        return Err(Problem::new(ErrorCode::TopicRecreated, detail).with(|facts| {
            facts.topic = Some(topic.name.to_string());
            facts.topic_id = Some(topic.id);
        }));
    }
    if let Some(count) = request.partition_count.filter(|count| *count != topic.partition_count) {
        let detail =
            format!("records were routed by {count} partitions; the topic has {}", topic.partition_count);
        return Err(Problem::new(ErrorCode::StaleRouting, detail).with(|facts| {
            facts.topic = Some(topic.name.to_string());
            facts.partition_count = Some(topic.partition_count);
        }));
    }
    request.partition.map_or(Ok(()), |partition| check_partition(topic, partition))
}

pub(crate) fn check_partition(topic: &Topic, partition: PartitionIndex) -> Result<(), Problem> {
    if partition.0 < topic.partition_count {
        return Ok(());
    }
    let detail =
        format!("topic {} has {} partitions, from 0: no {partition}", topic.name, topic.partition_count);
    Err(Problem::new(ErrorCode::PartitionNotFound, detail).with(|facts| {
        facts.topic = Some(topic.name.to_string());
        facts.partition = Some(partition);
        facts.partition_count = Some(topic.partition_count);
    }))
}

/// A record has to fit into a batch of its topic that has no other, so that it can always be added to an empty one.
fn check_record(topic: &Topic, record: &RoutedRecord) -> Result<(), Problem> {
    let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    if record.headers.is_empty()
        && length(&record.key) + length(&record.value) + AROUND_RECORD_BYTES <= topic.message_bytes_max
    {
        return Ok(());
    }
    let alone = NewRecord {
        timestamp: record.timestamp,
        key: record.key.as_deref(),
        value: record.value.as_deref(),
        headers: &record.headers,
    };
    BatchBuilder::new(topic.message_bytes_max).push(&alone).map_err(|refused| match refused {
        RecordRefused::TooManyHeaders { .. } => Problem::new(ErrorCode::TooLarge, refused)
            .with(|facts| facts.limit = Some(limits::RECORD_HEADERS_MAX as u64)),
        RecordRefused::Full | RecordRefused::TooLong { .. } => too_long(topic, &refused.to_string()),
    })
}

fn too_long(topic: &Topic, what: &str) -> Problem {
    let detail = format!("{what}: topic {} takes batches of {} bytes", topic.name, topic.message_bytes_max);
    Problem::new(ErrorCode::TooLarge, detail).with(|facts| {
        facts.topic = Some(topic.name.to_string());
        facts.limit = Some(topic.message_bytes_max as u64);
    })
}

fn too_many_partitions() -> Problem {
    let limit = limits::UNIT_PARTITIONS_MAX as u64;
    Problem::new(
        ErrorCode::TooLarge,
        format!("an append touches fewer than {limit} partitions; send several"),
    )
    .with(|facts| facts.limit = Some(limit))
}

fn route_batches(
    request: &AppendRequest,
    topic: &Topic,
    body: &Bytes,
) -> Result<Vec<(PartitionIndex, Vec<Batch>)>, Problem> {
    let mut parts = BTreeMap::new();
    match request.partition {
        Some(partition) => {
            parts.insert(partition, read_batches(topic, partition, body)?);
        }
        None => {
            let frames =
                read_frames(body.clone()).map_err(|error| Problem::new(ErrorCode::Malformed, error))?;
            for frame in frames {
                check_partition(topic, frame.partition)?;
                parts.insert(frame.partition, read_batches(topic, frame.partition, &frame.batches)?);
            }
        }
    }
    if parts.values().all(Vec::is_empty) {
        return Err(Problem::new(ErrorCode::InvalidValue, "an append has at least one record"));
    }
    Ok(parts.into_iter().collect())
}

fn read_batches(topic: &Topic, partition: PartitionIndex, body: &Bytes) -> Result<Vec<Batch>, Problem> {
    let mut rest = body.clone();
    let mut batches = Vec::new();
    loop {
        let at = body.len() - rest.len();
        let refused = |error: &carnax_core::record::BatchError| {
            let detail = format!("batch {} of partition {partition}, at byte {at}: {error}", batches.len());
            Problem::new(error.code(), detail).with(|facts| facts.partition = Some(partition))
        };
        let batch = match Batch::parse_next(&mut rest) {
            Ok(Some(batch)) => batch,
            Ok(None) => return Ok(batches),
            Err(error) => return Err(refused(&error)),
        };
        batch.verify().map_err(|error| refused(&error))?;
        if batch.bytes().len() > topic.message_bytes_max {
            return Err(too_long(topic, &format!("batch of {} bytes", batch.bytes().len())));
        }
        batches.push(batch);
    }
}
