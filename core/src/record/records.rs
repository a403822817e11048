//! The records of a batch.
//!
//! | field | as |
//! |-------|----|
//! | length of all that follows | varint |
//! | attributes, unused | 1 byte |
//! | timestamp delta, from the batch's base timestamp | varlong |
//! | offset delta, from the batch's base offset | varint |
//! | key length, −1 for null; key | varint, bytes |
//! | value length, −1 for null; value | varint, bytes |
//! | number of headers | varint |
//! | each header: key length; key; value length, −1 for null; value | varint, bytes, varint, bytes |

use bytes::Bytes;

use crate::limits;
use crate::time::Timestamp;

use super::error::BatchError;
use super::header::BatchHeader;
use super::varint;

/// The shortest record: every field of it one byte, and null or empty.
pub(super) const RECORD_BYTES_MIN: usize = 7;

/// One record of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its offset, counted from the batch's base offset.
    pub offset_delta: u32,
    /// The producer's timestamp, or the time of the append where the batch is stamped with it.
    pub timestamp: Timestamp,
    /// None is not the same as empty.
    pub key: Option<Bytes>,
    /// None is a tombstone.
    pub value: Option<Bytes>,
    /// In the order of the producer; keys may repeat.
    pub headers: Vec<Header>,
}

/// A header of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// UTF-8 by convention, which nothing enforces.
    pub key: Bytes,
    /// None is not the same as empty.
    pub value: Option<Bytes>,
}

/// Walks the records of a batch in order; ends after the first error.
///
/// Offset deltas go up from record to record and end within the batch, but may have holes. Behind the last record there
/// are no more bytes.
#[derive(Debug, Clone)]
pub struct Records {
    data: Bytes,
    at: usize,
    index: u32,
    counts: Counts,
    offset_delta_min: u32,
    base_timestamp: Timestamp,
    append_time: Option<Timestamp>,
}

/// What a header promises of its records, checked against the limits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counts {
    records: u32,
    last_offset_delta: u32,
}

impl Records {
    /// Checks the counts of a header before anything is decompressed.
    pub(super) fn counts(header: &BatchHeader) -> Result<Counts, BatchError> {
        let BatchHeader { record_count, last_offset_delta, .. } = *header;
        let mismatch = BatchError::RecordCount { records: record_count, last_offset_delta };
        let (Ok(records), Ok(last_offset_delta)) =
            (u32::try_from(record_count), u32::try_from(last_offset_delta))
        else {
            return Err(mismatch);
        };
        if records > limits::BATCH_RECORDS_MAX {
            return Err(BatchError::TooManyRecords { records: record_count });
        }
        if records > last_offset_delta + 1 {
            return Err(mismatch);
        }
        Ok(Counts { records, last_offset_delta })
    }

    pub(super) fn new(header: &BatchHeader, counts: Counts, data: Bytes) -> Self {
        Self {
            data,
            at: 0,
            index: 0,
            counts,
            offset_delta_min: 0,
            base_timestamp: header.base_timestamp,
            append_time: header.attributes.is_log_append_time().then_some(header.max_timestamp),
        }
    }

    /// How many records are still to come, if all are well-formed.
    pub fn remaining(&self) -> u32 {
        self.counts.records - self.index
    }

    fn read(&mut self) -> Result<Record, &'static str> {
        let mut input = &self.data[self.at..];
        let length = varint::read_i32(&mut input).ok_or("has no length")?;
        let length = usize::try_from(length).map_err(|_| "has a negative length")?;
        let body = input.get(..length).ok_or("is longer than what is left of the batch")?;
        let start = self.data.len() - input.len();
        self.at = start + length;
        let record = self.read_body(body)?;
        if record.offset_delta < self.offset_delta_min || record.offset_delta > self.counts.last_offset_delta
        {
            return Err("has an offset out of order");
        }
        self.offset_delta_min = record.offset_delta + 1;
        Ok(record)
    }

    fn read_body(&self, mut body: &[u8]) -> Result<Record, &'static str> {
        let input = &mut body;
        let (_attributes, rest) = input.split_first().ok_or("ends before its attributes")?;
        *input = rest;
        let timestamp_delta = varint::read(input).ok_or("ends in its timestamp")?;
        let offset_delta = varint::read_i32(input).ok_or("ends in its offset")?;
        let offset_delta = u32::try_from(offset_delta).map_err(|_| "has a negative offset")?;
        let key = self.read_nullable(input).ok_or("ends in its key")?;
        let value = self.read_nullable(input).ok_or("ends in its value")?;
        let headers = self.read_headers(input)?;
        if !input.is_empty() {
            return Err("is shorter than its length");
        }
        // Wraps as Kafka's own arithmetic does, so that any two timestamps can share a batch.
        let own = self.base_timestamp.millis().wrapping_add(timestamp_delta);
        let timestamp = self.append_time.unwrap_or(Timestamp::from_millis(own));
        Ok(Record { offset_delta, timestamp, key, value, headers })
    }

    fn read_headers(&self, input: &mut &[u8]) -> Result<Vec<Header>, &'static str> {
        let count = varint::read_i32(input).ok_or("ends in its number of headers")?;
        let count = usize::try_from(count).map_err(|_| "has a negative number of headers")?;
        if count > limits::RECORD_HEADERS_MAX {
            return Err("has too many headers");
        }
        if count > input.len() / 2 {
            return Err("ends in its headers");
        }
        let mut headers = Vec::with_capacity(count);
        for _ in 0..count {
            let key = self.read_nullable(input).ok_or("ends in the key of a header")?;
            let key = key.ok_or("has a header without a key")?;
            let value = self.read_nullable(input).ok_or("ends in the value of a header")?;
            headers.push(Header { key, value });
        }
        Ok(headers)
    }

    /// Bytes behind their length; a length of −1 is null, every other negative one is refused.
    fn read_nullable(&self, input: &mut &[u8]) -> Option<Option<Bytes>> {
        let length = varint::read_i32(input)?;
        if length == -1 {
            return Some(None);
        }
        let (taken, rest) = input.split_at_checked(usize::try_from(length).ok()?)?;
        *input = rest;
        Some(Some(self.data.slice_ref(taken)))
    }
}

impl Iterator for Records {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let index = self.index;
        let problem = if index < self.counts.records {
            self.index += 1;
            match self.read() {
                Ok(record) => return Some(Ok(record)),
                Err(problem) => problem,
            }
        } else if self.at < self.data.len() {
            "is not counted by the header"
        } else {
            return None;
        };
        self.counts.records = 0;
        self.index = 0;
        self.at = self.data.len();
        Some(Err(BatchError::Record { index, problem }))
    }
}
