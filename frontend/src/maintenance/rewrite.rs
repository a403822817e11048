//! The batches of neighbouring slices as those of one: with their final offsets and timestamps, without the records that are to go,
//! and small ones packed into larger ones where a frontend made them. What stays whole of a producer's own batches is not touched.

mod packer;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use carnax_core::id::TopicPartition;
use carnax_core::metadata::{PlannedSlice, SourceSlice};
use carnax_core::offset::Offset;
use carnax_core::record::{Batch, Record, set_base_offset, stamp_append_time};
use carnax_core::segment::PartitionBatches;
use carnax_core::time::Timestamp;

use self::packer::Packer;
use super::sources::Sources;

/// Batches that a frontend made and that are smaller are packed together.
const SMALL_BATCH_BYTES: usize = 32 * 1024;

/// What is to be rewritten: neighbouring slices of one partition.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) on: TopicPartition,
    /// Whether records get the time of their append.
    pub(super) stamp: bool,
    /// In order, without a gap.
    pub(super) slices: &'a [SourceSlice],
}

/// Which records stay: all, or those of which this says so. It is asked of each record once, in order.
pub(super) enum Keep<'a> {
    All,
    Where(&'a mut dyn FnMut(Offset, &Record) -> bool),
}

/// What has become of a part.
pub(super) struct Rewritten {
    /// The batches, in order: they take exactly the offsets of the part.
    pub(super) unit: Vec<PartitionBatches>,
    /// Records that did not stay.
    pub(super) dropped: u64,
    /// The largest timestamp of those that did, −1 if there are none.
    pub(super) max_timestamp: Timestamp,
}

/// Rewrites a part into one unit of a new segment.
///
/// # Errors
/// What is wrong with the first source that is not what it should be.
pub(super) fn rewrite<'a>(part: Part<'a>, sources: &Sources, keep: Keep<'a>) -> Result<Rewritten, String> {
    let mut rewriting = Rewriting::new(part, keep);
    for source in part.slices {
        let read = sources.slice(part.on, &source.slice);
        let added = read.and_then(|(bytes, flags)| rewriting.add(&source.slice, bytes, &flags));
        added.map_err(|reason| of_slice(&source.slice, &reason))?;
    }
    Ok(rewriting.finish())
}

/// Calls `see` for each record of a slice, with its offset, until it says no.
///
/// # Errors
/// The slice is not what it should be.
pub(super) fn for_each_record(
    slice: &PlannedSlice,
    mut bytes: Bytes,
    mut see: impl FnMut(Offset, &Record) -> bool,
) -> Result<(), String> {
    let mut offset = slice.base_offset;
    while let Some(batch) = Batch::parse_next(&mut bytes).map_err(|error| error.to_string())? {
        batch.verify_checksum().map_err(|error| error.to_string())?;
        for record in batch.records().map_err(|error| error.to_string())? {
            let record = record.map_err(|error| error.to_string())?;
            if !see(above(offset, record.offset_delta), &record) {
                return Ok(());
            }
        }
        offset = above(offset, batch.offset_count());
    }
    ends_at(slice, offset)
}

/// Names the slice that something is wrong with.
pub(super) fn of_slice(slice: &PlannedSlice, reason: &str) -> String {
    format!("offsets {} to {} in {}: {reason}", slice.base_offset, slice.end_offset, slice.segment)
}

struct Rewriting<'a> {
    part: Part<'a>,
    keep: Keep<'a>,
    packer: Packer,
    end: Offset,
    dropped: u64,
}

impl<'a> Rewriting<'a> {
    fn new(part: Part<'a>, keep: Keep<'a>) -> Self {
        let base = part.slices.first().map_or(Offset::ZERO, |first| first.slice.base_offset);
        Self { part, keep, packer: Packer::new(base), end: base, dropped: 0 }
    }

    fn add(&mut self, slice: &PlannedSlice, mut bytes: Bytes, flags: &[bool]) -> Result<(), String> {
        let stamp = (self.part.stamp && !slice.rewritten).then_some(slice.append_time);
        let mut offset = slice.base_offset;
        let mut flags = flags.iter();
        while let Some(batch) = Batch::parse_next(&mut bytes).map_err(|error| error.to_string())? {
            batch.verify_checksum().map_err(|error| error.to_string())?;
            let by_frontend = *flags.next().ok_or("it has more batches than its footer")?;
            let end = above(offset, batch.offset_count());
            self.add_batch(batch, offset, by_frontend, stamp)?;
            offset = end;
        }
        self.end = offset;
        ends_at(slice, offset)
    }

    fn add_batch(
        &mut self,
        batch: Batch,
        base: Offset,
        by_frontend: bool,
        stamp: Option<Timestamp>,
    ) -> Result<(), String> {
        let small = by_frontend && stamp.is_none() && batch.bytes().len() < SMALL_BATCH_BYTES;
        let records = match &mut self.keep {
            Keep::All if small => Some(read(&batch)?),
            Keep::All => None,
            Keep::Where(keep) => {
                let mut records = read(&batch)?;
                let before = records.len();
                records.retain(|record| keep(above(base, record.offset_delta), record));
                self.dropped += (before - records.len()) as u64;
                (small || records.len() < before).then_some(records)
            }
        };
        let Some(records) = records else {
            let mut whole = batch.into_bytes().to_vec();
            set_base_offset(&mut whole, base);
            if let Some(append_time) = stamp {
                stamp_append_time(&mut whole, append_time);
            }
            self.packer.put_whole(whole, base, by_frontend);
            return Ok(());
        };
        let compression = batch.compression().map_err(|error| error.to_string())?;
        for record in &records {
            let timestamp = stamp.unwrap_or(record.timestamp);
            self.packer.pack(record, timestamp, above(base, record.offset_delta), compression)?;
        }
        Ok(())
    }

    fn finish(self) -> Rewritten {
        let (on, dropped) = (self.part.on, self.dropped);
        let batches = self.packer.finish(self.end);
        let times = batches.iter().map(|(batch, _)| batch.max_timestamp());
        let max_timestamp = times.max().unwrap_or(Timestamp::from_millis(-1));
        let unit = batches.into_iter().map(|(batch, encoded_by_frontend)| PartitionBatches {
            on,
            batches: vec![batch],
            encoded_by_frontend,
        });
        Rewritten { unit: unit.collect(), dropped, max_timestamp }
    }
}

fn read(batch: &Batch) -> Result<Vec<Record>, String> {
    let records = batch.records().map_err(|error| error.to_string())?;
    records.map(|record| record.map_err(|error| error.to_string())).collect()
}

fn ends_at(slice: &PlannedSlice, offset: Offset) -> Result<(), String> {
    if offset == slice.end_offset { Ok(()) } else { Err(format!("its batches end at offset {offset}")) }
}

fn above(base: Offset, offsets: u32) -> Offset {
    Offset(base.0.saturating_add(u64::from(offsets)))
}
