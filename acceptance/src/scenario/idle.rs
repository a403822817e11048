//! After some activity, with readers waiting at the end of every partition, nothing is asked of the object store.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use carnax::Start;

use super::{PARTITIONS, Sizes, create_client};
use crate::flights::TOPIC;
use crate::report::Report;
use crate::traffic;

/// Shorter than the shortest idle period, so that long-polls end and begin in it.
const POLL: Duration = Duration::from_secs(2);
const ACTIVITY: usize = 2_000;

pub(super) async fn run(sizes: &Sizes) -> Result<Report> {
    let mut report = Report::new("idle");
    let cluster = sizes.cluster(Duration::from_millis(20)).await?;
    let clients = [create_client(&cluster, &[0]).await?, create_client(&cluster, &[1]).await?];
    let mut flights = (*sizes.flights).clone();
    flights.0.truncate(ACTIVITY);
    let flights = std::sync::Arc::new(flights);
    let ledger = traffic::write_fast(&clients, &flights).await?;
    for client in &clients {
        ledger.check(&flights, &traffic::read_all(client, &flights).await?)?;
    }
    let mut waiting = Vec::new();
    for client in &clients {
        let consumer = client.consumer(TOPIC).start(Start::Latest).wait(POLL).build().await;
        waiting.push(consumer.context("cannot wait at the end")?);
    }
    let store = cluster.store.as_ref().context("the store lives in this process")?;
    let before = store.requests_total();
    // Nothing is waited for here: that nothing happens in this time is what is to be seen.
    tokio::time::sleep(Duration::from_secs(u64::try_from(sizes.rounds)?)).await;
    let requests = store.requests_total() - before;
    ensure!(requests == 0, "{requests} requests to the object store in an idle period");
    report.say(format!(
        "{} records written and read ({before} requests to the object store); then {} s with {} long-polls open: 0 requests",
        flights.0.len(),
        sizes.rounds,
        2 * PARTITIONS
    ));
    for consumer in &mut waiting {
        let records = consumer.poll(1, Duration::ZERO).await?;
        ensure!(records.is_empty(), "a record came from nowhere: {records:?}");
    }
    drop(waiting);
    cluster.end()?;
    Ok(report)
}
