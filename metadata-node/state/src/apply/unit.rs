//! One append unit: what is accepted as a whole or refused as a whole, whatever becomes of its neighbours.
//!
//! The order of the checks decides which answer a unit gets that is wrong in two ways, so it is part of the contract:
//!
//! 1. producer epoch: a fenced producer learns that before anything else
//! 2. duplicate: a repeat gets its first answer, though the topic may be gone by now
//! 3. topic, routing, shape, bytes
//! 4. gap, and whether there is room to remember the unit
//! 5. conditions
//! 6. group: member, ownership, committed offsets
//!
//! Nothing is changed before all have passed; only accepted units are recorded.

use std::collections::BTreeMap;

use carnax_core::error_code::ErrorCode;
use carnax_core::limits;
use carnax_core::metadata::{
    AppendedSlice, Condition, ConditionKind, GroupOffsets, UnitCommit, UnitOutcome, UnitSlice,
};
use carnax_core::offset::ByteRange;
use carnax_core::problem::Problem;

use super::{State, as_text, condition_failed};
use crate::entry::FeatureLevel;
use crate::partition::NewSlice;
use crate::remembered::{self, Remembered};
use crate::segment::{Moment, SegmentNumber};

/// A segment whose units are being decided.
pub(super) struct Deciding {
    number: SegmentNumber,
    size: u32,
    /// Slices that refer to it so far.
    pub(super) live: u32,
    /// Bytes of accepted units: start → one past the end; never overlapping.
    claimed: BTreeMap<u64, u64>,
}

/// What is to become of a unit that no check refuses.
enum Verdict {
    /// Its records get the next offsets.
    Accept,
    /// It was accepted before: the answer of that time.
    Repeat(UnitOutcome),
}

impl State {
    pub(super) fn decide_unit(
        &mut self,
        at: Moment,
        deciding: &mut Deciding,
        unit: &UnitCommit,
    ) -> UnitOutcome {
        match self.check_unit(at, deciding, unit) {
            Ok(Verdict::Accept) => self.accept_unit(at, deciding, unit),
            Ok(Verdict::Repeat(outcome)) => outcome,
            Err(problem) => UnitOutcome::Refused(problem),
        }
    }

    /// Everything that can refuse a unit, in the order of the module page; changes nothing.
    fn check_unit(&self, at: Moment, deciding: &Deciding, unit: &UnitCommit) -> Result<Verdict, Problem> {
        check_stamps(at, unit)?;
        if let Some(first) = self.recall(unit)? {
            return Ok(Verdict::Repeat(first));
        }
        self.check_places(deciding, unit)?;
        self.check_turn(at, unit)?;
        self.check_conditions(unit)?;
        if let Some(group) = &unit.group {
            self.check_group_offsets(group)?;
        }
        Ok(Verdict::Accept)
    }

    /// Gives the next offsets to a unit that was checked, moves its group offsets and remembers it.
    fn accept_unit(&mut self, at: Moment, deciding: &mut Deciding, unit: &UnitCommit) -> UnitOutcome {
        let slices = self.append_slices(at, deciding, &unit.slices);
        if let Some(group) = &unit.group {
            self.move_group_offsets(at, group);
        }
        self.remember(at, unit, &slices);
        UnitOutcome::Accepted { slices, append_time: at.time }
    }

    /// Checks 1 and 2: the answer that the unit got before, if it was accepted before.
    fn recall(&self, unit: &UnitCommit) -> Result<Option<UnitOutcome>, Problem> {
        match (&unit.producer, &unit.idempotency) {
            (Some(stamp), _) => self.producers.recall(stamp),
            (None, Some(stamp)) => self.keys.recall(stamp),
            (None, None) => Ok(None),
        }
    }

    /// Check 3: whether what the unit holds may go where it wants to.
    fn check_places(&self, deciding: &Deciding, unit: &UnitCommit) -> Result<(), Problem> {
        check_shape(unit)?;
        for routing in &unit.routing {
            let topic = self.topics.of_unit(routing.topic)?;
            let count = topic.partition_count();
            if count != routing.partition_count {
                let detail = format_args!("topic {} has {count} partitions now: route again", topic.name);
                return Err(Problem::new(ErrorCode::StaleRouting, detail).with(|facts| {
                    facts.topic = Some(topic.name.to_string());
                    facts.partition_count = Some(count);
                    facts.expected = Some(routing.partition_count.to_string());
                    facts.actual = Some(count.to_string());
                }));
            }
        }
        for slice in &unit.slices {
            let partition = self.topics.of_unit(slice.topic)?.partition(slice.partition)?;
            let end = partition.high_watermark.checked_add(u64::from(slice.records));
            if slice.records == 0 || end.is_none() {
                return Err(invalid("a slice has records, and its offsets fit 63 bits"));
            }
        }
        deciding.check_bytes(&unit.slices)
    }

    /// Check 4: whether it is the unit's turn, and whether it can be remembered.
    fn check_turn(&self, at: Moment, unit: &UnitCommit) -> Result<(), Problem> {
        let settings = &self.settings.typed;
        let freed = match (&unit.producer, &unit.idempotency) {
            (Some(stamp), _) => {
                self.producers.check_turn(stamp, settings, at.time)?;
                self.producers.freed_by(stamp)
            }
            (None, Some(_)) => {
                self.keys.check_room(settings, at.time)?;
                0
            }
            (None, None) => return Ok(()),
        };
        let kept = self.producers.slices().saturating_add(self.keys.slices());
        remembered::check_room(kept, freed, unit.slices.len() as u64)
    }

    /// Check 5: whether every condition holds before this unit. One on a partition that the unit does not write to is allowed.
    fn check_conditions(&self, unit: &UnitCommit) -> Result<(), Problem> {
        for Condition { on, kind } in &unit.conditions {
            let topic = self.topics.of_unit(on.topic)?;
            let partition = topic.partition(on.partition)?;
            let (holds, expected, actual) = match kind {
                ConditionKind::ExpectedNextOffset(expected) => {
                    let actual = partition.high_watermark;
                    (*expected == actual, expected.to_string(), actual.to_string())
                }
                ConditionKind::FencingToken(expected) => {
                    let actual = partition.fencing_token.as_ref();
                    (actual == Some(expected), expected.to_string(), as_text(actual))
                }
            };
            if !holds {
                return Err(condition_failed(&topic.name, on.partition, expected, actual));
            }
        }
        Ok(())
    }

    /// Check 6: whether the group offsets of a unit may move.
    fn check_group_offsets(&self, offsets: &GroupOffsets) -> Result<(), Problem> {
        self.groups.check_unit(&self.topics, offsets)
    }

    /// Moves the group offsets of a unit that was checked and accepted.
    fn move_group_offsets(&mut self, at: Moment, offsets: &GroupOffsets) {
        self.groups.move_with_unit(at, offsets);
    }

    /// Notes the answer to an accepted unit for its repeats.
    fn remember(&mut self, at: Moment, unit: &UnitCommit, slices: &[AppendedSlice]) {
        let reply = |body_hash| Remembered { body_hash, append_time: at.time, slices: slices.into() };
        match (&unit.producer, &unit.idempotency) {
            (Some(stamp), _) => self.producers.record(stamp, reply(stamp.body_hash), at.time),
            (None, Some(stamp)) => self.keys.record(stamp, reply(stamp.body_hash)),
            (None, None) => {}
        }
    }

    fn append_slices(
        &mut self,
        at: Moment,
        deciding: &mut Deciding,
        slices: &[UnitSlice],
    ) -> Vec<AppendedSlice> {
        let mut appended = Vec::with_capacity(slices.len());
        for UnitSlice { topic, partition, bytes, records, max_timestamp } in slices {
            let (topic, partition, records) = (*topic, *partition, *records);
            let found = self.topics.get_mut(topic).expect("the topic was checked");
            let max_timestamp = if found.stamps_append_time() { at.time } else { *max_timestamp };
            let found = found.partition_mut(partition).expect("the partition was checked");
            let narrow =
                |bytes: u64| u32::try_from(bytes).expect("the bytes were checked to lie in the object");
            let base_offset = found.high_watermark;
            let is_new = found.append(NewSlice {
                segment: deciding.number,
                start: narrow(bytes.start),
                length: narrow(bytes.length),
                records,
                max_timestamp,
            });
            if is_new {
                deciding.live = deciding.live.saturating_add(1);
                self.topics.slice_count = self.topics.slice_count.saturating_add(1);
            }
            deciding.claimed.insert(bytes.start, bytes.start.saturating_add(bytes.length));
            appended.push(AppendedSlice { topic, partition, base_offset, records });
        }
        appended
    }
}

impl Deciding {
    pub(super) fn new(number: SegmentNumber, size: u32) -> Self {
        Self { number, size, live: 0, claimed: BTreeMap::new() }
    }

    /// Whether a unit's bytes lie in the object, outside each other and outside those of accepted units.
    fn check_bytes(&self, slices: &[UnitSlice]) -> Result<(), Problem> {
        let mut own = Vec::with_capacity(slices.len());
        for UnitSlice { bytes, .. } in slices {
            let end = bytes.end().filter(|end| *end <= u64::from(self.size) && bytes.length > 0);
            let end = end.ok_or_else(|| bad_bytes(*bytes, "lie outside the object or are none"))?;
            let before = self.claimed.range(..end).next_back();
            if before.is_some_and(|(_, claimed_end)| *claimed_end > bytes.start) {
                return Err(bad_bytes(*bytes, "belong to another unit"));
            }
            own.push((bytes.start, end));
        }
        own.sort_unstable();
        if own.windows(2).any(|pair| pair[0].1 > pair[1].0) {
            return Err(invalid("slices of a unit share bytes"));
        }
        Ok(())
    }
}

/// What makes it impossible to say which unit this is.
fn check_stamps(at: Moment, unit: &UnitCommit) -> Result<(), Problem> {
    let deduplicated = unit.producer.is_some() || unit.idempotency.is_some();
    let guaranteed = deduplicated || !unit.conditions.is_empty() || unit.group.is_some();
    if guaranteed && at.level < FeatureLevel::GUARANTEES {
        // As the builds answered that knew no more: an entry means the same for ever.
        return Err(invalid(
            "producers, idempotency keys, conditions and group offsets are not supported at this feature level",
        ));
    }
    if unit.producer.is_some() && unit.idempotency.is_some() {
        return Err(invalid("a unit has a producer or an idempotency key, not both"));
    }
    let principal = unit.idempotency.as_ref().map_or(0, |stamp| stamp.principal.len());
    at_most("bytes in the name of a principal", principal, limits::PRINCIPAL_BYTES_MAX)
}

/// What a unit can be refused for without looking at the state.
fn check_shape(unit: &UnitCommit) -> Result<(), Problem> {
    at_most("partitions of a unit", unit.slices.len(), limits::UNIT_PARTITIONS_MAX)?;
    at_most("routings of a unit", unit.routing.len(), limits::UNIT_PARTITIONS_MAX)?;
    at_most("conditions of a unit", unit.conditions.len(), limits::UNIT_CONDITIONS_MAX)?;
    let group_offsets = unit.group.as_ref().map_or(0, |group| group.offsets.len());
    at_most("group offsets of a unit", group_offsets, limits::GROUP_COMMIT_OFFSETS_MAX)?;
    let place = |slice: &UnitSlice| (slice.topic, slice.partition);
    if unit.slices.is_empty() || !unit.slices.is_sorted_by(|a, b| place(a) < place(b)) {
        return Err(invalid("a unit has slices, in order of topic and partition, one a partition"));
    }
    Ok(())
}

pub(super) fn at_most(what: &str, count: usize, max: usize) -> Result<(), Problem> {
    if count <= max {
        return Ok(());
    }
    let problem =
        Problem::new(ErrorCode::TooLarge, format_args!("{count} {what}, at most {max} are allowed"));
    Err(problem.with(|facts| facts.limit = Some(max as u64)))
}

pub(super) fn invalid(detail: impl std::fmt::Display) -> Problem {
    Problem::new(ErrorCode::InvalidValue, detail)
}

fn bad_bytes(bytes: ByteRange, why: &str) -> Problem {
    invalid(format_args!("bytes {bytes} {why}"))
}
