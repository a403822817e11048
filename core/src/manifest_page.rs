//! Manifest pages: what the metadata core knows of old slices of one partition, as an object, so that it need not keep it in memory.
//!
//! A page never changes. All numbers are big-endian.
//!
//! | at | bytes | field |
//! |----|-------|-------|
//! | 0 | 8 | magic `CARNAXMP` |
//! | 8 | 4 | version = 1 |
//! | 12 | 16 | topic id |
//! | 28 | 4 | partition |
//! | 32 | 4 | number of slices, at least 1 |
//! | 36 | 64 · n | slices, in order of their offsets, without a gap |
//! | 36 + 64 · n | 4 | CRC32C of everything before |
//!
//! One slice, 64 bytes:
//!
//! | at | bytes | field |
//! |----|-------|-------|
//! | 0 | 16 | id of its segment, which lies under `merged` for this partition |
//! | 16 | 8 | incarnation of its segment |
//! | 24 | 8 | bytes of its segment |
//! | 32 | 4 | its first byte in the segment |
//! | 36 | 4 | its length in bytes |
//! | 40 | 8 | offset of its first record |
//! | 48 | 8 | largest timestamp of its records |
//! | 56 | 4 | offsets that it spans |
//! | 60 | 4 | 0 |
//!
//! Batches in a page's slices have their final timestamps: the time of their append plays no part any more.

use bytes::Buf;

use crate::id::{Incarnation, PartitionIndex, SegmentId, TopicId, TopicPartition};
use crate::limits;
use crate::metadata::PlannedSlice;
use crate::object_key::SegmentKey;
use crate::offset::{ByteRange, Offset};
use crate::time::Timestamp;

const MAGIC: [u8; 8] = *b"CARNAXMP";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 36;
const SLICE_BYTES: usize = 64;
const CHECKSUM_BYTES: usize = 4;

/// Old slices of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestPage {
    on: TopicPartition,
    slices: Vec<PlannedSlice>,
}

/// Bytes that are no manifest page, or none that this reader understands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestPageError {
    /// Not made by Carnax, or cut off.
    #[error("object is no manifest page: {problem}")]
    NotAPage {
        /// Why not.
        problem: &'static str,
    },
    /// A format of a later version.
    #[error("manifest page has format version {version}, only {VERSION} is understood")]
    UnknownVersion {
        /// Its version.
        version: u32,
    },
    /// The bytes are not those that were written.
    #[error("manifest page says checksum {stored:08x}, its bytes have {computed:08x}")]
    Checksum {
        /// What was written.
        stored: u32,
        /// CRC32C of the bytes.
        computed: u32,
    },
    /// Slices that cannot be.
    #[error("manifest page contradicts itself: {problem}")]
    Contradiction {
        /// What is wrong.
        problem: &'static str,
    },
}

impl ManifestPage {
    /// A page of slices in the order of their offsets.
    ///
    /// # Errors
    /// No slices or too many, a gap between two, a slice that is not the only partition's of a merged object, or numbers that do not
    /// fit.
    pub fn new(on: TopicPartition, slices: Vec<PlannedSlice>) -> Result<Self, ManifestPageError> {
        let wrong = |problem| Err(ManifestPageError::Contradiction { problem });
        if !(1..=limits::PAGE_SLICES_MAX).contains(&slices.len()) {
            return wrong("it has no slices, or too many");
        }
        for slice in &slices {
            let inside = slice.bytes.end().is_some_and(|end| end <= slice.segment_size);
            if slice.segment.merged != Some(on) || !slice.rewritten {
                return wrong("a slice is not of a merged object of the partition");
            }
            if slice.segment_size > limits::SEGMENT_BYTES_MAX || !inside || slice.bytes.length == 0 {
                return wrong("a slice lies outside its object");
            }
            let records = slice.end_offset.0.checked_sub(slice.base_offset.0);
            if records.is_none_or(|records| records == 0 || records > u64::from(u32::MAX)) {
                return wrong("a slice spans no offsets, or too many");
            }
        }
        if slices.windows(2).any(|pair| pair[0].end_offset != pair[1].base_offset) {
            return wrong("there is a gap between slices");
        }
        Ok(Self { on, slices })
    }

    /// Whose slices they are.
    pub fn on(&self) -> TopicPartition {
        self.on
    }

    /// In order of their offsets, at least one. Their append times are unknown: [`Timestamp::EPOCH`].
    pub fn slices(&self) -> &[PlannedSlice] {
        &self.slices
    }

    /// The bytes of the object. The same page always gives the same bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.slices.len() * SLICE_BYTES + CHECKSUM_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.extend_from_slice(&self.on.topic.to_bytes());
        bytes.extend_from_slice(&self.on.partition.0.to_be_bytes());
        bytes.extend_from_slice(&narrow(self.slices.len() as u64).to_be_bytes());
        for slice in &self.slices {
            bytes.extend_from_slice(&slice.segment.segment.to_bytes());
            bytes.extend_from_slice(&slice.segment.incarnation.0.to_be_bytes());
            bytes.extend_from_slice(&slice.segment_size.to_be_bytes());
            bytes.extend_from_slice(&narrow(slice.bytes.start).to_be_bytes());
            bytes.extend_from_slice(&narrow(slice.bytes.length).to_be_bytes());
            bytes.extend_from_slice(&slice.base_offset.0.to_be_bytes());
            bytes.extend_from_slice(&slice.max_timestamp.millis().to_be_bytes());
            bytes.extend_from_slice(&narrow(slice.end_offset.since(slice.base_offset)).to_be_bytes());
            bytes.extend_from_slice(&[0; 4]);
        }
        let checksum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&checksum.to_be_bytes());
        bytes
    }

    /// Reads what [`encode`](Self::encode) wrote. Allocates for the slices that the bytes hold, not for those that they claim.
    ///
    /// # Errors
    /// See [`ManifestPageError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestPageError> {
        let not = |problem| ManifestPageError::NotAPage { problem };
        let (content, checksum) =
            bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or_else(|| not("it is too short"))?;
        let (mut header, mut rows) =
            content.split_at_checked(HEADER_BYTES).ok_or_else(|| not("it is too short"))?;
        if header[..MAGIC.len()] != MAGIC {
            return Err(not("its magic is missing"));
        }
        header.advance(MAGIC.len());
        let version = header.get_u32();
        if version != VERSION {
            return Err(ManifestPageError::UnknownVersion { version });
        }
        let (stored, computed) = (u32::from_be_bytes(*checksum), crc32c::crc32c(content));
        if stored != computed {
            return Err(ManifestPageError::Checksum { stored, computed });
        }
        let topic = TopicId::from_bytes(header.get_u128().to_be_bytes());
        let on = TopicPartition { topic, partition: PartitionIndex(header.get_u32()) };
        let count = usize::try_from(header.get_u32()).unwrap_or(usize::MAX);
        if count.checked_mul(SLICE_BYTES) != Some(rows.len()) {
            return Err(not("its length does not fit its count"));
        }
        let mut slices = Vec::with_capacity(count);
        while !rows.is_empty() {
            slices.push(read_slice(on, &mut rows)?);
        }
        Self::new(on, slices)
    }

    /// Bytes of the object with so many slices.
    pub fn object_bytes(slices: usize) -> u64 {
        (HEADER_BYTES + slices * SLICE_BYTES + CHECKSUM_BYTES) as u64
    }
}

/// Takes a slice from rows of whole slices.
fn read_slice(on: TopicPartition, rows: &mut &[u8]) -> Result<PlannedSlice, ManifestPageError> {
    let segment = SegmentId::from_bytes(rows.get_u128().to_be_bytes());
    let incarnation = Incarnation(rows.get_u64());
    let segment_size = rows.get_u64();
    let bytes = ByteRange { start: rows.get_u32().into(), length: rows.get_u32().into() };
    let base_offset = Offset(rows.get_u64());
    let max_timestamp = Timestamp::from_millis(rows.get_i64());
    let end_offset = base_offset.checked_add(rows.get_u32().into());
    if rows.get_u32() != 0 {
        return Err(ManifestPageError::Contradiction { problem: "a slice has marks of a later format" });
    }
    Ok(PlannedSlice {
        segment: SegmentKey { incarnation, segment, merged: Some(on) },
        segment_size,
        bytes,
        base_offset,
        end_offset: end_offset
            .ok_or(ManifestPageError::Contradiction { problem: "an offset is too large" })?,
        max_timestamp,
        append_time: Timestamp::EPOCH,
        rewritten: true,
    })
}

fn narrow(number: u64) -> u32 {
    u32::try_from(number).expect("checked when the page was made")
}
