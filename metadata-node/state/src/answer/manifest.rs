//! What the state says of all objects that it knows.

use std::collections::BTreeMap;
use std::ops::{Bound, RangeInclusive};

use carnax_core::error_code::ErrorCode;
use carnax_core::id::{PartitionIndex, TopicPartition};
use carnax_core::limits;
use carnax_core::metadata::{
    DeadList, DeadObject, DeadPage, ListDead, ListManifests, ListPages, ListedPage, Manifest, ManifestList,
    ManifestSlice, PageList,
};
use carnax_core::offset::Offset;
use carnax_core::problem::Problem;

use crate::State;
use crate::partition::Slice;
use crate::segment::SegmentNumber;

/// A page of the manifests of live segments. With slices it takes time for every slice in the state.
///
/// # Errors
/// `unavailable` before the bootstrap; `invalid_value` for a page of no rows or too many.
pub fn list_manifests(state: &State, request: &ListManifests) -> Result<ManifestList, Problem> {
    let incarnation = state.cluster()?.incarnation;
    let rows_max = u64::from(page_rows(request.rows)?);
    let (mut manifests, mut rows, mut next) = (BTreeMap::new(), 0_u64, None);
    for (number, segment) in state.segments.iter_from(request.from) {
        let more = 1 + if request.slices { u64::from(segment.live) } else { 0 };
        if rows + more > rows_max && !manifests.is_empty() {
            next = Some(number);
            break;
        }
        rows += more;
        let manifest = Manifest {
            number,
            key: state.segments.key(number, segment.incarnation, segment.id),
            size: u64::from(segment.size),
            rewritten: state.segments.rewritten().contains_key(&number),
            slices: Vec::new(),
        };
        manifests.insert(number, manifest);
    }
    let page = manifests.first_key_value().zip(manifests.last_key_value());
    if let Some(((first, _), (last, _))) = page.filter(|_| request.slices) {
        slices_of(state, *first..=*last, |segment, slice| {
            if let Some(manifest) = manifests.get_mut(&segment) {
                manifest.slices.push(slice);
            }
        });
    }
    let (log_time, end) = (state.log_time, state.segments.next_number());
    Ok(ManifestList { log_time, incarnation, manifests: manifests.into_values().collect(), next, end })
}

/// A page of the objects that are dead and not forgotten.
///
/// # Errors
/// `invalid_value` for a limit that is none.
pub fn list_dead(state: &State, request: &ListDead) -> Result<DeadList, Problem> {
    let limit = usize::try_from(page_rows(request.limit)?).unwrap_or(usize::MAX);
    let from = request.after.map_or(Bound::Unbounded, Bound::Excluded);
    let mut dead = state.segments.dead().range((from, Bound::Unbounded));
    let page = dead.by_ref().take(limit).map(|((died_at, number), dead)| DeadObject {
        died_at: *died_at,
        number: *number,
        key: state.segments.key(*number, dead.incarnation, dead.id),
        size: u64::from(dead.size),
    });
    let objects = page.collect();
    let dead_pages = state.dead_pages.iter().filter(|_| request.after.is_none());
    let pages = dead_pages.map(|((died_at, _), dead)| DeadPage {
        died_at: *died_at,
        key: dead.page.key(dead.on),
        size: u64::from(dead.page.size),
        owns_slices: dead.owns_slices,
    });
    Ok(DeadList { objects, more: dead.next().is_some(), pages: pages.collect() })
}

/// Live manifest pages behind a place.
///
/// # Errors
/// `invalid_value` for a limit that is none.
pub fn list_pages(state: &State, request: &ListPages) -> Result<PageList, Problem> {
    let limit = usize::try_from(page_rows(request.limit)?).unwrap_or(usize::MAX);
    let first = request.after.map_or(Bound::Unbounded, |(on, _)| Bound::Included(on.topic));
    let partitions = state.topics.by_id.range((first, Bound::Unbounded)).flat_map(|(topic, described)| {
        let numbered = (0..).zip(&described.partitions);
        numbered.map(|(index, partition)| {
            (TopicPartition { topic: *topic, partition: PartitionIndex(index) }, partition)
        })
    });
    let mut pages = partitions.flat_map(|(on, partition)| {
        let behind = move |base: Offset| request.after.is_none_or(|after| after < (on, base));
        let pages = partition.pages.all().iter().filter(move |page| behind(page.base));
        pages.map(move |page| ListedPage {
            page: page.planned(on),
            base_offset: page.base,
            end_offset: page.end,
            slices: page.slices,
        })
    });
    let listed = pages.by_ref().take(limit).collect();
    Ok(PageList { pages: listed, more: pages.next().is_some() })
}

/// The slices that refer to segments in a range of numbers, in order of partition and offset.
fn slices_of(
    state: &State,
    numbers: RangeInclusive<SegmentNumber>,
    mut visit: impl FnMut(SegmentNumber, ManifestSlice),
) {
    for (topic, described) in &state.topics.by_id {
        for (index, partition) in (0..).zip(&described.partitions) {
            let on = TopicPartition { topic: *topic, partition: PartitionIndex(index) };
            partition.slices.visit(&mut |slice: &Slice| {
                if numbers.contains(&slice.segment) {
                    let manifest = ManifestSlice {
                        on,
                        bytes: slice.bytes(),
                        base_offset: slice.base,
                        end_offset: slice.end(),
                        max_timestamp: slice.max_timestamp,
                    };
                    visit(slice.segment, manifest);
                }
            });
        }
    }
}

fn page_rows(rows: u32) -> Result<u32, Problem> {
    let max = limits::MANIFEST_ROWS_MAX;
    if (1..=max).contains(&rows) {
        return Ok(rows);
    }
    Err(Problem::new(ErrorCode::InvalidValue, format_args!("a page has 1 to {max} rows, not {rows}")))
}
