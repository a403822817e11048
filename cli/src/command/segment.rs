//! `carnax segment`: what lies in a segment object, and whether it is whole.

use std::path::Path;

use anyhow::{Context, bail};
use bytes::Bytes;
use carnax_core::limits;
use carnax_core::record::Batch;
use carnax_core::segment::{BatchEntry, Footer, SliceEntry};
use carnax_object_store::{GetRange, ObjectStoreSettings, ObjectStoreUrl};
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::output::{Output, table};

#[derive(Debug, Subcommand)]
pub(crate) enum Segment {
    /// Print slices and batches of a segment object, and verify every checksum
    Inspect(Inspect),
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// Key of the object in the object store, or a file
    #[arg(value_name = "KEY|FILE")]
    object: String,
    /// Where the object is: s3://bucket/prefix or file:///dir; without, the argument is a file
    #[arg(long, env = "CARNAX_OBJECT_STORE", value_name = "URL")]
    object_store: Option<ObjectStoreUrl>,
    /// Put the bucket into the path of S3 requests
    #[arg(long)]
    s3_path_style: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    object: String,
    bytes: usize,
    slices: Vec<SliceReport>,
    /// What is wrong with the object as a whole, or how many slices and batches are damaged; absent if all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

#[derive(Debug, Serialize)]
struct SliceReport {
    topic_id: String,
    partition: u32,
    position: u64,
    length: u64,
    crc32c: String,
    verified: bool,
    batches: Vec<BatchReport>,
}

#[derive(Debug, Serialize)]
struct BatchReport {
    position: u64,
    length: u32,
    offset_count: u32,
    max_timestamp: i64,
    encoded_by_frontend: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    compression: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    crc32c: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

impl Segment {
    pub(crate) async fn run(self, out: &mut Output) -> anyhow::Result<()> {
        let Self::Inspect(inspect) = self;
        let object = inspect.read().await?;
        let report = examine(&inspect.object, &object);
        out.show(&report, describe)?;
        out.flush()?;
        match report.problem {
            None => Ok(()),
            Some(problem) => bail!("{}: {problem}", inspect.object),
        }
    }
}

impl Inspect {
    async fn read(&self) -> anyhow::Result<Bytes> {
        let Some(url) = &self.object_store else {
            let bytes = std::fs::read(Path::new(&self.object));
            return Ok(bytes.with_context(|| format!("cannot read file {}", self.object))?.into());
        };
        let settings = ObjectStoreSettings { s3_path_style: self.s3_path_style };
        let store = carnax_object_store::open(url, &settings).await?;
        let (bytes, _) = store.get(&self.object, GetRange::WholeUpTo(limits::SEGMENT_BYTES_MAX)).await?;
        Ok(bytes)
    }
}

fn examine(name: &str, object: &Bytes) -> Report {
    let mut report =
        Report { object: name.to_owned(), bytes: object.len(), slices: Vec::new(), problem: None };
    match Footer::parse(object, object.len() as u64) {
        Ok(footer) => {
            report.slices =
                footer.slices().iter().map(|slice| examine_slice(object, &footer, slice)).collect();
        }
        Err(error) => report.problem = Some(error.to_string()),
    }
    // Which slice it is stands in the report already; the head of the object does not.
    let whole = Footer::verify_object(object).err().map(|error| error.to_string());
    let batches = report.slices.iter().flat_map(|slice| &slice.batches);
    let damaged = batches.filter(|batch| batch.problem.is_some()).count();
    let damaged = (damaged > 0).then(|| format!("{damaged} batches are damaged"));
    report.problem = report.problem.or(whole).or(damaged);
    report
}

fn examine_slice(object: &Bytes, footer: &Footer, slice: &SliceEntry) -> SliceReport {
    let bytes = part(object, slice.bytes.start, slice.bytes.length);
    let batches = footer.batches_of(slice).iter().map(|batch| examine_batch(object, batch)).collect();
    SliceReport {
        topic_id: slice.on.topic.to_string(),
        partition: slice.on.partition.0,
        position: slice.bytes.start,
        length: slice.bytes.length,
        crc32c: format!("{:08x}", slice.crc32c),
        verified: bytes.is_some_and(|bytes| crc32c::crc32c(&bytes) == slice.crc32c),
        batches,
    }
}

fn examine_batch(object: &Bytes, entry: &BatchEntry) -> BatchReport {
    let mut report = BatchReport {
        position: entry.position,
        length: entry.length,
        offset_count: entry.offset_count,
        max_timestamp: entry.max_timestamp.millis(),
        encoded_by_frontend: entry.encoded_by_frontend,
        compression: None,
        crc32c: None,
        problem: None,
    };
    let bytes = part(object, entry.position, entry.length.into());
    let parsed = bytes.context("lies behind the end").and_then(|mut bytes| {
        let batch = Batch::parse_next(&mut bytes)?.context("is empty")?;
        anyhow::ensure!(bytes.is_empty(), "is shorter than the footer says");
        Ok(batch)
    });
    match parsed {
        Ok(batch) => {
            report.compression = batch.compression().ok().map(|compression| compression.as_str());
            report.crc32c = Some(format!("{:08x}", batch.header().crc));
            let agrees =
                batch.offset_count() == entry.offset_count && batch.max_timestamp() == entry.max_timestamp;
            report.problem = match batch.verify_stored() {
                Err(error) => Some(error.to_string()),
                Ok(()) if !agrees => Some("footer and batch disagree".to_owned()),
                Ok(()) => None,
            };
        }
        Err(error) => report.problem = Some(error.to_string()),
    }
    report
}

fn part(object: &Bytes, start: u64, length: u64) -> Option<Bytes> {
    let start = usize::try_from(start).ok()?;
    let end = start.checked_add(usize::try_from(length).ok()?)?;
    (end <= object.len()).then(|| object.slice(start..end))
}

fn describe(report: &Report) -> String {
    let mut text = format!("{}: {} bytes, {} slices\n", report.object, report.bytes, report.slices.len());
    for slice in &report.slices {
        text.push_str(&format!(
            "\ntopic {} partition {}: {} bytes at {}, CRC32C {} {}\n",
            slice.topic_id,
            slice.partition,
            slice.length,
            slice.position,
            slice.crc32c,
            if slice.verified { "ok" } else { "WRONG" },
        ));
        let heading = ["at", "bytes", "offsets", "max timestamp", "codec", "CRC32C", "by", "state"];
        let rows = slice.batches.iter().map(|batch| {
            vec![
                batch.position.to_string(),
                batch.length.to_string(),
                batch.offset_count.to_string(),
                batch.max_timestamp.to_string(),
                batch.compression.unwrap_or("?").to_owned(),
                batch.crc32c.clone().unwrap_or_default(),
                if batch.encoded_by_frontend { "frontend" } else { "client" }.to_owned(),
                batch.problem.clone().unwrap_or_else(|| "ok".to_owned()),
            ]
        });
        let heading = heading.map(str::to_owned).to_vec();
        text.push_str(&table(&std::iter::once(heading).chain(rows).collect::<Vec<_>>()));
    }
    text
}
