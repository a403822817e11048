//! What a server sets in a batch that it serves.

use crate::offset::Offset;
use crate::time::Timestamp;

use super::header::{Attributes, BATCH_HEADER_BYTES, CRC_AT, CRC_COVERS_FROM, LENGTH_END, MAX_TIMESTAMP_AT};

/// Sets the offset of the first record. Not covered by the checksum.
///
/// # Panics
/// If `batch` is shorter than a header; take it from a [`Batch`](super::Batch).
pub fn set_base_offset(batch: &mut [u8], base_offset: Offset) {
    fixed(batch)[..8].copy_from_slice(&base_offset.as_i64().to_be_bytes());
}

/// Sets the partition leader epoch. Not covered by the checksum.
///
/// # Panics
/// As [`set_base_offset`].
pub fn set_leader_epoch(batch: &mut [u8], epoch: i32) {
    fixed(batch)[LENGTH_END..16].copy_from_slice(&epoch.to_be_bytes());
}

/// Gives all records the time of the append, as Kafka's brokers do for `message.timestamp.type=LogAppendTime`: sets the
/// timestamp type and the max timestamp, and computes the checksum anew.
///
/// The old checksum is lost: verify it before. `batch` is exactly one batch.
///
/// # Panics
/// As [`set_base_offset`].
pub fn stamp_append_time(batch: &mut [u8], append_time: Timestamp) {
    let header = fixed(batch);
    // The timestamp type is bit 3 of the low byte of the attributes.
    header[CRC_COVERS_FROM + 1] |= Attributes::LOG_APPEND_TIME.to_le_bytes()[0];
    header[MAX_TIMESTAMP_AT..MAX_TIMESTAMP_AT + 8].copy_from_slice(&append_time.millis().to_be_bytes());
    let crc = crc32c::crc32c(&batch[CRC_COVERS_FROM..]);
    batch[CRC_AT..CRC_COVERS_FROM].copy_from_slice(&crc.to_be_bytes());
}

fn fixed(batch: &mut [u8]) -> &mut [u8; BATCH_HEADER_BYTES] {
    batch.first_chunk_mut().expect("a batch has a header")
}
