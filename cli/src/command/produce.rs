//! `carnax produce`: lines become records.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use carnax::{Compression, Delivery, PartitionIndex, Producer};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::arguments::{Global, seconds};
use crate::output::Output;
use crate::records::{self, Key};

/// Records that are on their way and whose answers are looked at in order.
const ANSWERS_WAITING: usize = 65_536;

#[derive(Debug, Args)]
pub(crate) struct Produce {
    /// Name of the topic
    topic: String,
    /// Read from this file instead of standard input; .gz is decompressed
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Lines are JSON objects, and the key is this field of them
    #[arg(long, value_name = "FIELD", conflicts_with = "key_separator")]
    key_field: Option<String>,
    /// Lines are KEY, this text, VALUE
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    key_separator: Option<String>,
    /// Append to this partition, whatever the key
    #[arg(long)]
    partition: Option<u32>,
    /// How batches are compressed: none, gzip, snappy, lz4 or zstd
    #[arg(long, default_value = "none")]
    compression: Compression,
    /// How many seconds a record may wait for others to share its batch
    #[arg(long, value_name = "SECONDS", default_value = "0.02", value_parser = seconds)]
    linger: Duration,
    /// Who sends, over restarts: of two producers with one id, only the records of the later one are stored (default: a
    /// random id)
    #[arg(long, value_name = "ID", conflicts_with_all = ["no_idempotence", "no_retry_unknown"])]
    producer_id: Option<String>,
    /// Send without a sequence: what is sent again, since its outcome is unknown, may be stored twice
    #[arg(long)]
    no_idempotence: bool,
    /// As --no-idempotence, but fail instead of sending again
    #[arg(long)]
    no_retry_unknown: bool,
}

#[derive(Debug, Default, Serialize)]
struct Summary {
    records: u64,
    bytes: u64,
    seconds: f64,
}

impl Produce {
    pub(crate) async fn run(self, global: &Global, out: &mut Output) -> anyhow::Result<()> {
        let builder = global
            .client()?
            .producer(&self.topic)
            .compression(self.compression)
            .linger(self.linger)
            .delivery_timeout(global.timeout)
            .send_timeout(global.timeout)
            .idempotent(!self.no_idempotence && !self.no_retry_unknown)
            .retry_unknown_outcomes(!self.no_retry_unknown);
        let producer = match &self.producer_id {
            Some(id) => builder.producer_id(id).build().await?,
            None => builder.build().await?,
        };
        let (length, lines) = records::read(self.file.as_deref())?;
        let progress = progress_bar(length);
        let started = Instant::now();
        let (answers, waiting) = mpsc::channel(ANSWERS_WAITING);
        let watch = tokio::spawn(watch_answers(waiting));
        let sent = self.send_all(&producer, lines, answers, &progress).await;
        producer.close().await;
        let stored = watch.await.context("the task that watches answers ended")?;
        progress.finish_and_clear();
        // What was not stored explains why no more was sent.
        let records = stored?;
        let bytes = sent?;
        let summary = Summary { records, bytes, seconds: started.elapsed().as_secs_f64() };
        out.show(&summary, |summary| {
            let rate = summary.records as f64 / summary.seconds.max(0.001);
            format!("{} records, {} bytes, {rate:.0} records/s\n", summary.records, summary.bytes)
        })?;
        Ok(())
    }

    /// Sends until the input ends or a record is not stored; tells how many bytes.
    async fn send_all(
        &self,
        producer: &Producer,
        mut lines: mpsc::Receiver<std::io::Result<records::Lines>>,
        answers: mpsc::Sender<(u64, Delivery)>,
        progress: &ProgressBar,
    ) -> anyhow::Result<u64> {
        let key = match (&self.key_field, &self.key_separator) {
            (Some(field), _) => Key::Field(field.clone()),
            (None, Some(separator)) => Key::Before(separator.clone()),
            (None, None) => Key::None,
        };
        let (mut bytes, mut records) = (0, 0_u64);
        while let Some(chunk) = lines.recv().await {
            let chunk = chunk.context("cannot read the input")?;
            for (number, line) in (chunk.first..).zip(&chunk.lines) {
                let at = || format!("line {number}");
                let Some(mut record) = key.record(line).with_context(at)? else { continue };
                if let Some(partition) = self.partition {
                    record = record.to_partition(PartitionIndex(partition));
                }
                let delivery = producer.send(record).await.with_context(at)?;
                bytes += line.len() as u64;
                records += 1;
                if answers.send((number, delivery)).await.is_err() {
                    return Ok(bytes);
                }
            }
            progress.set_position(chunk.file_bytes);
            progress.set_message(format!("{records} records"));
        }
        Ok(bytes)
    }
}

/// Looks at the answers in order, up to the first failure; tells how many records were stored.
async fn watch_answers(mut waiting: mpsc::Receiver<(u64, Delivery)>) -> anyhow::Result<u64> {
    let mut stored = 0;
    while let Some((line, delivery)) = waiting.recv().await {
        delivery
            .await
            .with_context(|| format!("line {line} is not stored, {stored} records before it are"))?;
        stored += 1;
    }
    Ok(stored)
}

/// A bar on standard error, if that is a terminal.
fn progress_bar(length: Option<u64>) -> ProgressBar {
    let (bar, template) = match length {
        Some(length) => {
            (ProgressBar::new(length), "{wide_bar} {percent}% {msg} {elapsed_precise} eta {eta_precise}")
        }
        None => (ProgressBar::new_spinner(), "{spinner} {msg} {elapsed_precise}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
