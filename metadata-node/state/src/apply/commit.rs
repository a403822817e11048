//! Segment commits: the step of an append at which records get their offsets.
//!
//! A commit is checked from the outside in. What refuses the *command* (session, number, incarnation) consumes no commit
//! number; what refuses a *segment* (its time) leaves its units undecided; a *unit* is decided alone, in order ([`unit`](super::unit)).

use std::sync::Arc;

use carnax_core::error_code::ErrorCode;
use carnax_core::id::{CommitNumber, Incarnation, SegmentId};
use carnax_core::limits;
use carnax_core::metadata::{CommitSegments, SegmentCommit, SegmentOutcome, SegmentsCommitted};
use carnax_core::problem::Problem;

use super::State;
use super::unit::{Deciding, at_most, invalid};
use crate::segment::{Moment, Segment};
use crate::session::Turn;

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
        let mut deciding = Deciding::new(number, size);
        let mut outcomes = Vec::with_capacity(commit.units.len());
        for unit in &commit.units {
            outcomes.push(self.decide_unit(at, &mut deciding, unit));
        }
        let Deciding { live, .. } = deciding;
        self.segments.remember(commit.segment, at.time, self.settings.typed.commit_deadline);
        self.segments
            .insert(Segment { id: commit.segment, incarnation, append_time: at.time, size, live }, at);
        SegmentOutcome::Decided(outcomes)
    }

    /// Whether a segment's units may be looked at; its size, if so.
    fn check_segment(&self, at: Moment, commit: &SegmentCommit) -> Result<u32, Problem> {
        let SegmentCommit { segment, size, units } = commit;
        self.check_id(at, *segment)?;
        let slices = units.iter().fold(0_usize, |sum, unit| sum.saturating_add(unit.slices.len()));
        at_most("units in a segment", units.len(), limits::SEGMENT_UNITS_MAX)?;
        at_most("slices of units in a segment", slices, limits::SEGMENT_BATCHES_MAX)?;
        check_size(*size)
    }

    /// Whether an object may become a segment now.
    pub(super) fn check_id(&self, at: Moment, segment: SegmentId) -> Result<(), Problem> {
        let time = segment.time();
        let oldest = self.segments.open_from(at.time, self.settings.typed.commit_deadline);
        let newest = at.time.saturating_add(limits::CLOCK_AHEAD_MAX);
        if time < oldest || time > newest {
            let detail = format_args!("the time of segment {segment} is too far from log time {}", at.time);
            return Err(Problem::new(ErrorCode::StaleSegment, detail).with(|facts| {
                facts.expected = Some(format!("{oldest} to {newest}"));
                facts.actual = Some(time.to_string());
            }));
        }
        if self.segments.recent().contains(&segment) {
            // Its units may be in the log under another session: to say that nothing happened would invite a second copy.
            let detail = format_args!("segment {segment} was committed before");
            return Err(Problem::new(ErrorCode::OutcomeUnknown, detail));
        }
        Ok(())
    }
}

pub(super) fn check_size(size: u64) -> Result<u32, Problem> {
    match u32::try_from(size) {
        Ok(small) if size <= limits::SEGMENT_BYTES_MAX => Ok(small),
        _ => {
            let problem = Problem::new(ErrorCode::TooLarge, format_args!("a segment of {size} bytes"));
            Err(problem.with(|facts| facts.limit = Some(limits::SEGMENT_BYTES_MAX)))
        }
    }
}

fn check_segment_count(segments: &[SegmentCommit], number: CommitNumber) -> Result<(), Problem> {
    if segments.is_empty() {
        return Err(invalid(format_args!("commit {number} has no segment")));
    }
    at_most("segments in a commit", segments.len(), limits::COMMIT_SEGMENTS_MAX)
}

pub(super) fn stale_incarnation(believed: Incarnation, actual: Incarnation) -> Problem {
    let detail = format_args!("the cluster lives in incarnation {actual}, not {believed}");
    Problem::new(ErrorCode::StaleIncarnation, detail).with(|facts| {
        facts.expected = Some(believed.to_string());
        facts.actual = Some(actual.to_string());
    })
}
