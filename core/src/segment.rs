//! Segment objects: batches of many topic-partitions in one immutable object that describes itself.
//!
//! ```text
//! ┌────────┬─────────┬─────────┬─────┬────────┬─────────┐
//! │ header │ slice 0 │ slice 1 │  …  │ footer │ trailer │
//! │  8 B   │ batches │ batches │     │        │  16 B   │
//! └────────┴─────────┴─────────┴─────┴────────┴─────────┘
//! ```
//!
//! Slices follow each other without a gap, sorted by (topic id, partition), each pair at most once. In a slice, whole
//! record batches follow each other without a gap, in the order in which their units were pushed. All numbers are
//! big-endian.
//!
//! Header, 8 bytes:
//!
//! | at | bytes | field |
//! |----|-------|-------|
//! | 0 | 6 | magic `CARNAX` |
//! | 6 | 2 | version = 1 |
//!
//! Footer: first the counts, then all slices, then all batches in the order of their bytes.
//!
//! | at | bytes | field |
//! |----|-------|-------|
//! | 0 | 4 | number of slices S |
//! | 4 | 4 | number of batches B |
//! | 8 | 44 · S | slices |
//! | 8 + 44 · S | 17 · B | batches |
//!
//! One slice, 44 bytes:
//!
//! | at | bytes | field |
//! |----|-------|-------|
//! | 0 | 16 | topic id |
//! | 16 | 4 | partition |
//! | 20 | 8 | position of its first byte in the object |
//! | 28 | 8 | length in bytes |
//! | 36 | 4 | number of batches |
//! | 40 | 4 | CRC32C of its bytes |
//!
//! One batch, 17 bytes; its position follows from the lengths before it:
//!
//! | at | bytes | field |
//! |----|-------|-------|
//! | 0 | 4 | length in bytes |
//! | 4 | 4 | number of offsets: `lastOffsetDelta + 1` |
//! | 8 | 8 | max timestamp |
//! | 16 | 1 | flags: bit 0 = encoded by a frontend (a merge may re-pack it); the others are 0 |
//!
//! Trailer, the last 16 bytes:
//!
//! | at | bytes | field |
//! |----|-------|-------|
//! | 0 | 4 | length of the footer |
//! | 4 | 4 | CRC32C of the footer and of its length |
//! | 8 | 8 | magic and version, as in the header |
//!
//! A manifest may refer to a part of a slice: the bytes of units that were refused stay in the object and are dead. That
//! is why offsets are not in the footer, and why every lookup takes a byte range and the offset of its first record.

mod footer;
mod layout;
#[cfg(test)]
mod tests;
mod view;
mod writer;

pub use footer::{BatchEntry, Footer, SegmentError, SliceEntry};
pub use layout::{HEADER_BYTES, TRAILER_BYTES, VERSION};
pub use view::{LocatedBatch, SliceView};
pub use writer::{PartitionBatches, SealedSegment, SegmentFull, SegmentWriter};
