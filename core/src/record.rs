//! Record batches: Kafka's RecordBatch v2 (magic 2), byte for byte.
//!
//! A batch is what is compressed, checksummed, stored and served as one. All numbers are big-endian; numbers inside
//! records are zigzag varints.
//!
//! | at | bytes | field | in CRC |
//! |----|-------|-------|--------|
//! | 0 | 8 | base offset, set when serving | no |
//! | 8 | 4 | batch length: all after this field | no |
//! | 12 | 4 | partition leader epoch, set when serving | no |
//! | 16 | 1 | magic = 2 | no |
//! | 17 | 4 | CRC32C of byte 21 to the end | – |
//! | 21 | 2 | attributes: codec 0–2, timestamp type 3, transactional 4, control 5 | yes |
//! | 23 | 4 | last offset delta | yes |
//! | 27 | 8 | base timestamp | yes |
//! | 35 | 8 | max timestamp | yes |
//! | 43 | 8 | producer id, −1 for none | yes |
//! | 51 | 2 | producer epoch | yes |
//! | 53 | 4 | base sequence | yes |
//! | 57 | 4 | record count | yes |
//! | 61 | … | records, compressed as a whole | yes |
//!
//! How much to check, from cheap to dear:
//!
//! - [`Batch::parse_next`] finds the batch's borders and nothing else, so that the batches behind a damaged one can
//!   still be reached.
//! - [`Batch::verify_checksum`] is for whoever reads what was stored.
//! - [`Batch::verify`] is for whoever takes batches from outside: checksum, header and limits, without decompressing.
//! - [`Batch::verify_records`] also decompresses and walks every record. Nobody needs it on a hot path: a reader walks
//!   the records anyway and survives what it finds there.
//!
//! Nothing here panics on any input, or allocates by what a length claims before it is checked against the bytes that
//! are there.

mod batch;
mod builder;
mod compression;
mod error;
mod header;
mod key_hash;
mod records;
mod stamp;
#[cfg(test)]
mod tests;
mod varint;

pub use batch::Batch;
pub use builder::{BatchBuilder, NewRecord, RecordRefused, gap_batch};
pub use compression::{Compression, UnknownCompression};
pub use error::BatchError;
pub use header::{Attributes, BATCH_HEADER_BYTES, BatchHeader};
pub use key_hash::key_hash;
pub use records::{Header, Record, Records};
pub use stamp::{set_base_offset, set_leader_epoch, stamp_append_time};
