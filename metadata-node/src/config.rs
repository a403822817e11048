//! The settings of a metadata node, from flags and environment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use carnax_core::access::{InvalidToken, Token};
use carnax_metadata_state::FeatureLevel;
use carnax_object_store::ObjectStoreUrl;
use carnax_platform::tls::ClusterTlsSettings;
use clap::Args;

use crate::backup::BackupSettings;

/// What suits a node with gigabytes of memory: a restart reads about as much log as this.
pub const SNAPSHOT_LOG_BYTES: u64 = 256 * 1024 * 1024;

/// The environment variable that may hold the token that lets the first administrator in.
pub const ADMIN_TOKEN_VARIABLE: &str = "CARNAX_ADMIN_TOKEN";

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

    /// A file with the token that lets the first administrator in, `carnax_<id>_<secret>`: it is made valid while the cluster has no
    /// other valid token of an administrator. The variable CARNAX_ADMIN_TOKEN may hold the token itself.
    #[arg(long, env = "CARNAX_ADMIN_TOKEN_FILE", value_name = "FILE")]
    pub admin_token_file: Option<PathBuf>,

    /// The token of that file or variable, once it is read.
    #[arg(skip)]
    pub admin_token: Option<Token>,

    /// For tests of upgrades: act as a build that knows only up to this feature level.
    #[arg(long, env = "CARNAX_FEATURE_LEVEL_MAX", value_name = "N", hide = true)]
    pub feature_level_max: Option<u32>,

    /// Certificates for the RPC between nodes and with frontends.
    #[command(flatten)]
    pub tls: ClusterTlsSettings,

    /// Serve the HTTP port with the certificate of --tls-cert; clients show none.
    #[arg(long, env = "CARNAX_HTTP_TLS")]
    pub http_tls: bool,

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

/// Why the administrator's token cannot be used. Says nothing of what it is.
#[derive(Debug, thiserror::Error)]
pub enum AdminTokenError {
    /// The file cannot be read.
    #[error("the file of the administrator's token cannot be read: {path}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It holds no token.
    #[error("the administrator's token of {origin} cannot be used")]
    Token {
        /// The file or variable.
        origin: String,
        /// Why.
        source: InvalidToken,
    },
}

impl Settings {
    /// Reads the administrator's token from its file, or else takes what stands in the environment variable.
    ///
    /// # Errors
    /// See [`AdminTokenError`].
    pub fn read_admin_token(&mut self, variable: Option<String>) -> Result<(), AdminTokenError> {
        let (origin, text) = match (&self.admin_token_file, variable) {
            (Some(path), _) => {
                let read = std::fs::read_to_string(path);
                let text = read.map_err(|source| AdminTokenError::File { path: path.clone(), source })?;
                (path.display().to_string(), text)
            }
            (None, Some(text)) => (ADMIN_TOKEN_VARIABLE.to_owned(), text),
            (None, None) => return Ok(()),
        };
        let token = text.trim().parse().map_err(|source| AdminTokenError::Token { origin, source })?;
        self.admin_token = Some(token);
        Ok(())
    }

    /// The highest feature level that the node knows.
    pub(crate) fn level_max(&self) -> FeatureLevel {
        self.feature_level_max
            .map_or(FeatureLevel::CURRENT, |max| FeatureLevel(max).min(FeatureLevel::CURRENT))
    }

    /// The address that others dial, when the node listens at `bound`: port 0 stands for the port that it got.
    pub(crate) fn advertised_at(&self, bound: SocketAddr) -> String {
        let asked = self.node_advertise.as_deref().unwrap_or(&self.node_listen);
        match asked.strip_suffix(":0") {
            Some(host) => format!("{host}:{}", bound.port()),
            None => asked.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        settings: Settings,
    }

    fn settings(file: Option<PathBuf>) -> Settings {
        let line = ["program", "--dir", "d", "--object-store", "memory://x"];
        let settings = Program::try_parse_from(line).unwrap().settings;
        Settings { admin_token_file: file, ..settings }
    }

    #[test]
    fn the_administrators_token_comes_from_file_or_variable_and_is_never_repeated() {
        let secret = "5".repeat(40);
        let folder = tempfile::tempdir().unwrap();
        let (good, bad) = (folder.path().join("good"), folder.path().join("bad"));
        std::fs::write(&good, format!("carnax_file_{secret}\n")).unwrap();
        std::fs::write(&bad, format!("carnax_file-{secret}\n")).unwrap();

        let settings_of = |file: Option<PathBuf>, variable: Option<String>| {
            let mut settings = settings(file);
            settings.read_admin_token(variable).map(|()| settings)
        };
        let variable = || Some(format!("carnax_variable_{secret}"));
        let id = |settings: Settings| settings.admin_token.map(|token| token.id().to_string());
        assert_eq!(id(settings_of(None, None).unwrap()), None);
        assert_eq!(id(settings_of(None, variable()).unwrap()).as_deref(), Some("variable"));
        let read = settings_of(Some(good), variable()).unwrap();
        assert!(!format!("{read:?}").contains(&secret));
        assert_eq!(id(read).as_deref(), Some("file"));
        for wrong in [settings_of(Some(bad), None), settings_of(Some(folder.path().join("none")), variable())]
        {
            let error = wrong.unwrap_err();
            let chain = format!("{error} {:?} {error:?}", std::error::Error::source(&error));
            assert!(!chain.contains(&secret), "{chain}");
        }
    }
}
