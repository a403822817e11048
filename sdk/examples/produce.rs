//! Appends the lines of standard input to a topic, in order, and says where the last one went.
//!
//! ```text
//! seq 1000 | cargo run -p carnax --example produce -- numbers [http://127.0.0.1:8080]
//! ```

use anyhow::Context;
use carnax::{Client, Record};
use tokio::io::{AsyncBufReadExt, BufReader};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let topic = arguments.next().context("usage: produce TOPIC [ENDPOINT]")?;
    let endpoint = arguments.next().unwrap_or_else(|| "http://127.0.0.1:8080".to_owned());

    let client = Client::builder().endpoints([endpoint]).build()?;
    client.admin().create_topic(&topic, 1, &[]).await?;
    let producer = client.producer(&topic).build().await?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut last = None;
    while let Some(line) = lines.next_line().await? {
        // All lines have one key, so they keep their order whatever the number of partitions.
        last = Some(producer.send(Record::new(line).with_key("line")).await?);
    }
    producer.close().await;
    if let Some(delivery) = last {
        let stored = delivery.await?;
        eprintln!("last line: partition {}, offset {}", stored.partition, stored.offset);
    }
    Ok(())
}
