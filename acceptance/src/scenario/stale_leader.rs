//! A leader is paused with SIGSTOP until another one has taken an append, and asked at once when it goes on: it must not
//! answer from what it knew before.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use carnax::{Client, PartitionIndex};

use super::probe::{self, Seen};
use super::{Sizes, create_client};
use crate::cluster::NODES;
use crate::report::Report;

const PARTITION: PartitionIndex = PartitionIndex(0);
/// Fetches that are sent around the moment in which the leader goes on.
const FETCHES: usize = 4;

pub(super) async fn run(sizes: &Sizes) -> Result<Report> {
    let mut report = Report::new("stale-leader");
    let mut cluster = sizes.cluster(Duration::from_millis(5)).await?;
    let addresses: Vec<String> = cluster.nodes.iter().map(|node| node.address.clone()).collect();
    let mut pinned = Vec::new();
    for address in addresses {
        pinned.push(cluster.add_frontend(std::slice::from_ref(&address))?);
    }
    cluster.start_all().await?;
    let writer = create_client(&cluster, &[0]).await?;
    let readers = pinned.iter().map(|place| cluster.one_try_client(*place)).collect::<Result<Vec<_>>>()?;
    let (mut answers, mut refusals, mut led) = (0, 0, [0; NODES]);
    for round in 0..sizes.rounds {
        let leader = cluster.leader().await?;
        led[leader] += 1;
        let before = probe::append(&writer, PARTITION, &format!("before {round}")).await?;
        // The pinned frontend is connected, and knows where the log ended before.
        let seen = probe::fetch(&readers[leader], PARTITION, before).await?;
        ensure!(seen == Seen::Record(format!("before {round}")), "before the pause: {seen:?}");
        cluster.nodes[leader].process.pause()?;
        let value = format!("after {round}");
        let offset = loop {
            // Each try that fails without a known outcome may be stored: what counts is what is acknowledged.
            match probe::append(&writer, PARTITION, &value).await {
                Ok(offset) => break offset,
                Err(error) => tracing::debug!(%error, "no new leader yet"),
            }
        };
        ensure!(offset > before, "offset {offset} follows {before}");
        let fetches: Vec<_> = (0..FETCHES)
            .map(|number| {
                let reader: Client = readers[leader].clone();
                tokio::spawn(async move {
                    // Half of them wait for the leader already when it goes on.
                    if number % 2 == 1 {
                        tokio::time::sleep(Duration::from_millis(number as u64)).await;
                    }
                    probe::fetch(&reader, PARTITION, offset).await
                })
            })
            .collect();
        tokio::task::yield_now().await;
        cluster.nodes[leader].process.go_on()?;
        for fetch in fetches {
            match fetch.await? {
                Ok(Seen::Record(seen)) if seen == value => answers += 1,
                Ok(seen) => {
                    bail!("round {round}: offset {offset} was acknowledged, and then read as {seen:?}")
                }
                Err(error) if error.retryable() => refusals += 1,
                Err(error) => return Err(error).context("a fetch failed for good"),
            }
        }
    }
    report.say(format!(
        "{} rounds, paused leaders by node: {led:?}; of {} fetches through the frontend of the paused leader, {answers} saw \
         the append, {refusals} were refused with a retryable problem, 0 were stale",
        sizes.rounds,
        FETCHES * sizes.rounds
    ));
    ensure!(answers > 0, "no fetch was answered at all");
    cluster.end()?;
    Ok(report)
}
