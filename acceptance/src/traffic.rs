//! Writing the flights and reading them back.

mod once;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use carnax::{Client, Delivery, Producer, Record, SideEffects, Start};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::flights::{Flights, TOPIC};
use crate::ledger::{Found, Ledger, Sent};
use crate::wait::PATIENCE;

pub use once::write_once;

/// The header that says which line a record is.
const LINE: &str = "line";
/// Longer than any test: records wait for the flush and for nothing else.
const UNTIL_FLUSH: Duration = Duration::from_secs(3_600);

/// Reads all records of a topic whose values are JSON.
///
/// # Errors
/// If they are not, or cannot be read.
pub async fn read_json<T: DeserializeOwned>(client: &Client, topic: &str) -> Result<Vec<T>> {
    let described = client.admin().describe_topic(topic).await.context("cannot describe the topic")?;
    let wanted: u64 = described.partition_offsets.iter().map(|bounds| bounds.high_watermark.0).sum();
    let mut consumer = client.consumer(topic).start(Start::Earliest).build().await?;
    let mut values = Vec::new();
    while (values.len() as u64) < wanted {
        let records = consumer.poll(5_000, PATIENCE).await?;
        ensure!(!records.is_empty(), "nothing came for {PATIENCE:?}");
        for record in records {
            values.push(serde_json::from_slice(&record.value.context("a record has a value")?)?);
        }
    }
    Ok(values)
}

/// A line as it is stored.
pub fn record(flights: &Flights, line: usize) -> Record {
    let flight = &flights.0[line];
    Record::new(flight.value.clone()).with_key(flight.key.clone()).with_header(LINE, line.to_string())
}

/// Writes all lines as fast as producers go, one producer a client; each carrier goes through one of them.
///
/// # Errors
/// If a record is not stored.
pub async fn write_fast(clients: &[Client], flights: &Arc<Flights>) -> Result<Ledger> {
    let mut ledger = Ledger::new(flights);
    let mut writers = JoinSet::new();
    for (place, client) in clients.iter().enumerate() {
        let of_this = |number: &usize| number % clients.len() == place;
        let keys = flights.by_key().into_values().enumerate();
        let mut lines: Vec<usize> =
            keys.filter(|(number, _)| of_this(number)).flat_map(|(_, lines)| lines).collect();
        lines.sort_unstable();
        let producer = client.producer(TOPIC).build().await.context("cannot start a producer")?;
        let flights = Arc::clone(flights);
        writers.spawn(async move {
            let mut deliveries = Vec::with_capacity(lines.len());
            for line in lines {
                deliveries.push((line, producer.send(record(&flights, line)).await?));
            }
            producer.close().await;
            let mut stored = Vec::with_capacity(deliveries.len());
            for (line, delivery) in deliveries {
                stored.push((line, delivery.await?));
            }
            anyhow::Ok(stored)
        });
    }
    while let Some(stored) = writers.join_next().await {
        for (line, stored) in stored?? {
            ledger.0[line].acknowledged = Some((stored.partition, stored.offset));
        }
    }
    Ok(ledger)
}

/// How far a slow writer is: acknowledged lines, of all.
#[derive(Debug, Clone)]
pub struct Progress {
    acknowledged: watch::Sender<usize>,
    unknown: Arc<AtomicUsize>,
    all: usize,
}

impl Progress {
    /// Nothing is acknowledged yet.
    pub fn new(flights: &Flights) -> Self {
        Self { acknowledged: watch::Sender::new(0), unknown: Arc::default(), all: flights.0.len() }
    }

    /// Acknowledged lines.
    pub fn acknowledged(&self) -> usize {
        *self.acknowledged.borrow()
    }

    /// Requests without a known outcome so far.
    pub fn unknown_requests(&self) -> usize {
        self.unknown.load(Ordering::Relaxed)
    }

    /// Waits until so many hundredths of all lines are acknowledged.
    ///
    /// # Errors
    /// If it takes longer than anything may.
    pub async fn reaches(&self, percent: usize) -> Result<()> {
        self.passes(self.all * percent / 100).await
    }

    /// Waits until the first half of a part is acknowledged, of so many parts.
    ///
    /// # Errors
    /// If it takes longer than anything may.
    pub async fn part_begins(&self, part: usize, parts: usize) -> Result<()> {
        self.passes(self.all * (2 * part + 1) / (2 * parts)).await
    }

    /// Waits until so many lines are acknowledged.
    ///
    /// # Errors
    /// If it takes longer than anything may.
    pub async fn passes(&self, lines: usize) -> Result<()> {
        let mut progress = self.acknowledged.subscribe();
        let wanted = lines.min(self.all);
        let reached = tokio::time::timeout(4 * PATIENCE, progress.wait_for(|now| *now >= wanted)).await;
        reached.with_context(|| format!("only {} of {wanted} lines acknowledged", self.acknowledged()))??;
        Ok(())
    }
}

/// What writing with one request in flight per key had to do.
#[derive(Debug)]
pub struct Written {
    /// Every line is acknowledged.
    pub ledger: Ledger,
    /// Requests that were refused without side effects, beyond what the SDK repeats by itself; each was sent again.
    pub refused_requests: usize,
}

/// Writes all lines with one request in flight per key: up to `chunk` lines of a key are sent as one batch, and again until
/// they are acknowledged. Carriers take turns in which client they use; clients fail over by themselves.
///
/// # Errors
/// If a record cannot be stored whatever is tried.
pub async fn write_in_turn(
    clients: &[Client],
    flights: &Arc<Flights>,
    chunk: usize,
    progress: &Progress,
) -> Result<Written> {
    let mut writers = JoinSet::new();
    for ((_, lines), client) in flights.by_key().into_iter().zip(clients.iter().cycle()) {
        let producer = client
            .producer(TOPIC)
            .idempotent(false)
            .linger(UNTIL_FLUSH)
            .max_in_flight(1)
            .retry_unknown_outcomes(false);
        let producer = producer.build().await.context("cannot start a producer")?;
        let (flights, progress) = (Arc::clone(flights), progress.clone());
        writers.spawn(async move {
            let mut written = OfOneKey::default();
            for lines in lines.chunks(chunk) {
                written.write(&producer, &flights, lines, &progress.unknown).await?;
                progress.acknowledged.send_modify(|now| *now += lines.len());
            }
            anyhow::Ok(written)
        });
    }
    let mut all = Written { ledger: Ledger::new(flights), refused_requests: 0 };
    while let Some(written) = writers.join_next().await {
        let OfOneKey { sent, refused_requests } = written??;
        sent.into_iter().for_each(|(line, sent)| all.ledger.0[line] = sent);
        all.refused_requests += refused_requests;
    }
    Ok(all)
}

#[derive(Debug, Default)]
struct OfOneKey {
    sent: Vec<(usize, Sent)>,
    refused_requests: usize,
}

impl OfOneKey {
    /// Sends these lines as one request until it is acknowledged.
    async fn write(
        &mut self,
        producer: &Producer,
        flights: &Flights,
        lines: &[usize],
        unknown: &AtomicUsize,
    ) -> Result<()> {
        let mut unknown_outcomes = 0;
        loop {
            let mut deliveries: Vec<Delivery> = Vec::with_capacity(lines.len());
            for line in lines {
                deliveries.push(producer.send(record(flights, *line)).await?);
            }
            producer.flush().await;
            let mut stored = Vec::with_capacity(lines.len());
            let mut failure = None;
            for (line, delivery) in lines.iter().zip(deliveries) {
                match delivery.await {
                    Ok(at) => stored.push((*line, at)),
                    Err(error) => failure = Some(error),
                }
            }
            let Some(error) = failure else {
                self.sent.extend(stored.into_iter().map(|(line, at)| {
                    (line, Sent { acknowledged: Some((at.partition, at.offset)), unknown_outcomes })
                }));
                return Ok(());
            };
            ensure!(stored.is_empty(), "a batch was acknowledged in part: {stored:?}");
            ensure!(error.retryable(), "not retryable: {:#}", anyhow::Error::from(error));
            if error.side_effects() == SideEffects::Possible {
                unknown_outcomes += 1;
                unknown.fetch_add(1, Ordering::Relaxed);
            } else {
                self.refused_requests += 1;
            }
            tracing::debug!(error = %anyhow::Error::from(error), "sent again");
        }
    }
}

/// Reads everything from the beginning to the high watermarks of now; checks that offsets are dense, and that every record is
/// the line that it says it is.
///
/// # Errors
/// If that is not so, or cannot be read.
pub async fn read_all(client: &Client, flights: &Flights) -> Result<Found> {
    let topic = client.admin().describe_topic(TOPIC).await.context("cannot describe the topic")?;
    let wanted: u64 = topic.partition_offsets.iter().map(|bounds| bounds.high_watermark.0).sum();
    let mut consumer = client.consumer(TOPIC).start(Start::Earliest).build().await?;
    let mut found = Found::default();
    let mut read = 0;
    while read < wanted {
        let records = consumer.poll(5_000, PATIENCE).await?;
        ensure!(!records.is_empty(), "nothing came for {PATIENCE:?}, {read} of {wanted} records are read");
        for record in records {
            let lines = found.0.entry(record.partition).or_default();
            let (partition, offset) = (record.partition, record.offset);
            ensure!(
                offset.0 == lines.len() as u64,
                "partition {partition} goes on with {offset} after {} records",
                lines.len()
            );
            lines.push(line_of(flights, &record.headers, record.key.as_ref(), record.value.as_ref())?);
            read += 1;
        }
    }
    Ok(found)
}

fn line_of(
    flights: &Flights,
    headers: &[carnax::Header],
    key: Option<&Bytes>,
    value: Option<&Bytes>,
) -> Result<usize> {
    let [header] = headers else { bail!("a record has {} headers instead of one", headers.len()) };
    let text = header.value.as_deref().context("the header has a value")?;
    let line: usize = std::str::from_utf8(text)?.parse()?;
    let flight = flights.0.get(line).context("there is no such line")?;
    ensure!(key == Some(&flight.key) && value == Some(&flight.value), "line {line} came back changed");
    Ok(line)
}
