//! The state as bytes: what a node writes to its disk and streams to a follower that has fallen behind.
//!
//! | at | bytes | field |
//! |----|-------|-------|
//! | 0 | 8 | magic `CARNAXST` |
//! | 8 | 4 | version = 1, big-endian |
//! | 12 | … | frames, the last one an `end` |
//!
//! A frame:
//!
//! | at | bytes | field |
//! |----|-------|-------|
//! | 0 | 4 | length of the content in bytes, big-endian |
//! | 4 | 4 | CRC32C of the content, big-endian |
//! | 8 | … | the content: MessagePack with named fields; rows of long tables are arrays |
//!
//! Frames come in this order: `head`, `nodes`, `settings`, `sessions`, `producers`, `keys`, `segments`, `dead`, `rewritten`, `recent`,
//! `former`,
//! then for each topic `topic` and its `partitions` (a partition's later slices in `slices`), fencing `tokens` and manifest `pages`,
//! `groups`, then for each group `group`, a `member` for each of its members and its `offsets`,
//! `wakeups`, `jobs`, `seats`, `compactions`, `dead_pages`, `closed_before`, and `end`, which holds the number of frames before it and a
//! CRC32C over the contents of all of them, so that a lost or exchanged frame is seen too. A table without rows has no frame. So a
//! state that uses nothing of a later feature level gives the bytes that builds of the earlier level write and read; those builds
//! refuse the frames that they do not know: `settings`, `producers`, `keys`, `tokens` and those of groups came with level 2,
//! `wakeups` with level 3, `jobs` and `closed_before` with level 4, `rewritten`, `pages`, `seats`, `compactions` and `dead_pages` with
//! level 5.
//!
//! The same state gives the same bytes: everything is written in the order of its key, former topics in that of their deletion,
//! idempotency keys in that of their acceptance. Neither side ever holds more than
//! a frame beside the state.

mod compact;
mod frame;
mod group;
mod job;
mod page;
mod read;
mod remembered;
mod token;
mod usage;
mod wakeup;
mod write;

pub use read::{Limits, ReadError, read};
pub use write::write;
