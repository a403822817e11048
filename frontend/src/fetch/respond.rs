//! The last step: writes what was read in the form that the client wants.

use bytes::{Bytes, BytesMut};
use carnax_core::error_code::ErrorCode;
use carnax_core::id::PartitionIndex;
use carnax_core::offset::Offset;
use carnax_core::problem::Problem;
use carnax_core::record::{BatchError, Record, set_base_offset, stamp_append_time};

use super::{Fetched, FetchedBatch};
use crate::http::json_record::{Encoding, write_record};

/// Beyond this, an answer in JSON ends inside a batch: records may be many times larger than the batch they came in.
const JSON_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The same for a piece of a stream: it waits, beyond the memory for fetches, until a slow client takes it.
const EVENTS_BYTES_MAX: usize = 1024 * 1024;

/// Records, written.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) body: Bytes,
    /// Where the next fetch goes on.
    pub(crate) next_offset: Offset,
}

/// What is written between and around records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// `{"records":[…],"next_offset":…}`
    Json,
    /// A record a line.
    Lines,
}

impl Fetched {
    /// Whether a reader that goes on at `next_offset` has seen everything.
    pub(crate) fn caught_up(&self, next_offset: Offset) -> bool {
        next_offset >= self.high_watermark
    }

    /// Writes at most `max_records` records as JSON.
    ///
    /// # Errors
    /// `damaged_batch`, if the first batch has wrong records; `invalid_value`, if a record cannot be written so.
    pub(crate) fn write_json(
        &self,
        layout: Layout,
        encoding: Encoding,
        max_records: u32,
    ) -> Result<Written, Problem> {
        let mut out = Vec::new();
        if layout == Layout::Json {
            out.extend_from_slice(b"{\"records\":[");
        }
        let mut first = true;
        let next_offset = self.for_each_record(max_records, |offset, record| {
            if layout == Layout::Json && !first {
                out.push(b',');
            }
            first = false;
            write_record(&mut out, offset, record, encoding, None)?;
            if layout == Layout::Lines {
                out.push(b'\n');
            }
            Ok(out.len() < JSON_BYTES_MAX)
        })?;
        if layout == Layout::Json {
            let tail = format!(
                "],\"next_offset\":{next_offset},\"high_watermark\":{},\"log_start_offset\":{},\"caught_up\":{},\"topic_id\":\"{}\"}}",
                self.high_watermark,
                self.log_start,
                self.caught_up(next_offset),
                self.topic_id,
            );
            out.extend_from_slice(tail.as_bytes());
        }
        Ok(Written { body: out.into(), next_offset })
    }

    /// Writes the batches one after the other, with their offsets set.
    pub(crate) fn write_batches(&self) -> Written {
        let bytes = self.batches.iter().map(|fetched| fetched.batch.bytes().len()).sum();
        let mut body = BytesMut::with_capacity(bytes);
        for FetchedBatch { batch, base_offset, append_time } in &self.batches {
            let at = body.len();
            body.extend_from_slice(batch.bytes());
            set_base_offset(&mut body[at..], *base_offset);
            if let Some(append_time) = append_time {
                stamp_append_time(&mut body[at..], *append_time);
            }
        }
        Written { body: body.freeze(), next_offset: self.next_offset }
    }

    /// Gives records to `take` until it says no or there are `max_records`; says where to go on.
    ///
    /// # Errors
    /// What `take` says, or `damaged_batch` if wrong records come first.
    pub(crate) fn for_each_record(
        &self,
        max_records: u32,
        mut take: impl FnMut(Offset, &Record) -> Result<bool, Problem>,
    ) -> Result<Offset, Problem> {
        let mut taken = 0;
        let mut next_offset = self.start;
        for fetched in &self.batches {
            let damaged = |error: &BatchError| {
                let end = fetched.end_offset();
                let last = end.0.saturating_sub(1);
                let detail =
                    format!("the batch with offsets {} to {last} is damaged: {error}", fetched.base_offset);
                Problem::new(ErrorCode::DamagedBatch, detail).with(|facts| facts.next_offset = Some(end))
            };
            let records = match fetched.batch.records() {
                Ok(records) => records,
                Err(_) if taken > 0 => return Ok(next_offset),
                Err(error) => return Err(damaged(&error)),
            };
            for record in records {
                let mut record = match record {
                    Ok(record) => record,
                    Err(_) if taken > 0 => return Ok(next_offset),
                    Err(error) => return Err(damaged(&error)),
                };
                let offset = Offset(fetched.base_offset.0.saturating_add(record.offset_delta.into()));
                if offset < self.start {
                    continue;
                }
                if taken == max_records {
                    return Ok(next_offset);
                }
                record.timestamp = fetched.append_time.unwrap_or(record.timestamp);
                let more = take(offset, &record)?;
                taken += 1;
                next_offset = Offset(offset.0 + 1);
                if !more {
                    return Ok(next_offset);
                }
            }
            next_offset = fetched.end_offset();
        }
        Ok(self.next_offset.max(next_offset))
    }

    /// Writes records as server-sent events; `id` makes the id of an event from the offset behind its record.
    ///
    /// # Errors
    /// As [`write_json`](Self::write_json).
    pub(crate) fn write_events(
        &self,
        encoding: Encoding,
        partition: Option<PartitionIndex>,
        max_records: u32,
        mut id: impl FnMut(Offset) -> String,
    ) -> Result<Written, Problem> {
        let mut out = Vec::new();
        let next_offset = self.for_each_record(max_records, |offset, record| {
            out.extend_from_slice(format!("id: {}\ndata: ", id(Offset(offset.0 + 1))).as_bytes());
            write_record(&mut out, offset, record, encoding, partition)?;
            out.extend_from_slice(b"\n\n");
            Ok(out.len() < EVENTS_BYTES_MAX)
        })?;
        Ok(Written { body: out.into(), next_offset })
    }
}
