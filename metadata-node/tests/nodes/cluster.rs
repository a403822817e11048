//! A cluster of nodes in this process.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use carnax_core::access::Token;
use carnax_core::error_code::ErrorCode;
use carnax_core::metadata::{Call, ClusterStatus, DescribeCluster, NodeRole};
use carnax_core::problem::Problem;
use carnax_core::time::Timestamp;
use carnax_metadata_node::{
    BackupSettings, Components, Disk, MemoryNodeDisk, RestoreComponents, RestoreError, RestoreSettings,
    Restored, RunError, Settings, Space, restore, run,
};
use carnax_object_store::{FaultStore, MemoryStore};
use carnax_platform::clock::{Clock, SystemClock};
use carnax_platform::entropy::SystemEntropy;
use carnax_platform::network::{Network, TcpNetwork};
use carnax_platform::rpc::{CallError, Channel, ChannelSettings};
use carnax_platform::tls::ClusterTlsSettings;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::queues::TestQueues;

/// How long the cluster may take for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Where workers are told of jobs.
pub(crate) const MAINTENANCE_QUEUE: &str = "http://queues.invalid/1/maintenance";

pub(crate) struct TestCluster {
    pub(crate) nodes: Vec<TestNode>,
    addresses: Vec<String>,
    pub(crate) store: Arc<FaultStore<MemoryStore>>,
    pub(crate) backup: BackupSettings,
    /// What the settings of nodes that start say from now on.
    pub(crate) admin_token: Option<Token>,
    /// The level that nodes know that start from now on; none: all that there is.
    pub(crate) feature_level_max: Option<u32>,
    pub(crate) queues: Arc<TestQueues>,
    /// How this test reaches the nodes.
    pub(crate) network: Arc<dyn Network>,
}

pub(crate) struct TestNode {
    pub(crate) address: String,
    /// How it reaches others and is reached.
    pub(crate) network: Arc<dyn Network>,
    /// Its certificates.
    pub(crate) tls: ClusterTlsSettings,
    dir: TempDir,
    clock: Arc<LeapingClock>,
    /// What it writes to instead of its folder.
    memory: Option<MemoryNodeDisk>,
    running: Option<Running>,
}

impl TestNode {
    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }
}

/// A node with a runtime of its own, which can be killed and paused as a process can.
struct Running {
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), RunError>>,
    runtime: Option<Runtime>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.runtime.take().expect("only dropping takes it").shutdown_background();
    }
}

/// Ends the pause of a node when it is dropped.
pub(crate) struct Paused {
    _resume: std::sync::mpsc::Sender<()>,
}

/// The clock of the system, until it leaps.
#[derive(Debug)]
pub(crate) struct LeapingClock {
    system: SystemClock,
    ahead_seconds: AtomicU64,
}

impl Clock for LeapingClock {
    fn wall(&self) -> Timestamp {
        self.system.wall()
    }

    fn monotonic(&self) -> Duration {
        self.system.monotonic() + Duration::from_secs(self.ahead_seconds.load(Ordering::Relaxed))
    }
}

impl TestCluster {
    /// Nodes that form a new cluster; none runs yet.
    pub(crate) fn new(count: usize) -> Self {
        let addresses: Vec<String> = (0..count).map(|_| free_address()).collect();
        let node = |address: &String| TestNode {
            address: address.clone(),
            network: Arc::new(TcpNetwork),
            tls: ClusterTlsSettings::default(),
            dir: tempfile::tempdir().unwrap(),
            clock: Arc::new(LeapingClock { system: SystemClock::new(), ahead_seconds: AtomicU64::new(0) }),
            memory: None,
            running: None,
        };
        let store = Arc::new(FaultStore::new(MemoryStore::new()));
        let (backup, queues) = (BackupSettings::off(), Arc::default());
        let nodes = addresses.iter().map(node).collect();
        let network = Arc::new(TcpNetwork);
        Self { nodes, addresses, store, backup, admin_token: None, feature_level_max: None, queues, network }
    }

    /// A cluster that runs and takes appends, on disks of which a test says how much room they have.
    pub(crate) async fn start_in_memory(count: usize) -> Self {
        let mut cluster = Self::new(count);
        for node in 0..count {
            cluster.nodes[node].memory = Some(MemoryNodeDisk::default());
            cluster.start_node(node);
        }
        cluster.wait_for_voters(count).await;
        cluster
    }

    /// Says how much room the disk of a node has.
    pub(crate) fn set_free(&self, node: usize, free: u64) {
        let memory = self.nodes[node].memory.as_ref().expect("the disk is in memory");
        memory.set_space(Space { free, total: 100 << 30 });
    }

    /// A cluster that runs and takes appends.
    pub(crate) async fn start(count: usize) -> Self {
        let mut cluster = Self::new(count);
        for node in 0..count {
            cluster.start_node(node);
        }
        cluster.wait_for_voters(count).await;
        cluster
    }

    pub(crate) fn start_node(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        assert!(node.running.is_none(), "the node runs already");
        let settings = Settings {
            node_listen: node.address.clone(),
            node_advertise: None,
            http_listen: "127.0.0.1:0".to_owned(),
            dir: node.dir.path().to_owned(),
            bootstrap: self.addresses.clone(),
            object_store: "memory://unused".parse().unwrap(),
            s3_path_style: false,
            heartbeat: Duration::from_millis(100),
            election: Duration::from_millis(500),
            maintenance_queue: Some(MAINTENANCE_QUEUE.to_owned()),
            backup: self.backup.clone(),
            disk_free_min: None,
            feature_level_max: self.feature_level_max,
            admin_token_file: None,
            admin_token: self.admin_token.clone(),
            tls: node.tls.clone(),
            http_tls: false,
            snapshot_log_bytes: carnax_metadata_node::SNAPSHOT_LOG_BYTES,
        };
        let components = Components {
            clock: Arc::clone(&node.clock) as _,
            entropy: Arc::new(SystemEntropy),
            network: Arc::clone(&node.network),
            object_store: Arc::clone(&self.store) as _,
            queues: Arc::clone(&self.queues) as _,
            disk: match &node.memory {
                Some(memory) => Disk::Memory(Box::new(memory.clone())),
                None => Disk::Directory(node.dir.path().to_owned()),
            },
        };
        let shutdown = CancellationToken::new();
        // One thread: a task that blocks it pauses the node.
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let task = runtime.spawn(run(settings, components, shutdown.clone(), |_| ()));
        node.running = Some(Running { shutdown, task, runtime: Some(runtime) });
    }

    /// Stops a node as an operator would.
    pub(crate) async fn stop_node(&mut self, node: usize) {
        let mut running = self.nodes[node].running.take().expect("the node runs");
        running.shutdown.cancel();
        let stopped = tokio::time::timeout(PATIENCE, &mut running.task).await;
        stopped.expect("the node stops in time").unwrap().unwrap();
    }

    /// Ends a node in the middle of whatever it does.
    pub(crate) fn kill_node(&mut self, node: usize) {
        drop(self.nodes[node].running.take().expect("the node runs"));
    }

    /// Lets a node do nothing, as SIGSTOP does, until the answer is dropped.
    pub(crate) async fn pause_node(&self, node: usize) -> Paused {
        let runtime = self.nodes[node].running.as_ref().and_then(|running| running.runtime.as_ref());
        let (resume, resumed) = std::sync::mpsc::channel();
        let (paused, pausing) = tokio::sync::oneshot::channel();
        runtime.expect("the node runs").spawn(async move {
            let _ = paused.send(());
            let _ = resumed.recv();
        });
        pausing.await.unwrap();
        Paused { _resume: resume }
    }

    /// Lets the monotonic clock of a node leap, as if its machine had stood still.
    pub(crate) fn leap(&self, node: usize, by: Duration) {
        self.nodes[node].clock.ahead_seconds.fetch_add(by.as_secs(), Ordering::Relaxed);
    }

    /// Empties the folder of a node that is stopped.
    pub(crate) fn wipe_disk(&mut self, node: usize) {
        assert!(self.nodes[node].running.is_none(), "the node is stopped");
        self.nodes[node].dir = tempfile::tempdir().unwrap();
    }

    /// Restores from the bucket into the folder of a node that is stopped.
    pub(crate) async fn restore(
        &self,
        node: usize,
        adjust: impl FnOnce(&mut RestoreSettings),
    ) -> Result<Restored, RestoreError> {
        let node = &self.nodes[node];
        let mut settings = RestoreSettings {
            object_store: "memory://unused".parse().unwrap(),
            s3_path_style: false,
            dir: node.dir.path().to_owned(),
            node_listen: node.address.clone(),
            node_advertise: None,
            voters: None,
            offset_margin: 100,
            settle_ms: 0,
            discard_tail: false,
        };
        adjust(&mut settings);
        let components = RestoreComponents {
            clock: Arc::clone(&node.clock) as _,
            entropy: Arc::new(SystemEntropy),
            object_store: Arc::clone(&self.store) as _,
            disk: Disk::Directory(settings.dir.clone()),
        };
        restore(&settings, &components).await
    }

    /// Waits until a node stops by itself; says why.
    pub(crate) async fn ended(&mut self, node: usize) -> RunError {
        let mut running = self.nodes[node].running.take().expect("the node runs");
        let ended = tokio::time::timeout(PATIENCE, &mut running.task).await;
        ended.expect("the node stops in time").unwrap().expect_err("it was not asked to")
    }

    /// Whether a node that was started has ended by itself.
    pub(crate) fn has_ended(&self, node: usize) -> bool {
        self.nodes[node].running.as_ref().is_some_and(|running| running.task.is_finished())
    }

    pub(crate) fn channel(&self, node: usize) -> Channel {
        channel_to(&self.network, &self.nodes[node].address)
    }

    /// Asks all running nodes in turn until one answers; failures without side effects are repeated.
    pub(crate) async fn call<C: Call + Clone>(&self, request: C) -> Result<C::Reply, Problem> {
        let running = self.nodes.iter().filter(|node| node.running.is_some());
        let addresses: Vec<String> = running.map(|node| node.address.clone()).collect();
        call_any(&self.network, &addresses, &mut 0, request, Duration::from_secs(5)).await
    }

    /// The addresses of all nodes, whether or not they run.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.addresses.clone()
    }

    /// Waits until a leader says that exactly so many nodes vote, and nobody else is left.
    pub(crate) async fn wait_for_voters(&self, count: usize) -> ClusterStatus {
        self.wait(&format!("{count} voters"), |status| {
            let voters = status.nodes.iter().filter(|node| node.role == NodeRole::Voter).count();
            status.leader.is_some()
                && status.leader == status.answered_by
                && voters == count
                && status.nodes.len() == count
        })
        .await
    }

    pub(crate) async fn wait(&self, what: &str, holds: impl Fn(&ClusterStatus) -> bool) -> ClusterStatus {
        let started = Instant::now();
        let mut seen = BTreeSet::new();
        while started.elapsed() < PATIENCE {
            for node in (0..self.nodes.len()).filter(|node| self.nodes[*node].running.is_some()) {
                if let Ok(status) = self.channel(node).call(DescribeCluster {}, Duration::from_secs(1)).await
                {
                    if holds(&status) {
                        return status;
                    }
                    seen.insert(format!(
                        "{:?} leader {:?} {:?}",
                        status.answered_by, status.leader, status.nodes
                    ));
                }
            }
            tokio::task::yield_now().await;
        }
        panic!("waited {PATIENCE:?} for {what}; seen: {seen:#?}");
    }

    /// The place in `nodes` of the node that leads.
    pub(crate) async fn leader(&self) -> usize {
        let status = self.wait("a leader", |s| s.leader.is_some() && s.leader == s.answered_by).await;
        let address = &status.nodes.iter().find(|node| Some(node.node) == status.leader).unwrap().address;
        self.nodes.iter().position(|node| node.address == *address).unwrap()
    }
}

fn channel_to(network: &Arc<dyn Network>, address: &str) -> Channel {
    Channel::new(Arc::clone(network), address, &ChannelSettings::default()).unwrap()
}

/// Asks the nodes in turn until one answers, from `first` on, which becomes the one that did; failures without side effects
/// are repeated.
pub(crate) async fn call_any<C: Call + Clone>(
    network: &Arc<dyn Network>,
    addresses: &[String],
    first: &mut usize,
    request: C,
    deadline: Duration,
) -> Result<C::Reply, Problem> {
    let started = Instant::now();
    let mut last = std::collections::BTreeMap::new();
    while started.elapsed() < PATIENCE {
        for _ in addresses {
            let address = &addresses[*first % addresses.len()];
            match channel_to(network, address).call(request.clone(), deadline).await {
                Ok(reply) => return Ok(reply),
                Err(CallError::Refused(problem)) if !problem.code.retryable() => return Err(problem),
                Err(CallError::Refused(problem)) if problem.code == ErrorCode::OutcomeUnknown => {
                    return Err(problem);
                }
                Err(error) => {
                    last.insert(address.clone(), error.to_string());
                }
            }
            *first += 1;
        }
        tokio::task::yield_now().await;
    }
    panic!("no node answered {} within {PATIENCE:?}: {last:#?}", C::NAME);
}

/// A free address that nobody takes while its node is down: outside the range from which the system gives ports to
/// outgoing connections.
fn free_address() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(std::process::id().wrapping_mul(97));
        let address = format!("127.0.0.1:{}", 27_000 + number % 5_000);
        if std::net::TcpListener::bind(&address).is_ok() {
            return address;
        }
    }
}
