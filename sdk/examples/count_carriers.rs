//! Counts flights per carrier, exactly once, whoever is killed when: reads records whose key is a carrier, and writes counts into
//! another topic, in the same command that commits how far it has read.
//!
//! ```text
//! cargo run -p carnax --example count_carriers -- \
//!     [--endpoint http://127.0.0.1:8080[,URL…]] [--group counters] [--member NAME] [--client NAME] \
//!     [--from flights] [--to counts] [--batch 500] [--session-ms 10000]
//! ```
//!
//! Start it as often as you like; end it with SIGINT or SIGTERM (it leaves the group: status 0), or with SIGKILL. With
//! `--member`, a process that is started again under the name of a dead one takes over at once; no two that live at a time may
//! have the same name.
//!
//! **What it writes.** It keeps no state. For each batch, partition and carrier it writes one record with the carrier as its key:
//!
//! ```text
//! {"carrier":"UA","count":12,"topic":"flights","partition":3,"first":41,"last":118}
//! ```
//!
//! which says that 12 of the records 41 to 118 (both included) of partition 3 of `flights` have the key `UA`.
//!
//! **How to check it.** Read the whole output topic when the group has no lag. Then (1) for each carrier the sum of `count` is the
//! number of its flights; (2) for each input partition the distinct pairs `first`, `last` follow each other from the first record
//! to the last without a gap and without an overlap (where the input has no holes); (3) no carrier is there twice with the
//! same partition and `first`. A lost output breaks 1 and 2, a doubled one 1 and 3.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail};
use carnax::{Client, ConsumedRecord, GroupConsumer, OffsetReset, PartitionIndex, Record, RequestError};
use tokio::signal::unix::{SignalKind, signal};

struct Arguments {
    endpoints: Vec<String>,
    group: String,
    member: Option<String>,
    client: String,
    from: String,
    to: String,
    batch: usize,
    session: Duration,
}

impl Arguments {
    fn read(mut words: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut arguments = Self {
            endpoints: vec!["http://127.0.0.1:8080".to_owned()],
            group: "counters".to_owned(),
            member: None,
            client: String::new(),
            from: "flights".to_owned(),
            to: "counts".to_owned(),
            batch: 500,
            session: Duration::from_secs(10),
        };
        while let Some(name) = words.next() {
            let value = words.next().with_context(|| format!("{name} has no value"))?;
            match name.as_str() {
                "--endpoint" => arguments.endpoints = value.split(',').map(str::to_owned).collect(),
                "--group" => arguments.group = value,
                "--member" => arguments.member = Some(value),
                "--client" => arguments.client = value,
                "--from" => arguments.from = value,
                "--to" => arguments.to = value,
                "--batch" => arguments.batch = value.parse()?,
                "--session-ms" => arguments.session = Duration::from_millis(value.parse()?),
                _ => bail!("{name} is not known"),
            }
        }
        Ok(arguments)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::read(std::env::args().skip(1))?;
    let client = Client::builder()
        .endpoints(&arguments.endpoints)
        .request_timeout(Duration::from_secs(10))
        .operation_timeout(Duration::from_secs(30))
        .build()?;
    let mut group = loop {
        match join(&client, &arguments).await {
            Ok(group) => break group,
            Err(error) if error.retryable() => eprintln!("trying again: {:#}", anyhow::Error::new(error)),
            Err(error) => return Err(error.into()),
        }
    };
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut stop = Box::pin(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    });
    let to = arguments.to.as_str();
    loop {
        let count = async |records: Vec<ConsumedRecord>| Ok::<_, anyhow::Error>(count(&records, to));
        match group.process(arguments.batch, &mut stop, count).await {
            Ok(()) => break,
            Err(error) if error.retryable() => eprintln!("going on: {:#}", anyhow::Error::new(error)),
            Err(error) => return Err(error.into()),
        }
    }
    group.close().await?;
    Ok(())
}

async fn join(client: &Client, arguments: &Arguments) -> Result<GroupConsumer, RequestError> {
    let mut builder = client
        .group(&arguments.group)
        .topics([&arguments.from])
        .offset_reset(OffsetReset::Earliest)
        .session_timeout(arguments.session)
        .client_name(&arguments.client);
    if let Some(member) = &arguments.member {
        builder = builder.member(member);
    }
    builder.build().await
}

/// One output for each partition and carrier of a batch.
fn count<'a>(records: &[ConsumedRecord], to: &'a str) -> Vec<(&'a str, Record)> {
    let mut ranges: BTreeMap<PartitionIndex, (u64, u64)> = BTreeMap::new();
    let mut counts: BTreeMap<(PartitionIndex, String), u64> = BTreeMap::new();
    for record in records {
        let range = ranges.entry(record.partition).or_insert((record.offset.0, record.offset.0));
        range.1 = record.offset.0;
        let carrier = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned();
        *counts.entry((record.partition, carrier)).or_default() += 1;
    }
    let topic = records.first().map(|record| record.topic.to_string()).unwrap_or_default();
    let output = |((partition, carrier), count): ((PartitionIndex, String), u64)| {
        let (first, last) = ranges[&partition];
        let value = serde_json::json!({
            "carrier": carrier, "count": count, "topic": topic,
            "partition": partition, "first": first, "last": last,
        });
        (to, Record::new(value.to_string()).with_key(carrier))
    };
    counts.into_iter().map(output).collect()
}
