//! Reads the footer: what lies where in a segment object.

use bytes::{Buf, Bytes};

use crate::id::{PartitionIndex, TopicId, TopicPartition};
use crate::limits;
use crate::offset::{ByteRange, Offset};
use crate::time::Timestamp;

use super::layout::{
    self, BATCH_BYTES, COUNTS_BYTES, ENCODED_BY_FRONTEND, HEADER_BYTES, MAGIC_AND_VERSION, MAGIC_BYTES,
    SLICE_BYTES, TRAILER_BYTES,
};
use super::view::SliceView;

/// Everything that a segment object says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footer {
    slices: Vec<SliceEntry>,
    batches: Vec<BatchEntry>,
}

/// A slice, as the footer has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SliceEntry {
    /// Whose batches they are.
    pub on: TopicPartition,
    /// Where they lie in the object.
    pub bytes: ByteRange,
    /// CRC32C of those bytes.
    pub crc32c: u32,
    first_batch: usize,
    batch_count: usize,
}

/// A batch, as the footer has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchEntry {
    /// Where it begins in the object.
    pub position: u64,
    /// Its length in bytes, header included.
    pub length: u32,
    /// How many offsets it takes.
    pub offset_count: u32,
    /// The largest timestamp of its records.
    pub max_timestamp: Timestamp,
    /// Whether a frontend encoded it, so that a merge may re-pack it.
    pub encoded_by_frontend: bool,
    /// Offsets taken by the batches before it in its slice.
    pub(super) offsets_before: u64,
}

/// Bytes that are no segment object, or none that this reader understands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// The tail that was read does not hold the whole footer.
    #[error("footer of the segment needs the last {needed} bytes of the object")]
    TailTooShort {
        /// How many bytes at the end of the object hold it.
        needed: u64,
    },
    /// Not made by Carnax, or cut off.
    #[error("object is no segment: {problem}")]
    NotASegment {
        /// Why not.
        problem: &'static str,
    },
    /// A format of a later version.
    #[error("segment has format version {version}, only {known} is understood", known = layout::VERSION)]
    UnknownVersion {
        /// Its version.
        version: u16,
    },
    /// The bytes are not those that were written.
    #[error("{what} says checksum {stored:08x}, its bytes have {computed:08x}")]
    Checksum {
        /// Of what.
        what: &'static str,
        /// What was written.
        stored: u32,
        /// CRC32C of the bytes.
        computed: u32,
    },
    /// A footer that contradicts itself or the object.
    #[error("segment has a wrong footer: {problem}")]
    WrongFooter {
        /// Where.
        problem: &'static str,
    },
    /// The object has no such bytes of that partition, or they do not begin and end with a batch.
    #[error("segment has no batches of {on} that fill bytes {bytes}")]
    NoSuchRange {
        /// The partition.
        on: TopicPartition,
        /// The range.
        bytes: ByteRange,
    },
}

impl Footer {
    /// Reads the footer from the last bytes of an object of `object_size` bytes.
    ///
    /// How many bytes to read: guess (64 KiB hold some thousand batches); [`SegmentError::TailTooShort`] tells the
    /// number for a second try.
    ///
    /// # Errors
    /// Any [`SegmentError`] but `NoSuchRange`. Nothing is allocated before all sizes fit the bytes that are there.
    pub fn parse(tail: &[u8], object_size: u64) -> Result<Self, SegmentError> {
        if object_size < (HEADER_BYTES + TRAILER_BYTES) as u64 {
            return too_short();
        }
        let Some((before, trailer)) = tail.split_last_chunk::<TRAILER_BYTES>() else {
            return Err(SegmentError::TailTooShort { needed: TRAILER_BYTES as u64 });
        };
        check_magic(&trailer[8..])?;
        let mut fields = trailer.as_slice();
        let length = fields.get_u32();
        let stored = fields.get_u32();
        let end = object_size - TRAILER_BYTES as u64;
        let start = end.checked_sub(length.into()).filter(|start| *start >= HEADER_BYTES as u64);
        let start = start.ok_or(SegmentError::WrongFooter { problem: "it is longer than the object" })?;
        let at = usize::try_from(length).ok().and_then(|length| before.len().checked_sub(length));
        let at = at.ok_or(SegmentError::TailTooShort { needed: object_size - start })?;
        let footer = &before[at..];
        let computed = crc32c::crc32c_append(crc32c::crc32c(footer), &trailer[..4]);
        if computed != stored {
            return Err(SegmentError::Checksum { what: "footer of the segment", stored, computed });
        }
        read_footer(footer, start).map_err(|problem| SegmentError::WrongFooter { problem })
    }

    /// The slices, sorted by (topic id, partition).
    pub fn slices(&self) -> &[SliceEntry] {
        &self.slices
    }

    /// All batches, in the order of their bytes.
    pub fn batches(&self) -> &[BatchEntry] {
        &self.batches
    }

    /// The slice of a partition, if the object has one.
    pub fn slice(&self, on: TopicPartition) -> Option<&SliceEntry> {
        let at = self.slices.binary_search_by_key(&on, |slice| slice.on).ok()?;
        Some(&self.slices[at])
    }

    /// The batches of one slice.
    pub fn batches_of(&self, slice: &SliceEntry) -> &[BatchEntry] {
        &self.batches[slice.first_batch..slice.first_batch + slice.batch_count]
    }

    /// The batches in a range of a partition's slice whose first record has `base_offset`: what a manifest refers to.
    ///
    /// # Errors
    /// `NoSuchRange`, unless the range is not empty, lies in the slice, and begins and ends with a batch.
    pub fn view(
        &self,
        on: TopicPartition,
        bytes: ByteRange,
        base_offset: Offset,
    ) -> Result<SliceView<'_>, SegmentError> {
        let find = || {
            let batches = self.batches_of(self.slice(on)?);
            let end = bytes.end()?;
            let first = batches.binary_search_by_key(&bytes.start, |batch| batch.position).ok()?;
            let behind = batches.partition_point(|batch| batch.end() <= end);
            let taken = batches.get(first..behind).filter(|taken| !taken.is_empty())?;
            (taken.last()?.end() == end).then_some(taken)
        };
        let batches = find().ok_or(SegmentError::NoSuchRange { on, bytes })?;
        Ok(SliceView::new(batches, base_offset))
    }

    /// Checks a whole object: its first bytes, its footer, and the checksum of every slice.
    ///
    /// # Errors
    /// Any [`SegmentError`] but `TailTooShort` and `NoSuchRange`.
    pub fn verify_object(object: &Bytes) -> Result<Self, SegmentError> {
        if object.len() < HEADER_BYTES + TRAILER_BYTES {
            return too_short();
        }
        check_magic(&object[..HEADER_BYTES])?;
        let footer = Self::parse(object, object.len() as u64)?;
        let mut rest = &object[HEADER_BYTES..];
        for slice in &footer.slices {
            let length = usize::try_from(slice.bytes.length).unwrap_or(usize::MAX);
            let taken = rest.split_at_checked(length);
            let (bytes, behind) =
                taken.ok_or(SegmentError::WrongFooter { problem: "a slice ends behind the object" })?;
            let computed = crc32c::crc32c(bytes);
            if computed != slice.crc32c {
                return Err(SegmentError::Checksum {
                    what: "slice of the segment",
                    stored: slice.crc32c,
                    computed,
                });
            }
            rest = behind;
        }
        Ok(footer)
    }
}

impl BatchEntry {
    /// One past its last byte in the object.
    pub fn end(&self) -> u64 {
        self.position + u64::from(self.length)
    }
}

fn too_short<T>() -> Result<T, SegmentError> {
    Err(SegmentError::NotASegment { problem: "it is too short" })
}

fn check_magic(bytes: &[u8]) -> Result<(), SegmentError> {
    if bytes[..MAGIC_BYTES] != MAGIC_AND_VERSION[..MAGIC_BYTES] {
        return Err(SegmentError::NotASegment { problem: "its magic is missing" });
    }
    match (&bytes[MAGIC_BYTES..]).get_u16() {
        layout::VERSION => Ok(()),
        version => Err(SegmentError::UnknownVersion { version }),
    }
}

/// Reads a footer whose checksum is right and that begins at `footer_start` in the object.
fn read_footer(mut footer: &[u8], footer_start: u64) -> Result<Footer, &'static str> {
    if footer.len() < COUNTS_BYTES {
        return Err("it ends in its counts");
    }
    let slice_count = usize::try_from(footer.get_u32()).unwrap_or(usize::MAX);
    let batch_count = usize::try_from(footer.get_u32()).unwrap_or(usize::MAX);
    if slice_count > limits::SEGMENT_SLICES_MAX {
        return Err("it has too many slices");
    }
    if batch_count > limits::SEGMENT_BATCHES_MAX {
        return Err("it has too many batches");
    }
    if footer.len() != slice_count * SLICE_BYTES + batch_count * BATCH_BYTES {
        return Err("its length does not fit its counts");
    }
    let (slice_bytes, batch_bytes) = footer.split_at(slice_count * SLICE_BYTES);
    let mut reader =
        EntryReader { slice_bytes, batch_bytes, position: HEADER_BYTES as u64, batches_taken: 0 };
    let mut slices: Vec<SliceEntry> = Vec::with_capacity(slice_count);
    let mut batches = Vec::with_capacity(batch_count);
    for _ in 0..slice_count {
        let slice = reader.next_slice(&mut batches)?;
        if slices.last().is_some_and(|last| last.on >= slice.on) {
            return Err("its slices are not sorted");
        }
        slices.push(slice);
    }
    if !reader.batch_bytes.is_empty() {
        return Err("it has batches of no slice");
    }
    if reader.position != footer_start {
        return Err("its slices do not fill the object");
    }
    Ok(Footer { slices, batches })
}

struct EntryReader<'a> {
    slice_bytes: &'a [u8],
    batch_bytes: &'a [u8],
    /// Where the next batch begins in the object.
    position: u64,
    batches_taken: usize,
}

impl EntryReader<'_> {
    /// Takes a slice and its batches.
    fn next_slice(&mut self, batches: &mut Vec<BatchEntry>) -> Result<SliceEntry, &'static str> {
        let fields = &mut self.slice_bytes;
        let topic = TopicId::from_bytes(fields.get_u128().to_be_bytes());
        let partition = PartitionIndex(fields.get_u32());
        let bytes = ByteRange { start: fields.get_u64(), length: fields.get_u64() };
        let batch_count = usize::try_from(fields.get_u32()).unwrap_or(usize::MAX);
        let crc32c = fields.get_u32();
        if bytes.start != self.position {
            return Err("a slice does not begin where the one before it ends");
        }
        if batch_count == 0 || batch_count > self.batch_bytes.len() / BATCH_BYTES {
            return Err("a slice has no batches, or more than there are");
        }
        let mut offsets_before = 0;
        for _ in 0..batch_count {
            let batch = self.next_batch(offsets_before)?;
            offsets_before += u64::from(batch.offset_count);
            batches.push(batch);
        }
        if bytes.end() != Some(self.position) {
            return Err("a slice is not as long as its batches");
        }
        let first_batch = self.batches_taken;
        self.batches_taken += batch_count;
        Ok(SliceEntry { on: TopicPartition { topic, partition }, bytes, crc32c, first_batch, batch_count })
    }

    fn next_batch(&mut self, offsets_before: u64) -> Result<BatchEntry, &'static str> {
        let fields = &mut self.batch_bytes;
        let length = fields.get_u32();
        let offset_count = fields.get_u32();
        let max_timestamp = Timestamp::from_millis(fields.get_i64());
        let flags = fields.get_u8();
        if length == 0 || offset_count == 0 {
            return Err("a batch is empty");
        }
        if flags & !ENCODED_BY_FRONTEND != 0 {
            return Err("a batch has unknown flags");
        }
        let position = self.position;
        self.position += u64::from(length);
        let encoded_by_frontend = flags & ENCODED_BY_FRONTEND != 0;
        Ok(BatchEntry { position, length, offset_count, max_timestamp, encoded_by_frontend, offsets_before })
    }
}
