//! Writers that never send anything twice, so that whatever is stored was sent once.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Result, ensure};
use bytes::Bytes;
use carnax::{Client, Compression, PartitionIndex};
use carnax_core::record::{BatchBuilder, NewRecord};
use carnax_platform::clock::{Clock, SystemClock};
use tokio::task::JoinSet;

use crate::cluster::ProcessCluster;
use crate::wait;

/// Records of one append.
const BATCH: usize = 5;

/// Tells writers apart: no value is ever sent by two.
static LIVES: AtomicU64 = AtomicU64::new(0);

/// Records that were acknowledged together.
#[derive(Debug, Clone)]
pub(super) struct Acknowledged {
    pub(super) partition: u32,
    /// Of the first one.
    pub(super) offset: u64,
    pub(super) records: Vec<String>,
    pub(super) at: Instant,
}

/// One writer for each partition, until it is stopped.
#[derive(Debug)]
pub(super) struct Load {
    shared: Arc<Shared>,
    writers: JoinSet<Result<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    acknowledged: Mutex<Vec<Acknowledged>>,
}

impl Load {
    /// Through the first two frontends.
    pub(super) fn start(cluster: &ProcessCluster, topic: &'static str, partitions: u32) -> Result<Self> {
        Self::start_at(cluster, topic, partitions, [0, 1])
    }

    /// Through two frontends.
    pub(super) fn start_at(
        cluster: &ProcessCluster,
        topic: &'static str,
        partitions: u32,
        frontends: [usize; 2],
    ) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut writers = JoinSet::new();
        for partition in 0..partitions {
            let [first, second] = frontends;
            let order = if partition % 2 == 0 { [first, second] } else { [second, first] };
            let client = cluster.client(&order)?;
            writers.spawn(write(client, topic, partition, Arc::clone(&shared)));
        }
        Ok(Self { shared, writers })
    }

    /// What was acknowledged so far, in any order.
    pub(super) fn acknowledged(&self) -> Vec<Acknowledged> {
        self.shared.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until more than so many appends were acknowledged.
    pub(super) async fn passes(&self, appends: usize) -> Result<()> {
        wait::until(&format!("{appends} appends are acknowledged"), async || {
            Ok((self.acknowledged().len() > appends).then_some(()))
        })
        .await
    }

    /// Ends all writers; gives what was ever acknowledged.
    pub(super) async fn stop(mut self) -> Result<Vec<Acknowledged>> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let ending = async {
            while let Some(ended) = self.writers.join_next().await {
                ended??;
            }
            anyhow::Ok(())
        };
        match tokio::time::timeout(std::time::Duration::from_secs(3), ending).await {
            Ok(ended) => ended?,
            // One that waits for a cluster that is no more.
            Err(_) => self.writers.abort_all(),
        }
        Ok(self.acknowledged())
    }
}

async fn write(client: Client, topic: &'static str, partition: u32, shared: Arc<Shared>) -> Result<()> {
    let mut sent = 0_usize;
    let life = LIVES.fetch_add(1, Ordering::Relaxed);
    while !shared.stop.load(Ordering::Relaxed) {
        let records: Vec<String> =
            (sent..sent + BATCH).map(|number| format!("{partition}-{life}-{number}")).collect();
        sent += BATCH;
        let answer = client.raw().append(topic, PartitionIndex(partition), batch(&records)?).await;
        // What failed is never sent again, whether or not it is stored.
        let Ok(answer) = answer else { continue };
        ensure!(answer.results.len() == 1, "one partition has {} results", answer.results.len());
        let offset = answer.results[0].base_offset.0;
        let one = Acknowledged { partition, offset, records, at: Instant::now() };
        shared.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).push(one);
    }
    Ok(())
}

fn batch(records: &[String]) -> Result<Bytes> {
    let mut batch = BatchBuilder::new(64 * 1024);
    // Of today: what is old is not kept.
    let timestamp = SystemClock::new().wall();
    for record in records {
        let value = Some(record.as_bytes());
        batch.push(&NewRecord { timestamp, key: None, value, headers: &[] })?;
    }
    Ok(batch.build(Compression::None))
}
