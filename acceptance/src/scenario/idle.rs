//! After some activity, with readers waiting at the end of every partition, nothing is asked of the object store; nor, by the
//! metadata nodes that tell it of commits, of a queue. The log is archived, retention, merge and collection are on, and have done
//! what there was to do.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use carnax::{Client, Record, Start};
use carnax_lambda_runtime_emulator::{Function, front};
use carnax_platform::clock::SystemClock;
use carnax_queue::MemoryQueue;
use carnax_sqs_test_server::SqsTestServer;
use serde_json::json;

use super::long_life::alter_settings;
use super::{PARTITIONS, Sizes, all_is_told, create_client};
use crate::bucket;
use crate::cluster::ProcessCluster;
use crate::flights::TOPIC;
use crate::function;
use crate::report::Report;
use crate::traffic;
use crate::wait;

/// Shorter than the shortest idle period, so that long-polls end and begin in it.
const POLL: Duration = Duration::from_secs(2);
/// Several intervals of the archive.
const REST: Duration = Duration::from_secs(2);
const ACTIVITY: usize = 2_000;
const QUEUE: &str = "idle";
const EXPIRING: &str = "expiring";
const MERGED: &str = "merged";
const SMALL_APPENDS: u64 = 60;
/// So that there is nothing left to do when the idle period begins, and everything would be done in it that could be.
const SETTINGS: [(&str, &str); 5] = [
    ("merge.slices", "4"),
    ("delete.grace.ms", "1000"),
    ("commit.deadline.ms", "4000"),
    ("orphan.age.ms", "5000"),
    ("orphan.scan.interval.ms", "1000"),
];

pub(super) async fn run(sizes: &Sizes) -> Result<Report> {
    let mut report = Report::new("idle");
    let queue = Arc::new(MemoryQueue::new(QUEUE, Arc::new(SystemClock::new()))?);
    let sqs = SqsTestServer::start([queue]).await;
    let mut cluster = sizes.cluster_with_queues(Duration::from_millis(20), Some(sqs.endpoint())).await?;
    let clients = [create_client(&cluster, &[0]).await?, create_client(&cluster, &[1]).await?];
    clients[0].admin().put_wakeup(TOPIC, "idle", &sqs.queue_url(QUEUE), None).await?;
    alter_settings(&clients[0], &SETTINGS).await?;
    clients[0].admin().create_topic(EXPIRING, 1, &[("retention.ms", "1000")]).await?;
    clients[0].admin().create_topic(MERGED, 1, &[]).await?;
    let mut flights = (*sizes.flights).clone();
    flights.0.truncate(ACTIVITY);
    let flights = Arc::new(flights);
    let ledger = traffic::write_fast(&clients, &flights).await?;
    for client in &clients {
        ledger.check(&flights, &traffic::read_all(client, &flights).await?)?;
    }
    let function = answered_one(&cluster).await?;
    write_what_expires(&clients[0]).await?;
    all_is_told(&clients[0]).await?;
    let contents = bucket::until_clean(&mut cluster, &clients[0]).await?;
    let (merges, deleted) = maintenance(&cluster).await;
    ensure!(merges > 0.0 && deleted > 0.0, "{merges} merges and {deleted} deletions are no activity");
    report.say(format!(
        "maintenance wrote {merges} merged objects and deleted {deleted}; {} are left, and nothing is due",
        contents.segments
    ));
    let mut waiting = Vec::new();
    for client in &clients {
        let consumer = client.consumer(TOPIC).start(Start::Latest).wait(POLL).build().await;
        waiting.push(consumer.context("cannot wait at the end")?);
    }
    let store = cluster.store.as_ref().context("the store lives in this process")?;
    // The archive follows what was written, and is what the cluster comes to rest with.
    wait::until("all is archived and at rest", async || {
        let before = store.requests_total();
        tokio::time::sleep(REST).await;
        Ok((store.requests_total() == before).then_some(()))
    })
    .await?;
    let before = (store.requests_total(), sqs.requests_total());
    ensure!(before.1 > 0, "the queue was told of nothing");
    // Nothing is waited for here: that nothing happens in this time is what is to be seen.
    tokio::time::sleep(Duration::from_secs(u64::try_from(sizes.rounds)?)).await;
    let requests = (store.requests_total() - before.0, sqs.requests_total() - before.1);
    ensure!(requests == (0, 0), "{requests:?} requests to the object store and to SQS in an idle period");
    report.say(format!(
        "{} records written and read ({} requests to the object store, {} to SQS for a wake-up); then {} s with {} long-polls open, \
         and with a Lambda function that has answered an event: 0 requests to either",
        flights.0.len() + 1,
        before.0,
        before.1,
        sizes.rounds,
        2 * PARTITIONS
    ));
    ensure!(function.is_alive(), "the function has ended");
    for consumer in &mut waiting {
        let records = consumer.poll(1, Duration::ZERO).await?;
        ensure!(records.is_empty(), "a record came from nowhere: {records:?}");
    }
    drop(waiting);
    cluster.end()?;
    Ok(report)
}

/// Records one by one, so that there is much to merge and to delete.
async fn write_what_expires(client: &Client) -> Result<()> {
    for topic in [EXPIRING, MERGED] {
        let producer = client.producer(topic).linger(Duration::ZERO).build().await?;
        for record in 0..SMALL_APPENDS {
            producer.send(Record::new(record.to_string())).await?.await?;
        }
        producer.close().await;
    }
    wait::until("all has expired", async || {
        let bounds = client.admin().describe_topic(EXPIRING).await?.partition_offsets;
        let expired = bounds.iter().all(|bounds| bounds.log_start_offset.0 == SMALL_APPENDS);
        Ok(expired.then_some(()))
    })
    .await
}

/// Objects that merges wrote, and that were deleted.
async fn maintenance(cluster: &ProcessCluster) -> (f64, f64) {
    let (mut merges, mut deleted) = (0.0, 0.0);
    for frontend in &cluster.frontends {
        let metrics = bucket::metrics(&frontend.address).await;
        merges += metrics.get("carnax_frontend_merges_total").unwrap_or(&0.0);
        deleted += metrics.get("carnax_frontend_dead_objects_deleted_total").unwrap_or(&0.0);
    }
    (merges, deleted)
}

/// A function whose environment is not frozen, as it would be at Lambda: it has to be silent by itself.
async fn answered_one(cluster: &ProcessCluster) -> Result<Function> {
    let function =
        Function::start(&function::carnax_lambda(cluster)?).await.context("cannot start the function")?;
    let document = json!({ "records": [{ "value": "through Lambda" }] });
    let event =
        front::function_url("POST", &format!("/v1/topics/{TOPIC}/records"), "", Some(&document.to_string()));
    let answer = function.invoke(&event).await?;
    ensure!(answer["statusCode"] == 200, "the append was refused: {answer}");
    Ok(function)
}
