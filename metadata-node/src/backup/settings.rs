//! What an operator says about backups.

use std::time::Duration;

use clap::{Args, ValueEnum};

/// How the log is archived in the bucket.
#[derive(Debug, Clone, Args)]
pub struct BackupSettings {
    /// Whether the leader keeps snapshots and an archive of the log in the bucket, from which `restore` makes a new cluster.
    #[arg(long, env = "CARNAX_BACKUP", default_value = "on", value_name = "on|off")]
    pub backup: BackupMode,

    /// How often what is new goes to the archive: what may be lost with all metadata disks. Nothing is written while nothing is new.
    #[arg(long, env = "CARNAX_BACKUP_INTERVAL_MS", default_value_t = 10_000, value_name = "MILLISECONDS")]
    pub backup_interval_ms: u64,

    /// The archive is written earlier when so many bytes of log wait for it.
    #[arg(long, env = "CARNAX_BACKUP_BYTES", default_value_t = 4 * 1024 * 1024, value_name = "BYTES")]
    pub backup_bytes: u64,

    /// A snapshot is written when so many bytes of archive lie behind the last one; a restore reads about as much.
    #[arg(
        long,
        env = "CARNAX_BACKUP_SNAPSHOT_BYTES",
        default_value_t = 64 * 1024 * 1024,
        value_name = "BYTES"
    )]
    pub backup_snapshot_bytes: u64,
}

/// Whether there is a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BackupMode {
    /// There is.
    On,
    /// The bucket holds records alone: if a majority of the metadata disks is lost, nothing says what they mean.
    Off,
}

impl BackupSettings {
    /// No backup: for clusters that are not to outlive their disks.
    pub fn off() -> Self {
        Self {
            backup: BackupMode::Off,
            backup_interval_ms: 10_000,
            backup_bytes: 4 * 1024 * 1024,
            backup_snapshot_bytes: 64 * 1024 * 1024,
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.backup == BackupMode::On
    }

    pub(crate) fn interval(&self) -> Duration {
        Duration::from_millis(self.backup_interval_ms)
    }
}
