//! The open segment: takes units until it is time to close it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use carnax_core::id::{PartitionIndex, TopicId, TopicPartition};
use carnax_core::limits;
use carnax_core::metadata::Routing;
use carnax_core::problem::Problem;
use carnax_core::record::{Batch, BatchBuilder, Compression, Header, NewRecord, RecordRefused};
use carnax_core::segment::PartitionBatches;
use carnax_core::time::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::acknowledge::{Appended, Member, Place, UnitAck};
use crate::config::AppendSettings;
use crate::metadata_client::topics::Topic;

/// Upper bounds of what a unit and each of its slices add to the commit command.
const UNIT_COMMIT_BYTES: usize = 160;
const SLICE_COMMIT_BYTES: usize = 136;

/// A request that passed all checks.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) topic: Arc<Topic>,
    pub(crate) content: Content,
    /// Whether records were routed by the partition count of the topic.
    pub(crate) keyed: bool,
    pub(crate) reply: oneshot::Sender<Result<Appended, Problem>>,
    pub(crate) memory: Arc<OwnedSemaphorePermit>,
}

/// What a request brings.
#[derive(Debug)]
pub(crate) enum Content {
    /// Records that may share batches with those of other requests. Each fits into a batch of its topic.
    Records(Vec<RoutedRecord>),
    /// Batches that stay as they are; each partition once.
    Batches(Vec<(PartitionIndex, Vec<Batch>)>),
}

/// A record and where it goes.
#[derive(Debug, Clone)]
pub(crate) struct RoutedRecord {
    /// None: to any partition.
    pub(crate) partition: Option<PartitionIndex>,
    pub(crate) timestamp: Timestamp,
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Vec<Header>,
}

/// How full the open segment is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Fill {
    /// Time since the first unit came, by a monotonic clock; none while it is empty.
    pub(crate) age: Option<Duration>,
    pub(crate) bytes: u64,
    pub(crate) units: usize,
    pub(crate) commit_bytes: usize,
}

/// When to close the open segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Close {
    /// Now.
    Now,
    /// After this time, if nothing comes before. No timer runs for an empty segment.
    After(Duration),
    /// When something changes.
    Later,
}

/// Decides when the open segment is closed: by what is in it, by its age, and by whether it could be uploaded at once.
///
/// A segment that is due but could not be uploaded stays open: a crowd shares one upload instead of queueing up many.
pub(crate) fn when_to_close(fill: Fill, settings: &AppendSettings, upload_slot_free: bool) -> Close {
    let Some(age) = fill.age else { return Close::Later };
    let full = fill.bytes >= settings.segment_bytes
        || fill.units >= limits::SEGMENT_UNITS_MAX
        || fill.commit_bytes + UNIT_COMMIT_BYTES + SLICE_COMMIT_BYTES > limits::SEGMENT_COMMIT_BYTES_MAX;
    match settings.linger.checked_sub(age).filter(|rest| !rest.is_zero()) {
        _ if full => Close::Now,
        Some(rest) => Close::After(rest),
        None if upload_slot_free => Close::Now,
        None => Close::Later,
    }
}

/// The segment that takes units now.
#[derive(Debug)]
pub(crate) struct OpenSegment {
    /// Decides which partitions get records that may go to any.
    spread: u64,
    units: Vec<OpenUnit>,
    /// The unit that takes records to share batches, by topic and what they were routed and checked by: the partition
    /// count and the largest batch.
    shared: BTreeMap<(TopicId, u32, usize), usize>,
    bytes: u64,
    commit_bytes: usize,
}

/// A closed segment: what is to be sealed, and who waits for it. Both are in the order of the units.
#[derive(Debug)]
pub(crate) struct ClosedSegment {
    pub(crate) units: Vec<UnitContent>,
    pub(crate) acks: Vec<UnitAck>,
}

/// A unit, ready to be sealed.
#[derive(Debug)]
pub(crate) struct UnitContent {
    pub(crate) topic: TopicId,
    pub(crate) routing: Option<Routing>,
    pub(crate) parts: UnitParts,
}

/// The batches of a unit.
#[derive(Debug)]
pub(crate) enum UnitParts {
    Whole(Vec<PartitionBatches>),
    Shared(BTreeMap<PartitionIndex, SharedPartition>),
}

/// Records of one partition on their way into batches.
#[derive(Debug)]
pub(crate) struct SharedPartition {
    full: Vec<Bytes>,
    filling: BatchBuilder,
    records: u32,
}

#[derive(Debug)]
struct OpenUnit {
    content: UnitContent,
    ack: UnitAck,
    /// Which partition records go to that may go to any, until its batch is full.
    sticky: Option<PartitionIndex>,
}

impl OpenSegment {
    pub(crate) fn new(spread: u64) -> Self {
        Self { spread, units: Vec::new(), shared: BTreeMap::new(), bytes: 0, commit_bytes: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    /// How full it is, if its first unit came `age` ago.
    pub(crate) fn fill(&self, age: Duration) -> Fill {
        Fill {
            age: (!self.is_empty()).then_some(age),
            bytes: self.bytes,
            units: self.units.len(),
            commit_bytes: self.commit_bytes,
        }
    }

    /// Whether the commit command stays within its limit with this submission in it. An empty segment takes any.
    pub(crate) fn has_room_for(&self, submission: &Submission) -> bool {
        let added = UNIT_COMMIT_BYTES + SLICE_COMMIT_BYTES * submission.partitions_max();
        self.is_empty() || self.commit_bytes + added <= limits::SEGMENT_COMMIT_BYTES_MAX
    }

    /// Adds a submission as a unit, or to the unit that it may share.
    pub(crate) fn push(&mut self, submission: Submission) {
        let Submission { topic, content, keyed, reply, memory } = submission;
        let (position, places) = match content {
            Content::Batches(parts) => self.push_whole(&topic, parts, keyed),
            Content::Records(records) => self.push_shared(&topic, records, keyed),
        };
        self.units[position].ack.members.push(Member { reply, places, memory });
    }

    /// Closes the segment; batches that are still being filled are ended when it is sealed.
    pub(crate) fn close(self) -> ClosedSegment {
        let (units, acks) = self.units.into_iter().map(|unit| (unit.content, unit.ack)).unzip();
        ClosedSegment { units, acks }
    }

    fn push_whole(
        &mut self,
        topic: &Topic,
        parts: Vec<(PartitionIndex, Vec<Batch>)>,
        keyed: bool,
    ) -> (usize, Vec<Place>) {
        let mut places: Vec<Place> = parts
            .iter()
            .map(|(partition, batches)| Place {
                partition: *partition,
                start: 0,
                count: batches.iter().map(Batch::offset_count).fold(0, u32::saturating_add),
            })
            .collect();
        places.sort_by_key(|place| place.partition);
        let batch_bytes =
            |batches: &Vec<Batch>| batches.iter().map(|batch| batch.bytes().len() as u64).sum::<u64>();
        self.bytes += parts.iter().map(|(_, batches)| batch_bytes(batches)).sum::<u64>();
        self.commit_bytes += UNIT_COMMIT_BYTES + SLICE_COMMIT_BYTES * parts.len();
        let parts = parts
            .into_iter()
            .map(|(partition, batches)| PartitionBatches {
                on: TopicPartition { topic: topic.id, partition },
                batches,
                encoded_by_frontend: false,
            })
            .collect();
        (self.open_unit(topic, keyed, UnitParts::Whole(parts)), places)
    }

    fn push_shared(&mut self, topic: &Topic, records: Vec<RoutedRecord>, keyed: bool) -> (usize, Vec<Place>) {
        let named: BTreeSet<PartitionIndex> = records.iter().filter_map(|record| record.partition).collect();
        let subject = (topic.id, topic.partition_count, topic.message_bytes_max);
        let joins = |position: &usize| self.units[*position].has_room_for(&named);
        let position = match self.shared.get(&subject).copied().filter(joins) {
            Some(position) => position,
            None => {
                self.commit_bytes += UNIT_COMMIT_BYTES;
                let position = self.open_unit(topic, keyed, UnitParts::Shared(BTreeMap::new()));
                self.shared.insert(subject, position);
                position
            }
        };
        let unit = &mut self.units[position];
        if keyed && unit.content.routing.is_none() {
            unit.content.routing = Some(routing(topic));
        }
        let mut places: BTreeMap<PartitionIndex, Place> = BTreeMap::new();
        for record in records {
            let (partition, start, added) = unit.add(topic, &record, &mut self.spread);
            self.bytes += added;
            places.entry(partition).or_insert(Place { partition, start, count: 0 }).count += 1;
            if start == 0 {
                self.commit_bytes += SLICE_COMMIT_BYTES;
            }
        }
        (position, places.into_values().collect())
    }

    fn open_unit(&mut self, topic: &Topic, keyed: bool, parts: UnitParts) -> usize {
        let routing = keyed.then(|| routing(topic));
        self.units.push(OpenUnit {
            content: UnitContent { topic: topic.id, routing, parts },
            ack: UnitAck { topic_id: topic.id, members: Vec::new() },
            sticky: None,
        });
        self.units.len() - 1
    }
}

fn routing(topic: &Topic) -> Routing {
    Routing { topic: topic.id, partition_count: topic.partition_count }
}

impl OpenUnit {
    fn has_room_for(&self, named: &BTreeSet<PartitionIndex>) -> bool {
        let UnitParts::Shared(parts) = &self.content.parts else { return false };
        let new = named.iter().filter(|partition| !parts.contains_key(*partition)).count();
        // One more for records that may go anywhere.
        parts.len() + new < limits::UNIT_PARTITIONS_MAX
    }

    /// Adds one record; says where it went, how many records of the unit were there before, and how many bytes it took.
    fn add(&mut self, topic: &Topic, record: &RoutedRecord, spread: &mut u64) -> (PartitionIndex, u32, u64) {
        let UnitParts::Shared(parts) = &mut self.content.parts else {
            unreachable!("only units that were opened for sharing are shared");
        };
        let partition = record.partition.or(self.sticky).unwrap_or_else(|| {
            *spread = spread.wrapping_add(1);
            let chosen = *spread % u64::from(topic.partition_count);
            PartitionIndex(u32::try_from(chosen).expect("smaller than a 32-bit number"))
        });
        let part = parts.entry(partition).or_insert_with(|| SharedPartition::new(topic.message_bytes_max));
        let (added, filled) = part.push(record, topic.message_bytes_max);
        if record.partition.is_none() {
            // A unit over very many partitions stays where it is: it must not grow beyond its limit.
            let may_move = filled && parts.len() + 1 < limits::UNIT_PARTITIONS_MAX;
            self.sticky = (!may_move).then_some(partition);
        }
        let part = parts.get_mut(&partition).expect("it was just used");
        part.records += 1;
        (partition, part.records - 1, added)
    }
}

impl SharedPartition {
    fn new(bytes_max: usize) -> Self {
        Self { full: Vec::new(), filling: BatchBuilder::new(bytes_max), records: 0 }
    }

    /// Adds a record; says by how many bytes the partition grew, and whether a batch was filled before.
    fn push(&mut self, record: &RoutedRecord, bytes_max: usize) -> (u64, bool) {
        let new = NewRecord {
            timestamp: record.timestamp,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &record.headers,
        };
        let before = if self.filling.is_empty() { 0 } else { self.filling.batch_bytes() };
        match self.filling.push(&new) {
            Ok(()) => ((self.filling.batch_bytes() - before) as u64, false),
            Err(RecordRefused::Full) => {
                let full = std::mem::replace(&mut self.filling, BatchBuilder::new(bytes_max));
                self.full.push(full.build(Compression::None));
                self.filling.push(&new).expect("accepting checked that each record fits into a batch");
                (self.filling.batch_bytes() as u64, true)
            }
            Err(refused) => unreachable!("accepting checked that each record fits into a batch: {refused}"),
        }
    }

    /// Ends the last batch.
    pub(crate) fn into_batches(mut self) -> Vec<Batch> {
        if !self.filling.is_empty() {
            self.full.push(self.filling.build(Compression::None));
        }
        let parse = |mut bytes: Bytes| {
            Batch::parse_next(&mut bytes).ok().flatten().expect("a batch that was just built is one")
        };
        self.full.into_iter().map(parse).collect()
    }
}

impl Submission {
    /// How many partitions it touches at most.
    fn partitions_max(&self) -> usize {
        match &self.content {
            Content::Batches(parts) => parts.len(),
            Content::Records(records) => {
                let named: BTreeSet<_> = records.iter().map(|record| record.partition).collect();
                named.len() + 1
            }
        }
    }
}

#[cfg(test)]
mod tests;
