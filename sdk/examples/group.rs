//! Reads topics as a member of a group, prints every record, and commits what was printed. Start it several times: the
//! partitions are shared out. End it with Ctrl-C: the others take over at once; kill it: they do when its session has expired.
//!
//! ```text
//! cargo run -p carnax --example group -- printers numbers [http://127.0.0.1:8080]
//! ```

use std::time::Duration;

use anyhow::Context;
use carnax::{Client, GroupConsumer, GroupPartition, OffsetReset, RebalanceListener};
use futures::future::BoxFuture;
use tokio::io::AsyncWriteExt;

/// Says which partitions come and go.
struct Say;

impl RebalanceListener for Say {
    fn on_assigned<'a>(
        &'a mut self,
        _: &'a mut GroupConsumer,
        partitions: &'a [GroupPartition],
    ) -> BoxFuture<'a, ()> {
        Box::pin(async move { eprintln!("mine: {}", list(partitions)) })
    }

    fn on_revoked<'a>(
        &'a mut self,
        consumer: &'a mut GroupConsumer,
        partitions: &'a [GroupPartition],
    ) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            // What was printed and is not committed would be printed again by whoever comes next.
            if let Err(error) = consumer.commit().await {
                eprintln!("cannot commit: {error}");
            }
            eprintln!("handed over: {}", list(partitions));
        })
    }

    fn on_lost<'a>(
        &'a mut self,
        _: &'a mut GroupConsumer,
        partitions: &'a [GroupPartition],
    ) -> BoxFuture<'a, ()> {
        Box::pin(async move { eprintln!("lost: {}", list(partitions)) })
    }
}

fn list(partitions: &[GroupPartition]) -> String {
    partitions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: group GROUP TOPIC [ENDPOINT]";
    let (group, topic) = (arguments.next().context(usage)?, arguments.next().context(usage)?);
    let endpoint = arguments.next().unwrap_or_else(|| "http://127.0.0.1:8080".to_owned());

    let client = Client::builder().endpoints([endpoint]).build()?;
    let mut consumer = client
        .group(group)
        .topics([topic])
        .offset_reset(OffsetReset::Earliest)
        .session_timeout(Duration::from_secs(10))
        .listener(Say)
        .build()
        .await?;
    let mut out = tokio::io::stdout();
    loop {
        let records = tokio::select! {
            records = consumer.poll(1_000, Duration::from_secs(60)) => records?,
            stop = tokio::signal::ctrl_c() => {
                stop?;
                break;
            }
        };
        for record in records {
            let value = record.value.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
            let line = format!("{}/{}/{}\t{value}\n", record.topic, record.partition, record.offset);
            out.write_all(line.as_bytes()).await?;
        }
        out.flush().await?;
        if let Err(error) = consumer.commit().await {
            eprintln!("printed and not committed: {error}");
        }
    }
    consumer.close().await?;
    Ok(())
}
