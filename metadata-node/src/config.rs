//! The settings of a metadata node, from flags and environment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use carnax_object_store::ObjectStoreUrl;
use clap::Args;

use crate::backup::BackupSettings;

/// What suits a node with gigabytes of memory: a restart reads about as much log as this.
pub const SNAPSHOT_LOG_BYTES: u64 = 256 * 1024 * 1024;

/// What `carnax-metadata-node` takes.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// Where other nodes and frontends reach this node: host:port, as the others are to dial it.
    #[arg(long, env = "CARNAX_NODE_LISTEN", default_value = "127.0.0.1:7001", value_name = "HOST:PORT")]
    pub node_listen: String,

    /// The address that others are told to dial, where it differs from the one listened on.
    #[arg(long, env = "CARNAX_NODE_ADVERTISE", value_name = "HOST:PORT")]
    pub node_advertise: Option<String>,

    /// Where /healthz, /readyz, /metrics and /v1/cluster are served.
    #[arg(long, env = "CARNAX_NODE_HTTP_LISTEN", default_value = "127.0.0.1:7101", value_name = "HOST:PORT")]
    pub http_listen: String,

    /// Folder of the Raft log and snapshots; belongs to this node alone.
    #[arg(long, env = "CARNAX_NODE_DIR", value_name = "DIR")]
    pub dir: PathBuf,

    /// Addresses of the nodes that form a new cluster; ignored once the cluster exists.
    #[arg(long, env = "CARNAX_BOOTSTRAP", value_delimiter = ',', value_name = "HOST:PORT,…")]
    pub bootstrap: Vec<String>,

    /// The bucket or folder of the cluster: s3://bucket/prefix or file:///dir.
    #[arg(long, env = "CARNAX_OBJECT_STORE", value_name = "URL")]
    pub object_store: ObjectStoreUrl,

    /// Address the bucket in the path instead of the host name, as most S3-compatible servers want it.
    #[arg(long, env = "CARNAX_S3_PATH_STYLE")]
    pub s3_path_style: bool,

    /// The URL of the SQS queue that wakes maintenance workers; without one they ask by themselves.
    #[arg(long, env = "CARNAX_MAINTENANCE_QUEUE", value_name = "URL")]
    pub maintenance_queue: Option<String>,

    /// The backup in the bucket.
    #[command(flatten)]
    pub backup: BackupSettings,

    /// Bytes of the disk that are kept back: with less free, the node refuses proposals and hands leadership over; by default 1 GiB, or a
    /// twentieth of the disk if that is less.
    #[arg(long, env = "CARNAX_DISK_FREE_MIN", value_name = "BYTES")]
    pub disk_free_min: Option<u64>,

    /// How often a leader tells followers that it is there.
    #[arg(skip = Duration::from_millis(200))]
    pub heartbeat: Duration,

    /// How long a follower waits for its leader before it stands for election; up to twice as long.
    #[arg(skip = Duration::from_millis(1_000))]
    pub election: Duration,

    /// A snapshot is written when so many bytes of log were applied since the last one.
    #[arg(skip = SNAPSHOT_LOG_BYTES)]
    pub snapshot_log_bytes: u64,
}

impl Settings {
    /// The address that others dial, when the node listens at `bound`: port 0 stands for the port that it got.
    pub(crate) fn advertised_at(&self, bound: SocketAddr) -> String {
        let asked = self.node_advertise.as_deref().unwrap_or(&self.node_listen);
        match asked.strip_suffix(":0") {
            Some(host) => format!("{host}:{}", bound.port()),
            None => asked.to_owned(),
        }
    }
}
