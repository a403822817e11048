//! What the state says of key compaction: which partitions are worth it, and what a round may touch.

use std::ops::ControlFlow;

use carnax_core::id::TopicPartition;
use carnax_core::limits;
use carnax_core::metadata::{CompactionPlan, CompactionRound, PlanCompaction, SourceSlice};
use carnax_core::offset::Offset;
use carnax_core::problem::Problem;
use carnax_core::time::Timestamp;
use carnax_core::topic::TopicConfig;

use super::merge::by_turns;
use super::planned;
use crate::State;
use crate::compact::Compaction;
use crate::partition::{Partition, Slice};

/// A partition that is worth a round.
pub(super) struct Worth {
    on: TopicPartition,
    stamp: bool,
    /// Since when.
    pub(super) since: Timestamp,
    known: Compaction,
    tombstones_until: Offset,
    /// A round leaves alone what lies here or behind.
    until: Offset,
}

/// Says what to compact next at a time.
///
/// # Errors
/// `unavailable` before the bootstrap.
pub fn plan_compaction(
    state: &State,
    request: &PlanCompaction,
    now: Timestamp,
) -> Result<CompactionPlan, Problem> {
    let incarnation = state.cluster()?.incarnation;
    let worth = compactable_after(state, request.after, now).next();
    let round = worth.and_then(|worth| round_of(state, &worth));
    Ok(CompactionPlan { log_time: now, incarnation, round })
}

/// All partitions that are worth a round, in order.
pub(super) fn compactable(state: &State, now: Timestamp) -> impl Iterator<Item = Worth> {
    compactable_after(state, None, now)
}

fn compactable_after(
    state: &State,
    after: Option<TopicPartition>,
    now: Timestamp,
) -> impl Iterator<Item = Worth> {
    let compacted = by_turns(state, after).filter(|(_, _, config, _)| config.cleanup_compact);
    compacted.filter_map(move |(on, topic, config, partition)| {
        let known = state.compactions.get(on);
        let (since, until) = worth_it(state, config, partition, &known, now)?;
        let ripe = known.ripe(partition, config.delete_retention, now);
        let tombstones_until = ripe.map_or(Offset::ZERO, |(until, _)| until);
        Some(Worth { on, stamp: topic.stamps_append_time(), since, known, tombstones_until, until })
    })
}

/// Since when a partition is worth a round, and up to where that may go; none if it is not.
///
/// It is where `min.cleanable.dirty.ratio` of what may be touched is new, or where tombstones may go; and not so soon after the
/// last round, unless a good slice full has come.
fn worth_it(
    state: &State,
    config: &TopicConfig,
    partition: &Partition,
    known: &Compaction,
    now: Timestamp,
) -> Option<(Timestamp, Offset)> {
    let slices = &partition.slices;
    // Also where all below the mark was trimmed: the round sets the next one.
    let ripe = known
        .ripe(partition, config.delete_retention, now)
        .filter(|_| known.clean_until > partition.log_start);
    let all_new = slices.bytes_from(known.clean_until);
    if all_new == 0 && ripe.is_none() {
        return None;
    }
    let rested = known.finished.1.saturating_add(state.settings.typed.compact_interval);
    if rested > now && all_new < limits::MERGED_BYTES_ENOUGH {
        return None;
    }
    if !one_round_reaches(partition, known.clean_until) {
        return None;
    }
    let clean_bytes = slices.summary().bytes.saturating_sub(all_new);
    let enough =
        |new: u64| new > 0 && config.min_cleanable_ratio.is_reached(new, clean_bytes.saturating_add(new));
    let mut since = ripe.map(|(_, since)| since);
    let (mut new_bytes, mut until) = (0_u64, known.clean_until);
    if ripe.is_some() || enough(all_new) {
        let mut first = None;
        let mut seen = 0;
        slices.visit_from(known.clean_until, &mut |slice| {
            if seen >= limits::COMPACT_SLICES_MAX || is_tail(state, config, slice, now) {
                return ControlFlow::Break(());
            }
            first = first.or_else(|| Some(state.segments.get(slice.segment)?.append_time));
            new_bytes = new_bytes.saturating_add(u64::from(slice.length));
            until = slice.end();
            seen += 1;
            ControlFlow::Continue(())
        });
        since = since.or(first.filter(|_| enough(new_bytes)).map(|first| first.max(rested)));
    }
    Some((since?.min(now), until))
}

/// Whether one plan can hold all that is clean, and more.
fn one_round_reaches(partition: &Partition, clean_until: Offset) -> bool {
    let slices = &partition.slices;
    if slices.summary().slices <= limits::COMPACT_SLICES_MAX as u64 {
        return true;
    }
    let planned = slices.some_from(partition.log_start, limits::COMPACT_SLICES_MAX);
    planned.last().is_some_and(|last| last.end() > clean_until)
}

/// Whether a slice is too young: it is safe for `min.compaction.lag.ms` from its append, and from the time of its records.
fn is_tail(state: &State, config: &TopicConfig, slice: &Slice, now: Timestamp) -> bool {
    let lag = config.min_compaction_lag;
    if lag.is_zero() {
        return false;
    }
    let append_time = state.segments.get(slice.segment).map_or(now, |segment| segment.append_time);
    append_time.max(slice.max_timestamp).saturating_add(lag) > now
}

fn round_of(state: &State, worth: &Worth) -> Option<CompactionRound> {
    let Worth { on, stamp, known, tombstones_until, until, .. } = *worth;
    let partition = state.topics.get(on.topic)?.partition(on.partition).ok()?;
    let mut slices = Vec::new();
    partition.slices.visit_from(partition.log_start, &mut |slice| {
        if slice.base >= until || slices.len() >= limits::COMPACT_SLICES_MAX {
            return ControlFlow::Break(());
        }
        let source =
            planned(state, slice).map(|planned| SourceSlice { segment: slice.segment, slice: planned });
        slices.extend(source);
        ControlFlow::Continue(())
    });
    (!slices.is_empty()).then_some(CompactionRound {
        on,
        stamp,
        follows: known.finished.0,
        clean_until: known.clean_until,
        until,
        tombstones_until,
        slices,
    })
}
