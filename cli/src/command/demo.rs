//! `carnax demo`: proves the whole path on this machine, in one process, in seconds.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use carnax::{Client, ConsumedRecord, Offset, PartitionIndex, Record, Start};
use clap::Args;

use crate::embedded::{Embedded, Entrance};

/// Real records that ship with the source: the first flights out of New York in 2013.
const SAMPLE: &str = include_str!("../../../samples/flights.ndjson");
const TOPIC: &str = "flights";
const PARTITIONS: u32 = 4;
/// How long any step may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What `carnax demo` takes.
#[derive(Debug, Args)]
pub(crate) struct DemoArguments {
    /// Keep everything in this folder instead of a temporary one.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Starts Carnax, writes the sample keyed by carrier, reads it back, and checks that nothing is lost, doubled or moved.
pub(crate) async fn run(arguments: DemoArguments) -> Result<()> {
    let temporary = tempfile::tempdir().context("no temporary folder")?;
    let dir = arguments.dir.unwrap_or_else(|| temporary.path().to_owned());
    let entrance = Entrance::loopback();
    let embedded = Embedded::start(&dir, entrance).await?;
    say(&format!(
        "started    a metadata node and a frontend on http://{}, in {}",
        embedded.address,
        dir.display()
    ));
    let client = Client::builder().endpoints([format!("http://{}", embedded.address)]).build()?;
    write_and_read(&client).await?;
    embedded.stop().await?;
    say("stopped    what was accepted was finished first");
    Ok(())
}

async fn write_and_read(client: &Client) -> Result<()> {
    client.admin().create_topic(TOPIC, PARTITIONS, &[]).await.context("topic could not be created")?;
    let before = ends(client).await?;
    let input: Vec<(&str, &str)> = SAMPLE.lines().map(|line| (carrier(line), line)).collect();

    let started = Instant::now();
    write(client, &input).await?;
    say(&format!(
        "written    {} records to {PARTITIONS} partitions, keyed by carrier, {}",
        input.len(),
        took(started)
    ));

    let started = Instant::now();
    let records = read(client, &before, input.len()).await?;
    say(&format!("read back  {} records, {}", records.len(), took(started)));
    check(&before, &records, &input)?;
    for (partition, end) in ends(client).await? {
        let first = before.get(&partition).copied().unwrap_or(Offset::ZERO);
        say(&format!(
            "           partition {partition}: offsets {first} to {} without a gap",
            end.0.saturating_sub(1)
        ));
    }
    say("checked    every record is there once, and each carrier's are in the order of the input");
    Ok(())
}

async fn write(client: &Client, input: &[(&str, &str)]) -> Result<()> {
    let producer = client.producer(TOPIC).build().await?;
    let mut deliveries = Vec::with_capacity(input.len());
    for (key, value) in input {
        let record = Record::new(Bytes::copy_from_slice(value.as_bytes()))
            .with_key(Bytes::copy_from_slice(key.as_bytes()));
        deliveries.push(producer.send(record).await?);
    }
    for delivery in deliveries {
        delivery.await.context("a record was not stored")?;
    }
    producer.close().await;
    Ok(())
}

async fn read(
    client: &Client,
    from: &BTreeMap<PartitionIndex, Offset>,
    count: usize,
) -> Result<Vec<ConsumedRecord>> {
    let mut builder = client.consumer(TOPIC);
    for (partition, offset) in from {
        builder = builder.start_of(*partition, Start::Offset(*offset));
    }
    let mut consumer = builder.build().await?;
    let (started, mut records) = (Instant::now(), Vec::with_capacity(count));
    while records.len() < count {
        ensure!(started.elapsed() < PATIENCE, "only {} of {count} records came back", records.len());
        records.extend(consumer.poll(count - records.len(), Duration::from_secs(1)).await?);
    }
    Ok(records)
}

/// One past the last offset of each partition.
async fn ends(client: &Client) -> Result<BTreeMap<PartitionIndex, Offset>> {
    let topic = client.admin().describe_topic(TOPIC).await?;
    Ok(topic.partition_offsets.iter().map(|bounds| (bounds.partition, bounds.high_watermark)).collect())
}

fn check(
    before: &BTreeMap<PartitionIndex, Offset>,
    records: &[ConsumedRecord],
    input: &[(&str, &str)],
) -> Result<()> {
    let mut next = before.clone();
    let mut by_key: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
    for record in records {
        let expected = next.entry(record.partition).or_insert(Offset::ZERO);
        ensure!(record.offset == *expected, "offset {} came where {expected} follows", record.offset);
        expected.0 += 1;
        let (key, value) = (record.key.clone().unwrap_or_default(), record.value.clone().unwrap_or_default());
        by_key.entry(key.into()).or_default().push(value.into());
    }
    let mut expected: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
    for (key, value) in input {
        expected.entry(key.as_bytes().to_vec()).or_default().push(value.as_bytes().to_vec());
    }
    ensure!(by_key == expected, "what was read is not what was written");
    Ok(())
}

/// The carrier of a flight.
fn carrier(line: &str) -> &str {
    line.split_once(r#""carrier":""#)
        .and_then(|(_, rest)| rest.split_once('"'))
        .map_or("", |(carrier, _)| carrier)
}

fn took(started: Instant) -> String {
    format!("in {:.2} s", started.elapsed().as_secs_f64())
}

#[expect(clippy::print_stdout, reason = "what happened is the result of this command")]
fn say(line: &str) {
    println!("{line}");
}
