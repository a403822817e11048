//! What the state says of paging.

use carnax_core::id::TopicPartition;
use carnax_core::metadata::{PagePart, PagePlan, PlanPage, SourceSlice};
use carnax_core::offset::Offset;
use carnax_core::problem::Problem;
use carnax_core::time::Timestamp;
use carnax_core::topic::TopicConfig;

use super::merge::by_turns;
use super::planned;
use crate::State;
use crate::merge::Policy;
use crate::partition::{Partition, Slice};

/// A page has at least this part of the slices that it may have, where retention keeps it small.
const FULL_SHARE: usize = 8;

/// Says which slices to page out next.
///
/// # Errors
/// `unavailable` before the bootstrap.
pub fn plan_page(state: &State, request: &PlanPage, now: Timestamp) -> Result<PagePlan, Problem> {
    let cluster = state.cluster()?;
    let part = by_turns(state, request.after).find_map(|(on, _, config, partition)| {
        let slices = worth_paging(state, on, config, partition)?;
        let source =
            |slice: &Slice| Some(SourceSlice { segment: slice.segment, slice: planned(state, slice)? });
        Some(PagePart { on, slices: slices.iter().filter_map(source).collect() })
    });
    Ok(PagePlan { log_time: now, incarnation: cluster.incarnation, part })
}

/// The oldest slices of a partition, if there are twice as many as go into a page.
pub(super) fn oldest_if_many(
    state: &State,
    config: &TopicConfig,
    partition: &Partition,
) -> Option<Vec<Slice>> {
    let twice = usize::try_from(state.settings.typed.page_slices).unwrap_or(usize::MAX).saturating_mul(2);
    let many = !config.cleanup_compact && partition.slices.summary().slices >= twice as u64;
    many.then(|| partition.slices.some_from(Offset::ZERO, twice))
}

/// Whether it is the work of a merge of its partition alone.
pub(super) fn is_settled(state: &State, on: TopicPartition, slice: &Slice) -> bool {
    state.segments.rewritten().get(&slice.segment) == Some(&Some(on))
}

/// How many partitions have slices to page out.
pub(super) fn pageable(state: &State) -> impl Iterator<Item = Vec<Slice>> {
    by_turns(state, None).filter_map(|(on, _, config, partition)| worth_paging(state, on, config, partition))
}

/// The oldest slices of a partition, if there are twice as many in a row as go into a page and none will be merged any more: each
/// is the work of a merge of this partition alone. What a key compaction may still change stays.
fn worth_paging(
    state: &State,
    on: TopicPartition,
    config: &TopicConfig,
    partition: &Partition,
) -> Option<Vec<Slice>> {
    let oldest = oldest_if_many(state, config, partition)?;
    if !oldest.iter().all(|slice| is_settled(state, on, slice)) {
        return None;
    }
    let wanted = oldest.len() / 2;
    let policy = Policy::of(config, &state.settings.typed);
    let count = policy.share_of_retention(&oldest[..wanted]);
    (count >= (wanted / FULL_SHARE).max(2)).then(|| oldest[..count].to_vec())
}
