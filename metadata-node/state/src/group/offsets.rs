//! Committed offsets: how far a group is in each partition, and what must hold for that to change.

use std::collections::BTreeSet;
use std::sync::Arc;

use carnax_core::error_code::ErrorCode;
use carnax_core::id::{PartitionIndex, TopicId, TopicPartition};
use carnax_core::limits;
use carnax_core::metadata::{CommitOffsets, CommittedNow, GroupOffsets, OffsetCommit, OffsetsCommitted};
use carnax_core::name::{GroupName, MemberId};
use carnax_core::offset::Offset;
use carnax_core::problem::Problem;
use carnax_core::time::Timestamp;
use imbl::OrdMap;

use super::{Group, Groups, at_most, not_empty};
use crate::deliberate_bugs::{self, DeliberateBug};
use crate::partition::Partition;
use crate::segment::Moment;
use crate::topic::{Topic, Topics};

/// As facts call it that nothing is committed, or that a partition has no owner.
const NOTHING: &str = "none";

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Committed {
    pub(crate) offset: Offset,
    /// Log time of the commit.
    pub(crate) at: Timestamp,
    /// What the client said with it; none for nothing, which is most often.
    pub(crate) metadata: Option<Arc<str>>,
}

/// The committed offsets of a group. A topic's are one sorted list, since groups read whole topics.
#[derive(Debug, Clone, Default)]
pub(crate) struct Offsets {
    by_topic: OrdMap<TopicId, Arc<Vec<(PartitionIndex, Committed)>>>,
    count: u64,
}

impl Offsets {
    pub(crate) fn len(&self) -> u64 {
        self.count
    }

    pub(crate) fn topics(&self) -> impl Iterator<Item = TopicId> {
        self.by_topic.keys().copied()
    }

    pub(crate) fn get(&self, on: TopicPartition) -> Option<&Committed> {
        let of_topic = self.by_topic.get(&on.topic)?;
        let place = of_topic.binary_search_by_key(&on.partition, |(partition, _)| *partition).ok()?;
        Some(&of_topic[place].1)
    }

    /// All in order, behind a partition.
    pub(crate) fn after(
        &self,
        after: Option<TopicPartition>,
    ) -> impl Iterator<Item = (TopicPartition, &Committed)> {
        let first = after.map_or(TopicId::from_bytes([0; 16]), |after| after.topic);
        let from = self.by_topic.range(first..);
        from.flat_map(move |(topic, of_topic)| {
            let behind = after.filter(|after| after.topic == *topic).map(|after| after.partition);
            let start =
                of_topic.partition_point(|(partition, _)| behind.is_some_and(|behind| *partition <= behind));
            let place = |partition| TopicPartition { topic: *topic, partition };
            of_topic[start..].iter().map(move |(partition, committed)| (place(*partition), committed))
        })
    }

    pub(crate) fn set(&mut self, on: TopicPartition, committed: Committed) {
        let list = Arc::make_mut(self.by_topic.entry(on.topic).or_default());
        match list.binary_search_by_key(&on.partition, |(partition, _)| *partition) {
            Ok(place) => list[place].1 = committed,
            Err(place) => {
                list.insert(place, (on.partition, committed));
                self.count = self.count.saturating_add(1);
            }
        }
    }

    fn take_away(&mut self, on: TopicPartition) {
        let Some(of_topic) = self.by_topic.get_mut(&on.topic) else { return };
        if let Ok(place) = of_topic.binary_search_by_key(&on.partition, |(partition, _)| *partition) {
            Arc::make_mut(of_topic).remove(place);
            self.count = self.count.saturating_sub(1);
        }
        if of_topic.is_empty() {
            self.by_topic.remove(&on.topic);
        }
    }

    pub(super) fn remove_topic(&mut self, topic: TopicId) {
        if let Some(of_topic) = self.by_topic.remove(&topic) {
            self.count = self.count.saturating_sub(of_topic.len() as u64);
        }
    }
}

impl Groups {
    pub(crate) fn commit(
        &mut self,
        topics: &Topics,
        at: Moment,
        request: &CommitOffsets,
    ) -> Result<OffsetsCommitted, Problem> {
        let CommitOffsets { group: name, member, number, only_if_empty, offsets } = request;
        check_shape(offsets)?;
        let group = self.by_name.get(name).map(|group| &**group);
        if let Some(group) = group.filter(|group| *only_if_empty && !group.members.is_empty()) {
            return Err(not_empty(name, group));
        }
        if let Some((id, epoch)) = member {
            let group = group.ok_or_else(|| super::members::unknown(id))?;
            let last = group.member(id, *epoch)?.last_number;
            if number.is_some_and(|number| last.is_some_and(|last| number <= last)) {
                return Ok(OffsetsCommitted { ignored: true });
            }
        }
        for offset in offsets {
            check_place(topics, offset)?;
        }
        self.check_moves(topics, name, member.as_ref(), offsets)?;
        self.move_offsets(at, name, offsets);
        if let (Some((id, _)), Some(number)) = (member, number)
            && let Some(group) = self.by_name.get_mut(name)
            && let Some(known) = Arc::make_mut(group).members.get_mut(id)
        {
            Arc::make_mut(known).last_number = Some(*number);
        }
        Ok(OffsetsCommitted { ignored: false })
    }

    /// Whether the group offsets of an append unit may move; changes nothing.
    ///
    /// # Errors
    /// `invalid_value`; `topic_not_found`, `stale_routing` or `partition_not_found`; `offset_above_high_watermark`;
    /// `unknown_member`, `fenced`, `not_owner`; `condition_failed`; `too_many_requests`.
    pub(crate) fn check_unit(&self, topics: &Topics, offsets: &GroupOffsets) -> Result<(), Problem> {
        let moves = moves_of(offsets);
        check_shape(&moves)?;
        for offset in &moves {
            check_offset(topics.of_unit(offset.on.topic)?, offset)?;
        }
        self.check_moves(topics, &offsets.group, offsets.member.as_ref(), &moves)
    }

    /// Moves the group offsets of an append unit that was checked.
    pub(crate) fn move_with_unit(&mut self, at: Moment, offsets: &GroupOffsets) {
        self.move_offsets(at, &offsets.group, &moves_of(offsets));
    }

    /// Who may commit, from what, and whether there is room.
    fn check_moves(
        &self,
        topics: &Topics,
        name: &GroupName,
        member: Option<&(MemberId, u32)>,
        offsets: &[OffsetCommit],
    ) -> Result<(), Problem> {
        let group = self.by_name.get(name).map(|group| &**group);
        match (member, group) {
            (Some((id, epoch)), Some(group)) => {
                let member = group.member(id, *epoch)?;
                let strange = offsets.iter().find(|offset| !member.owns(offset.on));
                strange.map_or(Ok(()), |offset| Err(not_owner(topics, group, offset.on, id.as_str())))?;
            }
            (Some((id, _)), None) => return Err(super::members::unknown(id)),
            (None, Some(group)) => {
                let owned = offsets.iter().find(|offset| group.owners.contains_key(&offset.on));
                owned.map_or(Ok(()), |offset| Err(not_owner(topics, group, offset.on, NOTHING)))?;
            }
            (None, None) => {}
        }
        let mut added = 0_u64;
        for offset in offsets {
            let now = group.and_then(|group| group.offsets.get(offset.on)).map(|committed| committed.offset);
            check_from(topics, offset, now)?;
            added += u64::from(now.is_none() && offset.offset.is_some());
        }
        if group.is_none() && added > 0 {
            self.check_room_for_group()?;
        }
        if added == 0 {
            return Ok(());
        }
        at_most("committed offsets", self.offset_count.saturating_add(added), limits::GROUP_OFFSETS_MAX)
    }

    fn move_offsets(&mut self, at: Moment, name: &GroupName, offsets: &[OffsetCommit]) {
        if !self.by_name.contains_key(name) {
            if offsets.iter().all(|offset| offset.offset.is_none()) {
                return;
            }
            self.put(name, Group::new(self.retired_epoch, at.time));
        }
        // In place: a copy of the group would make every commit copy the lists that it touches.
        let Some(group) = self.by_name.get_mut(name).map(Arc::make_mut) else { return };
        let before = group.offsets.len();
        for OffsetCommit { on, offset, metadata, .. } in offsets {
            let metadata = (!metadata.is_empty()).then(|| metadata.as_str().into());
            match offset {
                Some(offset) => {
                    if !group.offsets.by_topic.contains_key(&on.topic) {
                        self.with_offsets.insert((on.topic, name.clone()));
                    }
                    group.offsets.set(*on, Committed { offset: *offset, at: at.time, metadata });
                }
                None => {
                    group.offsets.take_away(*on);
                    if !group.offsets.by_topic.contains_key(&on.topic) {
                        self.with_offsets.remove(&(on.topic, name.clone()));
                    }
                }
            }
        }
        group.last_active = at.time;
        self.offset_count = self.offset_count.saturating_sub(before).saturating_add(group.offsets.len());
    }
}

fn moves_of(offsets: &GroupOffsets) -> Vec<OffsetCommit> {
    let checked = !deliberate_bugs::makes(DeliberateBug::SkipFromCheck);
    let plain = |offset: &carnax_core::metadata::GroupOffset| OffsetCommit {
        on: offset.on,
        offset: Some(offset.to),
        from: if checked { offset.must_be() } else { CommittedNow::Any },
        metadata: String::new(),
    };
    offsets.offsets.iter().map(plain).collect()
}

/// What a commit can be refused for without looking at the state.
fn check_shape(offsets: &[OffsetCommit]) -> Result<(), Problem> {
    let max = limits::GROUP_COMMIT_OFFSETS_MAX;
    if offsets.len() > max {
        let problem = Problem::new(ErrorCode::TooLarge, format_args!("a commit has at most {max} offsets"));
        return Err(problem.with(|facts| facts.limit = Some(max as u64)));
    }
    if offsets.is_empty() {
        return Err(Problem::new(ErrorCode::InvalidValue, "a commit has at least one offset"));
    }
    let metadata_max = limits::OFFSET_METADATA_BYTES_MAX;
    let mut seen = BTreeSet::new();
    for offset in offsets {
        if offset.metadata.len() > metadata_max {
            let detail = format_args!("the metadata of an offset has at most {metadata_max} bytes");
            let problem = Problem::new(ErrorCode::InvalidValue, detail);
            return Err(problem.with(|facts| facts.limit = Some(metadata_max as u64)));
        }
        if !seen.insert(offset.on) {
            let detail = format_args!("partition {} stands twice in one commit", offset.on);
            let problem = Problem::new(ErrorCode::InvalidValue, detail);
            return Err(problem.with(|facts| facts.partition = Some(offset.on.partition)));
        }
    }
    Ok(())
}

/// Whether the partition of a plain commit exists and reaches so far. The id of a topic that was created again is not
/// retryable, other than that of an append unit: a position in the old topic means nothing in the new one.
fn check_place(topics: &Topics, offset: &OffsetCommit) -> Result<(), Problem> {
    let topic = topics.of_unit(offset.on.topic).map_err(|problem| match problem.code {
        ErrorCode::StaleRouting => Problem { code: ErrorCode::TopicRecreated, ..problem },
        _ => problem,
    })?;
    check_offset(topic, offset)
}

fn check_offset(topic: &Topic, offset: &OffsetCommit) -> Result<(), Problem> {
    let Partition { log_start, high_watermark, .. } = *topic.partition(offset.on.partition)?;
    match offset.offset.filter(|offset| *offset > high_watermark) {
        None => Ok(()),
        Some(above) => {
            let detail = format_args!("offset {above} lies above the high watermark {high_watermark}");
            Err(Problem::new(ErrorCode::OffsetAboveHighWatermark, detail).with(|facts| {
                facts.topic = Some(topic.name.to_string());
                facts.partition = Some(offset.on.partition);
                facts.log_start_offset = Some(log_start);
                facts.high_watermark = Some(high_watermark);
            }))
        }
    }
}

fn check_from(topics: &Topics, offset: &OffsetCommit, now: Option<Offset>) -> Result<(), Problem> {
    let expected = match offset.from {
        CommittedNow::Any => return Ok(()),
        CommittedNow::Nothing => None,
        CommittedNow::Offset(expected) => Some(expected),
    };
    if expected == now {
        return Ok(());
    }
    let text =
        |offset: Option<Offset>| offset.map_or_else(|| NOTHING.to_owned(), |offset| offset.to_string());
    let (expected, actual) = (text(expected), text(now));
    let detail = format_args!("the committed offset of partition {} is {actual}, not {expected}", offset.on);
    Err(on_partition(topics, offset.on, Problem::new(ErrorCode::ConditionFailed, detail)).with(|facts| {
        facts.expected = Some(expected);
        facts.actual = Some(actual);
    }))
}

fn not_owner(topics: &Topics, group: &Group, on: TopicPartition, caller: &str) -> Problem {
    let owner = group.owners.get(&on).map_or(NOTHING, |owner| owner.as_str());
    let detail = format_args!("partition {on} is not the caller's to commit: its owner is {owner}");
    on_partition(topics, on, Problem::new(ErrorCode::NotOwner, detail)).with(|facts| {
        facts.expected = Some(caller.to_owned());
        facts.actual = Some(owner.to_owned());
    })
}

fn on_partition(topics: &Topics, on: TopicPartition, problem: Problem) -> Problem {
    problem.with(|facts| {
        facts.topic = topics.get(on.topic).map(|topic| topic.name.to_string());
        facts.topic_id = Some(on.topic);
        facts.partition = Some(on.partition);
    })
}
