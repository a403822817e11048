//! Books a transfer between two accounts: one record for each, both or none, and only if nobody else booked in between.
//!
//! ```text
//! cargo run -p carnax --example atomic_append -- 0 1 250 [http://127.0.0.1:8080]
//! ```
//!
//! Each account is a partition of the topic `accounts`, and its balance the sum of its records. Start it many times at once:
//! no account goes below zero but the one that money comes from in the beginning, and no cent is lost.

use std::time::Duration;

use anyhow::{Context, bail};
use carnax::{Client, ErrorCode, Offset, PartitionIndex, Record, Start};

const TOPIC: &str = "accounts";
const ACCOUNTS: u32 = 8;
/// Where money comes from in the beginning: its balance may be negative.
const BANK: PartitionIndex = PartitionIndex(0);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number = || -> anyhow::Result<u32> {
        Ok(arguments.next().context("usage: atomic_append FROM TO AMOUNT [ENDPOINT]")?.parse()?)
    };
    let (from, to) = (PartitionIndex(number()?), PartitionIndex(number()?));
    let amount = i64::from(number()?);
    let endpoint = arguments.next().unwrap_or_else(|| "http://127.0.0.1:8080".to_owned());
    let client = Client::builder().endpoints([endpoint]).build()?;
    client.admin().create_topic(TOPIC, ACCOUNTS, &[]).await?;

    loop {
        let (balance, next) = balance(&client, from).await?;
        if from != BANK && balance < amount {
            bail!("account {from} has {balance}, not {amount}");
        }
        let booked = client
            .append()
            .to_partition(TOPIC, from, Record::new((-amount).to_string()))
            .to_partition(TOPIC, to, Record::new(amount.to_string()))
            // The balance is as it was read, or the append is refused.
            .expect_next_offset(TOPIC, from, next)
            .send()
            .await;
        match booked {
            Ok(_) => break,
            Err(error) if error.is(ErrorCode::ConditionFailed) => {
                eprintln!("account {from} is at {} by now, not at {next}", error.actual().unwrap_or("?"));
            }
            Err(error) => return Err(error.into()),
        }
    }
    for account in [from, to] {
        eprintln!("account {account} has {}", balance(&client, account).await?.0);
    }
    Ok(())
}

/// The sum of an account's records, and the offset of the next one.
async fn balance(client: &Client, account: PartitionIndex) -> anyhow::Result<(i64, Offset)> {
    let end = client.admin().offset(TOPIC, account, Start::Latest).await?.offset;
    let mut consumer = client.consumer(TOPIC).partitions([account]).start(Start::Earliest).build().await?;
    let (mut sum, mut next) = (0, Offset(0));
    while next < end {
        for record in consumer.poll(1_000, Duration::from_secs(5)).await? {
            if record.offset < end {
                sum += std::str::from_utf8(&record.value.unwrap_or_default())?.parse::<i64>()?;
            }
            next = Offset(record.offset.0 + 1);
        }
    }
    Ok((sum, end))
}
