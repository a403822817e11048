//! Slices that leave the state for a manifest page.

use carnax_core::id::SegmentId;
use carnax_core::limits;
use carnax_core::manifest_page::ManifestPage;
use carnax_core::metadata::{PageReplaced, ReplaceByPage};
use carnax_core::problem::Problem;
use carnax_core::time::Timestamp;

use super::State;
use super::commit::stale_incarnation;
use super::unit::{at_most, invalid};
use crate::page::Page;
use crate::partition::Slice;
use crate::segment::Moment;

impl State {
    pub(super) fn replace_by_page(
        &mut self,
        at: Moment,
        request: &ReplaceByPage,
    ) -> Result<PageReplaced, Problem> {
        let cluster = self.cluster()?;
        if request.incarnation != cluster.incarnation {
            return Err(stale_incarnation(request.incarnation, cluster.incarnation));
        }
        // The ids of pages and of segments come from one space, so that one rule holds for both.
        let id = SegmentId::from_bytes(request.page.to_bytes());
        self.check_id(at, id)?;
        at_most("slices of a page", request.sources.len(), limits::PAGE_SLICES_MAX)?;
        let size = u32::try_from(request.size).ok();
        let size = size
            .filter(|size| *size > 0 && request.size <= ManifestPage::object_bytes(limits::PAGE_SLICES_MAX));
        let size = size.ok_or_else(|| invalid(format_args!("a page of {} bytes", request.size)))?;
        self.segments.remember(id, at.time, self.settings.typed.commit_deadline);
        let replaced = self.page_of(request, size);
        match replaced {
            Some(page) => self.put_page(request, page),
            None => {
                let page = page(request, size, Timestamp::EPOCH, (id, id));
                self.dead_pages.bury(&page, request.on, at, false);
            }
        }
        Ok(PageReplaced { replaced: replaced.is_some() })
    }

    /// The page that is to stand where the sources stand, if these are the partition's oldest slices in the state, each the only one
    /// in its object.
    fn page_of(&self, request: &ReplaceByPage, size: u32) -> Option<Page> {
        let ReplaceByPage { on, base_offset, end_offset, sources, .. } = request;
        let partition = self.topics.get(on.topic)?.partition(on.partition).ok()?;
        let found = partition.slices.some_from(carnax_core::offset::Offset::ZERO, sources.len());
        let (first, last) = (found.first()?, found.last()?);
        let are_there = found.iter().map(|slice| slice.segment).eq(sources.iter().copied());
        if !are_there || first.base != *base_offset || last.end() != *end_offset {
            return None;
        }
        let (mut latest, mut ids) = (Timestamp::MIN, Vec::with_capacity(found.len()));
        for slice in &found {
            let only = self.segments.rewritten().get(&slice.segment).copied().flatten();
            let segment = self.segments.get(slice.segment).filter(|_| only == Some(*on))?;
            latest = latest.max(slice.latest(segment.append_time));
            ids.push(segment.id);
        }
        let range = (*ids.iter().min()?, *ids.iter().max()?);
        let bytes = found.iter().map(|slice: &Slice| u64::from(slice.length)).sum();
        Some(Page { bytes, ..page(request, size, latest, range) })
    }

    fn put_page(&mut self, request: &ReplaceByPage, page: Page) {
        let partition = self.topics.get_mut(request.on.topic);
        let partition = partition.and_then(|topic| topic.partition_mut(request.on.partition));
        let partition = partition.expect("the partition was found before");
        let mut gone = 0;
        partition.slices.drop_below(page.end, &mut |slice| {
            gone += 1;
            self.segments.unlist(slice.segment);
        });
        partition.pages.push(page);
        self.topics.slice_count = self.topics.slice_count.saturating_sub(gone);
        self.topics.page_count = self.topics.page_count.saturating_add(1);
    }
}

fn page(
    request: &ReplaceByPage,
    size: u32,
    max_timestamp: Timestamp,
    segments: (SegmentId, SegmentId),
) -> Page {
    Page {
        id: request.page,
        incarnation: request.incarnation,
        base: request.base_offset,
        end: request.end_offset,
        bytes: 0,
        slices: u32::try_from(request.sources.len()).unwrap_or(u32::MAX),
        size,
        max_timestamp,
        segments,
    }
}
