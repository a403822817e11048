//! Prints the last ten records of every partition, and then each new one as it arrives, until it is interrupted.
//!
//! ```text
//! cargo run -p carnax --example tail -- numbers [http://127.0.0.1:8080]
//! ```

use std::time::Duration;

use anyhow::Context;
use carnax::{Client, Start};
use tokio::io::AsyncWriteExt;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let topic = arguments.next().context("usage: tail TOPIC [ENDPOINT]")?;
    let endpoint = arguments.next().unwrap_or_else(|| "http://127.0.0.1:8080".to_owned());

    let client = Client::builder().endpoints([endpoint]).build()?;
    let mut consumer = client.consumer(&topic).start(Start::Last(10)).build().await?;
    let mut out = tokio::io::stdout();
    loop {
        for record in consumer.poll(1_000, Duration::from_secs(60)).await? {
            let value = record.value.as_deref().map(String::from_utf8_lossy);
            let line = format!("{}/{}\t{}\n", record.partition, record.offset, value.unwrap_or_default());
            out.write_all(line.as_bytes()).await?;
        }
        out.flush().await?;
    }
}
