//! Reads all records that a topic holds now, and ends.
//!
//! ```text
//! cargo run -p carnax --example consume -- numbers [http://127.0.0.1:8080]
//! ```

use std::collections::BTreeMap;

use anyhow::Context;
use carnax::{Client, Start};
use futures::StreamExt;
use tokio::io::{AsyncWriteExt, BufWriter};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let topic = arguments.next().context("usage: consume TOPIC [ENDPOINT]")?;
    let endpoint = arguments.next().unwrap_or_else(|| "http://127.0.0.1:8080".to_owned());

    let client = Client::builder().endpoints([endpoint]).build()?;
    let description = client.admin().describe_topic(&topic).await?;
    let ends: BTreeMap<_, _> = description
        .partition_offsets
        .iter()
        .map(|bounds| (bounds.partition, bounds.high_watermark))
        .collect();
    let mut records = client.consumer(&topic).start(Start::Earliest).build().await?;
    let mut out = BufWriter::new(tokio::io::stdout());
    while ends.iter().any(|(partition, end)| records.position(*partition).is_some_and(|at| at < *end)) {
        let Some(record) = records.next().await else { break };
        out.write_all(&record?.value.unwrap_or_default()).await?;
        out.write_all(b"\n").await?;
    }
    out.flush().await?;
    Ok(())
}
