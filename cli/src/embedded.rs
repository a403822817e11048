//! Carnax in one process: a metadata node and a frontend on a local folder. For `carnax dev` and `carnax demo`.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use carnax_frontend::{AccessRule, HttpsSettings};
use carnax_metadata_node::{ADMIN_TOKEN_VARIABLE, Disk};
use carnax_object_store::{ObjectStore, ObjectStoreSettings, ObjectStoreUrl};
use carnax_platform::clock::SystemClock;
use carnax_platform::entropy::SystemEntropy;
use carnax_platform::network::{TcpNetwork, is_loopback};
use carnax_platform::tls::ClusterTlsSettings;
use carnax_queue::SqsQueues;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Segments close almost at once: nobody shares the machine with one developer.
const LINGER: Duration = Duration::from_millis(5);
/// A single node waits for no other: it may stand for election at once.
const ELECTION: Duration = Duration::from_millis(300);
/// Any free port of loopback: nobody else is to reach the metadata node, or a demonstration.
const ANY_PORT: &str = "127.0.0.1:0";

/// Both servers, running.
pub(crate) struct Embedded {
    /// Where the frontend serves HTTP.
    pub(crate) address: SocketAddr,
    frontend: Server,
    node: Server,
}

/// Where the frontend serves, and whom.
pub(crate) struct Entrance<'a> {
    pub(crate) listen: &'a str,
    pub(crate) access: Option<AccessRule>,
    pub(crate) https: HttpsSettings,
    /// Whether other machines may come in without TLS.
    pub(crate) plaintext_between_machines: bool,
    /// The token that lets the first administrator in.
    pub(crate) admin_token: Option<String>,
}

impl Entrance<'static> {
    /// Any port of this machine alone, open to everybody on it.
    pub(crate) fn loopback() -> Self {
        Self {
            listen: ANY_PORT,
            access: None,
            https: HttpsSettings::default(),
            plaintext_between_machines: false,
            admin_token: None,
        }
    }
}

/// A server in a task of its own.
struct Server {
    shutdown: CancellationToken,
    task: JoinHandle<Result<()>>,
}

impl Embedded {
    /// Starts both on `dir/metadata` and `dir/objects`, and returns once HTTP is served.
    ///
    /// # Errors
    /// Whatever keeps them from starting; an address that others reach where nobody said who may come in.
    pub(crate) async fn start(dir: &Path, entrance: Entrance<'_>) -> Result<Self> {
        let objects = dir.join("objects");
        std::fs::create_dir_all(&objects).with_context(|| format!("cannot create {}", objects.display()))?;
        let objects = objects.canonicalize()?;
        let url: ObjectStoreUrl = format!("file://{}", objects.display()).parse()?;
        let store = carnax_object_store::open(&url, &ObjectStoreSettings::default()).await?;
        let mut settings = node_settings(dir, &url);
        settings.read_admin_token(entrance.admin_token.clone())?;
        let Entrance { listen, access, .. } = entrance;
        if !is_loopback(listen) && access.is_none() && settings.admin_token.is_none() {
            anyhow::bail!(
                "{listen} is reached from other machines, and there is no access token yet: put one that you made into {ADMIN_TOKEN_VARIABLE} \
                 (carnax_<id>_<secret>), or say --access open-to-the-network"
            );
        }
        let (node_address, node) = start_node(settings, &store).await?;
        let (address, frontend) = start_frontend(entrance, node_address, url, store).await?;
        Ok(Self { address, frontend, node })
    }

    /// Waits until one of the servers ends by itself, which is a failure.
    pub(crate) async fn ended(&mut self) -> anyhow::Error {
        let ended = tokio::select! {
            ended = &mut self.frontend.task => ended,
            ended = &mut self.node.task => ended,
        };
        match ended {
            Ok(Ok(())) => anyhow::anyhow!("a server ended without being told to"),
            Ok(Err(error)) => error,
            Err(panicked) => panicked.into(),
        }
    }

    /// Finishes what was accepted, then stops: the frontend first, since it still commits.
    pub(crate) async fn stop(self) -> Result<()> {
        self.frontend.shutdown.cancel();
        self.frontend.task.await??;
        self.node.shutdown.cancel();
        self.node.task.await?
    }
}

fn node_settings(dir: &Path, url: &ObjectStoreUrl) -> carnax_metadata_node::Settings {
    carnax_metadata_node::Settings {
        node_listen: ANY_PORT.to_owned(),
        node_advertise: None,
        http_listen: ANY_PORT.to_owned(),
        dir: dir.join("metadata"),
        bootstrap: vec![ANY_PORT.to_owned()],
        object_store: url.clone(),
        s3_path_style: false,
        heartbeat: ELECTION / 5,
        election: ELECTION,
        maintenance_queue: None,
        backup: carnax_metadata_node::BackupSettings::off(),
        disk_free_min: None,
        feature_level_max: None,
        admin_token_file: None,
        admin_token: None,
        tls: ClusterTlsSettings::default(),
        http_tls: false,
        snapshot_log_bytes: carnax_metadata_node::SNAPSHOT_LOG_BYTES,
    }
}

async fn start_node(
    settings: carnax_metadata_node::Settings,
    store: &Arc<dyn ObjectStore>,
) -> Result<(SocketAddr, Server)> {
    let components = carnax_metadata_node::Components {
        clock: Arc::new(SystemClock::new()),
        entropy: Arc::new(SystemEntropy),
        network: Arc::new(TcpNetwork),
        object_store: Arc::clone(store),
        queues: Arc::new(SqsQueues::default()),
        disk: Disk::Directory(settings.dir.clone()),
    };
    let (tell, told) = oneshot::channel();
    let shutdown = CancellationToken::new();
    let listening = move |at: carnax_metadata_node::Listening| {
        let _ = tell.send(at.node);
    };
    let node = Box::pin(carnax_metadata_node::run(settings, components, shutdown.clone(), listening));
    started(shutdown, told, async { node.await.context("metadata node") }).await
}

async fn start_frontend(
    entrance: Entrance<'_>,
    node: SocketAddr,
    url: ObjectStoreUrl,
    object_store: Arc<dyn ObjectStore>,
) -> Result<(SocketAddr, Server)> {
    let mut settings = carnax_frontend::Settings::new(vec![node.to_string()], url);
    entrance.listen.clone_into(&mut settings.listen);
    settings.access = entrance.access;
    settings.https = entrance.https;
    settings.tls.plaintext_between_machines = entrance.plaintext_between_machines;
    settings.append.linger = LINGER;
    let components = carnax_frontend::Components {
        clock: Arc::new(SystemClock::new()),
        entropy: Arc::new(SystemEntropy),
        network: Arc::new(TcpNetwork),
        object_store,
        queues: Arc::new(SqsQueues::default()),
    };
    let (tell, told) = oneshot::channel();
    let shutdown = CancellationToken::new();
    let listening = move |address| {
        let _ = tell.send(address);
    };
    let stop = shutdown.clone().cancelled_owned();
    let frontend = Box::pin(carnax_frontend::run(settings, components, listening, stop));
    started(shutdown, told, async { frontend.await.context("frontend") }).await
}

/// Runs a server in a task and waits until it listens, or fails to.
async fn started(
    shutdown: CancellationToken,
    listens: oneshot::Receiver<SocketAddr>,
    server: impl Future<Output = Result<()>> + Send + 'static,
) -> Result<(SocketAddr, Server)> {
    let task = tokio::spawn(server);
    match listens.await {
        Ok(address) => Ok((address, Server { shutdown, task })),
        Err(_) => Err(task.await?.err().unwrap_or_else(|| anyhow::anyhow!("the server ended at once"))),
    }
}
