//! Where the records of an append to one topic go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use carnax_core::error_code::ErrorCode;
use carnax_core::http::read_frames;
use carnax_core::id::{PartitionIndex, TopicId, TopicPartition};
use carnax_core::limits;
use carnax_core::metadata::{Routing, UnitCommit};
use carnax_core::partitioner::partition_of;
use carnax_core::problem::Problem;
use carnax_core::record::{Batch, BatchBuilder, BatchError, RecordRefused};
use carnax_core::segment::PartitionBatches;
use carnax_core::time::Timestamp;
use carnax_core::topic::TopicName;

use super::Stamp;
use crate::append::accumulate::{Content, SharedRecords};
use crate::append::filling::{Filling, RoutedRecord};
use crate::append::unit::Unit;
use crate::http::json_record::{Encoding, ParsedRecord, parse_json, parse_ndjson};
use crate::metadata_client::topics::Topic;

/// No topic has so many partitions: a unit that says it was routed by them is answered if it is a repeat, and refused else.
///
/// For the id of another topic than the name means: whoever may write to the one need not be allowed to write to the other.
pub(super) const ONLY_REPEATS: u32 = 0;
/// Bytes of a batch around a record without headers: the batch header and the record's lengths and deltas.
const AROUND_RECORD_BYTES: usize = 61 + 40;

/// An append to one topic.
#[derive(Debug)]
pub(crate) struct TopicAppend {
    pub(crate) topic: TopicName,
    /// The id that the client knows the topic by.
    pub(crate) topic_id: Option<TopicId>,
    /// The only partition, if the path names one.
    pub(crate) partition: Option<PartitionIndex>,
    /// By how many partitions the client routed.
    pub(crate) partition_count: Option<u32>,
    pub(crate) body: AppendBody,
}

/// The records, as they came in.
#[derive(Debug)]
pub(crate) enum AppendBody {
    Json(Bytes, Encoding),
    Ndjson(Bytes, Encoding),
    /// Concatenated for one partition, else framed.
    Batches(Bytes),
}

impl AppendBody {
    /// Its bytes, as they came in.
    pub(super) fn length(&self) -> u64 {
        let (Self::Json(body, _) | Self::Ndjson(body, _) | Self::Batches(body)) = self;
        body.len() as u64
    }
}

impl TopicAppend {
    /// Parses and checks all records and says where they go; `spread` is drawn where that is left open.
    pub(super) fn route(
        &self,
        topic: &Arc<Topic>,
        stamp: &Stamp,
        now: Timestamp,
        spread: impl FnOnce() -> u64,
    ) -> Result<Content, Problem> {
        // To another topic than the client's: the state machine says only whether this is a repeat.
        let topic_id = self.topic_id.unwrap_or(topic.id);
        let is_known = topic_id == topic.id;
        if !stamp.is_some() {
            check_count(topic, self.partition_count)?;
        }
        if let Some(partition) = self.partition.filter(|_| is_known) {
            check_partition(topic, partition)?;
        }
        let records = match &self.body {
            AppendBody::Json(body, encoding) => parse_json(body, *encoding)?,
            AppendBody::Ndjson(body, encoding) => parse_ndjson(body, *encoding)?,
            AppendBody::Batches(body) => {
                let batches = self.batches(topic, is_known, body)?;
                let parts = batches.into_iter().map(|(partition, batches)| PartitionBatches {
                    on: TopicPartition { topic: topic_id, partition },
                    batches,
                    encoded_by_frontend: false,
                });
                let count = if is_known { self.partition_count } else { Some(ONLY_REPEATS) };
                return Ok(self.own(parts.collect(), topic_id, count, stamp));
            }
        };
        let mut keyed = false;
        let mut routed = Vec::with_capacity(records.len());
        for (index, record) in records.into_iter().enumerate() {
            let at_record = |problem: Problem| Problem {
                detail: format!("record {index}: {}", problem.detail),
                ..problem
            };
            let record = self.route_record(topic, record, &mut keyed, now).map_err(at_record)?;
            if let Some(partition) = record.partition.filter(|_| is_known) {
                check_partition(topic, partition).map_err(at_record)?;
            }
            check_record(topic, &record).map_err(at_record)?;
            routed.push(record);
        }
        let partitions: BTreeSet<_> = routed.iter().map(|record| record.partition).collect();
        if partitions.len() >= limits::UNIT_PARTITIONS_MAX {
            return Err(too_many_partitions());
        }
        if !stamp.is_some() {
            return Ok(Content::Shared(SharedRecords { topic: Arc::clone(topic), keyed, records: routed }));
        }
        let (mut filling, mut spread) = (Filling::default(), spread());
        for record in routed {
            filling.add(topic, &record, &mut spread);
        }
        let count = self.partition_count.or(keyed.then_some(topic.partition_count));
        let count = if is_known { count } else { Some(ONLY_REPEATS) };
        Ok(self.own(filling.finish(topic_id), topic_id, count, stamp))
    }

    fn own(
        &self,
        parts: Vec<PartitionBatches>,
        topic: TopicId,
        count: Option<u32>,
        stamp: &Stamp,
    ) -> Content {
        let routing = count.map(|partition_count| Routing { topic, partition_count });
        let commit = UnitCommit { routing: routing.into_iter().collect(), ..stamp.commit() };
        Content::Own(Box::new(Unit { parts, commit }))
    }

    fn route_record(
        &self,
        topic: &Topic,
        record: ParsedRecord,
        keyed: &mut bool,
        now: Timestamp,
    ) -> Result<RoutedRecord, Problem> {
        let partition = match (self.partition, record.partition, &record.key) {
            (Some(path), Some(named), _) if path != named => {
                return Err(Problem::new(
                    ErrorCode::InvalidValue,
                    format!("partition {named} is not partition {path} of the path"),
                ));
            }
            (Some(named), _, _) | (None, Some(named), _) => Some(named),
            (None, None, Some(key)) => {
                *keyed = true;
                Some(partition_of(key, topic.partition_count))
            }
            (None, None, None) => None,
        };
        let ParsedRecord { timestamp, key, value, headers, .. } = record;
        Ok(RoutedRecord { partition, timestamp: timestamp.unwrap_or(now), key, value, headers })
    }

    fn batches(
        &self,
        topic: &Topic,
        is_known: bool,
        body: &Bytes,
    ) -> Result<BTreeMap<PartitionIndex, Vec<Batch>>, Problem> {
        let mut parts = BTreeMap::new();
        match self.partition {
            Some(partition) => {
                parts.insert(partition, read_batches(partition, body)?);
            }
            None => {
                let frames =
                    read_frames(body.clone()).map_err(|error| Problem::new(ErrorCode::Malformed, error))?;
                for frame in frames {
                    if is_known {
                        check_partition(topic, frame.partition)?;
                    }
                    parts.insert(frame.partition, read_batches(frame.partition, &frame.batches)?);
                }
            }
        }
        parts.values().try_for_each(|batches| check_batches(topic, batches))?;
        if parts.values().all(Vec::is_empty) {
            return Err(Problem::new(ErrorCode::InvalidValue, "an append has at least one record"));
        }
        Ok(parts)
    }
}

/// Whether the partition count by which a client routed is the topic's.
pub(super) fn check_count(topic: &Topic, count: Option<u32>) -> Result<(), Problem> {
    let Some(count) = count.filter(|count| *count != topic.partition_count) else { return Ok(()) };
    let detail = format!(
        "records were routed by {count} partitions; topic {} has {}",
        topic.name, topic.partition_count
    );
    Err(Problem::new(ErrorCode::StaleRouting, detail).with(|facts| {
        facts.topic = Some(topic.name.to_string());
        facts.partition_count = Some(topic.partition_count);
    }))
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

/// A record has to fit into a batch of its topic that has no other, so that it can always be added to an empty one; and it has a key
/// where its topic is compacted.
pub(super) fn check_record(topic: &Topic, record: &RoutedRecord) -> Result<(), Problem> {
    if topic.compacted && record.key.is_none() {
        return Err(no_key(topic));
    }
    let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    if record.headers.is_empty()
        && length(&record.key) + length(&record.value) + AROUND_RECORD_BYTES <= topic.message_bytes_max
    {
        return Ok(());
    }
    BatchBuilder::new(topic.message_bytes_max).push(&record.as_new()).map_err(|refused| match refused {
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

pub(super) fn too_many_partitions() -> Problem {
    let limit = limits::UNIT_PARTITIONS_MAX as u64;
    Problem::new(ErrorCode::TooLarge, format!("an append touches at most {limit} partitions; send several"))
        .with(|facts| facts.limit = Some(limit))
}

/// All batches of one partition, verified.
pub(crate) fn read_batches(partition: PartitionIndex, body: &Bytes) -> Result<Vec<Batch>, Problem> {
    let mut rest = body.clone();
    let mut batches = Vec::new();
    loop {
        let at = body.len() - rest.len();
        let refused = |error: &BatchError| {
            let detail = format!("batch {} of partition {partition}, at byte {at}: {error}", batches.len());
            Problem::new(error.code(), detail).with(|facts| facts.partition = Some(partition))
        };
        let batch = match Batch::parse_next(&mut rest) {
            Ok(Some(batch)) => batch,
            Ok(None) => return Ok(batches),
            Err(error) => return Err(refused(&error)),
        };
        batch.verify().map_err(|error| refused(&error))?;
        batches.push(batch);
    }
}

/// Whether batches are as short as their topic wants them, and their records have keys where it is compacted.
pub(super) fn check_batches(topic: &Topic, batches: &[Batch]) -> Result<(), Problem> {
    let lengths = batches.iter().map(|batch| batch.bytes().len());
    match lengths.max().filter(|length| *length > topic.message_bytes_max) {
        Some(length) => Err(too_long(topic, &format!("batch of {length} bytes"))),
        None if topic.compacted => batches.iter().try_for_each(|batch| check_keys(topic, batch)),
        None => Ok(()),
    }
}

/// Whether each record of a batch can be read and has a key.
fn check_keys(topic: &Topic, batch: &Batch) -> Result<(), Problem> {
    let refused = |error: BatchError| Problem::new(error.code(), error);
    for record in batch.records().map_err(refused)? {
        if record.map_err(refused)?.key.is_none() {
            return Err(no_key(topic));
        }
    }
    Ok(())
}

fn no_key(topic: &Topic) -> Problem {
    let detail = format!("topic {} is compacted by key, so that each record needs one", topic.name);
    Problem::new(ErrorCode::InvalidValue, detail).with(|facts| facts.topic = Some(topic.name.to_string()))
}
