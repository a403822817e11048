//! The open segment: takes units until it is time to close it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use carnax_core::id::{PartitionIndex, TopicId, TopicPartition};
use carnax_core::limits;
use carnax_core::metadata::{Routing, UnitCommit};
use carnax_core::name::{ProducerId, TokenId};
use carnax_core::problem::Problem;
use carnax_core::segment::PartitionBatches;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::acknowledge::{Appended, Member, Place, UnitAck};
use super::filling::{Filling, RoutedRecord};
use super::unit::{SLICE_COMMIT_BYTES, UNIT_COMMIT_BYTES, Unit};
use crate::config::AppendSettings;
use crate::metadata_client::topics::Topic;

/// A request that passed all checks.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) content: Content,
    pub(crate) reply: oneshot::Sender<Result<Appended, Problem>>,
    pub(crate) memory: Arc<OwnedSemaphorePermit>,
    pub(crate) token: Option<TokenId>,
}

/// What a request brings.
#[derive(Debug)]
pub(crate) enum Content {
    /// Records that may share batches with those of other requests.
    Shared(SharedRecords),
    /// A unit of its own.
    Own(Box<Unit>),
}

impl Content {
    /// What it adds to the commit command at most.
    pub(crate) fn commit_bytes_max(&self) -> usize {
        match self {
            Self::Own(unit) => unit.commit_bytes(),
            Self::Shared(shared) => UNIT_COMMIT_BYTES + SLICE_COMMIT_BYTES * shared.partitions_max(),
        }
    }
}

/// Records of one topic.
#[derive(Debug)]
pub(crate) struct SharedRecords {
    pub(crate) topic: Arc<Topic>,
    /// Whether records were routed by the partition count of the topic.
    pub(crate) keyed: bool,
    pub(crate) records: Vec<RoutedRecord>,
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
    /// What its commit says of it, still without slices.
    pub(crate) commit: UnitCommit,
    batches: UnitBatches,
}

/// The batches of a unit.
#[derive(Debug)]
enum UnitBatches {
    Own(Vec<PartitionBatches>),
    Shared(TopicId, Filling),
}

#[derive(Debug)]
struct OpenUnit {
    content: UnitContent,
    ack: UnitAck,
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

    /// Whether the segment stays within its limits with all these submissions in it. An empty segment takes any.
    pub(crate) fn has_room_for(&self, submissions: &[Submission]) -> bool {
        let added: usize = submissions.iter().map(|submission| submission.content.commit_bytes_max()).sum();
        self.is_empty()
            || (self.commit_bytes + added <= limits::SEGMENT_COMMIT_BYTES_MAX
                && self.units.len() + submissions.len() <= limits::SEGMENT_UNITS_MAX)
    }

    /// Adds a submission as a unit, or to the unit that it may share.
    pub(crate) fn push(&mut self, submission: Submission) {
        let Submission { content, reply, memory, token } = submission;
        let (position, places) = match content {
            Content::Own(unit) => self.push_own(*unit),
            Content::Shared(records) => self.push_shared(records),
        };
        self.units[position].ack.members.push(Member { reply, places, memory, token });
    }

    /// Closes the segment; batches that are still being filled are ended when it is sealed.
    pub(crate) fn close(self) -> ClosedSegment {
        let units = in_order_of_sequences(self.units);
        let (units, acks) = units.into_iter().map(|unit| (unit.content, unit.ack)).unzip();
        ClosedSegment { units, acks }
    }

    fn push_own(&mut self, unit: Unit) -> (usize, Vec<Place>) {
        let places = unit.places();
        self.bytes += unit.bytes();
        self.commit_bytes += unit.commit_bytes();
        let Unit { parts, commit } = unit;
        let ack = UnitAck { is_one_request: true, producer: commit.producer.clone(), members: Vec::new() };
        let content = UnitContent { commit, batches: UnitBatches::Own(parts) };
        self.units.push(OpenUnit { content, ack });
        (self.units.len() - 1, places)
    }

    fn push_shared(&mut self, shared: SharedRecords) -> (usize, Vec<Place>) {
        let SharedRecords { topic, keyed, records } = shared;
        let named: BTreeSet<PartitionIndex> = records.iter().filter_map(|record| record.partition).collect();
        let subject = (topic.id, topic.partition_count, topic.message_bytes_max);
        let joins = |position: &usize| match &self.units[*position].content.batches {
            UnitBatches::Shared(_, filling) => filling.has_room_for(&named),
            UnitBatches::Own(_) => false,
        };
        let position = match self.shared.get(&subject).copied().filter(joins) {
            Some(position) => position,
            None => {
                self.commit_bytes += UNIT_COMMIT_BYTES;
                self.units.push(OpenUnit::to_share(topic.id));
                self.shared.insert(subject, self.units.len() - 1);
                self.units.len() - 1
            }
        };
        let UnitContent { commit, batches } = &mut self.units[position].content;
        let UnitBatches::Shared(_, filling) = batches else {
            unreachable!("only units that were opened for sharing are shared");
        };
        if keyed && commit.routing.is_empty() {
            commit.routing.push(Routing { topic: topic.id, partition_count: topic.partition_count });
        }
        let mut places: BTreeMap<PartitionIndex, Place> = BTreeMap::new();
        for record in records {
            let added = filling.add(&topic, &record, &mut self.spread);
            self.bytes += added.bytes;
            let on = TopicPartition { topic: topic.id, partition: added.partition };
            places.entry(added.partition).or_insert(Place { on, start: added.start, count: 0 }).count += 1;
            if added.start == 0 {
                self.commit_bytes += SLICE_COMMIT_BYTES;
            }
        }
        (position, places.into_values().collect())
    }
}

impl OpenUnit {
    fn to_share(topic: TopicId) -> Self {
        let batches = UnitBatches::Shared(topic, Filling::default());
        Self {
            content: UnitContent { commit: UnitCommit::default(), batches },
            ack: UnitAck { is_one_request: false, producer: None, members: Vec::new() },
        }
    }
}

impl UnitContent {
    /// Ends its batches; its commit is still without slices.
    pub(crate) fn finish(self) -> (UnitCommit, Vec<PartitionBatches>) {
        let parts = match self.batches {
            UnitBatches::Own(parts) => parts,
            UnitBatches::Shared(topic, filling) => filling.finish(topic),
        };
        (self.commit, parts)
    }
}

impl SharedRecords {
    /// How many partitions they touch at most.
    fn partitions_max(&self) -> usize {
        let named: BTreeSet<_> = self.records.iter().map(|record| record.partition).collect();
        named.len() + 1
    }
}

/// Puts the units of each producer's epoch in order of their sequences, on the places that they take together; all
/// others stay where they are.
fn in_order_of_sequences(units: Vec<OpenUnit>) -> Vec<OpenUnit> {
    let mut places: BTreeMap<(ProducerId, u32), Vec<(u128, usize)>> = BTreeMap::new();
    for (place, unit) in units.iter().enumerate() {
        if let Some(stamp) = &unit.content.commit.producer {
            places.entry((stamp.producer.clone(), stamp.epoch)).or_default().push((stamp.sequence, place));
        }
    }
    let mut from: Vec<usize> = (0..units.len()).collect();
    for arrived in places.into_values() {
        let mut sorted = arrived.clone();
        sorted.sort_unstable();
        for ((_, place), (_, comes_from)) in arrived.into_iter().zip(sorted) {
            from[place] = comes_from;
        }
    }
    if from.is_sorted() {
        return units;
    }
    let mut units: Vec<Option<OpenUnit>> = units.into_iter().map(Some).collect();
    from.into_iter().map(|place| units[place].take().expect("each place is named once")).collect()
}

#[cfg(test)]
mod tests;
