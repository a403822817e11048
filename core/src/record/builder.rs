//! Makes batches.

use bytes::Bytes;

use crate::limits;
use crate::time::Timestamp;

use super::batch::Batch;
use super::compression::Compression;
use super::header::{
    Attributes, BATCH_HEADER_BYTES, BatchHeader, CRC_AT, CRC_COVERS_FROM, LENGTH_END, MAGIC,
};
use super::records::Header;
use super::varint;

/// A record to be written.
#[derive(Debug, Clone, Copy)]
pub struct NewRecord<'a> {
    /// Any.
    pub timestamp: Timestamp,
    /// None is not the same as empty.
    pub key: Option<&'a [u8]>,
    /// None is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Kept in this order; keys may repeat.
    pub headers: &'a [Header],
}

/// Why a record was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordRefused {
    /// There is no more room; the record fits into a batch of its own.
    #[error("record batch is full")]
    Full,
    /// The record fits into no batch.
    #[error("record batch of this record alone has {bytes} bytes, more than {bytes_max}")]
    TooLong {
        /// How long a batch with nothing else in it is.
        bytes: usize,
        /// How long it may be.
        bytes_max: usize,
    },
    /// More headers than a record may have.
    #[error("record has {headers} headers, more than {limit}", limit = limits::RECORD_HEADERS_MAX)]
    TooManyHeaders {
        /// How many.
        headers: usize,
    },
}

/// A batch without records that takes 1 to 2³¹ offsets: what fills offsets that are skipped. It has no timestamp, as Kafka writes
/// it: −1.
///
/// # Panics
/// If it is to take no offset, or more than that.
pub fn gap_batch(offsets: u32) -> Batch {
    let last = offsets.checked_sub(1).and_then(|last| i32::try_from(last).ok());
    let mut bytes = vec![0; BATCH_HEADER_BYTES];
    let no_time = Timestamp::from_millis(-1);
    seal(
        &mut bytes,
        BatchHeader {
            last_offset_delta: last.expect("a gap has 1 to 2^31 offsets"),
            base_timestamp: no_time,
            max_timestamp: no_time,
            ..EMPTY_HEADER
        },
    );
    let batch = Batch::parse_next(&mut bytes.into()).expect("the header is right");
    batch.expect("there is a batch")
}

/// Collects records and makes a batch of them.
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    bytes_max: usize,
    /// The records, behind room for the header.
    bytes: Vec<u8>,
    count: u32,
    /// One past the offset delta of the last record.
    next_delta: u32,
    base_timestamp: Timestamp,
    max_timestamp: Timestamp,
}

impl BatchBuilder {
    /// A builder for one batch of at most `bytes_max` bytes, header included and before compression; more than
    /// [`limits::BATCH_BYTES_MAX`] is cut to that.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max: bytes_max.min(limits::BATCH_BYTES_MAX),
            bytes: Vec::new(),
            count: 0,
            next_delta: 0,
            base_timestamp: Timestamp::EPOCH,
            max_timestamp: Timestamp::MIN,
        }
    }

    /// Adds a record at the end.
    ///
    /// # Errors
    /// The record does not fit: see [`RecordRefused`]. The builder is as it was before.
    pub fn push(&mut self, record: &NewRecord<'_>) -> Result<(), RecordRefused> {
        self.push_at(self.next_delta, record)
    }

    /// Adds a record at the end, whose offset is so much above that of the batch: offsets that are left out are holes.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    ///
    /// # Panics
    /// If the offset is not above that of the record before, or 2³¹ or more above that of the batch.
    pub fn push_at(&mut self, offset_delta: u32, record: &NewRecord<'_>) -> Result<(), RecordRefused> {
        assert!(offset_delta >= self.next_delta && offset_delta < 1 << 31, "offsets go up within a batch");
        if record.headers.len() > limits::RECORD_HEADERS_MAX {
            return Err(RecordRefused::TooManyHeaders { headers: record.headers.len() });
        }
        let base = if self.count == 0 { record.timestamp } else { self.base_timestamp };
        // Wraps as Kafka's own arithmetic does; the reader wraps back.
        let timestamp_delta = record.timestamp.millis().wrapping_sub(base.millis());
        let next_delta = offset_delta + 1;
        let offset_delta = i64::from(offset_delta);
        let body = body_bytes(record, timestamp_delta, offset_delta);
        let length = varint::length(signed(body)) + body;
        if self.batch_bytes() + length > self.bytes_max || self.count == limits::BATCH_RECORDS_MAX {
            return Err(self.refused(record));
        }
        if self.bytes.is_empty() {
            self.bytes.resize(BATCH_HEADER_BYTES, 0);
        }
        write_record(&mut self.bytes, record, body, timestamp_delta, offset_delta);
        self.count += 1;
        self.next_delta = next_delta;
        self.base_timestamp = base;
        self.max_timestamp = self.max_timestamp.max(record.timestamp);
        Ok(())
    }

    /// How many records were taken.
    pub fn record_count(&self) -> u32 {
        self.count
    }

    /// Whether no record was taken.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How long the batch is before compression.
    pub fn batch_bytes(&self) -> usize {
        self.bytes.len().max(BATCH_HEADER_BYTES)
    }

    /// Makes the batch: base offset 0, no producer, and uncompressed where compression would make it longer.
    ///
    /// # Panics
    /// If no record was taken: there is no such batch.
    pub fn build(self, compression: Compression) -> Bytes {
        let offsets = self.next_delta;
        self.build_spanning(compression, offsets)
    }

    /// As [`build`](Self::build), but the batch takes so many offsets, of which those behind the last record are a hole.
    ///
    /// # Panics
    /// If no record was taken, or the records do not fit into the offsets, or those are more than 2³¹.
    pub fn build_spanning(mut self, compression: Compression, offsets: u32) -> Bytes {
        assert!(
            self.count > 0 && offsets >= self.next_delta,
            "a batch has at least one record, and spans all"
        );
        let compression = self.compress(compression);
        let last_offset_delta = i32::try_from(offsets - 1).expect("a batch has at most 2^31 offsets");
        let record_count = i32::try_from(self.count).expect("records are bounded by their limit");
        let header = BatchHeader {
            attributes: Attributes(u16::from(compression.codec())),
            last_offset_delta,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            record_count,
            ..EMPTY_HEADER
        };
        seal(&mut self.bytes, header);
        self.bytes.into()
    }

    /// Replaces the records by their compressed form, if that is shorter; says what was done.
    fn compress(&mut self, compression: Compression) -> Compression {
        if compression == Compression::None {
            return Compression::None;
        }
        let records = &self.bytes[BATCH_HEADER_BYTES..];
        // No codec fails on writing to memory. If one ever does, the batch is still right without it.
        match compression.compress(records) {
            Ok(compressed) if compressed.len() < records.len() => {
                self.bytes.truncate(BATCH_HEADER_BYTES);
                self.bytes.extend_from_slice(&compressed);
                compression
            }
            _ => Compression::None,
        }
    }

    fn refused(&self, record: &NewRecord<'_>) -> RecordRefused {
        let alone = body_bytes(record, 0, 0);
        let bytes = BATCH_HEADER_BYTES + varint::length(signed(alone)) + alone;
        if bytes > self.bytes_max {
            RecordRefused::TooLong { bytes, bytes_max: self.bytes_max }
        } else {
            RecordRefused::Full
        }
    }
}

/// No records, no producer.
const EMPTY_HEADER: BatchHeader = BatchHeader {
    base_offset: 0,
    batch_length: 0,
    partition_leader_epoch: -1,
    magic: MAGIC,
    crc: 0,
    attributes: Attributes(0),
    last_offset_delta: 0,
    base_timestamp: Timestamp::EPOCH,
    max_timestamp: Timestamp::EPOCH,
    producer_id: -1,
    producer_epoch: -1,
    base_sequence: -1,
    record_count: 0,
};

/// Puts the header, with length and checksum, before the records.
fn seal(bytes: &mut [u8], header: BatchHeader) {
    let batch_length = i32::try_from(bytes.len() - LENGTH_END).expect("batches are bounded by their limit");
    let mut fixed = Vec::with_capacity(BATCH_HEADER_BYTES);
    BatchHeader { batch_length, ..header }.write(&mut fixed);
    bytes[..BATCH_HEADER_BYTES].copy_from_slice(&fixed);
    let crc = crc32c::crc32c(&bytes[CRC_COVERS_FROM..]);
    bytes[CRC_AT..CRC_COVERS_FROM].copy_from_slice(&crc.to_be_bytes());
}

fn write_record(
    out: &mut Vec<u8>,
    record: &NewRecord<'_>,
    body: usize,
    timestamp_delta: i64,
    offset_delta: i64,
) {
    varint::write(out, signed(body));
    out.push(0);
    varint::write(out, timestamp_delta);
    varint::write(out, offset_delta);
    write_nullable(out, record.key);
    write_nullable(out, record.value);
    varint::write(out, signed(record.headers.len()));
    for header in record.headers {
        write_nullable(out, Some(&header.key));
        write_nullable(out, header.value.as_deref());
    }
}

fn write_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    varint::write(out, bytes.map_or(-1, |bytes| signed(bytes.len())));
    out.extend_from_slice(bytes.unwrap_or_default());
}

/// The length of a record, without the length field itself.
fn body_bytes(record: &NewRecord<'_>, timestamp_delta: i64, offset_delta: i64) -> usize {
    let headers: usize = record
        .headers
        .iter()
        .map(|header| nullable_bytes(Some(&header.key)) + nullable_bytes(header.value.as_deref()))
        .sum();
    1 + varint::length(timestamp_delta)
        + varint::length(offset_delta)
        + nullable_bytes(record.key)
        + nullable_bytes(record.value)
        + varint::length(signed(record.headers.len()))
        + headers
}

fn nullable_bytes(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |bytes| varint::length(signed(bytes.len())) + bytes.len())
}

fn signed(length: usize) -> i64 {
    i64::try_from(length).expect("memory is smaller than 2^63 bytes")
}
