//! The metadata leader is killed between a commit and its event, again and again: every commit must be told to every queue.
//!
//! There are two wake-ups. In each round one queue's server holds the leader's request without doing it, and the other's does
//! it and holds the answer; that both are held is seen before the leader is killed. So one queue has not got the event, and
//! of the other the leader did not learn that it has.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use carnax::{Client, CommitEvent, PartitionIndex};
use carnax_platform::clock::SystemClock;
use carnax_queue::{MemoryQueue, MessageQueue, Receive};
use carnax_sqs_test_server::{Action, Fault, SqsTestServer};

use super::{Sizes, all_is_told, create_client};
use crate::flights::TOPIC;
use crate::random::Random;
use crate::report::Report;
use crate::told::Told;
use crate::traffic;
use crate::wait::PATIENCE;

/// The names of queues, and of their wake-ups.
const QUEUES: [&str; 2] = ["first", "second"];

pub(super) async fn run(sizes: &Sizes) -> Result<Report> {
    let mut report = Report::new("wakeups");
    let clock = Arc::new(SystemClock::new());
    let queue = |name: &str| Ok(Arc::new(MemoryQueue::new(name, Arc::clone(&clock) as _)?));
    let queues = QUEUES.iter().map(|name| queue(name)).collect::<Result<Vec<_>>>()?;
    let sqs = SqsTestServer::start(queues.iter().map(Arc::clone)).await;
    let mut cluster = sizes.cluster_with_queues(Duration::from_millis(5), Some(sqs.endpoint())).await?;
    let client = create_client(&cluster, &[0, 1]).await?;
    for name in QUEUES {
        client.admin().put_wakeup(TOPIC, name, &sqs.queue_url(name), Some(Duration::ZERO)).await?;
    }
    let (mut random, started) = (Random::new(sizes.seed), Instant::now());
    let mut kills: BTreeMap<usize, usize> = BTreeMap::new();
    let mut successors = 0;
    for round in 0..sizes.rounds {
        sqs.script(Action::SendBatch, [Fault::Hold, Fault::HoldAnswer]);
        let leader = cluster.leader().await?;
        append(&client, sizes, &mut random).await.with_context(|| format!("round {round}"))?;
        let held = tokio::time::timeout(PATIENCE, sqs.until_held(QUEUES.len())).await;
        held.with_context(|| format!("round {round}: no leader tells of a commit"))?;
        cluster.nodes[leader].process.kill()?;
        *kills.entry(leader).or_default() += 1;
        // It was the killed one that was held.
        let hung_up = tokio::time::timeout(PATIENCE, sqs.until_held(0)).await;
        hung_up.with_context(|| format!("round {round}: node {leader} was killed, and another one sends"))?;
        // Started again at once, it leads on; else another one takes over.
        if round % 2 == 0 {
            successors += usize::from(cluster.leader().await? != leader);
            all_is_told(&client).await.with_context(|| format!("round {round}, without node {leader}"))?;
        }
        cluster.nodes[leader].process.start()?;
        cluster.wait_for_voters().await?;
        cluster.wait_ready().await.context("a killed leader does not come back")?;
        all_is_told(&client).await.with_context(|| format!("round {round}"))?;
    }
    report.say(format!(
        "{} times the leader was killed between a commit and its event, by node: {kills:?}; {successors} times another node \
         took over and told, else it came back at once and told itself; a round took {:.1} s",
        sizes.rounds,
        started.elapsed().as_secs_f64() / sizes.rounds.max(1) as f64
    ));
    let topic = client.admin().describe_topic(TOPIC).await?;
    let ends: BTreeMap<PartitionIndex, u64> =
        topic.partition_offsets.iter().map(|bounds| (bounds.partition, bounds.high_watermark.0)).collect();
    for (name, queue) in QUEUES.iter().zip(&queues) {
        let summary = told(queue).await?.check(&ends).with_context(|| format!("queue {name}"))?;
        ensure!(summary.records >= sizes.rounds as u64, "there are fewer records than commits: {summary:?}");
        report.say(format!(
            "queue {name} got {} events, which tell of each of {} committed records, and of no other; of {} it was told \
             more than once",
            summary.events, summary.records, summary.doubled
        ));
    }
    cluster.end()?;
    Ok(report)
}

/// One commit, of one to five records.
async fn append(client: &Client, sizes: &Sizes, random: &mut Random) -> Result<()> {
    let mut append = client.append();
    for _ in 0..=random.below(5) {
        append = append.to(TOPIC, traffic::record(&sizes.flights, random.below(sizes.flights.0.len())));
    }
    append.send().await.map(drop).context("cannot append")
}

/// Takes everything out of a queue.
async fn told(queue: &MemoryQueue) -> Result<Told> {
    let request = Receive { messages_max: 10, wait: Duration::ZERO, visibility: Duration::from_secs(3_600) };
    let mut told = Told::default();
    loop {
        let messages = queue.receive(request).await?;
        if messages.is_empty() {
            return Ok(told);
        }
        for message in messages {
            told.note(&serde_json::from_str::<CommitEvent>(&message.body).context("an event")?);
        }
    }
}
