//! Appends over many topics and partitions, with what must hold for them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use carnax_core::access::{Operation, Resource};
use carnax_core::error_code::ErrorCode;
use carnax_core::http::{AppendCondition, AppendGroupOffsets, AppendPart};
use carnax_core::id::{PartitionIndex, TopicId, TopicPartition};
use carnax_core::limits;
use carnax_core::metadata::{Condition, ConditionKind, GroupOffset, GroupOffsets, Routing, UnitCommit};
use carnax_core::name::MemberId;
use carnax_core::offset::Offset;
use carnax_core::partitioner::partition_of;
use carnax_core::problem::Problem;
use carnax_core::record::Batch;
use carnax_core::segment::PartitionBatches;
use carnax_core::time::Timestamp;
use carnax_core::topic::TopicName;

use super::route::{
    ONLY_REPEATS, check_batches, check_count, check_partition, check_record, read_batches,
    too_many_partitions,
};
use super::{KnownTopics, Stamp, known};
use crate::access::Caller;
use crate::append::filling::{Filling, RoutedRecord};
use crate::append::unit::Unit;
use crate::http::json_record::ParsedRecord;
use crate::metadata_client::topics::Topic;

/// An append over many topics; everything that can be checked without knowing them is checked.
#[derive(Debug)]
pub(crate) struct AtomicAppend {
    records: AtomicRecords,
    conditions: Vec<AppendCondition>,
    group: Option<(AppendGroupOffsets, Option<(MemberId, u32)>)>,
}

/// A record of an append over many topics.
#[derive(Debug)]
pub(crate) struct AtomicRecord {
    pub(crate) topic: TopicName,
    /// The id that the client knows the topic by.
    pub(crate) topic_id: Option<TopicId>,
    pub(crate) record: ParsedRecord,
}

#[derive(Debug)]
enum AtomicRecords {
    Records(Vec<AtomicRecord>),
    Batches(Vec<(AppendPart, Vec<Batch>)>),
}

/// The parts of a unit, and by how many partitions keyed records of its topics were routed.
type Routed = (Vec<PartitionBatches>, BTreeMap<TopicId, u32>);

impl AtomicAppend {
    /// Of records that came as JSON.
    ///
    /// # Errors
    /// `invalid_value` and `too_large`, by what can be said without knowing the topics.
    pub(crate) fn of_records(
        records: Vec<AtomicRecord>,
        conditions: Vec<AppendCondition>,
        group: Option<AppendGroupOffsets>,
    ) -> Result<Self, Problem> {
        Self::new(AtomicRecords::Records(records), conditions, group)
    }

    /// Of record batches, each part with its own.
    ///
    /// # Errors
    /// As [`of_records`](Self::of_records), and what is wrong with a batch.
    pub(crate) fn of_batches(
        parts: Vec<(AppendPart, Bytes)>,
        conditions: Vec<AppendCondition>,
        group: Option<AppendGroupOffsets>,
    ) -> Result<Self, Problem> {
        let mut seen = BTreeSet::new();
        let mut read = Vec::with_capacity(parts.len());
        for (part, bytes) in parts {
            let at_part = |problem: Problem| {
                problem.with(|facts| {
                    facts.topic = Some(part.topic.to_string());
                    facts.partition = Some(part.partition);
                })
            };
            let batches = read_batches(part.partition, &bytes).map_err(at_part)?;
            if batches.is_empty() {
                return Err(at_part(invalid("a part has at least one batch")));
            }
            if !seen.insert((part.topic.clone(), part.partition)) {
                return Err(at_part(invalid("a partition stands in two parts")));
            }
            read.push((part, batches));
        }
        Self::new(AtomicRecords::Batches(read), conditions, group)
    }

    fn new(
        records: AtomicRecords,
        conditions: Vec<AppendCondition>,
        group: Option<AppendGroupOffsets>,
    ) -> Result<Self, Problem> {
        let is_empty = match &records {
            AtomicRecords::Records(records) => records.is_empty(),
            AtomicRecords::Batches(parts) => parts.is_empty(),
        };
        if is_empty {
            return Err(invalid(
                "an append has at least one record; offsets alone go to POST /v1/groups/{group}/offsets",
            ));
        }
        check_conditions(&conditions)?;
        let group = group.map(|group| Ok::<_, Problem>((checked_member(&group)?, group))).transpose()?;
        let group = group.map(|(member, group)| (group, member));
        Ok(Self { records, conditions, group })
    }

    /// All topics that are named, with the ids that the client knows them by.
    pub(super) fn topics(&self) -> Box<dyn Iterator<Item = (&TopicName, Option<TopicId>)> + Send + '_> {
        let conditions = self.conditions.iter().map(|condition| (&condition.topic, condition.topic_id));
        let moves = self.group.iter().flat_map(|(group, _)| &group.offsets);
        let others = conditions.chain(moves.map(|offset| (&offset.topic, offset.topic_id)));
        match &self.records {
            AtomicRecords::Records(records) => {
                Box::new(others.chain(records.iter().map(|record| (&record.topic, record.topic_id))))
            }
            AtomicRecords::Batches(parts) => {
                Box::new(others.chain(parts.iter().map(|(part, _)| (&part.topic, part.topic_id))))
            }
        }
    }

    /// Bytes of keys, values and headers, or of batches, that go to each topic.
    pub(super) fn bytes_by_topic(&self) -> BTreeMap<&TopicName, u64> {
        let mut sums = BTreeMap::new();
        let mut add = |topic, bytes: usize| *sums.entry(topic).or_insert(0) += bytes as u64;
        match &self.records {
            AtomicRecords::Records(records) => {
                let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
                for AtomicRecord { topic, record, .. } in records {
                    let headers = record.headers.iter();
                    let headers: usize = headers.map(|header| header.key.len() + length(&header.value)).sum();
                    add(topic, length(&record.key) + length(&record.value) + headers);
                }
            }
            AtomicRecords::Batches(parts) => {
                for (part, batches) in parts {
                    add(&part.topic, batches.iter().map(|batch| batch.bytes().len()).sum());
                }
            }
        }
        sums
    }

    /// Whether the caller may do all of it: write the records, learn whether the conditions hold, move the group's offsets.
    ///
    /// # Errors
    /// `forbidden`.
    pub(crate) fn check_access(&self, caller: &Caller) -> Result<(), Problem> {
        let written: BTreeSet<&TopicName> = match &self.records {
            AtomicRecords::Records(records) => records.iter().map(|record| &record.topic).collect(),
            AtomicRecords::Batches(parts) => parts.iter().map(|(part, _)| &part.topic).collect(),
        };
        let may = |operation, topic: &TopicName| caller.check(operation, Resource::Topic(topic.as_str()));
        written.into_iter().try_for_each(|topic| may(Operation::Write, topic))?;
        self.conditions.iter().try_for_each(|condition| may(Operation::Describe, &condition.topic))?;
        let Some((group, _)) = &self.group else { return Ok(()) };
        caller.check(Operation::Group, Resource::Group(group.group.as_str()))?;
        group.offsets.iter().try_for_each(|moved| may(Operation::Read, &moved.topic))
    }

    /// Says where everything goes; `spread` is drawn where that is left open.
    pub(super) fn route(
        &self,
        topics: &KnownTopics,
        stamp: &Stamp,
        now: Timestamp,
        spread: impl FnOnce() -> u64,
    ) -> Result<Unit, Problem> {
        let (mut parts, mut routing) = match &self.records {
            AtomicRecords::Records(records) => route_records(records, topics, now, spread())?,
            AtomicRecords::Batches(parts) => route_batches(parts, topics, stamp)?,
        };
        if parts.len() > limits::UNIT_PARTITIONS_MAX {
            return Err(too_many_partitions());
        }
        parts.sort_unstable_by_key(|part| part.on);
        for (name, id) in self.topics() {
            if let Some(id) = id.filter(|id| known(topics, name).is_ok_and(|topic| topic.id != *id)) {
                routing.insert(id, ONLY_REPEATS);
            }
        }
        let routing = routing.into_iter();
        let commit = UnitCommit {
            routing: routing.map(|(topic, partition_count)| Routing { topic, partition_count }).collect(),
            conditions: self.route_conditions(topics)?,
            group: self.route_group(topics)?,
            ..stamp.commit()
        };
        let unit = Unit { parts, commit };
        if !unit.fits_a_segment() {
            let limit = limits::SEGMENT_COMMIT_BYTES_MAX as u64;
            let detail =
                "partitions, conditions and group offsets of an append are too many together; send several";
            return Err(Problem::new(ErrorCode::TooLarge, detail).with(|facts| facts.limit = Some(limit)));
        }
        Ok(unit)
    }

    fn route_conditions(&self, topics: &KnownTopics) -> Result<Vec<Condition>, Problem> {
        let mut routed = Vec::with_capacity(self.conditions.len());
        for condition in &self.conditions {
            let on = place(topics, &condition.topic, condition.topic_id, condition.partition)?;
            let offset = condition.expected_next_offset.map(ConditionKind::ExpectedNextOffset);
            let token = condition.fencing_token.clone().map(ConditionKind::FencingToken);
            routed.extend(offset.into_iter().chain(token).map(|kind| Condition { on, kind }));
        }
        Ok(routed)
    }

    fn route_group(&self, topics: &KnownTopics) -> Result<Option<GroupOffsets>, Problem> {
        let Some((group, member)) = &self.group else { return Ok(None) };
        let mut offsets = Vec::with_capacity(group.offsets.len());
        for moved in &group.offsets {
            let on = place(topics, &moved.topic, moved.topic_id, moved.partition)?;
            offsets.push(GroupOffset { on, from: moved.from, to: moved.to });
        }
        Ok(Some(GroupOffsets { group: group.group.clone(), member: member.clone(), offsets }))
    }
}

fn route_records(
    records: &[AtomicRecord],
    topics: &KnownTopics,
    now: Timestamp,
    mut spread: u64,
) -> Result<Routed, Problem> {
    let mut fillings: BTreeMap<TopicId, Filling> = BTreeMap::new();
    let mut routing = BTreeMap::new();
    for (index, AtomicRecord { topic, topic_id, record }) in records.iter().enumerate() {
        let at_record =
            |problem: Problem| Problem { detail: format!("record {index}: {}", problem.detail), ..problem };
        let topic = known(topics, topic)?;
        let topic_id = topic_id.unwrap_or(topic.id);
        let partition = match (record.partition, &record.key) {
            (Some(named), _) => Some(named),
            (None, Some(key)) => {
                routing.insert(topic_id, topic.partition_count);
                Some(partition_of(key, topic.partition_count))
            }
            (None, None) => None,
        };
        if let Some(partition) = partition {
            check_place(topic, topic_id, partition).map_err(at_record)?;
        }
        let record = RoutedRecord {
            partition,
            timestamp: record.timestamp.unwrap_or(now),
            key: record.key.clone(),
            value: record.value.clone(),
            headers: record.headers.clone(),
        };
        check_record(topic, &record).map_err(at_record)?;
        fillings.entry(topic_id).or_default().add(topic, &record, &mut spread);
        let partitions: usize = fillings.values().map(Filling::partition_count).sum();
        if partitions > limits::UNIT_PARTITIONS_MAX {
            return Err(too_many_partitions());
        }
    }
    Ok((fillings.into_iter().flat_map(|(topic, filling)| filling.finish(topic)).collect(), routing))
}

fn route_batches(
    parts: &[(AppendPart, Vec<Batch>)],
    topics: &KnownTopics,
    stamp: &Stamp,
) -> Result<Routed, Problem> {
    let mut routed = Vec::with_capacity(parts.len());
    let mut routing = BTreeMap::new();
    for (part, batches) in parts {
        let topic = known(topics, &part.topic)?;
        let on = place(topics, &part.topic, part.topic_id, part.partition)?;
        if !stamp.is_some() {
            check_count(topic, part.partition_count)?;
        }
        if let Some(count) = part.partition_count
            && routing.insert(on.topic, count).is_some_and(|other| other != count)
        {
            let problem = invalid("parts of one topic say different partition counts");
            return Err(problem.with(|facts| facts.topic = Some(part.topic.to_string())));
        }
        check_batches(topic, batches)?;
        routed.push(PartitionBatches { on, batches: batches.clone(), encoded_by_frontend: false });
    }
    Ok((routed, routing))
}

/// A partition by the id that the client knows its topic by, or by that of the topic now.
fn place(
    topics: &KnownTopics,
    name: &TopicName,
    id: Option<TopicId>,
    partition: PartitionIndex,
) -> Result<TopicPartition, Problem> {
    let topic = known(topics, name)?;
    let id = id.unwrap_or(topic.id);
    check_place(topic, id, partition)?;
    Ok(TopicPartition { topic: id, partition })
}

/// How many partitions another topic of that name had is not known here.
fn check_place(topic: &Topic, id: TopicId, partition: PartitionIndex) -> Result<(), Problem> {
    if id == topic.id { check_partition(topic, partition) } else { Ok(()) }
}

fn check_conditions(conditions: &[AppendCondition]) -> Result<(), Problem> {
    let mut count = 0;
    for condition in conditions {
        let AppendCondition { topic, partition, expected_next_offset, fencing_token, .. } = condition;
        let said = usize::from(expected_next_offset.is_some()) + usize::from(fencing_token.is_some());
        let problem = match expected_next_offset {
            _ if said == 0 => invalid("a condition says an expected_next_offset, a fencing_token or both"),
            Some(offset) if *offset > Offset::MAX => no_offset("expected_next_offset"),
            _ => {
                count += said;
                continue;
            }
        };
        return Err(problem.with(|facts| {
            facts.topic = Some(topic.to_string());
            facts.partition = Some(*partition);
        }));
    }
    at_most("conditions", count, limits::UNIT_CONDITIONS_MAX)
}

/// The member of group offsets that are right in themselves.
fn checked_member(group: &AppendGroupOffsets) -> Result<Option<(MemberId, u32)>, Problem> {
    if group.offsets.is_empty() {
        return Err(invalid("the group has no offsets"));
    }
    at_most("group offsets", group.offsets.len(), limits::GROUP_COMMIT_OFFSETS_MAX)?;
    let mut seen = BTreeSet::new();
    for moved in &group.offsets {
        let at = |problem: Problem| {
            problem.with(|facts| {
                facts.topic = Some(moved.topic.to_string());
                facts.partition = Some(moved.partition);
            })
        };
        if moved.from.is_some_and(|from| from > Offset::MAX) {
            return Err(at(no_offset("from")));
        }
        if moved.to > Offset::MAX {
            return Err(at(no_offset("to")));
        }
        if !seen.insert((&moved.topic, moved.partition)) {
            return Err(at(invalid("the offset of a partition moves twice")));
        }
    }
    match (&group.member, group.epoch) {
        (Some(member), Some(epoch)) => Ok(Some((member.clone(), epoch))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(invalid("a member says its epoch")),
        (None, Some(_)) => Err(invalid("an epoch says nothing without its member")),
    }
}

fn at_most(what: &str, count: usize, max: usize) -> Result<(), Problem> {
    if count <= max {
        return Ok(());
    }
    let problem = Problem::new(ErrorCode::TooLarge, format!("an append has at most {max} {what}"));
    Err(problem.with(|facts| facts.limit = Some(max as u64)))
}

fn no_offset(name: &str) -> Problem {
    invalid(&format!("{name} is larger than any offset can be"))
        .with(|facts| facts.limit = Some(Offset::MAX.0))
}

fn invalid(detail: &str) -> Problem {
    Problem::new(ErrorCode::InvalidValue, detail)
}
