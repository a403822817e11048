//! The flights, written by four idempotent producers with several requests in flight, while frontends and the metadata leader
//! are killed all the time: each record must be stored once.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::sync::watch;

use super::{Sizes, create_client};
use crate::cluster::ProcessCluster;
use crate::random::Random;
use crate::report::Report;
use crate::traffic::{self, Progress};

const PRODUCERS: usize = 4;

pub(super) async fn run(sizes: &Sizes) -> Result<Report> {
    let mut report = Report::new("idempotent");
    let mut cluster = sizes.cluster(Duration::from_millis(20)).await?;
    let mut clients = Vec::new();
    for producer in 0..PRODUCERS {
        clients.push(create_client(&cluster, &[producer % 2, (producer + 1) % 2]).await?);
    }
    let progress = Progress::new(&sizes.flights);
    let (kills, killed) = watch::channel(0);
    let writing = traffic::write_once(&clients, sizes, &progress, &killed);
    let killing = kill_in_turn(&mut cluster, sizes, &progress, &kills);
    let (ledger, victims) = tokio::try_join!(writing, killing)?;
    report.say(format!(
        "{PRODUCERS} producers wrote while processes were killed and came back: {}",
        victims.join(", ")
    ));
    let summary = sizes.check(&cluster, &ledger, &mut report).await?;
    let count = sizes.flights.0.len();
    ensure!(summary.read == count && summary.acknowledged == count, "counts differ: {summary:?}");
    ensure!(summary.duplicates == 0, "records are stored twice: {summary:?}");
    cluster.end()?;
    Ok(report)
}

/// In the middle of each part of the writing somebody is killed, and comes back when others have gone on. The writers wait at
/// the end of a part for the kill that belongs to it, so that every kill meets requests in flight.
async fn kill_in_turn(
    cluster: &mut ProcessCluster,
    sizes: &Sizes,
    progress: &Progress,
    kills: &watch::Sender<usize>,
) -> Result<Vec<String>> {
    let (mut random, mut victims) = (Random::new(sizes.seed), Vec::new());
    for round in 0..sizes.rounds {
        progress.part_begins(round, sizes.rounds).await?;
        let leader = cluster.leader().await?;
        let process = match round % 3 {
            0 => &mut cluster.frontends[random.below(2)].process,
            1 => &mut cluster.nodes[leader].process,
            _ => &mut cluster.frontends[round % 2].process,
        };
        process.kill()?;
        victims.push(process.name().to_owned());
        kills.send_replace(round + 1);
        let before = progress.acknowledged();
        progress.passes(before + 1).await.with_context(|| format!("writing stops without {victims:?}"))?;
        tokio::time::sleep(random.millis(100..1_500)).await;
        for process in cluster.processes().filter(|process| !process.should_run()) {
            process.start()?;
        }
        cluster.wait_for_voters().await?;
        cluster.wait_ready().await.with_context(|| format!("{:?} does not come back", victims.last()))?;
    }
    Ok(victims)
}
