//! Appends through one frontend and fetches through another one at once; then again while the connections between that one
//! and the metadata nodes, commit feed included, are delayed and cut.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use carnax::{Client, PartitionIndex};

use super::probe::{self, Seen};
use super::{PARTITIONS, Sizes, create_client};
use crate::proxy::{Proxy, Weather};
use crate::report::Report;

/// Of a million chunks of bytes.
const DELAYS: u64 = 3_000;
const CUTS: u64 = 3_000;
const LONGEST_DELAY: Duration = Duration::from_secs(4);

pub(super) async fn run(sizes: &Sizes) -> Result<Report> {
    let mut report = Report::new("read-your-writes");
    let mut cluster = sizes.cluster(Duration::ZERO).await?;
    let writer = create_client(&cluster, &[0]).await?;
    let reader = create_client(&cluster, &[1]).await?;
    let calm = rounds(sizes, &writer, &reader).await?;
    report.say(format!(
        "{} appends through frontend 0, each seen by a fetch through frontend 1 at once",
        sizes.rounds
    ));

    // Small runs must meet bad weather too.
    let harder = u64::try_from((1_000 / sizes.rounds.max(1)).max(1))?;
    let weather = Arc::new(Weather::new(sizes.seed, DELAYS * harder, LONGEST_DELAY, CUTS * harder));
    let mut proxies = Vec::new();
    for node in &cluster.nodes {
        proxies.push(Proxy::start(&node.address, &weather).await?);
    }
    let behind: Vec<String> = proxies.iter().map(Proxy::address).collect();
    let frontend = cluster.add_frontend(&behind)?;
    cluster.start_all().await?;
    let reader = create_client(&cluster, &[frontend]).await?;
    let rough = rounds(sizes, &writer, &reader).await.context("with delays and cuts")?;
    let (delayed, cut) = weather.counts();
    report.say(format!(
        "{} again through frontend {frontend}, whose metadata connections had {delayed} delays of up to {} s and {cut} cuts \
         (seed {}): each was seen; a round took {:.1} × as long",
        sizes.rounds,
        LONGEST_DELAY.as_secs(),
        sizes.seed,
        rough.as_secs_f64() / calm.as_secs_f64()
    ));
    ensure!(delayed + cut > 0, "the weather was too good to prove anything");
    cluster.end()?;
    Ok(report)
}

async fn rounds(sizes: &Sizes, writer: &Client, reader: &Client) -> Result<Duration> {
    let started = Instant::now();
    for (round, partition) in (0..sizes.rounds).zip((0..PARTITIONS).map(PartitionIndex).cycle()) {
        let offset = probe::append(writer, partition, &round.to_string()).await?;
        let seen = probe::fetch(reader, partition, offset).await?;
        let wanted = Seen::Record(round.to_string());
        ensure!(seen == wanted, "round {round}: {partition}/{offset} was acknowledged, and read as {seen:?}");
    }
    Ok(started.elapsed())
}
