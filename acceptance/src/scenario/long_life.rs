//! Records are written all the time, and expire, are merged and deleted all the time, while readers follow, lag behind on purpose,
//! and jump about; and frontends, which do that work, and metadata nodes are killed and paused at random. Every answer must hold
//! exactly the right records, or say that they are gone when they may be. In the end everything that was acknowledged and has not
//! expired is read, and the bucket holds what is referred to and nothing else.

mod disturb;
mod load;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use carnax::{AlterSettingsRequest, Client, ConfigValue, PartitionIndex};
use tokio::sync::watch;

pub(super) use self::load::now_ms;
use self::load::{Reading, Tally};
use super::{Sizes, create_client};
use crate::api::Api;
use crate::bucket::{self, Contents};
use crate::cluster::{Plan, ProcessCluster};
use crate::known::{Kept, Known, Outcome};
use crate::report::Report;
use crate::wait;

const PARTITIONS: u32 = 3;
const SHORT: Duration = Duration::from_secs(3);
const LONGER: Duration = Duration::from_secs(12);
/// Of the topic whose partitions are kept to a size.
const SIZE: u64 = 64 * 1_024;

/// So many seconds bring pages for sure.
const ROUNDS_WITH_PAGES: usize = 30;

/// As short as they may be, so that everything happens often.
const SETTINGS: [(&str, &str); 7] = [
    ("merge.slices", "4"),
    // Merged objects are of one partition each, so that their slices go into pages.
    ("merge.bytes", "20000"),
    ("page.slices", "2"),
    ("delete.grace.ms", "1000"),
    ("commit.deadline.ms", "2000"),
    ("orphan.age.ms", "3000"),
    ("orphan.scan.interval.ms", "1000"),
];

pub(super) async fn run(sizes: &Sizes) -> Result<Report> {
    let mut report = Report::new("long-life");
    let mut cluster = ProcessCluster::start(&Plan::new(&sizes.binaries)).await?;
    let client = create_client(&cluster, &[0, 1]).await?;
    alter_settings(&client, &SETTINGS).await?;
    let logs = create_topics(&client).await?;
    let api = Api::new(cluster.frontends.iter().map(|frontend| frontend.address.clone()));
    let (stop, stopped) = watch::channel(false);
    let writers = load::write(&cluster, &logs, &stopped).await?;
    let readers = load::read(&api, &logs, &stopped, sizes.seed);
    let disturbances = {
        let disturbing = disturb::at_random(&mut cluster, sizes);
        // What goes wrong with readers and writers must not wait for the end.
        tokio::select! {
            disturbed = disturbing => disturbed.context("cannot disturb")?,
            wrong = load::first_error(writers.failed(), readers.failed()) => return Err(wrong),
        }
    };
    // Orphans are looked for when somebody wrote after them.
    let before: Vec<u64> = logs.iter().map(|log| log.acknowledged()).collect();
    wait::until("every partition goes on after the disturbances", async || {
        Ok(logs.iter().zip(&before).all(|(log, before)| log.acknowledged() > *before).then_some(()))
    })
    .await?;
    stop.send_replace(true);
    writers.end().await.context("a writer")?;
    let tallies = readers.end().await.context("a reader")?;
    say_load(&mut report, sizes, &logs, &tallies);
    report.say(disturbances.to_string());
    let contents = expire(&mut cluster, &client, &logs).await?;
    let (mut read, mut all) = (0, 0);
    for log in &logs {
        read += check_all(&api, log).await?;
        all += log.acknowledged();
    }
    ensure!(sizes.rounds < ROUNDS_WITH_PAGES || contents.pages > 0, "no slice was paged out");
    // Reading has changed nothing: what was counted before was all that there is.
    ensure!(Contents::of(&cluster)?.segments == contents.segments, "objects came or went");
    report.say(format!(
        "after quiet: of {all} acknowledged records every one of {read} that has not expired is read through both frontends; the \
         bucket holds {} objects of records with {} bytes and {} manifest pages, just what the metadata refers to, and no other",
        contents.segments, contents.segment_bytes, contents.pages
    ));
    // A last merge may have left something that has to die first.
    let verified = wait::until("a verification finds nothing that nothing refers to", async || {
        let verified = cluster.verify_deep().await?;
        Ok(verified.unreferenced.is_empty().then_some(verified))
    });
    let verified = verified.await?;
    ensure!(
        verified.checked.segments == Contents::of(&cluster)?.segments,
        "not all is verified: {verified:?}"
    );
    report.say(format!(
        "`carnax cluster verify --deep` finds nothing wrong with them and their {} records, and no other object",
        verified.checked.records
    ));
    say_maintenance(&mut report, &cluster).await;
    cluster.end()?;
    Ok(report)
}

/// Changes settings of the cluster.
pub(super) async fn alter_settings(client: &Client, settings: &[(&str, &str)]) -> Result<()> {
    let settings = settings.iter().map(|(name, value)| {
        let value = ConfigValue((*value).to_owned());
        ((*name).to_owned(), Some(value))
    });
    client.admin().alter_settings(&AlterSettingsRequest { settings: settings.collect() }).await?;
    Ok(())
}

async fn create_topics(client: &Client) -> Result<Vec<Arc<Known>>> {
    let (short, longer) = (SHORT.as_millis().to_string(), LONGER.as_millis().to_string());
    let size = SIZE.to_string();
    let topics = [
        ("kept", Kept::Forever, [("retention.ms", "-1"), ("retention.bytes", "-1")]),
        ("short", Kept::For(SHORT), [("retention.ms", short.as_str()), ("retention.bytes", "-1")]),
        ("longer", Kept::For(LONGER), [("retention.ms", longer.as_str()), ("retention.bytes", "-1")]),
        ("sized", Kept::UpToSize, [("retention.ms", "-1"), ("retention.bytes", size.as_str())]),
    ];
    let mut logs = Vec::new();
    for (topic, kept, config) in topics {
        client.admin().create_topic(topic, PARTITIONS, &config).await.context("cannot create a topic")?;
        let partitions = (0..PARTITIONS).map(PartitionIndex);
        logs.extend(partitions.map(|partition| Arc::new(Known::new(topic, partition, kept))));
    }
    Ok(logs)
}

/// Waits until all has expired that will, and the bucket is clean.
async fn expire(cluster: &mut ProcessCluster, client: &Client, logs: &[Arc<Known>]) -> Result<Contents> {
    for log in logs.iter().filter(|log| matches!(log.kept, Kept::For(_))) {
        wait::until("all has expired", async || {
            let bounds = client.admin().describe_topic(&log.topic).await?.partition_offsets;
            let bounds = bounds.get(usize::try_from(log.partition.0)?).context("a partition")?;
            ensure!(
                bounds.high_watermark.0 == log.acknowledged(),
                "{}/{} ends at {}",
                log.topic,
                log.partition,
                bounds.high_watermark
            );
            Ok((bounds.log_start_offset == bounds.high_watermark).then_some(()))
        })
        .await?;
    }
    bucket::until_clean(cluster, client).await
}

/// Reads all of a partition through each frontend; gives how many records are there.
pub(super) async fn check_all(api: &Api, log: &Known) -> Result<u64> {
    let mut read = Vec::new();
    for frontend in 0..api.count() {
        let (mut from, mut count) = (0, 0);
        while from < log.acknowledged() {
            match load::fetch(api, frontend, log, from, 1_000).await? {
                Outcome::Records(records, next) => (from, count) = (next, count + records),
                Outcome::Gone(start) => {
                    ensure!(count == 0, "{}/{} expires while nobody writes", log.topic, log.partition);
                    from = start;
                }
                Outcome::NotYet => ensure!(false, "{}/{} ends at {from}", log.topic, log.partition),
                Outcome::TryAgain => ensure!(false, "frontend {frontend} is refused though all is quiet"),
            }
        }
        read.push(count);
    }
    ensure!(read.windows(2).all(|pair| pair[0] == pair[1]), "frontends differ: {read:?}");
    let count = read.first().copied().unwrap_or(0);
    let all = log.acknowledged();
    match log.kept {
        Kept::Forever => ensure!(count == all, "{count} of {all} records are left"),
        Kept::UpToSize => ensure!(count > 0, "none of {all} records is left"),
        Kept::For(_) => ensure!(count == 0, "{count} records have not expired"),
    }
    Ok(count)
}

fn say_load(report: &mut Report, sizes: &Sizes, logs: &[Arc<Known>], tallies: &[(Reading, Tally)]) {
    report.say(format!(
        "for {} s, {} records were written once each to {} partitions: kept for ever, for {SHORT:?}, for {LONGER:?}, and to {SIZE} bytes",
        sizes.rounds,
        logs.iter().map(|log| log.acknowledged()).sum::<u64>(),
        logs.len(),
    ));
    for reading in [Reading::Follow, Reading::Lag, Reading::Jump] {
        let mut sum = Tally::default();
        tallies.iter().filter(|(of, _)| *of == reading).for_each(|(_, tally)| sum.add(tally));
        report.say(format!("readers that {reading}: {sum}; none wrong, none missing, none gone too early"));
    }
}

async fn say_maintenance(report: &mut Report, cluster: &ProcessCluster) {
    let mut sums = [0.0; 4];
    let names =
        ["merges_total", "merged_slices_total", "dead_objects_deleted_total", "orphans_deleted_total"];
    for frontend in &cluster.frontends {
        let metrics = bucket::metrics(&frontend.address).await;
        for (sum, name) in sums.iter_mut().zip(names) {
            *sum += metrics.get(&format!("carnax_frontend_{name}")).unwrap_or(&0.0);
        }
    }
    let [merges, slices, dead, orphans] = sums;
    report.say(format!(
        "the frontends that lived last merged {slices} slices in {merges} objects, and deleted {dead} dead objects and {orphans} orphans"
    ));
}
