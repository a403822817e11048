//! Many partitions, a steady rate of small appends, short retention, merging and collection: the number of objects, the memory and
//! the snapshot of the metadata, and the time that a fetch takes must level off. Samples can be written as a table and as a plot.

mod plot;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use self::plot::Series;
use super::long_life::alter_settings;
use super::{Sizes, create_client};
use crate::api::{Api, Call};
use crate::bucket::{self, Contents};
use crate::cluster::{Plan, ProcessCluster};
use crate::random::Random;
use crate::report::Report;

const TOPIC: &str = "steady";
const PARTITIONS: u32 = 1_000;
const REQUESTS_PER_SECOND: u32 = 20;
/// Partitions of one request, with a record each.
const SPREAD: u64 = 40;
const VALUE_BYTES: usize = 200;
/// Requests without an answer; beyond it, the rate falls behind.
const UNANSWERED_MAX: usize = 16;
/// A log is kept for this part of the run.
const RETENTION_SHARE: u32 = 6;
/// At most so many samples of a run, and one more.
const SAMPLES: u32 = 150;
/// Fetches of a sample, at each end of a log.
const FETCHES: usize = 9;
/// Runs that are shorter show nothing of levels.
const ROUNDS_JUDGED: usize = 120;
/// Commits of so many offsets, with texts of so many bytes: 160 MB.
const FILLING: (usize, usize, usize) = (160, 250, 4_000);
/// The last quarter has at most so much more than the one before it.
const LEVEL: f64 = 1.2;
/// The same of times, which follow what else the machine does even as multiples of each other.
const LEVEL_OF_TIMES: f64 = 1.5;

/// What is seen at one moment.
#[derive(Debug, Clone, Copy, Default)]
struct Sample {
    second: f64,
    contents: Contents,
    live: f64,
    dead: f64,
    slices: f64,
    metadata_bytes: u64,
    frontend_bytes: u64,
    appended_bytes: f64,
    merged_bytes: f64,
    earliest_ms: f64,
    latest_ms: f64,
    /// Of a fetch that finds nothing.
    empty_ms: f64,
    records: u64,
}

pub(super) async fn run(sizes: &Sizes) -> Result<Report> {
    let mut report = Report::new("steady");
    let time = Duration::from_secs(u64::try_from(sizes.rounds)?);
    let retention = (time / RETENTION_SHARE).max(Duration::from_secs(2));
    let variables = vec![("CARNAX_BACKUP_SNAPSHOT_BYTES", (1_024 * 1_024).to_string())];
    let plan = Plan { variables, ..Plan::new(&sizes.binaries) };
    let mut cluster = ProcessCluster::start(&plan).await?;
    let client = create_client(&cluster, &[0, 1]).await?;
    let grace = (retention / 10).max(Duration::from_secs(1)).as_millis().to_string();
    let kept = retention.as_millis().to_string();
    // How long ids of segments are remembered, too: as all the rest, not longer than a part of the run.
    let orphan_age = (2 * retention).as_millis().to_string();
    let settings = [
        ("merge.slices", "8"),
        ("delete.grace.ms", grace.as_str()),
        ("commit.deadline.ms", kept.as_str()),
        ("orphan.age.ms", orphan_age.as_str()),
    ];
    alter_settings(&client, &settings).await?;
    client.admin().create_topic(TOPIC, PARTITIONS, &[("retention.ms", &kept)]).await?;
    let api = Api::new(cluster.frontends.iter().map(|frontend| frontend.address.clone()));
    if sizes.rounds >= ROUNDS_JUDGED {
        fill_log_caches(&api).await.context("cannot fill the caches of the Raft log")?;
    }
    let records = Arc::new(AtomicU64::new(0));
    let samples = {
        let appending = append_all(&api, &records, time);
        let sampling = take_samples(&mut cluster, &api, &records, time, sizes.seed);
        tokio::try_join!(appending, sampling)?.1
    };
    let last = samples.last().copied().context("there are samples")?;
    say(&mut report, &samples, time, retention);
    if let Some(folder) = &sizes.output {
        write(folder, &samples).context("cannot write table and plot")?;
    }
    ensure!(last.records > 0 && last.appended_bytes > 0.0, "nothing was appended");
    if sizes.rounds >= ROUNDS_JUDGED {
        level_off(&samples)?;
    }
    cluster.end()?;
    Ok(report)
}

/// Metadata nodes keep the newest 128 MiB of the Raft log in memory. It takes steady appends a quarter of an hour to write so much;
/// commits of offsets with long texts are faster, and leave nothing else behind.
async fn fill_log_caches(api: &Api) -> Result<()> {
    let commit = |offset: Option<u64>, text: String| {
        let entry =
            |partition| json!({ "topic": TOPIC, "partition": partition, "offset": offset, "metadata": text });
        let offsets: Vec<Value> = (0..FILLING.1).map(entry).collect();
        Call::post(format!("/v1/groups/{TOPIC}/offsets"), &json!({ "offsets": offsets }))
    };
    for turn in 0..FILLING.0 {
        api.call::<Value>(turn % api.count(), &commit(Some(0), "-".repeat(FILLING.2))?).await?;
    }
    api.call::<Value>(0, &commit(None, String::new())?).await?;
    Ok(())
}

/// Appends at a steady rate, each time to other partitions, through the frontends in turn.
async fn append_all(api: &Api, records: &Arc<AtomicU64>, time: Duration) -> Result<()> {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / REQUESTS_PER_SECOND);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (started, mut unanswered) = (Instant::now(), JoinSet::new());
    let mut request: u64 = 0;
    while started.elapsed() < time {
        ticks.tick().await;
        while unanswered.len() >= UNANSWERED_MAX {
            unanswered.join_next().await.context("one is unanswered")???;
        }
        while let Some(answered) = unanswered.try_join_next() {
            answered??;
        }
        let partitions = (request * SPREAD..).map(|place| place % u64::from(PARTITIONS));
        let value = format!("{request:0>VALUE_BYTES$}");
        let body: Vec<Value> = partitions
            .take(usize::try_from(SPREAD)?)
            .map(|partition| json!({ "partition": partition, "value": value }))
            .collect();
        let call = Call::post(format!("/v1/topics/{TOPIC}/records"), &json!({ "records": body }))?;
        let frontend = usize::try_from(request)? % api.count();
        let (api, records) = (api.clone(), Arc::clone(records));
        unanswered.spawn(async move {
            api.call::<Value>(frontend, &call).await.context("an append")?;
            records.fetch_add(SPREAD, Ordering::Relaxed);
            anyhow::Ok(())
        });
        request += 1;
    }
    while let Some(answered) = unanswered.join_next().await {
        answered??;
    }
    Ok(())
}

async fn take_samples(
    cluster: &mut ProcessCluster,
    api: &Api,
    records: &AtomicU64,
    time: Duration,
    seed: u64,
) -> Result<Vec<Sample>> {
    let mut random = Random::new(seed);
    let mut ticks = tokio::time::interval((time / SAMPLES).max(Duration::from_secs(1)));
    let (started, mut samples) = (Instant::now(), Vec::new());
    loop {
        ticks.tick().await;
        let over = started.elapsed() >= time;
        let mut sample = sample(cluster).await?;
        sample.second = started.elapsed().as_secs_f64();
        sample.records = records.load(Ordering::Relaxed);
        let froms = ["at=earliest", "last=1", "at=latest"];
        [sample.earliest_ms, sample.latest_ms, sample.empty_ms] =
            fetch_times(api, froms, &mut random).await?;
        tracing::info!(?sample, "seen");
        samples.push(sample);
        if over {
            return Ok(samples);
        }
    }
}

async fn sample(cluster: &mut ProcessCluster) -> Result<Sample> {
    let leader = cluster.leader().await?;
    let metadata = bucket::metrics(&cluster.nodes[leader].http).await;
    let of_metadata = |name: &str| metadata.get(name).copied().unwrap_or(f64::NAN);
    let mut frontends: BTreeMap<String, f64> = BTreeMap::new();
    for frontend in &cluster.frontends {
        for (name, value) in bucket::metrics(&frontend.address).await {
            *frontends.entry(name).or_default() += value;
        }
    }
    let of_frontends = |name: &str| frontends.get(name).copied().unwrap_or(f64::NAN);
    let nodes = cluster.nodes.iter().filter_map(|node| node.process.resident_bytes());
    let largest = cluster.frontends.iter().filter_map(|frontend| frontend.process.resident_bytes());
    Ok(Sample {
        contents: Contents::of(cluster)?,
        live: of_metadata("carnax_metadata_segments"),
        dead: of_metadata("carnax_metadata_dead_segments"),
        slices: of_metadata("carnax_metadata_slices"),
        metadata_bytes: nodes.max().unwrap_or(0),
        frontend_bytes: largest.max().unwrap_or(0),
        appended_bytes: of_frontends("carnax_frontend_appended_bytes_total"),
        merged_bytes: of_frontends("carnax_frontend_merged_bytes_total"),
        ..Sample::default()
    })
}

/// The median times of some fetches of up to 100 records from different places, in turn, in milliseconds.
async fn fetch_times<const PLACES: usize>(
    api: &Api,
    froms: [&str; PLACES],
    random: &mut Random,
) -> Result<[f64; PLACES]> {
    let mut times = [(); PLACES].map(|()| Vec::new());
    for turn in 0..FETCHES {
        let partition = random.below(usize::try_from(PARTITIONS)?);
        for (from, times) in froms.iter().zip(&mut times) {
            let path = format!("/v1/topics/{TOPIC}/partitions/{partition}/records?{from}&max_records=100");
            let started = Instant::now();
            let answer: Value = api.call(turn % api.count(), &Call::get(path)).await.context("a fetch")?;
            times.push(started.elapsed().as_secs_f64() * 1_000.0);
            let records = answer["records"].as_array().context("records")?.iter();
            let offsets: Vec<u64> = records.filter_map(|record| record["offset"].as_u64()).collect();
            ensure!(
                offsets.windows(2).all(|pair| pair[1] == pair[0] + 1),
                "a hole in {partition}: {offsets:?}"
            );
        }
    }
    Ok(times.map(median))
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What is shown, and how much more the last quarter may have, where it must level off.
fn series() -> [(Series, Option<f64>); 10] {
    const MIB: f64 = 1_048_576.0;
    let of = Series::new;
    [
        (of("objects of records in the bucket", |sample| float(sample.contents.segments)), Some(LEVEL)),
        (of("their bytes, MiB", |sample| float(sample.contents.segment_bytes) / MIB), Some(LEVEL)),
        (of("slices in the metadata", |sample| sample.slices), Some(LEVEL)),
        (of("dead objects, not deleted yet", |sample| sample.dead), None),
        (
            of("memory of the largest metadata node, MiB", |sample| float(sample.metadata_bytes) / MIB),
            Some(LEVEL),
        ),
        (
            of("snapshot of the metadata, MiB", |sample| float(sample.contents.snapshot_bytes) / MIB),
            Some(LEVEL),
        ),
        (of("fetch at the start of a log, ms", |sample| sample.earliest_ms), None),
        (of("fetch at the end of a log, ms", |sample| sample.latest_ms), None),
        (
            of("fetch at the start, in fetches of nothing", |sample| sample.earliest_ms / sample.empty_ms),
            Some(LEVEL_OF_TIMES),
        ),
        (
            of("fetch at the end, in fetches of nothing", |sample| sample.latest_ms / sample.empty_ms),
            Some(LEVEL_OF_TIMES),
        ),
    ]
}

fn level_off(samples: &[Sample]) -> Result<()> {
    for (series, most) in series() {
        let (before, after) = last_quarters(samples, &series);
        if most.is_some_and(|most| after > before * most) {
            bail!("{} went from {before:.1} to {after:.1} and does not level off", series.name);
        }
    }
    Ok(())
}

/// The means of the third and of the last quarter.
fn last_quarters(samples: &[Sample], series: &Series) -> (f64, f64) {
    let quarter = samples.len() / 4;
    let mean = |samples: &[Sample]| {
        let sum: f64 = samples.iter().map(|sample| series.of(sample)).sum();
        sum / float(samples.len().max(1) as u64)
    };
    let (rest, last) = samples.split_at(samples.len() - quarter);
    (mean(&rest[rest.len() - quarter..]), mean(last))
}

fn say(report: &mut Report, samples: &[Sample], time: Duration, retention: Duration) {
    let Some(last) = samples.last() else { return };
    report.say(format!(
        "{} records in {time:?}, one in each of {SPREAD} of {PARTITIONS} partitions in a request, kept for {retention:?}",
        last.records
    ));
    for (series, _) in series() {
        let (before, after) = last_quarters(samples, &series);
        report.say(format!("{}: {before:.1} in the third quarter, {after:.1} in the last one", series.name));
    }
    report.say(format!(
        "{:.1} MB were appended and {:.1} MB merged: each byte is written {:.2} times",
        last.appended_bytes / 1e6,
        last.merged_bytes / 1e6,
        (last.appended_bytes + last.merged_bytes) / last.appended_bytes
    ));
}

fn write(folder: &Path, samples: &[Sample]) -> Result<()> {
    let mut table = String::from(
        "second,records,objects,object_bytes,live_segments,dead_segments,slices,metadata_bytes,frontend_bytes,\
         snapshot_bytes,appended_bytes,merged_bytes,fetch_earliest_ms,fetch_latest_ms,fetch_nothing_ms\n",
    );
    for sample in samples {
        let Sample { contents, .. } = sample;
        writeln!(
            table,
            "{:.1},{},{},{},{},{},{},{},{},{},{},{},{:.2},{:.2},{:.2}",
            sample.second,
            sample.records,
            contents.segments,
            contents.segment_bytes,
            sample.live,
            sample.dead,
            sample.slices,
            sample.metadata_bytes,
            sample.frontend_bytes,
            contents.snapshot_bytes,
            sample.appended_bytes,
            sample.merged_bytes,
            sample.earliest_ms,
            sample.latest_ms,
            sample.empty_ms
        )?;
    }
    std::fs::write(folder.join("long-life.csv"), table)?;
    std::fs::write(folder.join("long-life.svg"), plot::draw(&series().map(|(series, _)| series), samples)?)?;
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "for plots and means, whose values are far below 2^52")]
fn float(count: u64) -> f64 {
    count as f64
}
