//! Two of three metadata nodes are down: nothing is taken, nothing uncommitted is shown, and one more node suffices.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use carnax::{FetchRequest, Offset, PartitionIndex, SideEffects};
use tokio::task::JoinSet;

use super::probe::{self, Seen};
use super::{Sizes, create_client};
use crate::cluster::{NODES, ProcessCluster};
use crate::flights::TOPIC;
use crate::report::Report;

const PARTITION: PartitionIndex = PartitionIndex(0);
const BEFORE: u64 = 10;

pub(super) async fn run(sizes: &Sizes) -> Result<Report> {
    let mut report = Report::new("minority");
    let mut cluster = sizes.cluster(Duration::from_millis(5)).await?;
    let client = create_client(&cluster, &[0, 1]).await?;
    let mut end = 0;
    for round in 0..sizes.rounds {
        let first = end;
        for number in first..first + BEFORE {
            let offset = probe::append(&client, PARTITION, &number.to_string()).await?;
            ensure!(offset.0 == number, "record {number} has offset {offset}");
        }
        // The survivor leads or follows, in turn.
        let leader = cluster.leader().await?;
        let survivor = (leader + round % NODES) % NODES;
        let down = [(survivor + 1) % NODES, (survivor + 2) % NODES];
        for node in down {
            cluster.nodes[node].process.kill()?;
        }
        report.say(format!("nodes {down:?} are down, node {leader} led"));
        let unknown = nothing_is_answered(&cluster, first + BEFORE, &mut report).await?;
        cluster.nodes[down[0]].process.start()?;
        let resumed = Instant::now();
        let after = probe::append(&client, PARTITION, "resumed").await.context("service does not resume")?;
        let held = after.0 - (first + BEFORE);
        ensure!(held <= unknown, "{held} records came from {unknown} appends of unknown outcome");
        let seconds = resumed.elapsed().as_secs_f32();
        report.say(format!(
            "one node returned: an append was acknowledged {seconds:.1} s later; {held} of {unknown} appends of unknown outcome are stored"
        ));
        for frontend in [0, 1] {
            let reader = cluster.client(&[frontend])?;
            for number in first..first + BEFORE {
                let seen = probe::fetch(&reader, PARTITION, Offset(number)).await?;
                ensure!(seen == Seen::Record(number.to_string()), "record {number} is {seen:?}");
            }
            let seen = probe::fetch(&reader, PARTITION, after).await?;
            ensure!(seen == Seen::Record("resumed".to_owned()), "the record after is {seen:?}");
        }
        end = after.0 + 1;
        cluster.start_all().await?;
    }
    report.say("every acknowledged record is there, through both frontends");
    cluster.end()?;
    Ok(report)
}

/// Asks everything of both frontends at once; gives how many appends have an unknown outcome.
async fn nothing_is_answered(cluster: &ProcessCluster, end: u64, report: &mut Report) -> Result<u64> {
    let mut calls = JoinSet::new();
    for frontend in [0, 1] {
        let client = cluster.one_try_client(frontend)?;
        let started = Instant::now();
        for offset in [0, end] {
            let client = client.clone();
            calls.spawn(async move {
                let fetch = client.raw().fetch(TOPIC, &FetchRequest::new(PARTITION, Offset(offset))).await;
                let what = format!("fetch at {offset} through frontend {frontend}");
                anyhow::Ok((0, probe::retryable_in_time(&what, started, fetch)?))
            });
        }
        calls.spawn(async move {
            let append = client.raw().append(TOPIC, PARTITION, probe::batch("uncertain")?).await;
            let possible = append.as_ref().is_err_and(|error| error.side_effects() == SideEffects::Possible);
            let what = format!("append through frontend {frontend}");
            Ok((u64::from(possible), probe::retryable_in_time(&what, started, append)?))
        });
    }
    let mut unknown = 0;
    while let Some(call) = calls.join_next().await {
        let (possible, line) = call??;
        unknown += possible;
        report.say(line);
    }
    Ok(unknown)
}
