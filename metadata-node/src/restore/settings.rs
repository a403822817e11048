//! What an operator says about a restore.

use std::path::PathBuf;
use std::time::Duration;

use carnax_object_store::ObjectStoreUrl;
use clap::Args;

/// What `carnax-metadata-node restore` takes.
#[derive(Debug, Clone, Args)]
pub struct RestoreSettings {
    /// The bucket or folder of the cluster: s3://bucket/prefix or file:///dir.
    #[arg(long, env = "CARNAX_OBJECT_STORE", value_name = "URL")]
    pub object_store: ObjectStoreUrl,

    /// Address the bucket in the path instead of the host name, as most S3-compatible servers want it.
    #[arg(long, env = "CARNAX_S3_PATH_STYLE")]
    pub s3_path_style: bool,

    /// An empty folder: the first node of the new cluster will run on it.
    #[arg(long, env = "CARNAX_NODE_DIR", value_name = "DIR")]
    pub dir: PathBuf,

    /// Where other nodes and frontends will reach that node: host:port, as the others are to dial it.
    #[arg(long, env = "CARNAX_NODE_LISTEN", value_name = "HOST:PORT")]
    pub node_listen: String,

    /// The address that others are told to dial, where it differs from the one listened on.
    #[arg(long, env = "CARNAX_NODE_ADVERTISE", value_name = "HOST:PORT")]
    pub node_advertise: Option<String>,

    /// Nodes that are to vote before the new cluster takes appends; without it, as many as before.
    #[arg(long, value_name = "N")]
    pub voters: Option<u32>,

    /// Offsets that are skipped at least in each partition, beyond those of the objects that were found behind the end of the archive.
    #[arg(long, default_value_t = 10_000, value_name = "OFFSETS")]
    pub offset_margin: u32,

    /// How long to wait between shutting the former cluster out and reading: at least its --backup-interval-ms, since a former
    /// leader that still runs stops at its next write to the archive.
    #[arg(long, default_value_t = 15_000, value_name = "MILLISECONDS")]
    pub settle_ms: u64,

    /// Delete the records that were written behind the end of the archive, instead of leaving their objects where they are.
    #[arg(long)]
    pub discard_tail: bool,
}

impl RestoreSettings {
    pub(super) fn address(&self) -> &str {
        self.node_advertise.as_deref().unwrap_or(&self.node_listen)
    }

    pub(super) fn settle(&self) -> Duration {
        Duration::from_millis(self.settle_ms)
    }
}
