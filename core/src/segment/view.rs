//! Finds batches in the part of a slice that a manifest refers to, without reading the slice.

use crate::offset::{ByteRange, Offset};
use crate::time::Timestamp;

use super::footer::BatchEntry;

/// Neighbouring batches of one partition, with their offsets. Not empty.
#[derive(Debug, Clone, Copy)]
pub struct SliceView<'a> {
    batches: &'a [BatchEntry],
    base_offset: Offset,
}

/// A batch with its place in the object and in the partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocatedBatch {
    /// Where it lies in the object.
    pub bytes: ByteRange,
    /// The offset of its first record.
    pub base_offset: Offset,
    /// How many offsets it takes.
    pub offset_count: u32,
    /// The largest timestamp of its records.
    pub max_timestamp: Timestamp,
    /// Whether a frontend encoded it.
    pub encoded_by_frontend: bool,
}

impl<'a> SliceView<'a> {
    pub(super) fn new(batches: &'a [BatchEntry], base_offset: Offset) -> Self {
        Self { batches, base_offset }
    }

    /// The batches in order.
    pub fn batches(&self) -> impl ExactSizeIterator<Item = LocatedBatch> + DoubleEndedIterator + use<'a> {
        let view = *self;
        self.batches.iter().map(move |batch| view.locate(batch))
    }

    /// One past the offset of the last record.
    pub fn end_offset(&self) -> Offset {
        let offsets =
            self.batches.last().map_or(0, |last| self.offsets_to(last) + u64::from(last.offset_count));
        Offset(self.base_offset.0.saturating_add(offsets))
    }

    /// The batch that holds the record with this offset; none if it lies before the first or behind the last.
    pub fn at_offset(&self, offset: Offset) -> Option<LocatedBatch> {
        let wanted = offset.0.checked_sub(self.base_offset.0)?;
        let at = self
            .batches
            .partition_point(|batch| self.offsets_to(batch) + u64::from(batch.offset_count) <= wanted);
        self.batches.get(at).map(|batch| self.locate(batch))
    }

    /// The first batch that may hold a record with this timestamp or a later one: whose max timestamp is not earlier.
    pub fn at_timestamp(&self, timestamp: Timestamp) -> Option<LocatedBatch> {
        self.batches().find(|batch| batch.max_timestamp >= timestamp)
    }

    fn locate(&self, batch: &BatchEntry) -> LocatedBatch {
        LocatedBatch {
            bytes: ByteRange { start: batch.position, length: batch.length.into() },
            base_offset: Offset(self.base_offset.0.saturating_add(self.offsets_to(batch))),
            offset_count: batch.offset_count,
            max_timestamp: batch.max_timestamp,
            encoded_by_frontend: batch.encoded_by_frontend,
        }
    }

    /// Offsets between the first record of the view and the first of a batch in it.
    fn offsets_to(&self, batch: &BatchEntry) -> u64 {
        let first = self.batches.first().map_or(0, |first| first.offsets_before);
        batch.offsets_before - first
    }
}

impl LocatedBatch {
    /// One past the offset of its last record.
    pub fn end_offset(&self) -> Offset {
        Offset(self.base_offset.0.saturating_add(self.offset_count.into()))
    }
}
