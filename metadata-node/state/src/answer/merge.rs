//! What the state says of merging and retention.

use std::ops::{Bound, ControlFlow};

use carnax_core::id::{PartitionIndex, TopicId, TopicPartition};
use carnax_core::limits;
use carnax_core::metadata::{MergePart, MergePlan, PlanMerge, SourceSlice};
use carnax_core::problem::Problem;
use carnax_core::time::Timestamp;
use carnax_core::topic::TopicConfig;

use super::{page, planned};
use crate::State;
use crate::merge::Policy;
use crate::partition::{Partition, Slice};
use crate::retention;
use crate::topic::Topic;

/// A run of this part of the largest object is not merged again.
const ENOUGH_SHARE: u64 = limits::MERGED_BYTES_TARGET / limits::MERGED_BYTES_ENOUGH;

/// Neighbouring slices that are worth merging.
pub(super) struct Run {
    on: TopicPartition,
    stamp: bool,
    pub(super) slices: Vec<Slice>,
    /// Whether what becomes of them will not be merged again, as far as one can say: only slices in objects of their own leave the
    /// state for manifest pages.
    is_last: bool,
}

/// Says what to merge next at a time: runs of small slices of neighbouring partitions, until a large object is full. A run that is
/// merged for the last time has an object of its own.
///
/// # Errors
/// `unavailable` before the bootstrap.
pub fn plan_merge(state: &State, request: &PlanMerge, now: Timestamp) -> Result<MergePlan, Problem> {
    let cluster = state.cluster()?;
    let mut parts: Vec<MergePart> = Vec::new();
    let (mut bytes, mut slices) = (0_u64, 0);
    for run in mergeable_from(state, request.after) {
        let more: u64 = run.slices.iter().map(|slice| u64::from(slice.length)).sum();
        let full = bytes + more > state.settings.typed.merge_bytes
            || slices + run.slices.len() > limits::MERGE_SLICES_MAX;
        if (full || run.is_last) && !parts.is_empty() || parts.len() >= limits::MERGE_PARTS_MAX {
            break;
        }
        bytes += more;
        slices += run.slices.len();
        let is_last = run.is_last;
        let source =
            |slice: &Slice| Some(SourceSlice { segment: slice.segment, slice: planned(state, slice)? });
        let slices = run.slices.iter().filter_map(source).collect();
        parts.push(MergePart { on: run.on, stamp: run.stamp, slices });
        if is_last {
            break;
        }
    }
    parts.sort_by_key(|part| part.on);
    Ok(MergePlan { log_time: now, incarnation: cluster.incarnation, parts })
}

/// Partitions whose log start retention would move at a time, at most so many.
pub fn due_retention(state: &State, now: Timestamp, limit: usize) -> Vec<TopicPartition> {
    let due = configured(state, (Bound::Unbounded, Bound::Unbounded)).filter(|(_, _, config, partition)| {
        retention::log_start(partition, &state.segments, config, now).is_some()
    });
    due.map(|(on, ..)| on).take(limit).collect()
}

/// The runs of all partitions, one a partition, in order.
pub(super) fn mergeable(state: &State) -> impl Iterator<Item = Run> {
    mergeable_from(state, None)
}

fn mergeable_from(state: &State, after: Option<TopicPartition>) -> impl Iterator<Item = Run> {
    let settings = &state.settings.typed;
    by_turns(state, after).filter_map(move |(on, topic, config, partition)| {
        let stamp = topic.stamps_append_time();
        if let Some(slices) = worth_merging(partition, Policy::of(config, settings)) {
            let bytes: u64 = slices.iter().map(|slice| u64::from(slice.length)).sum();
            return Some(Run { on, stamp, slices, is_last: bytes >= settings.merge_bytes / ENOUGH_SHARE });
        }
        let slices = in_the_way(state, on, config, partition)?;
        Some(Run { on, stamp, slices, is_last: true })
    })
}

/// The oldest slices that keep a partition from being paged out, as many as go into one object: they lie in objects of several
/// partitions, and no merge takes them, since their neighbours are large.
fn in_the_way(
    state: &State,
    on: TopicPartition,
    config: &TopicConfig,
    partition: &Partition,
) -> Option<Vec<Slice>> {
    let oldest = page::oldest_if_many(state, config, partition)?;
    let mut bytes = 0;
    let unsettled = oldest.into_iter().skip_while(|slice| page::is_settled(state, on, slice));
    let run = unsettled.take_while(|slice| {
        bytes += u64::from(slice.length);
        !page::is_settled(state, on, slice) && bytes <= limits::MERGED_BYTES_TARGET
    });
    let run: Vec<Slice> = run.collect();
    (!run.is_empty()).then_some(run)
}

fn worth_merging(partition: &Partition, policy: Policy) -> Option<Vec<Slice>> {
    if partition.slices.summary().small < 2 {
        return None;
    }
    let first = partition.slices.first_small()?;
    let mut window = Vec::new();
    partition.slices.visit_from(first.base, &mut |slice| {
        window.push(*slice);
        if window.len() < WINDOW_SLICES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    let run = policy.find_run(&window)?;
    Some(window[run].to_vec())
}

/// All partitions, those behind one of them first, so that each has its turn.
pub(super) fn by_turns(
    state: &State,
    after: Option<TopicPartition>,
) -> impl Iterator<Item = (TopicPartition, &Topic, &TopicConfig, &Partition)> {
    let behind = configured(state, (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded));
    let before = after.map(|after| configured(state, (Bound::Unbounded, Bound::Included(after))));
    behind.chain(before.into_iter().flatten())
}

/// All partitions in a range with the configuration of their topic, in order.
fn configured(
    state: &State,
    range: (Bound<TopicPartition>, Bound<TopicPartition>),
) -> impl Iterator<Item = (TopicPartition, &Topic, &TopicConfig, &Partition)> {
    let topics = (range.0.map(|from| from.topic), range.1.map(|to| to.topic));
    // The topic of a bound may have partitions on both sides of it.
    let whole = |bound: Bound<TopicId>| match bound {
        Bound::Excluded(topic) => Bound::Included(topic),
        bound => bound,
    };
    let topics = state.topics.by_id.range((whole(topics.0), whole(topics.1)));
    topics.flat_map(move |(id, topic)| {
        let numbered = (0..).zip(&topic.partitions);
        let named = numbered.map(move |(index, partition)| {
            (
                TopicPartition { topic: *id, partition: PartitionIndex(index) },
                &**topic,
                &topic.typed,
                &**partition,
            )
        });
        named.filter(move |(on, ..)| std::ops::RangeBounds::contains(&range, on))
    })
}

/// How many slices, from the first small one on, are looked at.
const WINDOW_SLICES: usize = 2 * limits::MERGE_PART_SLICES_MAX;
