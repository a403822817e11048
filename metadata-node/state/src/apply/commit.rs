//! Segment commits: the step of an append at which records get their offsets.
//!
//! A commit is checked from the outside in. What refuses the *command* (session, number, incarnation) consumes no commit
//! number; what refuses a *segment* (its time) leaves its units undecided; a *unit* is decided alone, in order.

use std::collections::BTreeMap;
use std::sync::Arc;

use carnax_core::error_code::ErrorCode;
use carnax_core::id::{CommitNumber, Incarnation};
use carnax_core::limits;
use carnax_core::metadata::{
    AppendedSlice, CommitSegments, SegmentCommit, SegmentOutcome, SegmentsCommitted, UnitCommit, UnitOutcome,
    UnitSlice,
};
use carnax_core::offset::ByteRange;
use carnax_core::problem::Problem;

use super::State;
use crate::partition::NewSlice;
use crate::segment::{Moment, Segment, SegmentNumber};
use crate::session::Turn;

/// A segment whose units are being decided.
struct Deciding {
    number: SegmentNumber,
    size: u32,
    /// Slices that refer to it so far.
    live: u32,
    /// Bytes of accepted units: start → one past the end; never overlapping.
    claimed: BTreeMap<u64, u64>,
}

impl State {
    pub(super) fn commit_segments(
        &mut self,
        at: Moment,
        request: &CommitSegments,
    ) -> Result<Arc<SegmentsCommitted>, Problem> {
        let CommitSegments { incarnation, session, number, segments } = request;
        let cluster = self.cluster()?;
        if *incarnation != cluster.incarnation {
            return Err(stale_incarnation(*incarnation, cluster.incarnation));
        }
        if let Turn::Repeat(reply) = self.sessions.turn(*session, *number, at.time)? {
            self.sessions.record(*session, *number, &reply, at.time);
            return Ok(reply);
        }
        if !cluster.appends_open {
            let wanted = cluster.voters_wanted;
            let detail = format_args!("appends begin when {wanted} metadata nodes vote");
            return Err(Problem::new(ErrorCode::Unavailable, detail));
        }
        check_segment_count(segments, *number)?;
        let outcomes = self.commit_in_order(at, *incarnation, segments);
        let reply = Arc::new(SegmentsCommitted { log_time: at.time, applied: at.index, outcomes });
        self.sessions.record(*session, *number, &reply, at.time);
        Ok(reply)
    }

    /// A segment that is too old is uploaded again by its frontend, and so are those behind it: what was closed later must
    /// not become part of the log first.
    fn commit_in_order(
        &mut self,
        at: Moment,
        incarnation: Incarnation,
        segments: &[SegmentCommit],
    ) -> Vec<SegmentOutcome> {
        let mut outcomes = Vec::with_capacity(segments.len());
        let mut stale = None;
        for segment in segments {
            let outcome = match stale {
                None => self.commit_segment(at, incarnation, segment),
                Some(before) => {
                    let detail =
                        format_args!("segment {before} before {} in its commit is stale", segment.segment);
                    SegmentOutcome::Refused(Problem::new(ErrorCode::StaleSegment, detail))
                }
            };
            if matches!(&outcome, SegmentOutcome::Refused(problem) if problem.code == ErrorCode::StaleSegment)
            {
                stale = stale.or(Some(segment.segment));
            }
            outcomes.push(outcome);
        }
        outcomes
    }

    fn commit_segment(
        &mut self,
        at: Moment,
        incarnation: Incarnation,
        commit: &SegmentCommit,
    ) -> SegmentOutcome {
        let size = match self.check_segment(at, commit) {
            Ok(size) => size,
            Err(problem) => return SegmentOutcome::Refused(problem),
        };
        let number = self.segments.next_number();
        let mut deciding = Deciding { number, size, live: 0, claimed: BTreeMap::new() };
        let mut outcomes = Vec::with_capacity(commit.units.len());
        for unit in &commit.units {
            outcomes.push(match self.check_unit(&deciding, unit) {
                Ok(()) => self.accept(at, &mut deciding, unit),
                Err(problem) => UnitOutcome::Refused(problem),
            });
        }
        let Deciding { live, .. } = deciding;
        self.segments.remember(commit.segment, at.time);
        self.segments
            .insert(Segment { id: commit.segment, incarnation, append_time: at.time, size, live }, at);
        SegmentOutcome::Decided(outcomes)
    }

    /// Whether a segment's units may be looked at; its size, if so.
    fn check_segment(&self, at: Moment, commit: &SegmentCommit) -> Result<u32, Problem> {
        let SegmentCommit { segment, size, units } = commit;
        let time = segment.time();
        let oldest = at.time.saturating_sub(limits::COMMIT_DEADLINE);
        let newest = at.time.saturating_add(limits::CLOCK_AHEAD_MAX);
        if time < oldest || time > newest {
            let detail = format_args!("the time of segment {segment} is too far from log time {}", at.time);
            return Err(Problem::new(ErrorCode::StaleSegment, detail).with(|facts| {
                facts.expected = Some(format!("{oldest} to {newest}"));
                facts.actual = Some(time.to_string());
            }));
        }
        if self.segments.recent().contains(segment) {
            // Its units may be in the log under another session: to say that nothing happened would invite a second copy.
            let detail = format_args!("segment {segment} was committed before");
            return Err(Problem::new(ErrorCode::OutcomeUnknown, detail));
        }
        let slices = units.iter().fold(0_usize, |sum, unit| sum.saturating_add(unit.slices.len()));
        at_most("units in a segment", units.len(), limits::SEGMENT_UNITS_MAX)?;
        at_most("slices of units in a segment", slices, limits::SEGMENT_BATCHES_MAX)?;
        match u32::try_from(*size) {
            Ok(small) if *size <= limits::SEGMENT_BYTES_MAX => Ok(small),
            _ => {
                let problem = Problem::new(ErrorCode::TooLarge, format_args!("a segment of {size} bytes"));
                Err(problem.with(|facts| facts.limit = Some(limits::SEGMENT_BYTES_MAX)))
            }
        }
    }

    /// Everything that can refuse a unit; changes nothing.
    fn check_unit(&self, deciding: &Deciding, unit: &UnitCommit) -> Result<(), Problem> {
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

    /// Gives the next offsets to a unit that was checked.
    fn accept(&mut self, at: Moment, deciding: &mut Deciding, unit: &UnitCommit) -> UnitOutcome {
        let mut slices = Vec::with_capacity(unit.slices.len());
        for UnitSlice { topic, partition, bytes, records, max_timestamp } in &unit.slices {
            let (topic, partition, records) = (*topic, *partition, *records);
            let found = self.topics.get_mut(topic).expect("the topic was checked");
            let max_timestamp = if found.stamps_append_time { at.time } else { *max_timestamp };
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
            slices.push(AppendedSlice { topic, partition, base_offset, records });
        }
        UnitOutcome::Accepted { slices, append_time: at.time }
    }
}

impl Deciding {
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

/// What a unit can be refused for without looking at the state.
fn check_shape(unit: &UnitCommit) -> Result<(), Problem> {
    let deduplicated = unit.producer.is_some() || unit.idempotency.is_some();
    if deduplicated || !unit.conditions.is_empty() || unit.group.is_some() {
        return Err(invalid(
            "producers, idempotency keys, conditions and group offsets are not supported at this feature level",
        ));
    }
    at_most("partitions of a unit", unit.slices.len(), limits::UNIT_PARTITIONS_MAX)?;
    at_most("routings of a unit", unit.routing.len(), limits::UNIT_PARTITIONS_MAX)?;
    let place = |slice: &UnitSlice| (slice.topic, slice.partition);
    if unit.slices.is_empty() || !unit.slices.is_sorted_by(|a, b| place(a) < place(b)) {
        return Err(invalid("a unit has slices, in order of topic and partition, one a partition"));
    }
    Ok(())
}

fn check_segment_count(segments: &[SegmentCommit], number: CommitNumber) -> Result<(), Problem> {
    if segments.is_empty() {
        return Err(invalid(format_args!("commit {number} has no segment")));
    }
    at_most("segments in a commit", segments.len(), limits::COMMIT_SEGMENTS_MAX)
}

fn stale_incarnation(believed: Incarnation, actual: Incarnation) -> Problem {
    let detail = format_args!("the cluster lives in incarnation {actual}, not {believed}");
    Problem::new(ErrorCode::StaleIncarnation, detail).with(|facts| {
        facts.expected = Some(believed.to_string());
        facts.actual = Some(actual.to_string());
    })
}

fn at_most(what: &str, count: usize, max: usize) -> Result<(), Problem> {
    if count <= max {
        return Ok(());
    }
    let problem =
        Problem::new(ErrorCode::TooLarge, format_args!("{count} {what}, at most {max} are allowed"));
    Err(problem.with(|facts| facts.limit = Some(max as u64)))
}

fn invalid(detail: impl std::fmt::Display) -> Problem {
    Problem::new(ErrorCode::InvalidValue, detail)
}

fn bad_bytes(bytes: ByteRange, why: &str) -> Problem {
    invalid(format_args!("bytes {bytes} {why}"))
}
