//! Makes a new cluster from the bucket when all metadata disks are lost, as an operator would.

use std::sync::Arc;
use std::time::Duration;

use carnax_metadata_node::{Disk, MemoryNodeDisk, RestoreComponents, RestoreSettings, Restored, restore};
use carnax_platform::entropy::Entropy;

use crate::bucket::RemoteStore;
use crate::history::{Recorder, Restoration};
use crate::hosts::{Ended, NodeHost, unused_url};
use crate::scenario::NODES;
use crate::world::{BEGINNING, SeededEntropy, SimulatedClock, now};

/// The former cluster is gone altogether: nothing has to be waited for.
const SETTLE_MS: u64 = 100;
/// Offsets that are skipped at least.
const MARGIN: u32 = 20;

/// Waits for the loss, and tries until there is a new cluster; its first node is to run on what comes of that.
pub(crate) async fn run(seed: u64, lost_at: Duration, first: NodeHost, recorder: Recorder) -> Ended {
    tokio::time::sleep(lost_at.saturating_sub(now()) + Duration::from_millis(500)).await;
    let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(seed));
    let settings = RestoreSettings {
        object_store: unused_url()?,
        s3_path_style: false,
        dir: "unused".into(),
        node_listen: format!("{}:7001", NODES[0]),
        node_advertise: None,
        voters: None,
        offset_margin: MARGIN,
        settle_ms: SETTLE_MS,
        discard_tail: false,
    };
    loop {
        let disk = MemoryNodeDisk::default();
        let components = RestoreComponents {
            clock: Arc::new(SimulatedClock::default()),
            entropy: Arc::clone(&entropy),
            object_store: Arc::new(RemoteStore::new()?),
            disk: Disk::Memory(Box::new(disk.clone())),
        };
        match restore(&settings, &components).await {
            Ok(restored) => {
                tracing::info!(?restored, "a new cluster is made");
                first.put_disk(disk);
                recorder.lock().restoration = Some(restoration(lost_at, restored));
                return Ok(());
            }
            Err(error) => tracing::info!(%error, "not restored yet"),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn restoration(lost_at: Duration, restored: Restored) -> Restoration {
    let skipped = restored.skipped.into_iter();
    let skipped = skipped.map(|gap| ((gap.topic.as_str().to_owned(), gap.partition), gap.from.0..gap.to.0));
    let archived_until = restored.last_archived_log_time.since(BEGINNING);
    Restoration { lost_at, archived_until, skipped: skipped.collect() }
}
