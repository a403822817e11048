//! What a node is told.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use carnax_core::id::{ClusterId, NodeId};
use carnax_core::time::Timestamp;
use carnax_metadata_state::FeatureLevel;
use carnax_platform::clock::Clock;
use carnax_platform::network::Network;
use openraft::{Config, SnapshotPolicy};

use crate::log_store::MemoryDisk;

/// Bytes and times of a Raft node.
#[derive(Debug, Clone)]
pub struct RaftSettings {
    /// The cluster; messages of others are refused.
    pub cluster: ClusterId,
    /// The node; never given to another disk.
    pub node: NodeId,
    /// How often a leader says that it lives.
    pub heartbeat: Duration,
    /// The shortest time without a leader after which a node stands for election; at least four heartbeats.
    pub election_min: Duration,
    /// The longest such time.
    pub election_max: Duration,
    /// A snapshot is written when so many bytes of log were applied since the last one.
    pub snapshot_log_bytes: u64,
    /// Bytes of applied entries that are kept in memory for an archive; 0 for none.
    pub archive_bytes: u64,
    /// Entries that are kept behind a snapshot, for followers that lag: a long log, see issue 2116 of openraft.
    pub log_entries_kept: u64,
    /// The highest feature level that the node knows; lower than its build's in tests of upgrades alone.
    pub level_max: FeatureLevel,
    /// How long an fsync may take before a leader hands over and the node counts as dead.
    pub fsync_age_max: Duration,
}

impl RaftSettings {
    /// What suits nodes in three zones of a region.
    pub fn new(cluster: ClusterId, node: NodeId) -> Self {
        Self {
            cluster,
            node,
            heartbeat: Duration::from_millis(250),
            election_min: Duration::from_millis(1_000),
            election_max: Duration::from_millis(2_000),
            snapshot_log_bytes: 256 * 1024 * 1024,
            archive_bytes: 0,
            log_entries_kept: 200_000,
            level_max: FeatureLevel::CURRENT,
            fsync_age_max: Duration::from_secs(10),
        }
    }

    /// The lowest index that is streamed once a snapshot ends at `snapshot`: below it, purging has only to be let through.
    pub(crate) fn floor(&self, snapshot: u64) -> u64 {
        snapshot.saturating_sub(self.log_entries_kept + self.purge_batch())
    }

    fn purge_batch(&self) -> u64 {
        (self.log_entries_kept / 4).clamp(1, 4_096)
    }

    pub(crate) fn config(&self) -> Result<Config, openraft::ConfigError> {
        Config {
            cluster_name: self.cluster.to_string(),
            heartbeat_interval: millis(self.heartbeat),
            election_timeout_min: millis(self.election_min),
            election_timeout_max: millis(self.election_max),
            enable_pre_vote: Some(true),
            install_snapshot_timeout: 10 * 60 * 1_000,
            // Bounded by bytes in the log reader as well.
            max_payload_entries: 1_024,
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: self.log_entries_kept,
            purge_batch_size: self.purge_batch(),
            // A follower that lags is served from the log as long as the log reaches back.
            replication_lag_threshold: u64::MAX / 2,
            allow_log_reversion: None,
            ..Config::default()
        }
        .validate()
    }
}

/// What a node works with.
#[derive(Clone)]
pub struct Components {
    /// Tells the wall clock that peers are told.
    pub clock: Arc<dyn Clock>,
    /// Makes connections to peers.
    pub network: Arc<dyn Network>,
    /// Where log and snapshots lie.
    pub storage: Storage,
    /// The log time of entries that this node proposes.
    pub stamp: StampEntry,
}

/// Tells the log time of an entry, just before it is proposed.
pub(crate) type StampEntry = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Where log and snapshots lie.
#[derive(Debug, Clone)]
pub enum Storage {
    /// In a directory of their own.
    Directory(PathBuf),
    /// In memory, for simulations.
    Memory(MemoryDisk),
}

impl fmt::Debug for Components {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Components").field("storage", &self.storage).finish_non_exhaustive()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
