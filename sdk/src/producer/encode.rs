//! From records to batches.

use bytes::Bytes;
use carnax_core::record::{BATCH_HEADER_BYTES, BatchBuilder, Compression, NewRecord, RecordRefused};
use carnax_core::time::Timestamp;

use super::ProduceError;
use super::queue::Pending;
use super::record::Record;
use crate::batches::Batches;

/// More than a batch spends on a record beside its key, value and headers: six varints and a byte.
const RECORD_OVERHEAD_BYTES: usize = 48;
/// More than a batch spends on a header beside its key and value.
const HEADER_OVERHEAD_BYTES: usize = 16;
/// What a record that waits takes beside its bytes.
const WAITING_OVERHEAD_BYTES: usize = 256;

/// More than the bytes that a record takes in a batch, before compression.
pub(super) fn batch_bytes(record: &Record) -> usize {
    let headers: usize = record
        .headers
        .iter()
        .map(|header| header.key.len() + header.value.as_ref().map_or(0, Bytes::len) + HEADER_OVERHEAD_BYTES)
        .sum();
    let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    length(&record.key) + length(&record.value) + headers + RECORD_OVERHEAD_BYTES
}

/// What a record that waits counts against the memory of the producer.
pub(super) fn memory_bytes(record: &Record) -> usize {
    batch_bytes(record) + WAITING_OVERHEAD_BYTES
}

/// Refuses a record that fits into no batch.
pub(super) fn check(record: &Record, batch_bytes_max: usize) -> Result<(), ProduceError> {
    let surely_fits = BATCH_HEADER_BYTES + batch_bytes(record) <= batch_bytes_max;
    if surely_fits && record.headers.is_empty() {
        return Ok(());
    }
    let new = NewRecord {
        timestamp: Timestamp::EPOCH,
        key: record.key.as_deref(),
        value: record.value.as_deref(),
        headers: &record.headers,
    };
    BatchBuilder::new(batch_bytes_max).push(&new).map_err(refused)
}

pub(super) fn refused(refused: RecordRefused) -> ProduceError {
    match refused {
        RecordRefused::TooLong { bytes, bytes_max } => ProduceError::TooLarge { bytes, bytes_max },
        RecordRefused::Full | RecordRefused::TooManyHeaders { .. } => {
            ProduceError::Invalid { reason: refused.to_string() }
        }
    }
}

/// Records of one partition as concatenated batches, each of at most `batch_bytes` before compression.
///
/// Gives back the records that are in them, in order, and those that fit into no batch (any more).
pub(super) fn encode(
    records: Vec<Pending>,
    batch_bytes: usize,
    compression: Compression,
) -> (Bytes, Vec<Pending>, Vec<(Pending, ProduceError)>) {
    let mut batches = Batches::new(batch_bytes, compression);
    let mut taken = Vec::with_capacity(records.len());
    let mut left = Vec::new();
    for record in records {
        match batches.push(&record.as_new()) {
            Ok(()) => taken.push(record),
            Err(error) => left.push((record, refused(error))),
        }
    }
    (batches.finish(), taken, left)
}
