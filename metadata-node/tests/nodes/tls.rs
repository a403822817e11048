//! Goal: nodes talk with members of their own cluster and with nobody else, whatever the addresses are.
//! Method: real nodes with certificates of two clusters that one authority has signed, all on one bootstrap list.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use carnax_core::metadata::{DescribeCluster, ListTopics};
use carnax_platform::clock::SystemClock;
use carnax_platform::network::{Connection, Listener, Network, TcpNetwork};
use carnax_platform::rpc::{CallError, Channel, ChannelSettings};
use carnax_platform::tls::{ClusterTls, ClusterTlsSettings, Part, TlsNetwork};
use carnax_test_certificates::{Authority, Files};
use futures::future::BoxFuture;
use tempfile::TempDir;

use crate::cluster::{PATIENCE, TestCluster};
use crate::writer::Writer;

const DEADLINE: Duration = Duration::from_secs(10);

/// Somebody's files, and the settings that name them.
pub(crate) struct Badge {
    files: Files,
    pub(crate) settings: ClusterTlsSettings,
    _dir: TempDir,
}

impl Badge {
    /// For one part in one cluster.
    pub(crate) fn new(ca: &Authority, part: &str, cluster: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let issued = ca.issue(&[&format!("{part}.{cluster}.carnax.internal")]);
        let files = Files::write(dir.path(), &issued, &[ca]).unwrap();
        let settings = ClusterTlsSettings {
            tls_cert: Some(files.cert.clone()),
            tls_key: Some(files.key.clone()),
            tls_ca: Some(files.ca.clone()),
            tls_cluster: Some(cluster.parse().unwrap()),
            look_every: Duration::from_millis(20),
            ..ClusterTlsSettings::default()
        };
        Self { files, settings, _dir: dir }
    }

    /// The network as a frontend sees it.
    pub(crate) fn network(&self) -> TlsNetwork {
        let tls = ClusterTls::open(&self.settings, Part::Frontend, Arc::new(SystemClock::new())).unwrap();
        tls.unwrap().network(Arc::new(TcpNetwork))
    }
}

/// TCP that counts how often it was dialled.
#[derive(Debug, Default)]
struct Dialled(AtomicUsize);

impl Network for Dialled {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Connection>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        TcpNetwork.connect(address)
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        TcpNetwork.listen(address)
    }
}

async fn ask(network: &Arc<dyn Network>, address: &str) -> Result<(), CallError> {
    let channel = Channel::new(Arc::clone(network), address, &ChannelSettings::default()).unwrap();
    channel.call(DescribeCluster {}, DEADLINE).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_of_two_clusters_never_talk() {
    let ca = Authority::new("ca");
    let badges = ["blue", "blue", "red"].map(|cluster| Badge::new(&ca, "node", cluster));
    let frontends = ["blue", "red"].map(|cluster| Badge::new(&ca, "frontend", cluster));
    let [blue, red] = frontends.each_ref().map(|badge| Arc::new(badge.network()) as Arc<dyn Network>);
    let plain: Arc<dyn Network> = Arc::new(TcpNetwork);
    let mut cluster = TestCluster::new(3);
    cluster.network = Arc::clone(&blue);
    let dialled = Arc::new(Dialled::default());
    for (node, badge) in badges.iter().enumerate() {
        cluster.nodes[node].tls = badge.settings.clone();
    }
    cluster.nodes[2].network = Arc::clone(&dialled) as _;
    for node in 0..3 {
        cluster.start_node(node);
    }
    cluster.wait_for_voters(2).await;

    // It asks to be let in again and again; all that it says is refused before it is heard.
    let started = Instant::now();
    while dialled.0.load(Ordering::Relaxed) < 6 {
        assert!(started.elapsed() < PATIENCE, "the stranger does not try");
        tokio::task::yield_now().await;
    }
    cluster.wait_for_voters(2).await;
    for (network, node) in [(&blue, 2), (&red, 0), (&red, 1), (&plain, 0), (&plain, 2)] {
        let refused = ask(network, &cluster.nodes[node].address).await.unwrap_err();
        let is_told = Arc::ptr_eq(network, &plain) || refused.to_string().contains("not valid for name");
        assert!(is_told, "{refused}");
    }

    // With a certificate of the cluster it is let in, on the disk that it has.
    cluster.stop_node(2).await;
    badges[2].files.put(&ca.issue(&["node.blue.carnax.internal"])).unwrap();
    cluster.nodes[2].tls.tls_cluster = Some("blue".parse().unwrap());
    cluster.start_node(2);
    cluster.wait_for_voters(3).await;
    let mut writer = Writer::open(&cluster, "t").await;
    writer.commit(&cluster).await;
    let topics = cluster.call(ListTopics { prefix: String::new(), after: None, limit: 10 }).await.unwrap();
    assert_eq!(topics.topics.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_others_reach_starts_only_with_certificates_or_with_the_words() {
    let mut cluster = TestCluster::new(1);
    cluster.nodes[0].address = "0.0.0.0:0".to_owned();
    cluster.start_node(0);
    let refused = cluster.ended(0).await.to_string();
    assert!(refused.contains("0.0.0.0:0") && refused.contains("--plaintext-between-machines"), "{refused}");
    cluster.nodes[0].tls.plaintext_between_machines = true;
    cluster.start_node(0);
    cluster.stop_node(0).await;
}
