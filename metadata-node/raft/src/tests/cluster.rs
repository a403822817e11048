//! Nodes in this process.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use carnax_core::id::{ClusterId, NodeId};
use carnax_core::metadata::OpenSession;
use carnax_core::problem::Problem;
use carnax_core::time::Timestamp;
use carnax_metadata_state::Command;
use carnax_platform::clock::SystemClock;
use carnax_platform::network::{Connection, Listener, Network, TcpNetwork};
use carnax_platform::rpc::serve;
use futures::future::BoxFuture;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::{Applied, Components, MemoryDisk, OpenError, RaftNode, RaftSettings, Storage};

/// How long a test waits for what must happen.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// How long one call may take.
pub(super) const DEADLINE: Duration = Duration::from_secs(3);

/// A node with its server, its disk and its cable.
pub(super) struct TestNode {
    pub(super) raft: RaftNode,
    pub(super) address: String,
    cable: Arc<Cable>,
    server: JoinHandle<io::Result<()>>,
}

/// Where nodes live; disks outlive their nodes.
pub(super) struct Rack {
    disks: TempDir,
    cluster: ClusterId,
    log_time: Arc<AtomicI64>,
    memory: Option<Mutex<BTreeMap<u64, MemoryDisk>>>,
    pub(super) adjust: fn(&mut RaftSettings),
}

impl Rack {
    pub(super) fn new() -> Self {
        let cluster = ClusterId::from_parts(Timestamp::EPOCH, 7);
        let disks = tempfile::tempdir().unwrap();
        Self { disks, cluster, log_time: Arc::default(), memory: None, adjust: |_| {} }
    }

    /// With disks that lose what was not fsynced.
    pub(super) fn in_memory() -> Self {
        Self { memory: Some(Mutex::default()), ..Self::new() }
    }

    pub(super) fn cluster_id(&self) -> ClusterId {
        self.cluster
    }

    /// The disk of a node.
    pub(super) fn memory(&self, node: u64) -> MemoryDisk {
        self.memory.as_ref().unwrap().lock().unwrap().entry(node).or_default().clone()
    }

    /// Where a node keeps its log.
    pub(super) fn storage(&self, node: u64) -> Storage {
        match &self.memory {
            Some(_) => Storage::Memory(self.memory(node)),
            None => Storage::Directory(self.disks.path().join(node.to_string())),
        }
    }

    /// Starts a node on its disk.
    pub(super) async fn start(&self, node: u64) -> TestNode {
        self.start_at(node, &free_address()).await
    }

    /// Starts a node where it was before: peers know its address.
    pub(super) async fn start_at(&self, node: u64, address: &str) -> TestNode {
        let cable = Arc::new(Cable::default());
        let mut settings = RaftSettings::new(self.cluster, NodeId(node));
        settings.heartbeat = Duration::from_millis(100);
        settings.election_min = Duration::from_millis(500);
        settings.election_max = Duration::from_millis(1_000);
        (self.adjust)(&mut settings);
        let log_time = Arc::clone(&self.log_time);
        let stamp = move || Timestamp::from_millis(log_time.fetch_add(1, Ordering::Relaxed));
        let network: Arc<dyn Network> = Arc::clone(&cable) as _;
        let components = Components {
            clock: Arc::new(SystemClock::new()),
            network: Arc::clone(&network),
            storage: self.storage(node),
            stamp: Arc::new(stamp),
        };
        let raft = open(settings, components).await;
        let listener = network.listen(address).await.unwrap();
        let address = listener.local_address().unwrap().to_string();
        let server = tokio::spawn(serve(listener, raft.router(), std::future::pending()));
        TestNode { raft, address, cable, server }
    }

    /// Starts three voters.
    pub(super) async fn cluster(&self) -> Vec<TestNode> {
        let nodes = vec![self.start(1).await, self.start(2).await, self.start(3).await];
        nodes[0].raft.initialize(&nodes[0].address).await.unwrap();
        wait_until("the first node leads", || nodes[0].raft.leadership().leads).await;
        for node in &nodes[1..] {
            join(&nodes[0], node).await;
        }
        nodes
    }
}

/// Opens a node, once the one that had the disk before has let go of it.
async fn open(settings: RaftSettings, components: Components) -> RaftNode {
    let begin = Instant::now();
    loop {
        match RaftNode::open(settings.clone(), components.clone()).await {
            Ok(raft) => return raft,
            Err(OpenError::Log(crate::OpenLogError::InUse { .. })) if begin.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// Makes a node a voter.
pub(super) async fn join(leader: &TestNode, node: &TestNode) {
    let id = node.raft.id();
    retry("a learner is let in", || leader.raft.add_learner(id, &node.address, DEADLINE)).await;
    retry("a learner gets its vote", || leader.raft.promote(id, DEADLINE)).await;
}

impl TestNode {
    /// Stops the node at once, without any farewell to its peers.
    pub(super) async fn kill(self) {
        self.cable.cut();
        self.server.abort();
        self.raft.shutdown().await;
    }

    /// Cuts every connection from and to the node.
    pub(super) fn isolate(&self) {
        self.cable.cut();
    }

    pub(super) fn reconnect(&self) {
        self.cable.mend();
    }

    pub(super) async fn propose(&self, name: &str) -> Result<Applied, Problem> {
        self.raft.propose(command(name), DEADLINE).await
    }
}

/// A command that carries a name.
pub(super) fn command(name: &str) -> Command {
    Command::OpenSession(OpenSession { frontend: name.to_owned() })
}

/// The node that leads, once exactly one of them is known to all.
pub(super) async fn leader(nodes: &[TestNode]) -> &TestNode {
    let agreed = || {
        let leaders: Vec<_> = nodes.iter().map(|node| node.raft.leadership().leader).collect();
        let first = leaders.first()?.clone()?.0;
        let agreed = leaders.iter().all(|leader| leader.as_ref().is_some_and(|(id, _)| *id == first));
        nodes.iter().find(|node| agreed && node.raft.id() == first && node.raft.leadership().leads)
    };
    wait_until("one leader is known to all", || agreed().is_some()).await;
    agreed().unwrap()
}

/// Proposes until it is applied; only for commands that may be applied twice.
pub(super) async fn propose_somehow(nodes: &[TestNode], name: &str) -> Applied {
    let begin = Instant::now();
    loop {
        for node in nodes {
            match node.propose(name).await {
                Ok(applied) => return applied,
                Err(problem) if problem.code.retryable() && begin.elapsed() < PATIENCE => {}
                Err(problem) => panic!("{problem}"),
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Tries until it works.
pub(super) async fn retry<T, F: Future<Output = Result<T, Problem>>>(
    what: &str,
    attempt: impl Fn() -> F,
) -> T {
    let begin = Instant::now();
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(problem) => assert!(begin.elapsed() < PATIENCE, "{what}: {problem}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(super) async fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// TCP that can be cut: what is connected breaks, and nothing new connects.
#[derive(Debug)]
struct Cable(watch::Sender<bool>);

impl Default for Cable {
    fn default() -> Self {
        Self(watch::Sender::new(true))
    }
}

impl Cable {
    fn cut(&self) {
        self.0.send_replace(false);
    }

    fn mend(&self) {
        self.0.send_replace(true);
    }

    /// A connection that ends when the cable is cut.
    fn plug(connected: &watch::Sender<bool>, mut outside: Connection) -> Connection {
        let (mut inside, ours) = tokio::io::duplex(1024 * 1024);
        let mut connected = connected.subscribe();
        tokio::spawn(async move {
            tokio::select! {
                _ = connected.wait_for(|connected| !connected) => {}
                _ = tokio::io::copy_bidirectional(&mut inside, &mut outside) => {}
            }
        });
        Connection::new(ours)
    }
}

impl Network for Cable {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Connection>> {
        Box::pin(async move {
            if !*self.0.borrow() {
                return Err(io::ErrorKind::NetworkUnreachable.into());
            }
            Ok(Self::plug(&self.0, TcpNetwork.connect(address).await?))
        })
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let inner = TcpNetwork.listen(address).await?;
            let socket: Box<dyn Listener> = Box::new(Socket { inner, connected: self.0.clone() });
            Ok(socket)
        })
    }
}

#[derive(Debug)]
struct Socket {
    inner: Box<dyn Listener>,
    connected: watch::Sender<bool>,
}

impl Listener for Socket {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Connection, SocketAddr)>> {
        Box::pin(async move {
            let (connection, peer) = self.inner.accept().await?;
            Ok((Cable::plug(&self.connected, connection), peer))
        })
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        self.inner.local_address()
    }
}

/// A free address that nobody takes while its node is down: outside the range from which the system gives ports to
/// outgoing connections.
pub(super) fn free_address() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(std::process::id().wrapping_mul(97));
        let address = format!("127.0.0.1:{}", 21_000 + number % 5_000);
        if std::net::TcpListener::bind(&address).is_ok() {
            return address;
        }
    }
}
