//! The deterministic state machine of the metadata core: what Raft's log entries mean.
//!
//! It owns topics, partitions, slices, segments, sessions, producers, idempotency keys, wake-ups, jobs, access tokens, usage, settings and the list of nodes.
//! [`State::apply`] is the only way in which it changes; [`answer`] and [`snapshot`] are the only ways in which it is read.
//!
//! It is pure: the same entries in the same order give the same replies and the same snapshot bytes, on every machine and in
//! every build. No I/O, no clock, no random number, nothing ordered by a hash, no float. What it needs (log time, new ids)
//! stands in the entry.
//!
//! ```text
//!  bytes ──Entry::decode──▶ Entry { level, log_time, commands } ──State::apply──▶ one Outcome for each command
//! ```
//!
//! Invariants, each a function in [`invariant`]: offsets of a partition are dense and never given out twice; a refused
//! command or unit leaves no trace; log time never goes back; a segment's live count is the number of slices that refer to
//! it.
//!
//! Feature `deliberate-bugs` (off, for the simulation only): makes the mistakes in [`deliberate_bugs`] available.
#![warn(missing_docs)]

pub mod answer;
mod apply;
pub mod archive;
mod command;
mod compact;
pub mod deliberate_bugs;
mod entry;
mod group;
mod idempotency;
pub mod invariant;
mod job;
mod merge;
mod node;
mod page;
mod partition;
mod producer;
mod remembered;
pub mod restore;
mod retention;
mod segment;
mod session;
mod settings;
pub mod snapshot;
mod token;
mod topic;
mod usage;
mod wakeup;

pub use apply::{State, check_level, due};
pub use command::{Command, Outcome, Reply};
pub use entry::{Entry, EntryError, FeatureLevel};
