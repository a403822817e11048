//! The flights again, with one request in flight per key, while the metadata leader, a frontend and a disk are lost.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use carnax::{Client, PartitionIndex};

use super::{Sizes, create_client, probe};
use crate::cluster::{NODES, ProcessCluster};
use crate::report::Report;
use crate::traffic::{self, Progress};
use crate::wait;

/// A topic for appends that are expected to fail.
const ASIDE: &str = "aside";

pub(super) async fn run(sizes: &Sizes) -> Result<Report> {
    let mut report = Report::new("failover");
    let mut cluster = sizes.cluster(Duration::from_millis(20)).await?;
    let clients = [create_client(&cluster, &[0, 1]).await?, create_client(&cluster, &[1, 0]).await?];
    clients[0].admin().create_topic(ASIDE, 1, &[]).await.context("cannot create a topic")?;
    let progress = Progress::new(&sizes.flights);
    let writing = traffic::write_in_turn(&clients, &sizes.flights, sizes.chunk, &progress);
    let faults = async {
        lose_the_leader(&mut cluster, &progress, &mut report).await?;
        let leader = progress.unknown_requests();
        lose_a_frontend(&mut cluster, &progress, &mut report).await?;
        let frontend = progress.unknown_requests() - leader;
        lose_a_disk(&mut cluster, &progress, &mut report).await?;
        anyhow::Ok([leader, frontend])
    };
    let (written, [leader, frontend]) = tokio::try_join!(writing, faults)?;
    let disk = progress.unknown_requests() - leader - frontend;
    report.say(format!(
        "requests of unknown outcome: {leader} while the leader was away, {frontend} around the death of the frontend, {disk} \
         while there was no majority; all were sent again, and so were {} that were refused without side effects",
        written.refused_requests
    ));
    let summary = sizes.check(&cluster, &written.ledger, &mut report).await?;
    ensure!(summary.acknowledged == sizes.flights.0.len(), "not all was acknowledged: {summary:?}");
    report.say(format!(
        "{} records stood in requests of unknown outcome; {} of them were stored by that request too, which makes all \
         duplicates; no other record is stored twice",
        summary.unknown, summary.duplicates
    ));
    cluster.end()?;
    Ok(report)
}

/// The leader is killed in the middle, and started again later.
async fn lose_the_leader(
    cluster: &mut ProcessCluster,
    progress: &Progress,
    report: &mut Report,
) -> Result<()> {
    progress.reaches(15).await?;
    let leader = cluster.leader().await?;
    cluster.nodes[leader].process.kill()?;
    let (killed, before) = (Instant::now(), progress.acknowledged());
    progress.passes(before + 1).await.context("writing does not go on without the leader")?;
    report.say(format!(
        "node {leader} led and was killed at {before} records; the next was acknowledged {:.1} s later",
        killed.elapsed().as_secs_f32()
    ));
    progress.reaches(30).await?;
    cluster.nodes[leader].process.start()?;
    cluster.wait_for_voters().await?;
    cluster.wait_ready().await.context("the killed leader does not come back")
}

/// A frontend is killed; the producers that use it go to the other one.
async fn lose_a_frontend(
    cluster: &mut ProcessCluster,
    progress: &Progress,
    report: &mut Report,
) -> Result<()> {
    progress.reaches(40).await?;
    cluster.frontends[0].process.kill()?;
    let before = progress.acknowledged();
    progress.reaches(55).await.context("writing does not go on with one frontend")?;
    report
        .say(format!("frontend 0 was killed at {before} records; its producers went on through frontend 1"));
    cluster.frontends[0].process.start()?;
    cluster.wait_ready().await
}

/// A node is down, and the disk of another one is wiped: the third alone must not lose what the two had acknowledged.
async fn lose_a_disk(cluster: &mut ProcessCluster, progress: &Progress, report: &mut Report) -> Result<()> {
    progress.reaches(65).await?;
    let leader = cluster.leader().await?;
    let (down, wiped) = ((leader + 1) % NODES, (leader + 2) % NODES);
    cluster.nodes[down].process.kill()?;
    let without_it = progress.acknowledged();
    progress.reaches(80).await.context("writing does not go on with two nodes")?;
    let without_it = progress.acknowledged() - without_it;
    cluster.nodes[wiped].process.kill()?;
    cluster.wipe_disk(wiped)?;
    cluster.nodes[wiped].process.start()?;
    wait::until("the node with the empty disk runs", async || {
        let alive = wait::get(&cluster.nodes[wiped].http, "/healthz").await;
        Ok(alive.filter(|(status, _)| *status == 200))
    })
    .await?;
    let refused = nothing_is_taken(&cluster.one_try_client(1)?).await?;
    cluster.nodes[down].process.start()?;
    cluster.wait_for_voters().await.context("the node with the empty disk does not become a voter")?;
    cluster.wait_ready().await?;
    report.say(format!(
        "node {down} was down while {without_it} records were acknowledged; then node {wiped} lost its disk and was started \
         with the same flags ({refused}); node {down} came back, and all 3 nodes vote again"
    ));
    Ok(())
}

/// An empty disk gives no vote: with it and one more node there is no majority.
async fn nothing_is_taken(client: &Client) -> Result<String> {
    let started = Instant::now();
    let append = client.raw().append(ASIDE, PartitionIndex(0), probe::batch("never mind")?).await;
    probe::retryable_in_time("an append meanwhile", started, append)
}
