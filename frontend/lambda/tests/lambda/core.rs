//! A metadata node of one.

use std::sync::Arc;
use std::time::Duration;

use carnax_metadata_node::{Components, Disk, Settings, run};
use carnax_object_store::{ObjectStore, ObjectStoreSettings, ObjectStoreUrl};
use carnax_platform::clock::SystemClock;
use carnax_platform::entropy::SystemEntropy;
use carnax_platform::network::TcpNetwork;
use carnax_platform::tls::ClusterTlsSettings;
use carnax_queue::SqsQueues;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A metadata node and the folder of its cluster; both end when it is dropped.
pub struct Core {
    pub address: String,
    pub object_store: String,
    _stop: DropGuard,
    _folder: TempDir,
}

impl Core {
    /// How many segment objects there are, up to a thousand.
    pub async fn segments(&self) -> usize {
        let url = self.object_store.parse().unwrap();
        let store = carnax_object_store::open(&url, &ObjectStoreSettings::default()).await.unwrap();
        store.list("1/segments/", "", 1_000).await.unwrap().objects.len()
    }
}

pub async fn start() -> Core {
    let folder = tempfile::tempdir().unwrap();
    let object_store = format!("file://{}", folder.path().join("objects").display());
    let url: ObjectStoreUrl = object_store.parse().unwrap();
    let store: Arc<dyn ObjectStore> =
        carnax_object_store::open(&url, &ObjectStoreSettings::default()).await.unwrap();
    let settings = Settings {
        node_listen: "127.0.0.1:0".to_owned(),
        node_advertise: None,
        http_listen: "127.0.0.1:0".to_owned(),
        dir: folder.path().join("node"),
        bootstrap: vec!["127.0.0.1:0".to_owned()],
        object_store: url,
        s3_path_style: false,
        heartbeat: Duration::from_millis(50),
        election: Duration::from_millis(200),
        maintenance_queue: None,
        backup: carnax_metadata_node::BackupSettings::off(),
        disk_free_min: None,
        feature_level_max: None,
        admin_token_file: None,
        admin_token: None,
        tls: ClusterTlsSettings::default(),
        http_tls: false,
        snapshot_log_bytes: carnax_metadata_node::SNAPSHOT_LOG_BYTES,
    };
    let components = Components {
        clock: Arc::new(SystemClock::new()),
        entropy: Arc::new(SystemEntropy),
        network: Arc::new(TcpNetwork),
        object_store: store,
        queues: Arc::new(SqsQueues::default()),
        disk: Disk::Directory(settings.dir.clone()),
    };
    let (stop, (tell, told)) = (CancellationToken::new(), oneshot::channel());
    let shutdown = stop.clone();
    tokio::spawn(Box::pin(run(settings, components, shutdown, |at| tell.send(at.node).unwrap())));
    let address = told.await.unwrap().to_string();
    Core { address, object_store, _stop: stop.drop_guard(), _folder: folder }
}
