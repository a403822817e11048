//! What the cluster says that it sent to the object store is what arrived there: by kind, to the last request, retries included.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use carnax::{Client, Record, UsageMonth, UsageResponse};
use carnax_s3_test_server::{Operation, S3TestServer};

use super::{Sizes, create_client};
use crate::cluster::{Plan, ProcessCluster};
use crate::report::Report;
use crate::wait;

const TOPICS: [&str; 2] = ["used", "used-less"];
/// Of a hundred requests, how many are refused for a while.
const PERCENT: u64 = 30;
const VALUE_BYTES: usize = 1_000;

pub(super) async fn run(sizes: &Sizes) -> Result<Report> {
    let mut report = Report::new("usage");
    let cluster = ProcessCluster::start(&Plan::new(&sizes.binaries)).await?;
    let client = create_client(&cluster, &[0, 1]).await?;
    for topic in TOPICS {
        client.admin().create_topic(topic, 1, &[]).await?;
    }
    for round in 0..sizes.rounds {
        store(&cluster)?.slow_down(if round % 2 == 1 { PERCENT } else { 0 });
        // Both frontends write and read; one of two topics gets three quarters.
        for (topic, frontends) in [(0, &[0, 1]), (0, &[1, 0]), (0, &[0, 1]), (1, &[1, 0])] {
            write_and_read(&cluster.client(frontends)?, TOPICS[topic]).await?;
        }
        store(&cluster)?.slow_down(0);
        let usage = agrees(&cluster, &client).await.with_context(|| format!("after round {round}"))?;
        check(&usage, round + 1)?;
        if round + 1 == sizes.rounds {
            let requests = &usage.object_store_requests;
            report.say(format!(
                "after {} rounds, {} requests refused with 503 among them, the cluster counts what the S3 server counts: \
                 {} PUT, {} GET, {} HEAD, {} LIST, {} DELETE, or {:.6} dollars",
                sizes.rounds,
                store(&cluster)?.slowed_down(),
                requests.put,
                requests.get,
                requests.head,
                requests.list,
                requests.delete,
                usage.cost.requests_dollars,
            ));
        }
    }
    ensure!(sizes.rounds < 2 || store(&cluster)?.slowed_down() > 0, "nothing was refused");
    cluster.end()?;
    Ok(report)
}

async fn write_and_read(client: &Client, topic: &str) -> Result<()> {
    let producer = client.producer(topic).linger(Duration::ZERO).delivery_timeout(4 * wait::PATIENCE);
    let producer = producer.build().await?;
    for _ in 0..5 {
        producer.send(Record::new(vec![b'x'; VALUE_BYTES])).await?.await?;
    }
    producer.close().await;
    let partition = carnax::PartitionIndex(0);
    let last = client.admin().offset(topic, partition, carnax::Start::Latest).await?.offset;
    ensure!(last.0 >= 5, "records are there");
    Ok(())
}

/// Waits until the cluster says what the server says, while nothing is sent.
async fn agrees(cluster: &ProcessCluster, client: &Client) -> Result<UsageResponse> {
    let mut seen = String::new();
    let agreed = wait::within(wait::PATIENCE, "both count the same", async || {
        let before = arrived(store(cluster)?);
        let usage = client.admin().usage(UsageMonth::This).await?;
        let said = usage.object_store_requests;
        let said = [said.put, said.get, said.head, said.list, said.delete];
        seen = format!("the server counts {before:?}, the cluster {said:?}");
        Ok((before == said && before == arrived(store(cluster)?)).then_some(usage))
    });
    agreed.await.with_context(|| seen.clone())
}

/// PUT, GET, HEAD, LIST, DELETE.
fn arrived(store: &S3TestServer) -> [u64; 5] {
    use Operation::{Delete, Get, Head, List, Put};
    [Put, Get, Head, List, Delete].map(|operation| store.requests(operation))
}

/// Records and bytes are by topic what was written.
fn check(usage: &UsageResponse, rounds: usize) -> Result<()> {
    let rounds = u64::try_from(rounds)?;
    ensure!(usage.traffic.records_in == 20 * rounds, "all records count once: {:?}", usage.traffic);
    for (name, share) in [(TOPICS[0], 15), (TOPICS[1], 5)] {
        let topic = usage.topics.iter().find(|topic| topic.topic.as_str() == name);
        let topic = topic.with_context(|| format!("{name} is told"))?;
        ensure!(topic.traffic.records_in == share * rounds, "{name}: {:?}", topic.traffic);
        ensure!(topic.traffic.bytes_in > share * rounds * VALUE_BYTES as u64, "{name}: {:?}", topic.traffic);
    }
    ensure!(usage.cost.requests_dollars > 0.0 && usage.stored_bytes > 0, "it costs something: {usage:?}");
    Ok(())
}

fn store(cluster: &ProcessCluster) -> Result<&S3TestServer> {
    cluster.store.as_ref().context("the store lives in this process")
}
