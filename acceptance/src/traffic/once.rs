//! Writing every line once, with idempotent producers.

use std::time::Duration;

use anyhow::{Context, Result};
use carnax::{Client, Delivery, Producer, RecordMetadata};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::{Progress, record};
use crate::flights::TOPIC;
use crate::ledger::Ledger;
use crate::scenario::Sizes;
use crate::wait::PATIENCE;

/// About how long a part of the lines takes when somebody is to be killed in its middle.
const PART: Duration = Duration::from_millis(1_500);
/// Lines of one producer without an answer.
const UNANSWERED_MAX: usize = 100_000;

/// Writes all lines, one idempotent producer a client with several requests in flight, each carrier through one of them.
/// At the end of each part of the lines they wait until `kills` has gone on.
///
/// # Errors
/// If a record is not stored, or nobody knows whether it is.
pub async fn write_once(
    clients: &[Client],
    sizes: &Sizes,
    progress: &Progress,
    kills: &watch::Receiver<usize>,
) -> Result<Ledger> {
    let mut ledger = Ledger::new(&sizes.flights);
    let mut writers = JoinSet::new();
    for (place, client) in clients.iter().enumerate() {
        let keys = sizes.flights.by_key().into_values().enumerate();
        let of_this = keys.filter(|(number, _)| number % clients.len() == place);
        let mut lines: Vec<usize> = of_this.flat_map(|(_, lines)| lines).collect();
        lines.sort_unstable();
        let producer = client.producer(TOPIC).producer_id(format!("writer-{place}"));
        let producer =
            producer.max_in_flight(5).linger(Duration::from_millis(2)).delivery_timeout(4 * PATIENCE);
        let producer = producer.build().await.context("cannot start a producer")?;
        let (sizes, progress, kills) = (sizes.clone(), progress.clone(), kills.clone());
        writers.spawn(async move {
            let (sent, deliveries) = mpsc::channel(UNANSWERED_MAX);
            let sending = send(&producer, &sizes, lines, kills, sent);
            let receiving = receive(deliveries, &progress);
            tokio::try_join!(sending, receiving).map(|((), stored)| stored)
        });
    }
    while let Some(stored) = writers.join_next().await {
        for (line, stored) in stored?? {
            ledger.0[line].acknowledged = Some((stored.partition, stored.offset));
        }
    }
    Ok(ledger)
}

async fn send(
    producer: &Producer,
    sizes: &Sizes,
    lines: Vec<usize>,
    mut kills: watch::Receiver<usize>,
    sent: mpsc::Sender<(usize, Delivery)>,
) -> Result<()> {
    // Many small requests, so that there are always some in flight.
    let few = (sizes.chunk / 10).max(1);
    let requests = u32::try_from(lines.len() / few / sizes.rounds.max(1))?;
    let pace = PART / requests.max(1);
    for (number, line) in lines.into_iter().enumerate() {
        let part = line * sizes.rounds / sizes.flights.0.len();
        let killed = tokio::time::timeout(4 * PATIENCE, kills.wait_for(|kills| *kills >= part));
        killed.await.context("nobody was killed in time")??;
        sent.send((line, producer.send(record(&sizes.flights, line)).await?)).await?;
        if number % few == 0 {
            tokio::time::sleep(pace).await;
        }
    }
    drop(sent);
    producer.close().await;
    Ok(())
}

async fn receive(
    mut deliveries: mpsc::Receiver<(usize, Delivery)>,
    progress: &Progress,
) -> Result<Vec<(usize, RecordMetadata)>> {
    let mut stored = Vec::new();
    while let Some((line, delivery)) = deliveries.recv().await {
        stored.push((line, delivery.await.with_context(|| format!("line {line}"))?));
        progress.acknowledged.send_modify(|now| *now += 1);
    }
    Ok(stored)
}
