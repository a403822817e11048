//! The first step: which topic is meant, and which offset a time means.

use std::sync::Arc;
use std::time::Duration;

use carnax_core::error_code::ErrorCode;
use carnax_core::id::{PartitionIndex, TopicId, TopicPartition};
use carnax_core::limits;
use carnax_core::metadata::{FetchFrom, FetchPlan, PlannedSlice};
use carnax_core::offset::Offset;
use carnax_core::problem::Problem;
use carnax_core::time::Timestamp;
use carnax_core::topic::TopicName;
use futures::{StreamExt, TryStreamExt};

use super::cache::ReaderKind;
use super::read::{ReadFailure, damaged_records};
use super::{Fetch, FetchRequest};
use crate::append::accept::check_partition;
use crate::metadata_client::topics::Topic;

/// Partitions whose positions are looked up at the same time for one request.
const POSITIONS_AT_ONCE: usize = 8;
/// Plans that one lookup of a time may need; each looks through up to a thousand slices.
const LOOKUP_PLANS_MAX: usize = 100;

/// A position in a partition, with the timestamp of the record there if one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) offset: Offset,
    pub(crate) timestamp: Option<Timestamp>,
}

impl Fetch {
    /// Finds the topic, and turns a time into an offset.
    ///
    /// # Errors
    /// `topic_not_found`, `partition_not_found`, or what the lookup says.
    pub(super) async fn resolve(&self, request: &mut FetchRequest) -> Result<Arc<Topic>, Problem> {
        let mut topic = self.topics.get(&request.topic).await?;
        if check_partition(&topic, request.partition).is_err()
            || request.topic_id.is_some_and(|known| known != topic.id)
        {
            topic = self.topics.refresh(&request.topic).await?;
            check_partition(&topic, request.partition)?;
        }
        if let FetchFrom::Timestamp(time) = request.from {
            let position = self.lookup(request, &mut topic, time).await?;
            request.from = FetchFrom::Offset(position.offset);
        }
        Ok(topic)
    }

    /// Finds a position and the timestamp of the record there.
    ///
    /// # Errors
    /// Every problem of a fetch.
    pub(crate) async fn position(&self, mut request: FetchRequest) -> Result<Position, Problem> {
        let mut topic = self.topics.get(&request.topic).await?;
        if check_partition(&topic, request.partition).is_err() {
            topic = self.topics.refresh(&request.topic).await?;
        }
        check_partition(&topic, request.partition)?;
        if let FetchFrom::Timestamp(time) = request.from {
            return self.lookup(&mut request, &mut topic, time).await;
        }
        request.max_bytes = 1;
        let plan = self.plan(&request, &mut topic).await?;
        let kind = ReaderKind::of(&plan);
        for slice in &plan.slices {
            let on = TopicPartition { topic: plan.topic_id, partition: request.partition };
            let found = self.first_record(slice, on, plan.start, &topic, Timestamp::MIN, kind).await;
            if let Some((_, timestamp)) = found.map_err(ReadFailure::into_problem)? {
                return Ok(Position { offset: plan.start, timestamp: Some(timestamp) });
            }
        }
        Ok(Position { offset: plan.start, timestamp: None })
    }

    /// Finds the positions of many partitions of a topic, in their order.
    ///
    /// # Errors
    /// The first problem of a fetch.
    pub(crate) async fn positions(
        &self,
        topic: &TopicName,
        topic_id: TopicId,
        partitions: Vec<PartitionIndex>,
        from: FetchFrom,
    ) -> Result<Vec<Position>, Problem> {
        let requests = partitions.into_iter().map(|partition| FetchRequest {
            topic: topic.clone(),
            topic_id: Some(topic_id),
            partition,
            from,
            max_bytes: 1,
            max_records: 1,
            wait: Duration::ZERO,
            token: None,
        });
        let positions = futures::stream::iter(requests).map(|request| self.position(request));
        positions.buffered(POSITIONS_AT_ONCE).try_collect().await
    }

    /// The first record at or after a time, or the high watermark.
    async fn lookup(
        &self,
        request: &mut FetchRequest,
        topic: &mut Arc<Topic>,
        time: Timestamp,
    ) -> Result<Position, Problem> {
        let mut planned_again = false;
        let mut question = FetchRequest { from: FetchFrom::Timestamp(time), max_bytes: 1, ..request.clone() };
        for _ in 0..LOOKUP_PLANS_MAX {
            let plan = self.plan(&question, topic).await?;
            question.topic_id = Some(plan.topic_id);
            request.topic_id = Some(plan.topic_id);
            let on = TopicPartition { topic: plan.topic_id, partition: request.partition };
            match self.look_through(&plan, on, topic, time).await {
                Ok(Some(position)) => return Ok(position),
                Ok(None) => {}
                Err(ReadFailure::Gone(_)) if !planned_again => {
                    planned_again = true;
                    continue;
                }
                Err(failure) => return Err(failure.into_problem()),
            }
            let Some(end) = plan.slices.last().map(|slice| slice.end_offset) else {
                return Ok(Position { offset: plan.high_watermark, timestamp: None });
            };
            question.from = FetchFrom::Offset(end.min(plan.high_watermark));
            // The first plan goes by what the metadata core knows of times; behind it, look at more at once.
            question.max_bytes = limits::FETCH_BYTES_MAX;
        }
        Err(Problem::new(
            ErrorCode::Unavailable,
            format!(
                "no record at or after {time} was found in a reasonable time; start from an offset instead"
            ),
        ))
    }

    async fn look_through(
        &self,
        plan: &FetchPlan,
        on: TopicPartition,
        topic: &Topic,
        time: Timestamp,
    ) -> Result<Option<Position>, ReadFailure> {
        let kind = ReaderKind::of(plan);
        for slice in &plan.slices {
            let latest = if topic.log_append_time && !slice.rewritten {
                slice.append_time
            } else {
                slice.max_timestamp
            };
            if latest < time {
                continue;
            }
            if let Some((offset, timestamp)) =
                self.first_record(slice, on, plan.start, topic, time, kind).await?
            {
                return Ok(Some(Position { offset, timestamp: Some(timestamp) }));
            }
        }
        Ok(None)
    }

    /// The first record of a slice at or after a time and at or behind the start.
    async fn first_record(
        &self,
        slice: &PlannedSlice,
        on: TopicPartition,
        start: Offset,
        topic: &Topic,
        time: Timestamp,
        kind: ReaderKind,
    ) -> Result<Option<(Offset, Timestamp)>, ReadFailure> {
        let mut from = start.max(slice.base_offset);
        if topic.log_append_time && !slice.rewritten {
            return Ok((from < slice.end_offset).then_some((from, slice.append_time)));
        }
        while from < slice.end_offset {
            let read = self.read_slice(slice, on, from, 1, Some(time), kind).await?;
            for fetched in &read.batches {
                if fetched.batch.max_timestamp() < time {
                    continue;
                }
                for record in fetched.batch.records().map_err(|error| damaged_records(on, fetched, &error))? {
                    let record = record.map_err(|error| damaged_records(on, fetched, &error))?;
                    let offset = Offset(fetched.base_offset.0 + u64::from(record.offset_delta));
                    if record.timestamp >= time && offset >= start {
                        return Ok(Some((offset, record.timestamp)));
                    }
                }
            }
            if let Some(damaged) = read.damage {
                return Err(damaged);
            }
            if read.next_offset <= from {
                break;
            }
            from = read.next_offset;
        }
        Ok(None)
    }
}
