//! `carnax consume`: records become lines.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use carnax::{Client, ConsumedRecord, Consumer, Offset, PartitionIndex, Start, Timestamp};
use clap::{Args, ValueEnum};
use serde_json::{Value, json, value::RawValue};

use crate::arguments::Global;
use crate::exit::Usage;
use crate::output::Output;

const POLL_RECORDS: usize = 10_000;
const POLL_WAIT: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(crate) struct Consume {
    /// Name of the topic
    topic: String,
    /// Only this partition; may be repeated
    #[arg(long)]
    partition: Vec<u32>,
    /// Where to begin: earliest, latest, an offset, or @ and milliseconds since 1970 [default: earliest; latest with --follow]
    #[arg(long, value_name = "WHERE", value_parser = start, conflicts_with = "last")]
    from: Option<Start>,
    /// Begin so many records before the end of each partition
    #[arg(long, value_name = "N")]
    last: Option<u64>,
    /// End after so many records
    #[arg(long, value_name = "N")]
    max_records: Option<u64>,
    /// End where the partitions ended when the command was started (so it does anyway, without --follow)
    #[arg(long, conflicts_with = "follow")]
    until_end: bool,
    /// Go on with records as they arrive
    #[arg(long)]
    follow: bool,
    /// Text output: write keys too, and this text behind them
    #[arg(long, value_name = "TEXT")]
    key_separator: Option<String>,
    /// JSON output: what keys and values are written as
    #[arg(long, value_enum, default_value = "text")]
    encoding: Encoding,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Encoding {
    /// UTF-8 strings
    Text,
    /// Any bytes
    Base64,
    /// Values are JSON documents; keys are UTF-8 strings
    Json,
}

impl Consume {
    pub(crate) async fn run(self, global: &Global, out: &mut Output) -> anyhow::Result<()> {
        let client = global.client()?;
        // Ends before starts: what arrives in between is not waited for.
        let mut ends = self.ends(&client).await?;
        if matches!(self.from, Some(Start::Offset(_))) && ends.len() > 1 {
            return Err(Usage("an offset belongs to a partition: give one --partition".to_owned()).into());
        }
        if self.follow {
            ends.clear();
        }
        let start = match (self.from, self.last) {
            (Some(start), _) => start,
            (None, Some(count)) => Start::Last(count),
            (None, None) if self.follow => Start::Latest,
            (None, None) => Start::Earliest,
        };
        let mut builder = client.consumer(&self.topic).start(start);
        if !self.partition.is_empty() {
            builder = builder.partitions(self.partition.iter().copied().map(PartitionIndex));
        }
        let mut consumer = builder.build().await?;
        let mut left = self.max_records.unwrap_or(u64::MAX);
        drop_reached(&mut ends, &consumer);
        while left > 0 && (self.follow || !ends.is_empty()) {
            let max = POLL_RECORDS.min(usize::try_from(left).unwrap_or(usize::MAX));
            for record in consumer.poll(max, POLL_WAIT).await? {
                let wanted =
                    self.follow || ends.get(&record.partition).is_some_and(|end| record.offset < *end);
                if wanted {
                    self.write(&record, out)?;
                    left -= 1;
                }
            }
            // A follower sees each record at once, and a reader that went away is noticed.
            out.flush()?;
            drop_reached(&mut ends, &consumer);
        }
        Ok(())
    }

    async fn ends(&self, client: &Client) -> anyhow::Result<BTreeMap<PartitionIndex, Offset>> {
        let topic = client.admin().describe_topic(&self.topic).await?;
        let wanted =
            |partition: PartitionIndex| self.partition.is_empty() || self.partition.contains(&partition.0);
        let bounds = topic.partition_offsets.iter().filter(|bounds| wanted(bounds.partition));
        Ok(bounds.map(|bounds| (bounds.partition, bounds.high_watermark)).collect())
    }

    fn write(&self, record: &ConsumedRecord, out: &mut Output) -> anyhow::Result<()> {
        if out.is_json() {
            let place = || format!("record {} of partition {}", record.offset, record.partition);
            return Ok(out.json(&self.document(record).with_context(place)?)?);
        }
        if let Some(separator) = &self.key_separator {
            out.bytes(record.key.as_deref().unwrap_or_default())?;
            out.bytes(separator.as_bytes())?;
        }
        out.bytes(record.value.as_deref().unwrap_or_default())?;
        Ok(out.bytes(b"\n")?)
    }

    fn document(&self, record: &ConsumedRecord) -> anyhow::Result<impl serde::Serialize + use<'_>> {
        #[derive(serde::Serialize)]
        struct Document<'a> {
            topic: &'a str,
            partition: PartitionIndex,
            offset: Offset,
            timestamp: Timestamp,
            key: Value,
            value: Box<RawValue>,
            headers: Vec<Value>,
        }
        let value = match (&record.value, self.encoding) {
            (Some(value), Encoding::Json) => {
                let text = std::str::from_utf8(value).context("value is not JSON")?;
                RawValue::from_string(text.trim().to_owned()).context("value is not JSON")?
            }
            (value, encoding) => serde_json::value::to_raw_value(&encode(value.as_deref(), encoding)?)?,
        };
        let headers = record.headers.iter().map(|header| {
            Ok(json!([
                encode(Some(&header.key), Encoding::Text)?,
                encode(header.value.as_deref(), self.encoding)?
            ]))
        });
        Ok(Document {
            topic: &self.topic,
            partition: record.partition,
            offset: record.offset,
            timestamp: record.timestamp,
            key: encode(record.key.as_deref(), self.encoding)?,
            value,
            headers: headers.collect::<anyhow::Result<_>>()?,
        })
    }
}

fn drop_reached(ends: &mut BTreeMap<PartitionIndex, Offset>, consumer: &Consumer) {
    ends.retain(|partition, end| consumer.position(*partition).is_some_and(|position| position < *end));
}

fn encode(bytes: Option<&[u8]>, encoding: Encoding) -> anyhow::Result<Value> {
    let Some(bytes) = bytes else { return Ok(Value::Null) };
    if encoding == Encoding::Base64 {
        return Ok(Value::String(STANDARD.encode(bytes)));
    }
    let text = std::str::from_utf8(bytes).context("not UTF-8; use --encoding base64")?;
    Ok(Value::String(text.to_owned()))
}

fn start(text: &str) -> Result<Start, String> {
    match text {
        "earliest" => Ok(Start::Earliest),
        "latest" => Ok(Start::Latest),
        _ => match text.strip_prefix('@') {
            Some(millis) => millis
                .parse()
                .map(|millis| Start::Timestamp(Timestamp::from_millis(millis)))
                .map_err(|_| "behind @ stand milliseconds since 1970".to_owned()),
            None => text
                .parse()
                .map(|offset| Start::Offset(Offset(offset)))
                .map_err(|_| "earliest, latest, an offset, or @ and milliseconds".to_owned()),
        },
    }
}
