//! Starts a node, keeps it running, and stops it.

#[cfg(test)]
mod callers;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use carnax_metadata_raft::{OpenError, RaftNode, RaftSettings};
use carnax_object_store::ObjectStore;
use carnax_platform::clock::Clock;
use carnax_platform::entropy::Entropy;
use carnax_platform::network::{Listener, Network};
use carnax_platform::rpc;
use carnax_platform::tls::TlsError;
use carnax_queue::Queues;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backup::{self, Backup, BackupOff, Vault};
use crate::bootstrap::{self, BootstrapError};
use crate::config::Settings;
use crate::disk_care::DiskCare;
use crate::duties::Duties;
use crate::group_sessions::{self, GroupSessions};
use crate::handle::Handle;
use crate::identity::{Disk, Identity, IdentityError};
use crate::stamper::Stamper;
use crate::tls::Tls;
use crate::{announce, due_jobs, http, join, retention, usage};

/// How long answers in progress may take when the node stops.
const DRAIN: Duration = Duration::from_secs(5);
/// How long a leader that stops waits for its successor.
const HAND_OVER: Duration = Duration::from_secs(3);

/// What a node works with; a simulation hands in its own.
#[derive(Debug, Clone)]
pub struct Components {
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Where ids come from.
    pub entropy: Arc<dyn Entropy>,
    /// Reaches the other nodes, and is reached.
    pub network: Arc<dyn Network>,
    /// The bucket of the cluster.
    pub object_store: Arc<dyn ObjectStore>,
    /// Reaches the queues that are told about commits.
    pub queues: Arc<dyn Queues>,
    /// Where log, snapshots and identity lie.
    pub disk: Disk,
}

/// Where a node listens, with real ports.
#[derive(Debug, Clone, Copy)]
pub struct Listening {
    /// The RPC for nodes and frontends.
    pub node: SocketAddr,
    /// The JSON port for operators.
    pub http: SocketAddr,
}

/// Why a node stopped, or did not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A port is taken, or not ours to listen on.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// Certificates cannot be used, or are missing.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The disk does not say who it is.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A restore into this disk was cut short.
    #[error("the restore into this folder did not finish: run it again")]
    HalfRestored,
    /// The bucket does not say what to do.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// Raft does not start.
    #[error("the Raft node cannot be opened")]
    Open(#[from] OpenError),
    /// Raft refuses to begin.
    #[error("the cluster cannot be initialized")]
    Initialize(#[source] carnax_core::problem::Problem),
    /// Raft cannot go on; the process is to be started again.
    #[error("the Raft node cannot go on, start it again: {0}")]
    Fatal(String),
}

/// What the small HTTP port shows: nothing but patience until the node has joined.
pub(crate) type Joined = Arc<OnceLock<Handle>>;

/// Runs a node until `shutdown` is cancelled; says through `listening` where it listens as soon as it does.
///
/// A node that has no identity yet first starts the cluster or waits until it is let in, however long that takes. On
/// shutdown a leader hands over, calls in progress end, and the log is closed.
///
/// # Errors
/// See [`RunError`]; a supervisor starts the process again.
pub async fn run(
    settings: Settings,
    components: Components,
    shutdown: CancellationToken,
    listening: impl FnOnce(Listening) + Send,
) -> Result<(), RunError> {
    let tls = Tls::open(&settings, &components.clock)?;
    let http_listener = tls.http(listen(&*components.network, &settings.http_listen).await?);
    let components = Components { network: tls.network(components.network), ..components };
    let mut node_listener = listen(&*components.network, &settings.node_listen).await?;
    let at = |listener: &dyn Listener, address: &str| {
        listener.local_address().map_err(|source| RunError::Listen { address: address.to_owned(), source })
    };
    let node_address = at(&*node_listener, &settings.node_listen)?;
    listening(Listening { node: node_address, http: at(&*http_listener, &settings.http_listen)? });
    let advertised = settings.advertised_at(node_address);
    // A node that takes any free port stands for itself in the bootstrap list.
    let listed = |address: &String| {
        if *address == settings.node_listen { advertised.clone() } else { address.clone() }
    };
    let settings = Settings { bootstrap: settings.bootstrap.iter().map(listed).collect(), ..settings };

    let joined = Joined::default();
    let tasks = TaskTracker::new();
    let stop_http = CancellationToken::new();
    tasks.spawn(http::serve(http_listener, Arc::clone(&joined), stop_http.clone()));
    tasks.spawn(tls.clone().keep_fresh(stop_http.clone()));

    let entered = tokio::select! {
        entered = Box::pin(enter(&settings, &components, &advertised)) => Some(entered),
        () = shutdown.cancelled() => None,
        () = refuse(&mut *node_listener) => None,
    };
    let ran = match entered {
        None => Ok(()),
        Some(Err(error)) => Err(error),
        Some(Ok(node)) => {
            let _ = joined.set(node.duties.handle.clone());
            tasks.spawn(tls.show(node.duties.handle.metrics().tls.clone(), stop_http.clone()));
            Box::pin(serve(node, node_listener, shutdown)).await
        }
    };
    stop_http.cancel();
    tasks.close();
    let _ = tokio::time::timeout(DRAIN, tasks.wait()).await;
    ran
}

/// A node that is part of its cluster.
struct Node {
    duties: Duties,
    disk_care: DiskCare,
    network: Arc<dyn Network>,
    queues: Arc<dyn Queues>,
    maintenance_queue: Option<String>,
    backup: Result<Backup, BackupOff>,
}

/// Gets an identity, opens Raft under it, and begins the cluster if that is this node's part.
async fn enter(settings: &Settings, components: &Components, advertised: &str) -> Result<Node, RunError> {
    if components.disk.is_half_restored()? {
        return Err(RunError::HalfRestored);
    }
    let disk = components.disk.id(&*components.entropy)?;
    let identity = match components.disk.identity()? {
        Some(identity) => identity,
        None => {
            let of_node = (disk, settings.level_max());
            let identity = join::identity(components, &settings.bootstrap, advertised, of_node).await?;
            components.disk.assign(&identity)?;
            identity
        }
    };
    check_incarnation(components, &identity).await?;
    let stamper = Stamper::new(Arc::clone(&components.clock));
    let raft = open(settings, components, &identity, &stamper).await?;
    if identity.bootstrap.is_some() {
        raft.initialize(advertised).await.map_err(RunError::Initialize)?;
    }
    tracing::info!(node = %identity.node, cluster = %identity.cluster, address = advertised, "node runs");
    let entropy = Arc::clone(&components.entropy);
    let sessions = GroupSessions::new(Arc::clone(&components.clock));
    let clocks = (sessions, stamper.clone());
    let (cluster, incarnation) = (identity.cluster, identity.incarnation);
    let known = (settings.backup.is_on(), settings.level_max());
    let store = Arc::clone(&components.object_store);
    let handle = Handle::new(raft, entropy, clocks, (cluster, incarnation), known, store);
    let vault = Vault { store: Arc::clone(&components.object_store), cluster, incarnation };
    let backup = if settings.backup.is_on() {
        let (backup, entropy) = (settings.backup.clone(), Arc::clone(&components.entropy));
        Ok(Backup::new(handle.clone(), vault, backup, entropy))
    } else {
        Err(BackupOff { handle: handle.clone(), vault })
    };
    let clock = Arc::clone(&components.clock);
    let (bootstrap, advertised) = (identity.bootstrap, advertised.to_owned());
    let admin_token = settings.admin_token.clone();
    let (queues, maintenance_queue) = (Arc::clone(&components.queues), settings.maintenance_queue.clone());
    let disk_care = DiskCare {
        handle: handle.clone(),
        disk: components.disk.clone(),
        free_min: settings.disk_free_min,
        network: Arc::clone(&components.network),
    };
    Ok(Node {
        disk_care,
        network: Arc::clone(&components.network),
        queues,
        maintenance_queue,
        backup,
        duties: Duties { handle, stamper, clock, bootstrap, disk, advertised, admin_token },
    })
}

/// A node of a cluster that was restored elsewhere must not go on; a bucket that does not answer stops nobody.
async fn check_incarnation(components: &Components, identity: &Identity) -> Result<(), RunError> {
    let store = &*components.object_store;
    match bootstrap::check_incarnation(store, identity.cluster, identity.incarnation).await {
        Err(BootstrapError::ObjectStore(error)) => {
            tracing::warn!(%error, "incarnation could not be checked; the node starts all the same");
            Ok(())
        }
        checked => Ok(checked?),
    }
}

async fn open(
    settings: &Settings,
    components: &Components,
    identity: &Identity,
    stamper: &Stamper,
) -> Result<RaftNode, RunError> {
    let stamper = stamper.clone();
    let raft = RaftSettings {
        heartbeat: settings.heartbeat,
        election_min: settings.election,
        election_max: settings.election * 2,
        snapshot_log_bytes: settings.snapshot_log_bytes,
        level_max: settings.level_max(),
        archive_bytes: if settings.backup.is_on() { backup::ENTRIES_BYTES_KEPT } else { 0 },
        ..RaftSettings::new(identity.cluster, identity.node)
    };
    let components = carnax_metadata_raft::Components {
        clock: Arc::clone(&components.clock),
        network: Arc::clone(&components.network),
        storage: components.disk.raft(),
        stamp: Arc::new(move || stamper.stamp()),
    };
    Ok(RaftNode::open(raft, components).await?)
}

async fn serve(node: Node, listener: Box<dyn Listener>, shutdown: CancellationToken) -> Result<(), RunError> {
    let handle = node.duties.handle.clone();
    let raft = handle.raft().clone();
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    // A disk that is full is known before the first proposal.
    node.disk_care.look().await;
    tasks.spawn(node.disk_care.run(stop.clone()));
    tasks.spawn(node.duties.run(stop.clone()));
    tasks.spawn(group_sessions::watch(handle.clone(), stop.clone()));
    tasks.spawn(due_jobs::run(
        handle.clone(),
        Arc::clone(&node.queues),
        node.maintenance_queue,
        stop.clone(),
    ));
    tasks.spawn(usage::run(handle.clone(), node.network, stop.clone()));
    tasks.spawn(retention::run(handle.clone(), stop.clone()));
    tasks.spawn(announce::run(handle.clone(), node.queues, stop.clone()));
    let backup = match node.backup {
        Ok(backup) => Some(tasks.spawn(backup.run(stop.clone()))),
        Err(off) => {
            tasks.spawn(off.run(stop.clone()));
            None
        }
    };
    let stopped = stop.clone();
    let mut server =
        tokio::spawn(rpc::serve(listener, router(&handle, &stop), async move { stopped.cancelled().await }));

    let ended = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        superseded = superseded(backup) => Err(superseded.into()),
        reason = raft.fatal() => Err(RunError::Fatal(reason)),
    };
    if ended.is_ok()
        && raft.leadership().leads
        && raft.status().members.iter().filter(|m| m.voter).count() > 1
    {
        match raft.transfer_leadership(None, HAND_OVER).await {
            Ok(successor) => tracing::info!(%successor, "leadership is handed over"),
            Err(problem) => tracing::warn!(%problem, "leadership could not be handed over"),
        }
    }
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    if tokio::time::timeout(DRAIN, &mut server).await.is_err() {
        tracing::warn!("calls in progress were cut");
        server.abort();
    }
    raft.shutdown().await;
    ended
}

/// All calls that a node answers.
fn router(handle: &Handle, stop: &CancellationToken) -> rpc::Router {
    crate::rpc::router(handle, stop).merge(handle.raft().router())
}

/// Why the cluster is no more, once the backup has found out.
async fn superseded(backup: Option<JoinHandle<Option<BootstrapError>>>) -> BootstrapError {
    match backup {
        Some(backup) => match backup.await {
            Ok(Some(superseded)) => superseded,
            // It ends otherwise only when the node stops.
            Ok(None) => std::future::pending().await,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        },
        None => std::future::pending().await,
    }
}

async fn listen(network: &dyn Network, address: &str) -> Result<Box<dyn Listener>, RunError> {
    let listening = network.listen(address).await;
    listening.map_err(|source| RunError::Listen { address: address.to_owned(), source })
}

/// Hangs up on everyone, so that clients turn to another node at once instead of waiting for this one to join.
async fn refuse(listener: &mut dyn Listener) {
    loop {
        if listener.accept().await.is_err() {
            tokio::time::sleep(bootstrap::RETRY).await;
        }
    }
}
