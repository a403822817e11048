//! One batch, as a view over the bytes in which it came.

use bytes::Bytes;

use crate::limits;
use crate::time::Timestamp;

use super::compression::Compression;
use super::error::BatchError;
use super::header::{BATCH_HEADER_BYTES, BatchHeader, CRC_COVERS_FROM, LENGTH_END, MAGIC};
use super::records::{RECORD_BYTES_MIN, Records};

/// The bytes of exactly one record batch, header included. Cloning shares the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    bytes: Bytes,
    header: BatchHeader,
}

impl Batch {
    /// Takes the first of several concatenated batches from the front of `input`; none at its end.
    ///
    /// Checked are only the length and the magic: see [`verify`](Self::verify) and
    /// [`verify_checksum`](Self::verify_checksum).
    ///
    /// # Errors
    /// `Truncated`, `TooShort`, `TooLong` or `Magic`; then `input` is left as it was.
    pub fn parse_next(input: &mut Bytes) -> Result<Option<Self>, BatchError> {
        if input.is_empty() {
            return Ok(None);
        }
        let header = peek_header(input)?;
        let length = total_bytes(&header)?;
        if length > input.len() {
            return Err(BatchError::Truncated { needed: length, available: input.len() });
        }
        Ok(Some(Self { bytes: input.split_to(length), header }))
    }

    /// Splits all of `input` into batches.
    ///
    /// # Errors
    /// As [`parse_next`](Self::parse_next), for the first batch that fails.
    pub fn parse_all(mut input: Bytes) -> Result<Vec<Self>, BatchError> {
        let mut batches = Vec::new();
        while let Some(batch) = Self::parse_next(&mut input)? {
            batches.push(batch);
        }
        Ok(batches)
    }

    /// The header's fields.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The bytes, header included.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The bytes, without the view.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// How many records the batch has, as its header says.
    pub fn record_count(&self) -> u32 {
        u32::try_from(self.header.record_count).unwrap_or(0)
    }

    /// How many offsets the batch takes, 1 at least: `lastOffsetDelta + 1`.
    pub fn offset_count(&self) -> u32 {
        u32::try_from(self.header.last_offset_delta).unwrap_or(0) + 1
    }

    /// The largest timestamp of the records, as the header has it.
    pub fn max_timestamp(&self) -> Timestamp {
        self.header.max_timestamp
    }

    /// How the records are compressed.
    ///
    /// # Errors
    /// `UnknownCodec`.
    pub fn compression(&self) -> Result<Compression, BatchError> {
        let attributes = self.header.attributes;
        attributes.compression().ok_or(BatchError::UnknownCodec { codec: attributes.codec() })
    }

    /// Checks that the bytes from the attributes on are those that were checksummed.
    ///
    /// # Errors
    /// `Checksum`.
    pub fn verify_checksum(&self) -> Result<(), BatchError> {
        let computed = crc32c::crc32c(&self.bytes[CRC_COVERS_FROM..]);
        if computed == self.header.crc {
            Ok(())
        } else {
            Err(BatchError::Checksum { stored: self.header.crc, computed })
        }
    }

    /// Checks a batch from outside: checksum, codec, kind, counts and limits. Does not decompress.
    ///
    /// What it cannot see: whether the records inside are as many as the header says, and well-formed.
    ///
    /// # Errors
    /// `Checksum` first, since nothing else in a damaged batch means anything.
    pub fn verify(&self) -> Result<(), BatchError> {
        self.verify_checksum()?;
        let compression = self.compression()?;
        if let Some(kind) = self.header.attributes.not_accepted() {
            return Err(BatchError::NotAccepted { kind });
        }
        let BatchHeader { record_count, last_offset_delta, .. } = self.header;
        if record_count < 1 || last_offset_delta.checked_add(1) != Some(record_count) {
            return Err(BatchError::RecordCount { records: record_count, last_offset_delta });
        }
        if self.offset_count() > limits::BATCH_RECORDS_MAX {
            return Err(BatchError::TooManyRecords { records: record_count });
        }
        let room = (self.bytes.len() - BATCH_HEADER_BYTES) / RECORD_BYTES_MIN;
        if compression == Compression::None && self.offset_count() as usize > room {
            return Err(BatchError::RecordCount { records: record_count, last_offset_delta });
        }
        Ok(())
    }

    /// Checks all that [`verify`](Self::verify) does, and every record: decompresses, walks the records to the end, and
    /// compares their offsets and largest timestamp with the header.
    ///
    /// # Errors
    /// Any [`BatchError`].
    pub fn verify_records(&self) -> Result<(), BatchError> {
        self.verify()?;
        let mut largest = Timestamp::MIN;
        for (index, record) in (0u32..).zip(self.records()?) {
            let record = record?;
            if record.offset_delta != index {
                return Err(BatchError::Record { index, problem: "does not follow the one before it" });
            }
            largest = largest.max(record.timestamp);
        }
        if largest == self.header.max_timestamp {
            Ok(())
        } else {
            let (stored, actual) = (self.header.max_timestamp.millis(), largest.millis());
            Err(BatchError::MaxTimestamp { stored, actual })
        }
    }

    /// Checks a batch that lies in a segment: checksum, every record, and the largest timestamp. Unlike a batch from outside it may have
    /// holes, no records at all, and the time of its append, as merge and key compaction leave it.
    ///
    /// # Errors
    /// Any [`BatchError`].
    pub fn verify_stored(&self) -> Result<(), BatchError> {
        self.verify_checksum()?;
        let mut largest = None;
        for record in self.records()? {
            largest = largest.max(Some(record?.timestamp));
        }
        match largest.filter(|largest| *largest != self.header.max_timestamp) {
            None => Ok(()),
            Some(largest) => {
                let (stored, actual) = (self.header.max_timestamp.millis(), largest.millis());
                Err(BatchError::MaxTimestamp { stored, actual })
            }
        }
    }

    /// The records, decompressed (at most [`limits::BATCH_DECOMPRESSED_BYTES_MAX`] bytes of them).
    ///
    /// Keys, values and headers share the bytes of the batch, or one buffer of what was decompressed.
    ///
    /// # Errors
    /// `UnknownCodec`, `RecordCount`, `TooManyRecords`, `Decompress` or `DecompressedTooLong`.
    pub fn records(&self) -> Result<Records, BatchError> {
        let compression = self.compression()?;
        let counts = Records::counts(&self.header)?;
        let compressed = self.bytes.slice(BATCH_HEADER_BYTES..);
        let data = compression.decompress(compressed, limits::BATCH_DECOMPRESSED_BYTES_MAX)?;
        Ok(Records::new(&self.header, counts, data))
    }
}

fn peek_header(input: &[u8]) -> Result<BatchHeader, BatchError> {
    let truncated = BatchError::Truncated { needed: BATCH_HEADER_BYTES, available: input.len() };
    input.first_chunk().map(BatchHeader::read).ok_or(truncated)
}

/// The length of the whole batch, by its header.
fn total_bytes(header: &BatchHeader) -> Result<usize, BatchError> {
    if header.magic != MAGIC {
        return Err(BatchError::Magic { magic: header.magic });
    }
    let length = usize::try_from(header.batch_length).unwrap_or(0);
    let total = LENGTH_END.saturating_add(length);
    if total < BATCH_HEADER_BYTES {
        return Err(BatchError::TooShort { length: header.batch_length });
    }
    if total > limits::BATCH_BYTES_MAX {
        return Err(BatchError::TooLong { bytes: total as u64 });
    }
    Ok(total)
}
