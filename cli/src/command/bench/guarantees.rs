//! What guarantees cost: idempotence, and atomic appends over many partitions.

use std::time::{Duration, Instant};

use bytes::Bytes;
use carnax::{Client, PartitionIndex, Producer, Record};
use futures::future::try_join_all;

use super::load::{self, Measured, Moved, noise};
use super::{Bench, Line, line};
use crate::output::say;

/// Requests of one producer that are under way: as many as it sends at once.
const CHUNKS_PER_PRODUCER: usize = 5;
/// Producers with and without idempotence take turns, so that both see the same ups and downs of the machine.
const TURNS: u32 = 3;
/// Partitions of the wide atomic append.
const WIDE: u32 = 100;

/// The same loads, with a guarantee and without.
#[derive(Debug, Default)]
pub(super) struct Guarantees {
    plain: Measured,
    idempotent: Measured,
    narrow: Measured,
    wide: Measured,
}

impl Guarantees {
    pub(super) fn lines(&self) -> [Line; 4] {
        let throughput = self.idempotent.mib_per_s() / self.plain.mib_per_s();
        let narrow = line("atomic, 1 partition", &self.narrow, None);
        let mut wide = line("atomic, 100 partitions", &self.wide, None);
        wide.ratio = Some(wide.percentiles.p50_ms / narrow.percentiles.p50_ms);
        [
            line("produce, plain", &self.plain, None),
            line("produce, idempotent", &self.idempotent, Some(throughput)),
            narrow,
            wide,
        ]
    }
}

pub(super) async fn measure(bench: &Bench, client: &Client, topic: &str) -> anyhow::Result<Guarantees> {
    let mut measured = Guarantees::default();
    say("measuring producers with and without idempotence …");
    let turn = bench.duration / (2 * TURNS);
    for _ in 0..TURNS {
        measured.plain.join(Box::pin(produce(bench, client, topic, false, turn)).await?);
        measured.idempotent.join(Box::pin(produce(bench, client, topic, true, turn)).await?);
    }
    say("measuring atomic appends …");
    let wide_topic = format!("{topic}-wide");
    client.admin().create_topic(&wide_topic, WIDE, &[]).await?;
    let appended = Box::pin(append(bench, client, &wide_topic, &mut measured)).await;
    client.admin().delete_topic(&wide_topic).await?;
    appended?;
    Ok(measured)
}

/// A few producers, each given chunks of records by as many callers as keep it busy; a call ends when its chunk is stored.
async fn produce(
    bench: &Bench,
    client: &Client,
    topic: &str,
    idempotent: bool,
    duration: Duration,
) -> anyhow::Result<Measured> {
    let callers = bench.concurrency.max(1);
    let mut producers = Vec::new();
    for _ in 0..callers.div_ceil(CHUNKS_PER_PRODUCER) {
        // All but the guarantee is the same: order is not kept without it.
        let builder = client.producer(topic).idempotent(idempotent).max_in_flight(CHUNKS_PER_PRODUCER);
        let builder = builder.max_in_flight_per_partition(CHUNKS_PER_PRODUCER).memory_bytes(256 << 20);
        producers.push(builder.build().await?);
    }
    let closing = producers.clone();
    let value = Bytes::from(noise(bench.record_bytes, 3));
    let records = (bench.request_bytes / bench.record_bytes.max(1)).max(1);
    let (partitions, end) = (bench.partitions, Instant::now() + duration);
    let measured = load::run(callers, move |caller, number| {
        let producer = producers[caller % producers.len()].clone();
        let value = value.clone();
        async move {
            if Instant::now() >= end {
                return Ok(None);
            }
            let partition = PartitionIndex(u32::try_from(caller + number)? % partitions);
            send_chunk(&producer, partition, &value, records).await.map(Some)
        }
    })
    .await;
    for producer in closing {
        producer.close().await;
    }
    measured
}

async fn send_chunk(
    producer: &Producer,
    partition: PartitionIndex,
    value: &Bytes,
    records: usize,
) -> anyhow::Result<Moved> {
    let mut deliveries = Vec::with_capacity(records);
    for _ in 0..records {
        deliveries.push(producer.send(Record::new(value.clone()).to_partition(partition)).await?);
    }
    try_join_all(deliveries).await?;
    Ok(Moved { bytes: (records * value.len()) as u64, records: records as u64 })
}

/// One append after the other, of as many records to one partition as to each of many, in turns.
async fn append(
    bench: &Bench,
    client: &Client,
    topic: &str,
    measured: &mut Guarantees,
) -> anyhow::Result<()> {
    let value = Bytes::from(noise(bench.record_bytes, 4));
    for _ in 0..bench.samples {
        for partitions in [1, WIDE] {
            let mut append = client.append();
            for number in 0..WIDE {
                let partition = PartitionIndex(number % partitions);
                append = append.to_partition(topic, partition, Record::new(value.clone()));
            }
            let begun = Instant::now();
            append.send().await?;
            let took = begun.elapsed();
            let records = u64::from(WIDE);
            let moved = Moved { bytes: records * value.len() as u64, records };
            let of = if partitions == 1 { &mut measured.narrow } else { &mut measured.wide };
            of.add(moved, took);
            of.elapsed += took;
        }
    }
    Ok(())
}
