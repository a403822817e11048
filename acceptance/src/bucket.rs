//! What lies in the bucket of a cluster, and what its servers say that should.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use carnax::Client;

use crate::cluster::ProcessCluster;
use crate::wait;

/// Objects by kind, with their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Contents {
    /// What frontends and merges wrote: records.
    pub segments: u64,
    /// Their bytes.
    pub segment_bytes: u64,
    /// Manifest pages.
    pub pages: u64,
    /// Archive and snapshots, bytes.
    pub backup_bytes: u64,
    /// Bytes of the newest snapshot of the metadata.
    pub snapshot_bytes: u64,
}

/// What scenarios set `page.slices` to, where pages arise: as few as there may be, so that each page has as many.
const PAGE_SLICES: f64 = 2.0;

impl Contents {
    /// Of a store that lives in this process.
    ///
    /// # Errors
    /// If it does not.
    pub fn of(cluster: &ProcessCluster) -> Result<Self> {
        let store = cluster.store.as_ref().context("the store lives in this process")?;
        Ok(Self::count(&store.objects()))
    }

    fn count(objects: &[(String, u64)]) -> Self {
        let mut contents = Self::default();
        let mut snapshots: BTreeMap<&str, u64> = BTreeMap::new();
        for (key, bytes) in objects {
            if key.contains("/segments/") || key.contains("/merged/") {
                contents.segments += 1;
                contents.segment_bytes += bytes;
            } else if key.contains("/manifests/") {
                contents.pages += 1;
            } else {
                contents.backup_bytes += bytes;
                if let Some((_, part)) = key.split_once("/snapshot-parts/") {
                    *snapshots.entry(part.split('/').next().unwrap_or(part)).or_default() += bytes;
                }
            }
        }
        contents.snapshot_bytes = snapshots.last_key_value().map_or(0, |(_, bytes)| *bytes);
        contents
    }
}

/// What a server measures of itself: the values of each name added up; empty if it does not answer.
pub async fn metrics(address: &str) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    let Some((200, text)) = wait::get(address, "/metrics").await else { return sums };
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, value)) = line.rsplit_once(' ') else { continue };
        let Ok(value) = value.parse::<f64>() else { continue };
        let name = name.split('{').next().unwrap_or(name);
        *sums.entry(name.to_owned()).or_default() += value;
    }
    sums
}

/// Waits until no maintenance is due and the bucket holds what the metadata leader refers to and nothing else; gives that.
///
/// Everything that is referred to has to be read besides: equal numbers are equal sets only if nothing is missing.
///
/// # Errors
/// If it takes longer than two leases of a worker that died.
pub async fn until_clean(cluster: &mut ProcessCluster, client: &Client) -> Result<Contents> {
    let mut seen = String::new();
    let clean = wait::within(2 * wait::PATIENCE, "the bucket holds only what is referred to", async || {
        let said = client.admin().maintenance().await?;
        let leader = cluster.leader().await?;
        let metrics = metrics(&cluster.nodes[leader].http).await;
        let contents = Contents::of(cluster)?;
        let count = |name: &str| metrics.get(name).copied();
        let live = count("carnax_metadata_segments");
        let dead = count("carnax_metadata_dead_segments");
        let pages = count("carnax_metadata_pages");
        seen = format!("{contents:?}; live {live:?}, dead {dead:?}, pages {pages:?}; {:?}", said.jobs);
        let is_due = said.jobs.iter().any(|job| job.due_since.is_some() || job.backlog > 0);
        // The metadata knows nothing of the objects that pages speak of.
        let live = live.zip(pages).map(|(live, pages)| live + pages * PAGE_SLICES);
        let equal =
            |count: u64, said: Option<f64>| said.is_some_and(|said| said.to_string() == count.to_string());
        let clean =
            !is_due && equal(contents.segments, live) && equal(contents.pages, pages) && equal(0, dead);
        Ok(clean.then_some(contents))
    })
    .await;
    clean.with_context(|| format!("last seen: {seen}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_told_apart_and_the_newest_snapshot_counts() {
        let keys = [
            "p/1/segments/0a/01A",
            "p/1/merged/T/0/01B",
            "p/1/manifests/T/0/01C",
            "p/1/archive/0001-0002",
            "p/1/snapshot-parts/0002-01X/0",
            "p/1/snapshot-parts/0009-01Y/0",
            "p/1/snapshot-parts/0009-01Y/1",
        ];
        let objects: Vec<(String, u64)> = keys.iter().map(|key| ((*key).to_owned(), 10)).collect();
        let expected =
            Contents { segments: 2, segment_bytes: 20, pages: 1, backup_bytes: 40, snapshot_bytes: 20 };
        assert_eq!(Contents::count(&objects), expected);
    }
}
