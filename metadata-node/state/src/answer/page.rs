//! What the state says of paging.

use carnax_core::metadata::{PagePart, PagePlan, PlanPage, SourceSlice};
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

/// How many partitions have slices to page out.
pub(super) fn pageable(state: &State) -> impl Iterator<Item = Vec<Slice>> {
    by_turns(state, None).filter_map(|(on, _, config, partition)| worth_paging(state, on, config, partition))
}

/// The oldest slices of a partition, if there are twice as many in a row as go into a page and none will be merged any more: each
/// is the work of a merge of this partition alone. What a key compaction may still change stays.
fn worth_paging(
    state: &State,
    on: carnax_core::id::TopicPartition,
    config: &TopicConfig,
    partition: &Partition,
) -> Option<Vec<Slice>> {
    let wanted = usize::try_from(state.settings.typed.page_slices).unwrap_or(usize::MAX);
    if config.cleanup_compact || partition.slices.summary().slices < wanted.saturating_mul(2) as u64 {
        return None;
    }
    let oldest = partition.slices.some_from(carnax_core::offset::Offset::ZERO, wanted.saturating_mul(2));
    let settled = |slice: &Slice| state.segments.rewritten().get(&slice.segment) == Some(&Some(on));
    if !oldest.iter().all(settled) {
        return None;
    }
    let policy = Policy::of(config, &state.settings.typed);
    let count = policy.share_of_retention(&oldest[..wanted]);
    (count >= (wanted / FULL_SHARE).max(2)).then(|| oldest[..count].to_vec())
}
