//! A partition with a long past, most of it in manifest pages: what it takes of the metadata nodes, and what a fetch at the start, in the
//! middle and at the end costs, cold and warm, beside a plain read of the same bytes from the object store.

mod past;

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use carnax_core::id::{PartitionIndex, TopicPartition};
use carnax_core::metadata::{FetchFrom, PlanFetch, TopicRef};
use carnax_object_store::{GetRange, ObjectStore, S3Store};
use carnax_platform::network::TcpNetwork;
use carnax_platform::rpc::{Channel, ChannelSettings};
use carnax_s3_test_server::Operation;
use serde_json::Value;

use self::past::{Past, RECORDS};
use super::long_life::alter_settings;
use super::{Sizes, create_client};
use crate::api::{Api, Call};
use crate::bucket;
use crate::cluster::{Plan, ProcessCluster};
use crate::report::Report;
use crate::wait;

const TOPIC: &str = "history";
const PARTITION: PartitionIndex = PartitionIndex(0);
/// Cold frontends that are asked.
const ROUNDS: usize = 15;
/// How late the object store answers, in a second series.
const LATE: Duration = Duration::from_millis(20);
/// The frontend that is asked, and restarted.
const ASKED: usize = 0;

/// A place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    name: &'static str,
    slice: u64,
}

/// What was measured at a place: seconds, and GETs of a cold fetch.
#[derive(Debug, Default)]
struct Measured {
    cold: Vec<f64>,
    warm: Vec<f64>,
    by_time: Vec<f64>,
    raw: Vec<f64>,
    gets: Vec<u64>,
}

pub(super) async fn run(sizes: &Sizes) -> Result<Report> {
    let mut report = Report::new("history");
    let slices = u64::try_from(sizes.rounds)?;
    ensure!(slices >= 200, "a history has at least 200 slices");
    let mut cluster = ProcessCluster::start(&Plan::new(&sizes.binaries)).await?;
    let client = create_client(&cluster, &[ASKED]).await?;
    let page_slices = (slices / 20).min(512).to_string();
    let settings = [
        ("page.slices", page_slices.as_str()),
        ("delete.grace.ms", "1000"),
        ("commit.deadline.ms", "60000"),
        ("orphan.age.ms", "61000"),
    ];
    alter_settings(&client, &settings).await?;
    client.admin().create_topic(TOPIC, 1, &[("retention.ms", "-1")]).await?;
    let last = slices - 1;
    let places =
        [("start", 0), ("middle", slices / 2), ("end", last)].map(|(name, slice)| Place { name, slice });
    let leader = cluster.leader().await?;
    let leader = Channel::new(
        std::sync::Arc::new(TcpNetwork),
        &cluster.nodes[leader].address,
        &ChannelSettings::default(),
    )?;
    let store = cluster.open_object_store().await?;
    say_memory(&mut report, &mut cluster, "before").await?;
    let started = Instant::now();
    write_past(&leader, &store, slices, &places.map(|place| place.slice)).await?;
    tracing::info!(slices, elapsed = ?started.elapsed(), "the past is written");
    let pages = settle(&mut cluster, &page_slices, slices).await?;
    report.say(format!(
        "one partition has {slices} merged slices, all but the newest of them in {pages} manifest pages"
    ));
    say_memory(&mut report, &mut cluster, "with them").await?;
    for latency in [Duration::ZERO, LATE] {
        cluster.store.as_ref().context("the store lives in this process")?.set_latency(latency);
        let mut measured = [Measured::default(), Measured::default(), Measured::default()];
        for round in 0..ROUNDS {
            restart(&mut cluster).await?;
            // The first one after a start pays for connections.
            for turn in round..round + places.len() {
                let place = places[turn % places.len()];
                let measured = &mut measured[turn % places.len()];
                measure(&cluster, &leader, &store, place, measured).await.context(place.name)?;
            }
        }
        for (place, measured) in places.iter().zip(&measured) {
            report.say(format!(
                "with an object store that is {latency:?} late, at the {}: {measured}",
                place.name
            ));
        }
        let [start, middle, end] = measured.map(|measured| measured.gets.into_iter().min().unwrap_or(0));
        ensure!(
            start == middle && start <= end + 1,
            "a cold fetch takes {start} GETs at the start, {middle} in the middle and {end} at the end: the page is one more"
        );
    }
    cluster.end()?;
    Ok(report)
}

async fn write_past(leader: &Channel, store: &dyn ObjectStore, slices: u64, real: &[u64]) -> Result<()> {
    let planned = plan(leader, FetchFrom::Latest).await?;
    let on = TopicPartition { topic: planned.topic_id, partition: PARTITION };
    let mut past = Past::begin(leader.clone(), store, on, real).await?;
    let tell = (slices / 20).max(1);
    while past.slices < slices {
        let before = past.slices / tell;
        past.write_block(slices - past.slices).await?;
        if past.slices / tell > before {
            tracing::info!(slices = past.slices, of = slices, "writing the past");
        }
    }
    Ok(())
}

async fn plan(leader: &Channel, from: FetchFrom) -> Result<carnax_core::metadata::FetchPlan> {
    let topic = TopicRef { name: TOPIC.parse()?, id: None };
    let request = PlanFetch { topic, partition: PARTITION, from, max_bytes: 1, max_slices: 1 };
    Ok(leader.call(request, Duration::from_secs(10)).await?)
}

/// Waits until all is paged out that may be, and what was replaced is deleted; gives the number of pages.
async fn settle(cluster: &mut ProcessCluster, page_slices: &str, slices: u64) -> Result<u64> {
    let page_slices: u64 = page_slices.parse()?;
    let patience = wait::PATIENCE + Duration::from_millis(slices);
    let mut seen = String::new();
    let pages = wait::within(patience, "old slices are paged out, and the dead deleted", async || {
        let leader = cluster.leader().await?;
        let metrics = bucket::metrics(&cluster.nodes[leader].http).await;
        let of = |name: &str| metrics.get(name).copied().unwrap_or(f64::NAN);
        let pages = of("carnax_metadata_pages");
        let dead = of("carnax_metadata_dead_segments");
        seen = format!("{pages} pages, {dead} dead");
        let enough = slices / page_slices - 2;
        Ok((pages.to_string().parse::<u64>().is_ok_and(|pages| pages >= enough) && dead < 1.0)
            .then_some(pages))
    });
    let pages = pages.await;
    Ok(pages.with_context(|| format!("last seen: {seen}"))?.to_string().parse()?)
}

async fn say_memory(report: &mut Report, cluster: &mut ProcessCluster, when: &str) -> Result<()> {
    let leader = cluster.leader().await?;
    let bytes = cluster.nodes[leader].process.resident_bytes().context("Linux tells")?;
    report.say(format!("memory of the metadata leader {when}: {} MiB", bytes / 1_024 / 1_024));
    Ok(())
}

/// With it go all its caches.
async fn restart(cluster: &mut ProcessCluster) -> Result<()> {
    cluster.frontends[ASKED].process.kill()?;
    cluster.frontends[ASKED].process.start()?;
    cluster.wait_ready().await
}

async fn measure(
    cluster: &ProcessCluster,
    leader: &Channel,
    store: &S3Store,
    place: Place,
    measured: &mut Measured,
) -> Result<()> {
    let server = cluster.store.as_ref().context("the store lives in this process")?;
    let api = Api::new([cluster.frontends[ASKED].address.clone()]);
    let offset = place.slice * u64::from(RECORDS) + u64::from(RECORDS) / 2;
    // A first request connects, and reads nothing.
    api.call::<Value>(0, &Call::get(path("at=latest"))).await?;
    let before = server.requests(Operation::Get);
    measured.cold.push(fetch(&api, &format!("offset={offset}"), offset).await.context("cold")?);
    measured.gets.push(server.requests(Operation::Get) - before);
    measured.warm.push(fetch(&api, &format!("offset={offset}"), offset).await.context("warm")?);
    let first = place.slice * u64::from(RECORDS);
    let at = format!("at={}", Past::timestamp(place.slice).millis());
    measured.by_time.push(fetch(&api, &at, first).await.context("by timestamp")?);
    measured.raw.push(read_raw(leader, store).await?);
    Ok(())
}

fn path(from: &str) -> String {
    format!("/v1/topics/{TOPIC}/partitions/{PARTITION}/records?{from}&max_records=1")
}

async fn fetch(api: &Api, from: &str, expected: u64) -> Result<f64> {
    let started = Instant::now();
    let answer: Value = api.call(0, &Call::get(path(from))).await?;
    let elapsed = started.elapsed().as_secs_f64();
    ensure!(answer["records"][0]["offset"] == expected, "{from} gives {}", answer["records"][0]["offset"]);
    Ok(elapsed)
}

/// Reads as many bytes as the fetch needs, from an object that surely exists.
async fn read_raw(leader: &Channel, store: &S3Store) -> Result<f64> {
    let newest = plan(leader, FetchFrom::Last(1)).await?.slices;
    let slice = newest.first().context("the newest slice is in memory")?;
    let key = slice.segment.to_string();
    let mut range = slice.bytes;
    range.length /= u64::from(RECORDS);
    let started = Instant::now();
    let (bytes, _) = store.get(&key, GetRange::Bytes(range)).await?;
    let elapsed = started.elapsed().as_secs_f64();
    ensure!(bytes.len() as u64 == range.length, "the object is shorter");
    Ok(elapsed)
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let middle = |times: &[f64]| {
            let mut times = times.to_vec();
            times.sort_by(f64::total_cmp);
            times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
        };
        let Self { cold, warm, by_time, raw, gets } = self;
        let raw = middle(raw);
        write!(
            f,
            "a cold fetch takes {:.2} plain reads ({} to {} GETs), a warm one {:.2}, one by timestamp {:.2}; a plain read takes {:.1} ms",
            middle(cold) / raw,
            gets.iter().min().unwrap_or(&0),
            gets.iter().max().unwrap_or(&0),
            middle(warm) / raw,
            middle(by_time) / raw,
            raw * 1_000.0
        )
    }
}
