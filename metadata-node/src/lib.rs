//! The metadata node: one member of the Raft cluster that assigns offsets and tracks which bytes hold them.
//!
//! ```text
//!  RPC calls ─▶ handle ─▶ propose / read index ─▶ carnax-metadata-raft ─▶ carnax-metadata-state
//!                ▲
//!  duties ───────┤ (leader only: bootstrap, votes, expiry, clocks)
//!  group sessions ┤ (leader only: which members were heard)
//!  announce ─────┤ (leader only: queues that are told about commits)
//!  due jobs ─────┤ (leader only: workers that are told of maintenance)
//!  backup ───────┘ (leader only: archive and snapshots in the bucket)
//! ```
//!
//! It owns bootstrap, identity, membership, time stamps, and the ports. It never sees a record, never touches a segment
//! object, and decides nothing that `apply` decides.
#![warn(missing_docs)]

mod announce;
mod backup;
mod bootstrap;
mod cluster;
mod config;
mod disk_care;
mod due_jobs;
mod duties;
mod group_sessions;
mod handle;
mod http;
mod identity;
mod join;
mod log_clock;
mod membership;
mod metrics;
mod restore;
mod retention;
mod rpc;
mod run;
mod stamper;
mod tls;
mod usage;

pub use backup::{BackupMode, BackupSettings, VaultError};
pub use bootstrap::BootstrapError;
pub use config::{ADMIN_TOKEN_VARIABLE, AdminTokenError, SNAPSHOT_LOG_BYTES, Settings};
pub use identity::{Disk, IdentityError, MemoryNodeDisk, Space};
pub use restore::{
    Named, RestoreComponents, RestoreError, RestoreSettings, Restored, SkippedOffsets, WithoutBackup, restore,
};
pub use run::{Components, Listening, RunError, run};
