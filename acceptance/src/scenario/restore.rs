//! All metadata nodes are lost under load, and a new cluster is made from the bucket: once as it is, once with an archive that had
//! stalled for longer than dead objects are kept, once with the former nodes still running, once with a past in manifest pages.

mod load;
mod paged;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use carnax::{Client, Offset, PartitionIndex};
use serde::Deserialize;
use serde_json::Value;

use self::load::{Acknowledged, Load};
use super::{Sizes, create_client};
use crate::api::{Api, Call};
use crate::cluster::{NODES, ProcessCluster};
use crate::report::Report;
use crate::wait;

/// A topic of its own, so that what is read is what was written here.
const TOPIC: &str = "ledger";
const PARTITIONS: u32 = 4;
/// How long dead objects are kept in the cluster whose archive stalls.
const GRACE: Duration = Duration::from_secs(1);
/// What the keys of archive and snapshots hold, and no others.
const BACKUP: [&str; 2] = ["/archive/", "/snapshot"];

/// As much of what a restore prints as is checked here.
#[derive(Debug, Deserialize)]
struct Restored {
    incarnation: u64,
    tail_records: u64,
    tail_objects: u64,
    last_archived_age_seconds: u64,
    missing_objects: Named,
    unusable_pages: Named,
    skipped: Vec<Skipped>,
}

#[derive(Debug, Deserialize)]
struct Named {
    count: u64,
}

#[derive(Debug, Deserialize)]
struct Skipped {
    topic: String,
    partition: u32,
    from: Offset,
    to: Offset,
}

/// Records by partition and offset.
type Records = BTreeMap<(u32, u64), String>;

pub(super) async fn run(sizes: &Sizes) -> Result<Report> {
    let mut report = Report::new("restore");
    lost_under_load(sizes, false, &mut report).await.context("with an archive")?;
    lost_under_load(sizes, true, &mut report).await.context("with a stalled archive")?;
    former_nodes_run_on(sizes, &mut report).await.context("with the former nodes running")?;
    paged::lost(sizes, &mut report).await.context("with manifest pages")?;
    Ok(report)
}

async fn start(sizes: &Sizes) -> Result<(ProcessCluster, Client)> {
    let cluster = sizes.cluster(Duration::from_millis(5)).await?;
    let client = create_client(&cluster, &[0, 1]).await?;
    client.admin().create_topic(TOPIC, PARTITIONS, &[]).await.context("cannot create the topic")?;
    Ok((cluster, client))
}

async fn lost_under_load(sizes: &Sizes, stalled: bool, report: &mut Report) -> Result<()> {
    let (mut cluster, client) = start(sizes).await?;
    if stalled {
        let grace = serde_json::json!({ "settings": { "delete.grace.ms": GRACE.as_millis().to_string() } });
        client.admin().alter_settings(&serde_json::from_value(grace)?).await.context("cannot set")?;
    }
    let load = Load::start(&cluster, TOPIC, PARTITIONS)?;
    load.passes(sizes.rounds).await?;
    let kept = if stalled { stall(&cluster, &client, &load, sizes.rounds).await? } else { 0 };
    cluster.lose_all_nodes()?;
    let lost_at = Instant::now();

    let restored: Restored = read(cluster.restore(0, NODES).await?, PARTITIONS)?;
    let downtime = lost_at.elapsed();
    ensure!(restored.incarnation == 2, "restored as incarnation {}", restored.incarnation);
    cluster.start_all().await.context("the restored cluster does not start")?;
    if let Some(store) = &cluster.store {
        store.refuse_puts(&[]);
    }
    // The frontends are the same processes: they find out, and go on.
    let before = load.acknowledged();
    load.passes(before.len() + sizes.rounds).await.context("writing does not go on")?;
    let all = load.stop().await?;
    let (old, new): (Vec<_>, Vec<_>) = all.into_iter().partition(|one| one.at < lost_at);
    let found = read_both(&cluster).await?;
    json_moves_past_gaps(&cluster, &restored).await?;
    let lost = check(&found, &old, &new, &restored)?;
    let oldest = lost.iter().map(|one| lost_at.duration_since(one.at)).max().unwrap_or_default();
    report.say(format!(
        "{}: {} records were acknowledged when all metadata nodes were killed and their disks emptied; {} of them are lost, the oldest \
         {:.1} s before ({} s by the report, which says at most {} in {} objects); every other one stands where it was said to be",
        if stalled { "archive stalled" } else { "archive written" },
        old.iter().map(|one| one.records.len()).sum::<usize>(),
        lost.iter().map(|one| one.records.len()).sum::<usize>(),
        oldest.as_secs_f32(),
        restored.last_archived_age_seconds,
        restored.tail_records,
        restored.tail_objects,
    ));
    let lost_records: usize = lost.iter().map(|one| one.records.len()).sum();
    ensure!(restored.tail_records >= lost_records as u64, "more is lost than was said: {restored:?}");
    report.say(format!(
        "restored in {:.1} s; {} records were appended through the same frontends, all behind the skipped offsets; {}",
        downtime.as_secs_f32(),
        new.iter().map(|one| one.records.len()).sum::<usize>(),
        if stalled {
            format!("{kept} records whose deletion was not archived are there again")
        } else {
            "both frontends and the consumer show the same".to_owned()
        }
    ));
    cluster.end()
}

/// Lets the archive stall: what is trimmed now has died nowhere but in the memory of the nodes, and must not be deleted. Gives the
/// number of records that were trimmed.
async fn stall(cluster: &ProcessCluster, client: &Client, load: &Load, rounds: usize) -> Result<u64> {
    let store = cluster.store.as_ref().context("the store lives in this process")?;
    let objects = || store.keys().iter().filter(|key| !BACKUP.iter().any(|part| key.contains(part))).count();
    store.refuse_puts(&BACKUP);
    load.passes(load.acknowledged().len() + rounds).await?;
    let bounds = client.admin().describe_topic(TOPIC).await?.partition_offsets;
    let before = objects();
    let mut trimmed = 0;
    for (partition, bounds) in (0..).zip(&bounds) {
        client.admin().trim(TOPIC, PartitionIndex(partition), bounds.high_watermark).await?;
        trimmed += bounds.high_watermark.0;
    }
    // Nothing is waited for: that nothing is deleted in this time is what is to be seen.
    tokio::time::sleep(GRACE * 4).await;
    ensure!(objects() >= before, "objects were deleted whose death is not in the archive");
    Ok(trimmed)
}

async fn former_nodes_run_on(sizes: &Sizes, report: &mut Report) -> Result<()> {
    let (mut cluster, _) = start(sizes).await?;
    let load = Load::start(&cluster, TOPIC, PARTITIONS)?;
    load.passes(sizes.rounds).await?;
    let node = cluster.add_node()?;
    let restored: Restored = read(cluster.restore(node, 1).await?, PARTITIONS)?;
    let mut stopped = BTreeSet::new();
    // The first leader stops at its next write; its successor at its first one. The third alone leads nobody.
    wait::until("two former nodes stop", async || {
        stopped.extend(cluster.nodes_that_ended()?);
        Ok((stopped.len() >= 2).then_some(()))
    })
    .await?;
    for place in &stopped {
        let log = cluster.nodes[*place].process.log();
        ensure!(log.contains("wipe the disk to join"), "node {place} does not say why it stopped");
    }
    let old = load.stop().await?;
    cluster.nodes[node].process.start()?;
    let metadata = [cluster.nodes[node].address.clone()];
    let frontends = [cluster.add_frontend(&metadata)?, cluster.add_frontend(&metadata)?];
    for frontend in frontends {
        cluster.frontends[frontend].process.start()?;
    }
    let last = (0..NODES).find(|place| !stopped.contains(place)).context("one former node runs")?;
    cluster.nodes[last].process.kill()?;
    for former in 0..2 {
        cluster.frontends[former].process.kill()?;
    }
    cluster.wait_ready().await?;
    let load = Load::start_at(&cluster, TOPIC, PARTITIONS, frontends)?;
    load.passes(sizes.rounds).await.context("the restored cluster takes nothing")?;
    let new = load.stop().await?;
    let found = read_through(&cluster.client(&frontends)?).await?;
    let lost = check(&found, &old, &new, &restored)?;
    report.say(format!(
        "former nodes left running: two of three stopped by themselves and said why, the third had no quorum; {} records that they \
         acknowledged meanwhile are lost, {} were appended to the restored cluster, and no offset was given out by both",
        lost.iter().map(|one| one.records.len()).sum::<usize>(),
        new.iter().map(|one| one.records.len()).sum::<usize>(),
    ));
    cluster.end()
}

fn read(printed: Value, partitions: u32) -> Result<Restored> {
    let mut restored: Restored = serde_json::from_value(printed).context("the report of a restore")?;
    restored.skipped.retain(|skipped| skipped.topic == TOPIC);
    ensure!(restored.skipped.len() == partitions as usize, "offsets are skipped in every partition");
    let Restored { missing_objects, unusable_pages, .. } = &restored;
    ensure!(missing_objects.count == 0 && unusable_pages.count == 0, "objects are missing: {restored:?}");
    Ok(restored)
}

/// Every record stands where its acknowledgement said, unless its offset is skipped; skipped offsets have none; what was appended
/// afterwards stands behind them. Gives what is lost.
fn check<'a>(
    found: &Records,
    old: &'a [Acknowledged],
    new: &[Acknowledged],
    restored: &Restored,
) -> Result<Vec<&'a Acknowledged>> {
    let skipped: BTreeMap<u32, (u64, u64)> =
        restored.skipped.iter().map(|skipped| (skipped.partition, (skipped.from.0, skipped.to.0))).collect();
    let bounds = |partition| skipped.get(&partition).copied().context("a partition without bounds");
    for (partition, offset) in found.keys() {
        let (from, to) = bounds(*partition)?;
        ensure!(!(from..to).contains(offset), "a record has the skipped offset {partition}/{offset}");
    }
    let values: BTreeSet<&String> = found.values().collect();
    ensure!(values.len() == found.len(), "a record is stored twice");
    let is_there = |one: &Acknowledged| {
        let mut placed = (one.offset..).zip(&one.records);
        placed.all(|(offset, value)| found.get(&(one.partition, offset)) == Some(value))
    };
    let mut lost = Vec::new();
    for one in old {
        let (from, to) = bounds(one.partition)?;
        if one.offset < from {
            ensure!(is_there(one), "an archived record is not where it was: {one:?}");
        } else {
            let end = one.offset + one.records.len() as u64;
            ensure!(end <= to, "{one:?} reaches beyond the skipped offsets, which end at {to}");
            lost.push(one);
        }
    }
    for one in new {
        let (_, to) = bounds(one.partition)?;
        ensure!(one.offset >= to && is_there(one), "a record of the restored cluster: {one:?}");
    }
    Ok(lost)
}

/// A fetch in JSON that begins in a gap has no records, and says where they go on.
async fn json_moves_past_gaps(cluster: &ProcessCluster, restored: &Restored) -> Result<()> {
    let api = Api::new([cluster.frontends[0].address.clone()]);
    for Skipped { partition, from, to, .. } in &restored.skipped {
        for offset in [from.0, to.0 - 1] {
            let path =
                format!("/v1/topics/{TOPIC}/partitions/{partition}/records?offset={offset}&max_records=10");
            let body: Value = api.call(0, &Call::get(path)).await.context("a fetch in JSON")?;
            let first = body["records"].get(0).map(|record| record["offset"].clone());
            ensure!(
                body["next_offset"].as_u64() >= Some(to.0) && first.is_none_or(|first| first == to.0),
                "a fetch from {partition}/{offset}, in the gap to {to}, got {body}"
            );
        }
    }
    Ok(())
}

/// What both frontends show, which must be the same.
async fn read_both(cluster: &ProcessCluster) -> Result<Records> {
    let first = read_through(&cluster.client(&[0])?).await?;
    let second = read_through(&cluster.client(&[1])?).await?;
    ensure!(first == second, "the two frontends show different records");
    Ok(first)
}

/// What a consumer sees, from the first offset to the last one, across what is skipped.
async fn read_through(client: &Client) -> Result<Records> {
    let bounds = client.admin().describe_topic(TOPIC).await?.partition_offsets;
    let mut consumer = client.consumer(TOPIC).start(carnax::Start::Earliest).build().await?;
    let mut found = Records::new();
    let mut ends: BTreeMap<u32, u64> = BTreeMap::new();
    let reached = |ends: &BTreeMap<u32, u64>| {
        (0..).zip(&bounds).all(|(partition, bounds)| ends.get(&partition) == Some(&bounds.high_watermark.0))
    };
    while !reached(&ends) {
        let records = consumer.poll(5_000, wait::PATIENCE).await?;
        ensure!(
            !records.is_empty(),
            "nothing came for {:?}; read up to {ends:?} of {bounds:?}",
            wait::PATIENCE
        );
        for record in records {
            let (partition, offset) = (record.partition.0, record.offset.0);
            let value = record.value.context("a record has a value")?;
            let value = String::from_utf8(value.to_vec())?;
            ensure!(found.insert((partition, offset), value).is_none(), "{partition}/{offset} came twice");
            ends.insert(partition, offset + 1);
        }
    }
    Ok(found)
}
