//! One partition: its bounds and its slices.

mod slices;

use carnax_core::name::FencingToken;
use carnax_core::offset::Offset;
use carnax_core::time::Timestamp;

pub(crate) use slices::{Slice, Slices};

use crate::page::{Page, Pages};
use crate::segment::SegmentNumber;

/// Offsets below `log_start` are gone, those from `high_watermark` on are not given out yet; what lies between is in the
/// pages and slices, of which the first may begin below the log start.
#[derive(Debug, Clone)]
pub(crate) struct Partition {
    pub(crate) log_start: Offset,
    pub(crate) high_watermark: Offset,
    pub(crate) fencing_token: Option<FencingToken>,
    /// Old slices, which lie before the others.
    pub(crate) pages: Pages,
    pub(crate) slices: Slices,
}

/// Bytes of a segment that are to become the end of a partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewSlice {
    pub(crate) segment: SegmentNumber,
    pub(crate) start: u32,
    pub(crate) length: u32,
    pub(crate) records: u32,
    pub(crate) max_timestamp: Timestamp,
}

impl Default for Partition {
    fn default() -> Self {
        Self {
            log_start: Offset::ZERO,
            high_watermark: Offset::ZERO,
            fencing_token: None,
            pages: Pages::default(),
            slices: Slices::default(),
        }
    }
}

impl Partition {
    /// Gives the next offsets to a slice; says whether it became a slice of its own (false: the last one grew, since it
    /// ends in the same object where this one begins).
    ///
    /// The caller has checked that the offsets do not overflow.
    pub(crate) fn append(&mut self, new: NewSlice) -> bool {
        let base = self.high_watermark;
        self.high_watermark = Offset(base.0.saturating_add(u64::from(new.records)));
        if self.slices.last().is_some_and(|last| continues(last, base, &new)) {
            self.slices.extend_last(new.length, new.records, new.max_timestamp);
            return false;
        }
        let NewSlice { segment, start, length, records, max_timestamp } = new;
        self.slices.push(Slice { base, segment, max_timestamp, start, length, records });
        true
    }

    /// Moves the log start up to `before` (a lower one changes nothing) and drops the slices and pages that lie wholly below it.
    ///
    /// The caller has checked that `before` is not above the high watermark.
    pub(crate) fn trim(
        &mut self,
        before: Offset,
        dropped: &mut dyn FnMut(&Slice),
        dropped_pages: &mut dyn FnMut(&Page),
    ) {
        self.log_start = self.log_start.max(before);
        self.slices.drop_below(self.log_start, dropped);
        self.pages.drop_below(self.log_start, dropped_pages);
    }

    /// Bytes of all slices, those in pages included.
    pub(crate) fn bytes(&self) -> u64 {
        let paged = self.pages.all().iter().map(|page| page.bytes).fold(0, u64::saturating_add);
        paged.saturating_add(self.slices.summary().bytes)
    }
}

/// Whether the new bytes lie directly behind the last slice, in offsets and in the object, and one slice can hold both.
fn continues(last: &Slice, base: Offset, new: &NewSlice) -> bool {
    last.segment == new.segment
        && last.end() == base
        && last.start.checked_add(last.length) == Some(new.start)
        && last.length.checked_add(new.length).is_some()
        && last.records.checked_add(new.records).is_some()
}
