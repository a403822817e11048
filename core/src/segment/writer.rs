//! Puts append units together into one object.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::id::TopicPartition;
use crate::limits;
use crate::metadata::UnitSlice;
use crate::offset::ByteRange;
use crate::record::Batch;
use crate::time::Timestamp;

use super::layout::{self, ENCODED_BY_FRONTEND, HEADER_BYTES, MAGIC_AND_VERSION, TRAILER_BYTES};

/// Batches of one unit for one partition.
#[derive(Debug, Clone)]
pub struct PartitionBatches {
    /// Where they go.
    pub on: TopicPartition,
    /// Verified, in the order in which they get offsets.
    pub batches: Vec<Batch>,
    /// Whether a frontend encoded them (from JSON), so that a merge may re-pack them.
    pub encoded_by_frontend: bool,
}

/// A unit that does not fit any more; the writer is as it was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("segment has no room for {what}, the limit is {limit}")]
pub struct SegmentFull {
    /// What there would be too many of.
    pub what: &'static str,
    /// How many there may be.
    pub limit: u64,
}

/// Collects units, one after the other, and seals them into one segment object.
#[derive(Debug, Default)]
pub struct SegmentWriter {
    slices: BTreeMap<TopicPartition, PendingSlice>,
    units: usize,
    batches: usize,
    slice_bytes: u64,
}

/// A finished object, ready to be uploaded.
#[derive(Debug, Clone)]
pub struct SealedSegment {
    /// The bytes, to be written one after the other. The last chunk is footer and trailer, which
    /// [`Footer::parse`](super::Footer::parse) takes as a tail.
    pub chunks: Vec<Bytes>,
    /// Bytes of the object: the sum of the chunks.
    pub size: u64,
    /// CRC32C of the object.
    pub crc32c: u32,
    /// For each unit in the order of pushing: where its bytes lie, sorted by (topic, partition).
    pub units: Vec<Vec<UnitSlice>>,
}

#[derive(Debug, Default)]
struct PendingSlice {
    batches: Vec<PendingBatch>,
    parts: Vec<UnitPart>,
    length: u64,
    crc32c: u32,
}

#[derive(Debug)]
struct PendingBatch {
    bytes: Bytes,
    offset_count: u32,
    max_timestamp: Timestamp,
    encoded_by_frontend: bool,
}

/// What one unit has in one slice.
#[derive(Debug)]
struct UnitPart {
    unit: usize,
    length: u64,
    records: u32,
    max_timestamp: Timestamp,
}

impl SegmentWriter {
    /// An empty segment.
    pub fn new() -> Self {
        Self::default()
    }

    /// Units pushed so far.
    pub fn unit_count(&self) -> usize {
        self.units
    }

    /// How many bytes the object has if it is sealed now.
    pub fn size(&self) -> u64 {
        object_bytes(self.slice_bytes, self.slices.len(), self.batches)
    }

    /// Adds a unit behind those that are there. Partitions may come in any order; entries without batches are left out.
    ///
    /// # Errors
    /// The segment would pass one of the limits `SEGMENT_*`; nothing of the unit was added.
    pub fn push_unit(&mut self, unit: Vec<PartitionBatches>) -> Result<(), SegmentFull> {
        self.check_room(&unit)?;
        let number = self.units;
        self.units += 1;
        for PartitionBatches { on, batches, encoded_by_frontend } in unit {
            for batch in batches {
                self.batches += 1;
                self.slice_bytes += batch.bytes().len() as u64;
                self.slices.entry(on).or_default().push(number, batch, encoded_by_frontend);
            }
        }
        Ok(())
    }

    /// Makes the object.
    pub fn seal(self) -> SealedSegment {
        let size = self.size();
        let mut chunks = Vec::with_capacity(self.batches + 2);
        chunks.push(Bytes::from_static(&MAGIC_AND_VERSION));
        let mut crc32c = crc32c::crc32c(&MAGIC_AND_VERSION);
        let mut units: Vec<Vec<UnitSlice>> = (0..self.units).map(|_| Vec::new()).collect();
        let mut tail =
            Vec::with_capacity(layout::footer_bytes(self.slices.len(), self.batches) + TRAILER_BYTES);
        tail.extend_from_slice(&count(self.slices.len()).to_be_bytes());
        tail.extend_from_slice(&count(self.batches).to_be_bytes());
        let mut position = HEADER_BYTES as u64;
        for (on, slice) in &self.slices {
            slice.write_entry(*on, position, &mut tail);
            slice.place_units(*on, position, &mut units);
            crc32c = crc32c::crc32c_combine(crc32c, slice.crc32c, bytes_in_memory(slice.length));
            position += slice.length;
        }
        for batch in self.slices.into_values().flat_map(|slice| slice.batches) {
            batch.write_entry(&mut tail);
            chunks.push(batch.bytes);
        }
        let footer_length = count(tail.len());
        tail.extend_from_slice(&footer_length.to_be_bytes());
        let footer_crc32c = crc32c::crc32c(&tail);
        tail.extend_from_slice(&footer_crc32c.to_be_bytes());
        tail.extend_from_slice(&MAGIC_AND_VERSION);
        crc32c = crc32c::crc32c_append(crc32c, &tail);
        chunks.push(tail.into());
        SealedSegment { chunks, size, crc32c, units }
    }

    fn check_room(&self, unit: &[PartitionBatches]) -> Result<(), SegmentFull> {
        let mut slice_bytes = self.slice_bytes;
        let mut batches = self.batches;
        let mut slices = self.slices.len();
        let mut records: BTreeMap<TopicPartition, u32> = BTreeMap::new();
        for part in unit.iter().filter(|part| !part.batches.is_empty()) {
            batches += part.batches.len();
            if !records.contains_key(&part.on) && !self.slices.contains_key(&part.on) {
                slices += 1;
            }
            let sum = records.entry(part.on).or_default();
            for batch in &part.batches {
                slice_bytes += batch.bytes().len() as u64;
                let full = SegmentFull { what: "records of a unit in a partition", limit: u32::MAX.into() };
                *sum = sum.checked_add(batch.offset_count()).ok_or(full)?;
            }
        }
        let bytes = object_bytes(slice_bytes, slices, batches);
        for (what, wanted, limit) in [
            ("bytes", bytes, limits::SEGMENT_BYTES_MAX),
            ("units", self.units as u64 + 1, limits::SEGMENT_UNITS_MAX as u64),
            ("slices", slices as u64, limits::SEGMENT_SLICES_MAX as u64),
            ("batches", batches as u64, limits::SEGMENT_BATCHES_MAX as u64),
        ] {
            if wanted > limit {
                return Err(SegmentFull { what, limit });
            }
        }
        Ok(())
    }
}

impl PendingSlice {
    fn push(&mut self, unit: usize, batch: Batch, encoded_by_frontend: bool) {
        let (offset_count, max_timestamp) = (batch.offset_count(), batch.max_timestamp());
        let bytes = batch.into_bytes();
        let length = bytes.len() as u64;
        self.length += length;
        self.crc32c = crc32c::crc32c_append(self.crc32c, &bytes);
        match self.parts.last_mut().filter(|part| part.unit == unit) {
            Some(part) => {
                part.length += length;
                part.records =
                    part.records.checked_add(offset_count).expect("checked before the unit was taken");
                part.max_timestamp = part.max_timestamp.max(max_timestamp);
            }
            None => self.parts.push(UnitPart { unit, length, records: offset_count, max_timestamp }),
        }
        self.batches.push(PendingBatch { bytes, offset_count, max_timestamp, encoded_by_frontend });
    }

    fn write_entry(&self, on: TopicPartition, position: u64, tail: &mut Vec<u8>) {
        tail.extend_from_slice(&on.topic.to_bytes());
        tail.extend_from_slice(&on.partition.0.to_be_bytes());
        tail.extend_from_slice(&position.to_be_bytes());
        tail.extend_from_slice(&self.length.to_be_bytes());
        tail.extend_from_slice(&count(self.batches.len()).to_be_bytes());
        tail.extend_from_slice(&self.crc32c.to_be_bytes());
    }

    fn place_units(&self, on: TopicPartition, position: u64, units: &mut [Vec<UnitSlice>]) {
        let mut start = position;
        for part in &self.parts {
            units[part.unit].push(UnitSlice {
                topic: on.topic,
                partition: on.partition,
                bytes: ByteRange { start, length: part.length },
                records: part.records,
                max_timestamp: part.max_timestamp,
            });
            start += part.length;
        }
    }
}

impl PendingBatch {
    fn write_entry(&self, tail: &mut Vec<u8>) {
        tail.extend_from_slice(&count(self.bytes.len()).to_be_bytes());
        tail.extend_from_slice(&self.offset_count.to_be_bytes());
        tail.extend_from_slice(&self.max_timestamp.millis().to_be_bytes());
        tail.push(if self.encoded_by_frontend { ENCODED_BY_FRONTEND } else { 0 });
    }
}

fn object_bytes(slice_bytes: u64, slices: usize, batches: usize) -> u64 {
    let around = HEADER_BYTES + layout::footer_bytes(slices, batches) + TRAILER_BYTES;
    slice_bytes + around as u64
}

fn count(number: usize) -> u32 {
    u32::try_from(number).expect("segments are bounded by their limits")
}

fn bytes_in_memory(length: u64) -> usize {
    usize::try_from(length).expect("the bytes are in memory")
}
