//! The replicated log of the metadata core: the only place that names openraft.
//!
//! ```text
//!  propose ─▶ proposer ─▶ openraft ─▶ log store ─▶ disk          (fsync before any acknowledgement)
//!                            │  ▲
//!                            ▼  │ network: append, vote, snapshot (one channel each)
//!  read ◀── state machine ◀──┘  └── other nodes
//!              │
//!              └─▶ snapshot store
//! ```
//!
//! Owns consensus: log, votes, snapshots, replication, membership. Never decides what a command does: that is the state
//! machine's. Never reads a wall clock but to tell it to its peers, and never bootstraps on its own.
#![warn(missing_docs)]

mod applied_log;
mod log_store;
mod membership;
mod network;
mod node;
mod proposer;
mod read;
mod runtime;
mod seed;
mod settings;
mod snapshot_store;
mod state_machine;
mod status;
mod tasks;
mod types;

pub use applied_log::ArchiveProgress;
pub use log_store::{MemoryDisk, OpenLogError};
pub use network::PeerClock;
pub use node::{OpenError, RaftNode};
pub use proposer::Applied;
pub use runtime::seed_elections;
pub use seed::seed;
pub use settings::{Components, RaftSettings, Storage};
pub use state_machine::{AppliedEntry, StateView};
pub use status::{Leadership, Member, RaftStatus, Role};

#[cfg(test)]
mod tests;
