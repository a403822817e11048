//! A partition whose past is merged and written down in manifest pages is restored from the bucket alone.

use std::time::Duration;

use anyhow::{Context, Result};

use super::load::Load;
use super::{Restored, TOPIC, check, read, read_both};
use crate::bucket;
use crate::cluster::{NODES, ProcessCluster};
use crate::report::Report;
use crate::scenario::long_life::alter_settings;
use crate::scenario::{Sizes, create_client};
use crate::wait;

/// One, so that each merge writes an object of its own: what lies in those of several is not paged out.
const PARTITIONS: u32 = 1;
/// As small as they may be, so that pages come soon, and what they replace is deleted soon.
const SETTINGS: [(&str, &str); 6] = [
    ("merge.slices", "4"),
    ("merge.bytes", "4000"),
    ("page.slices", "2"),
    ("delete.grace.ms", "1000"),
    ("commit.deadline.ms", "2000"),
    ("orphan.age.ms", "3000"),
];
/// That a restore has to do with.
const PAGES: f64 = 5.0;

pub(super) async fn lost(sizes: &Sizes, report: &mut Report) -> Result<()> {
    let mut cluster = sizes.cluster(Duration::from_millis(5)).await?;
    let client = create_client(&cluster, &[0, 1]).await?;
    alter_settings(&client, &SETTINGS).await?;
    client.admin().create_topic(TOPIC, PARTITIONS, &[("retention.ms", "-1")]).await?;
    let load = Load::start(&cluster, TOPIC, PARTITIONS)?;
    load.passes(sizes.rounds).await?;
    wait_for_pages(&mut cluster).await?;
    cluster.lose_all_nodes()?;
    let lost_at = std::time::Instant::now();

    let restored: Restored = read(cluster.restore(0, NODES).await?, PARTITIONS)?;
    cluster.start_all().await.context("the restored cluster does not start")?;
    let before = load.acknowledged();
    load.passes(before.len() + sizes.rounds).await.context("writing does not go on")?;
    let all = load.stop().await?;
    let (old, new): (Vec<_>, Vec<_>) = all.into_iter().partition(|one| one.at < lost_at);
    let found = read_both(&cluster).await?;
    let lost = check(&found, &old, &new, &restored)?;
    let pages = wait_for_pages(&mut cluster).await?;
    // Each time, nothing may be wrong. What merges replace meanwhile is not counted, so that the first time may show less than all;
    // what a merge was at work on counts twice for a while, and empty batches of what is skipped are no records.
    wait::until("all records are verified", async || {
        let verified = cluster.verify_deep().await?;
        Ok((verified.checked.records >= found.len() as u64).then_some(()))
    })
    .await?;
    report.say(format!(
        "past in manifest pages: {} records are there again from the first offset to the last one, {} of those acknowledged before are \
         lost; {pages} pages; `carnax cluster verify --deep` finds nothing wrong",
        found.len(),
        lost.iter().map(|one| one.records.len()).sum::<usize>(),
    ));
    cluster.end()
}

async fn wait_for_pages(cluster: &mut ProcessCluster) -> Result<f64> {
    wait::until("the past is in manifest pages", async || {
        let leader = cluster.leader().await?;
        let metrics = bucket::metrics(&cluster.nodes[leader].http).await;
        Ok(metrics.get("carnax_metadata_pages").copied().filter(|pages| *pages >= PAGES))
    })
    .await
}
