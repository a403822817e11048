//! `carnax bench`: how fast the log is, beside how fast its object store is in the same run.

mod guarantees;
mod load;
mod log;
mod store;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use carnax_object_store::ObjectStoreUrl;
use clap::Args;
use serde::Serialize;

use crate::arguments::{Global, bytes, seconds};
use crate::output::{Output, say, table};
use crate::percentiles::Percentiles;
use load::Measured;

#[derive(Debug, Clone, Args)]
pub(crate) struct Bench {
    /// Measure this object store too, with the same sizes and concurrency: s3://bucket/prefix or file:///dir
    #[arg(long, env = "CARNAX_OBJECT_STORE", value_name = "URL")]
    object_store: Option<ObjectStoreUrl>,
    /// Put the bucket into the path of S3 requests
    #[arg(long)]
    s3_path_style: bool,
    /// How many seconds appends (and puts) are made
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    duration: Duration,
    /// Bytes of a record's value
    #[arg(long, value_name = "BYTES", default_value = "1KiB", value_parser = bytes)]
    record_bytes: usize,
    /// Bytes of an append request, of a fetch, and of an object that is put
    #[arg(long, value_name = "BYTES", default_value = "1MiB", value_parser = bytes)]
    request_bytes: usize,
    /// Requests at once
    #[arg(long, default_value = "16")]
    concurrency: usize,
    /// Partitions of the temporary topic
    #[arg(long, default_value = "12")]
    partitions: u32,
    /// How many records are sent one after the other to measure the way from producer to consumer, and how many atomic
    /// appends are made
    #[arg(long, value_name = "N", default_value = "200")]
    samples: usize,
}

/// One line of the result.
#[derive(Debug, Serialize)]
struct Line {
    what: &'static str,
    calls: usize,
    errors: usize,
    mib_per_s: f64,
    records_per_s: f64,
    #[serde(flatten)]
    percentiles: Percentiles,
    /// By the line that it is measured against: MiB/s by those of the raw object store, or of a producer that is not
    /// idempotent; the median time by that of an atomic append to one partition.
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<f64>,
}

impl Bench {
    pub(crate) async fn run(self, global: &Global, out: &mut Output) -> anyhow::Result<()> {
        let client = global.client()?;
        let topic = format!("carnax-bench-{}-{}", millis(), std::process::id());
        client.admin().create_topic(&topic, self.partitions, &[]).await?;
        let log = self.measure_log(&log::LogBench { client: client.clone(), topic: topic.clone() }).await;
        let guarantees = match &log {
            Ok(_) => Some(Box::pin(guarantees::measure(&self, &client, &topic)).await),
            Err(_) => None,
        };
        let deleted = client.admin().delete_topic(&topic).await;
        let [append, end_to_end, catch_up] = log?;
        let guarantees = guarantees.transpose()?;
        deleted?;
        let (put, get) = match &self.object_store {
            Some(url) => {
                let (put, get) = store::measure(&self, url).await?;
                (Some(put), Some(get))
            }
            None => (None, None),
        };
        let ratio = |ours: &Measured, raw: &Option<Measured>| {
            raw.as_ref().map(|raw| ours.mib_per_s() / raw.mib_per_s())
        };
        let mut lines = vec![
            line("append", &append, ratio(&append, &put)),
            line("end-to-end", &end_to_end, None),
            line("catch-up", &catch_up, ratio(&catch_up, &get)),
        ];
        lines.extend(guarantees.iter().flat_map(guarantees::Guarantees::lines));
        lines.extend(put.iter().map(|raw| line("raw put", raw, None)));
        lines.extend(get.iter().map(|raw| line("raw get", raw, None)));
        out.show(&lines, |lines| describe(lines))?;
        Ok(())
    }

    async fn measure_log(&self, log: &log::LogBench) -> anyhow::Result<[Measured; 3]> {
        say("measuring appends …");
        let append = Box::pin(log.append(self)).await?;
        say("measuring the way from producer to consumer …");
        let end_to_end = Box::pin(log.end_to_end(self)).await?;
        say("measuring catch-up …");
        let catch_up = Box::pin(log.catch_up(self)).await?;
        Ok([append, end_to_end, catch_up])
    }
}

fn line(what: &'static str, measured: &Measured, ratio: Option<f64>) -> Line {
    Line {
        what,
        calls: measured.times.len(),
        errors: measured.errors,
        mib_per_s: measured.mib_per_s(),
        records_per_s: measured.records_per_s(),
        percentiles: Percentiles::of(measured.times.clone()),
        ratio,
    }
}

fn describe(lines: &[Line]) -> String {
    let heading =
        ["", "calls", "errors", "MiB/s", "records/s", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "ratio"];
    let rows = lines.iter().map(|line| {
        let times = &line.percentiles;
        vec![
            line.what.to_owned(),
            line.calls.to_string(),
            line.errors.to_string(),
            format!("{:.1}", line.mib_per_s),
            format!("{:.0}", line.records_per_s),
            format!("{:.1}", times.p50_ms),
            format!("{:.1}", times.p99_ms),
            format!("{:.1}", times.p999_ms),
            format!("{:.1}", times.max_ms),
            line.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
        ]
    });
    table(&std::iter::once(heading.map(str::to_owned).to_vec()).chain(rows).collect::<Vec<_>>())
}

fn millis() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()
}
