//! For a while the object store answers half of all requests with 503 SlowDown. Appends take longer, nothing that was acknowledged
//! is lost, maintenance asks less often, and catches up when it is over.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use carnax::{Client, PartitionIndex, Record};
use carnax_s3_test_server::S3TestServer;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::long_life::{alter_settings, check_all, now_ms};
use super::{Sizes, create_client};
use crate::api::Api;
use crate::bucket;
use crate::cluster::{Plan, ProcessCluster};
use crate::known::{Kept, Known};
use crate::report::Report;
use crate::wait::PATIENCE;

const TOPIC: &str = "throttled";
const PARTITIONS: u32 = 4;
const PERCENT: u64 = 50;

/// What appends were like for a while.
#[derive(Debug, Default)]
struct Seen {
    times: Vec<Duration>,
    seconds: f64,
    deleted: f64,
    failures: f64,
    dead_max: f64,
}

impl Seen {
    /// Median and longest time, in milliseconds, and appends in a second.
    fn text(&self) -> String {
        let mut times = self.times.clone();
        times.sort_unstable();
        let millis = |place: usize| times.get(place).map_or(0.0, |time| time.as_secs_f64() * 1_000.0);
        format!(
            "{} appends took {:.1} ms in the median and {:.0} ms at most, {:.0} objects were deleted in {:.0} s, {} rounds of \
             maintenance gave up, up to {} dead objects waited",
            times.len(),
            millis(times.len() / 2),
            millis(times.len().saturating_sub(1)),
            self.deleted,
            self.seconds,
            self.failures,
            self.dead_max
        )
    }
}

pub(super) async fn run(sizes: &Sizes) -> Result<Report> {
    let mut report = Report::new("throttled");
    let time = Duration::from_secs(u64::try_from(sizes.rounds)?);
    let mut cluster = ProcessCluster::start(&Plan::new(&sizes.binaries)).await?;
    let client = create_client(&cluster, &[0, 1]).await?;
    let settings = [
        ("merge.slices", "8"),
        ("delete.grace.ms", "1000"),
        ("commit.deadline.ms", "10000"),
        ("orphan.age.ms", "11000"),
        ("orphan.scan.interval.ms", "1000"),
    ];
    alter_settings(&client, &settings).await?;
    client.admin().create_topic(TOPIC, PARTITIONS, &[("retention.ms", "-1")]).await?;
    let partitions = (0..PARTITIONS).map(PartitionIndex);
    let logs: Vec<Arc<Known>> =
        partitions.map(|partition| Arc::new(Known::new(TOPIC, partition, Kept::Forever))).collect();
    let before = observe(&mut cluster, &logs, time / 2).await.context("before")?;
    store(&cluster)?.slow_down(PERCENT);
    let during =
        observe(&mut cluster, &logs, time).await.context("while half of all requests are refused")?;
    store(&cluster)?.slow_down(0);
    let over = Instant::now();
    let contents = bucket::until_clean(&mut cluster, &client).await.context("it does not catch up")?;
    let caught_up = over.elapsed();
    let after = observe(&mut cluster, &logs, time / 2).await.context("afterwards")?;
    let api = Api::new(cluster.frontends.iter().map(|frontend| frontend.address.clone()));
    let mut read = 0;
    for log in &logs {
        read += check_all(&api, log).await?;
    }
    ensure!(store(&cluster)?.slowed_down() > 0, "nothing was refused");
    report.say(format!("before: {}", before.text()));
    report.say(format!(
        "{} requests were refused with 503 SlowDown: {}",
        store(&cluster)?.slowed_down(),
        during.text()
    ));
    report.say(format!(
        "{:.1} s after that no dead object and no orphan was left in the bucket, but {} objects that are referred to",
        caught_up.as_secs_f64(),
        contents.segments
    ));
    report.say(format!("afterwards: {}", after.text()));
    report
        .say(format!("all {read} records that were acknowledged are read through both frontends, each once"));
    cluster.end()?;
    Ok(report)
}

/// Appends to all partitions for a while, one request at a time each, and looks at what maintenance does meanwhile.
async fn observe(cluster: &mut ProcessCluster, logs: &[Arc<Known>], time: Duration) -> Result<Seen> {
    let (deleted, failures) = maintenance(cluster).await;
    let (started, mut writers, mut seen) = (Instant::now(), JoinSet::new(), Seen::default());
    for (place, log) in logs.iter().enumerate() {
        let client = cluster.client(&[place % 2, (place + 1) % 2])?;
        writers.spawn(append(client, Arc::clone(log), started + time));
    }
    while started.elapsed() < time {
        let leader = cluster.leader().await?;
        let metrics = bucket::metrics(&cluster.nodes[leader].http).await;
        let dead = metrics.get("carnax_metadata_dead_segments").copied().unwrap_or(0.0);
        seen.dead_max = seen.dead_max.max(dead);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    while let Some(times) = writers.join_next().await {
        seen.times.extend(times??);
    }
    let (deleted_now, failures_now) = maintenance(cluster).await;
    seen.seconds = started.elapsed().as_secs_f64();
    seen.deleted = deleted_now - deleted;
    seen.failures = failures_now - failures;
    Ok(seen)
}

/// Appends one record after the other; gives how long each took.
async fn append(client: Client, log: Arc<Known>, end: Instant) -> Result<Vec<Duration>> {
    let first = log.acknowledged();
    let producer = client.producer(TOPIC).producer_id(format!("writer-{}-{first}", log.partition));
    let producer = producer.linger(Duration::ZERO).delivery_timeout(4 * PATIENCE).build().await?;
    let mut times = Vec::new();
    while Instant::now() < end {
        let started = Instant::now();
        let (offset, value) = log.next(now_ms());
        let stored = producer.send(Record::new(value).to_partition(log.partition)).await?.await?;
        log.acknowledge(offset, stored.offset.0)?;
        times.push(started.elapsed());
    }
    producer.close().await;
    Ok(times)
}

/// Objects that the frontends deleted, and how often maintenance gave up.
async fn maintenance(cluster: &ProcessCluster) -> (f64, f64) {
    let (mut deleted, mut failures) = (0.0, 0.0);
    for frontend in &cluster.frontends {
        let metrics = bucket::metrics(&frontend.address).await;
        let of = |name: &str| metrics.get(name).copied().unwrap_or(0.0);
        deleted +=
            of("carnax_frontend_dead_objects_deleted_total") + of("carnax_frontend_orphans_deleted_total");
        failures += of("carnax_frontend_maintenance_failures_total");
    }
    (deleted, failures)
}

fn store(cluster: &ProcessCluster) -> Result<&S3TestServer> {
    cluster.store.as_ref().context("the store lives in this process")
}
