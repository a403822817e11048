//! The servers of a simulation: real metadata nodes and real frontends on a simulated world.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use carnax_frontend::deliberate_bugs::{DeliberateBug, DeliberateBugs};
use carnax_frontend::{AccessRule, Role};
use carnax_metadata_node::{BackupMode, BackupSettings, Disk, MemoryNodeDisk};
use carnax_object_store::ObjectStoreUrl;
use carnax_platform::entropy::Entropy;
use carnax_platform::tls::ClusterTlsSettings;
use carnax_queue::SqsQueues;
use tokio_util::sync::CancellationToken;

use crate::bucket::RemoteStore;
use crate::scenario::{BACKUP_INTERVAL_MS, NODES, Scenario};
use crate::world::{SeededEntropy, SimulatedClock, SimulatedNetwork};

/// What a host's program answers when it ends.
pub(crate) type Ended = Result<(), Box<dyn std::error::Error>>;

/// What of a metadata node outlives its crashes.
#[derive(Debug, Clone)]
pub(crate) struct NodeHost {
    pub(crate) name: &'static str,
    disk: Arc<Mutex<MemoryNodeDisk>>,
    pub(crate) clock: SimulatedClock,
    pub(crate) entropy: Arc<SeededEntropy>,
    snapshot_log_bytes: u64,
    backup: BackupSettings,
}

impl NodeHost {
    pub(crate) fn new(name: &'static str, seed: u64, scenario: &Scenario) -> Self {
        let entropy = Arc::new(SeededEntropy::new(seed));
        let (disk, clock) = (Arc::default(), SimulatedClock::default());
        let mut backup = BackupSettings::off();
        if scenario.disks_lost_at.is_some() {
            backup.backup = BackupMode::On;
            backup.backup_interval_ms = BACKUP_INTERVAL_MS;
            backup.backup_snapshot_bytes = 4 * scenario.snapshot_log_bytes;
        }
        Self { name, disk, clock, entropy, snapshot_log_bytes: scenario.snapshot_log_bytes, backup }
    }

    pub(crate) fn disk(&self) -> MemoryNodeDisk {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its next life is on another disk.
    pub(crate) fn put_disk(&self, disk: MemoryNodeDisk) {
        *self.disk.lock().unwrap_or_else(PoisonError::into_inner) = disk;
    }

    /// One life of the node.
    pub(crate) async fn run(self) -> Ended {
        let address = format!("{}:7001", self.name);
        let settings = carnax_metadata_node::Settings {
            node_listen: address.clone(),
            node_advertise: None,
            http_listen: format!("{}:7101", self.name),
            dir: "unused".into(),
            bootstrap: node_addresses(),
            object_store: unused_url()?,
            s3_path_style: false,
            heartbeat: Duration::from_millis(200),
            election: Duration::from_millis(1_000),
            maintenance_queue: None,
            backup: self.backup.clone(),
            disk_free_min: None,
            feature_level_max: None,
            admin_token_file: None,
            admin_token: None,
            tls: openly(),
            http_tls: false,
            snapshot_log_bytes: self.snapshot_log_bytes,
        };
        let components = carnax_metadata_node::Components {
            clock: Arc::new(self.clock.clone()),
            entropy: Arc::clone(&self.entropy) as Arc<dyn Entropy>,
            network: Arc::new(SimulatedNetwork),
            object_store: Arc::new(RemoteStore::new()?),
            queues: Arc::new(SqsQueues::default()),
            disk: Disk::Memory(Box::new(self.disk())),
        };
        let forever = CancellationToken::new();
        // A node that cannot go on is started again by its supervisor.
        while let Err(error) =
            carnax_metadata_node::run(settings.clone(), components.clone(), forever.clone(), |_| ()).await
        {
            tracing::info!(node = self.name, %error, "node ended");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Ok(())
    }
}

/// What a frontend is started with; nothing of it outlives a crash.
#[derive(Debug, Clone)]
pub(crate) struct FrontendHost {
    pub(crate) name: &'static str,
    pub(crate) linger: Duration,
    pub(crate) entropy: Arc<SeededEntropy>,
    pub(crate) bug: Option<DeliberateBug>,
    roles: Vec<Role>,
}

impl FrontendHost {
    pub(crate) fn new(name: &'static str, scenario: &Scenario, bug: Option<DeliberateBug>) -> Self {
        let seed = scenario.seed.wrapping_add(name.bytes().map(u64::from).sum());
        let mut roles = vec![Role::Serve];
        if scenario.maintains {
            roles.push(Role::Maintain);
        }
        Self { name, linger: scenario.linger, entropy: Arc::new(SeededEntropy::new(seed)), bug, roles }
    }

    /// One life of the frontend.
    pub(crate) async fn run(self) -> Ended {
        let mut settings = carnax_frontend::Settings::new(node_addresses(), unused_url()?);
        settings.listen = format!("{}:8080", self.name);
        settings.access = Some(AccessRule::OpenToTheNetwork);
        settings.tls = openly();
        settings.append.linger = self.linger;
        settings.roles = self.roles;
        settings.deliberate_bugs = self.bug.map_or_else(DeliberateBugs::default, DeliberateBugs::only);
        let components = carnax_frontend::Components {
            clock: Arc::new(SimulatedClock::default()),
            entropy: self.entropy as Arc<dyn Entropy>,
            network: Arc::new(SimulatedNetwork),
            object_store: Arc::new(RemoteStore::new()?),
            queues: Arc::new(SqsQueues::default()),
        };
        Ok(carnax_frontend::run(settings, components, |_| (), std::future::pending()).await?)
    }
}

/// Certificates draw random numbers that no seed gives.
fn openly() -> ClusterTlsSettings {
    ClusterTlsSettings { plaintext_between_machines: true, ..ClusterTlsSettings::default() }
}

fn node_addresses() -> Vec<String> {
    NODES.iter().map(|name| format!("{name}:7001")).collect()
}

/// The settings want a URL; the store itself is handed in.
pub(crate) fn unused_url() -> Result<ObjectStoreUrl, carnax_object_store::InvalidObjectStoreUrl> {
    "memory://simulation".parse()
}
