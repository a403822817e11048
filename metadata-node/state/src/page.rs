//! Manifest pages: the old slices of a partition, of which the state knows no more than where they are written down.
//!
//! A page is live while one of its offsets is. Then it dies as a whole, and with it every object that its slices lie in: which these
//! are stands in the page itself, so whoever deletes reads it first.

use std::sync::Arc;

use carnax_core::id::{Incarnation, LogIndex, PageId, SegmentId, TopicPartition};
use carnax_core::metadata::PlannedPage;
use carnax_core::object_key::PageKey;
use carnax_core::offset::Offset;
use carnax_core::time::Timestamp;
use imbl::OrdMap;

use crate::segment::Moment;

/// A page, as the state keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) id: PageId,
    pub(crate) incarnation: Incarnation,
    /// The first offset of its first slice.
    pub(crate) base: Offset,
    /// One past the last offset of its last slice.
    pub(crate) end: Offset,
    /// Bytes of its slices.
    pub(crate) bytes: u64,
    pub(crate) slices: u32,
    /// Bytes of its object.
    pub(crate) size: u32,
    /// Of its records; where they have none, of their append.
    pub(crate) max_timestamp: Timestamp,
    /// The smallest and the largest id of its segments.
    pub(crate) segments: (SegmentId, SegmentId),
}

/// The pages of a partition, in order, without a gap. Most partitions have none, and pay a word for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pages(Option<Arc<Vec<Page>>>);

/// A page that nothing refers to any more: to be collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeadPage {
    pub(crate) page: Page,
    pub(crate) on: TopicPartition,
    /// Log time of its death; the log index is in the key.
    pub(crate) died: Timestamp,
    /// Whether its slices were its own, or those of others since it came too late.
    pub(crate) owns_slices: bool,
}

/// In order of death.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeadPages(OrdMap<(LogIndex, PageId), DeadPage>);

impl Page {
    pub(crate) fn key(&self, on: TopicPartition) -> PageKey {
        PageKey { incarnation: self.incarnation, on, page: self.id }
    }

    pub(crate) fn planned(&self, on: TopicPartition) -> PlannedPage {
        PlannedPage { key: self.key(on), size: u64::from(self.size) }
    }

    /// Whether a segment with an id of this range may be in it.
    pub(crate) fn may_hold(&self, first: SegmentId, last: SegmentId) -> bool {
        self.segments.0 <= last && first <= self.segments.1
    }
}

impl Pages {
    pub(crate) fn all(&self) -> &[Page] {
        self.0.as_ref().map_or(&[], |pages| pages.as_slice())
    }

    pub(crate) fn last(&self) -> Option<&Page> {
        self.all().last()
    }

    pub(crate) fn push(&mut self, page: Page) {
        Arc::make_mut(self.0.get_or_insert_default()).push(page);
    }

    /// The page that reaches beyond an offset.
    pub(crate) fn reaching(&self, offset: Offset) -> Option<&Page> {
        let place = self.all().partition_point(|page| page.end <= offset);
        self.all().get(place)
    }

    /// The first page with a record of this timestamp or a later one.
    pub(crate) fn first_reaching(&self, timestamp: Timestamp) -> Option<&Page> {
        self.all().iter().find(|page| page.max_timestamp >= timestamp)
    }

    /// Drops every page that lies wholly below an offset, telling of each.
    pub(crate) fn drop_below(&mut self, offset: Offset, dropped: &mut dyn FnMut(&Page)) {
        let count = self.all().partition_point(|page| page.end <= offset);
        if count == 0 {
            return;
        }
        self.all()[..count].iter().for_each(dropped);
        let left = self.all()[count..].to_vec();
        self.0 = (!left.is_empty()).then(|| Arc::new(left));
    }
}

impl DeadPages {
    pub(crate) fn bury(&mut self, page: &Page, on: TopicPartition, at: Moment, owns_slices: bool) {
        self.restore(at.index, DeadPage { page: *page, on, died: at.time, owns_slices });
    }

    pub(crate) fn restore(&mut self, died_at: LogIndex, dead: DeadPage) -> bool {
        self.0.insert((died_at, dead.page.id), dead).is_none()
    }

    /// Forgets a page whose objects are deleted; says whether it was there.
    pub(crate) fn forget(&mut self, died_at: LogIndex, page: PageId) -> bool {
        self.0.remove(&(died_at, page)).is_some()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&(LogIndex, PageId), &DeadPage)> {
        self.0.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}
