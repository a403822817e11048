//! The formats from outside: golden files of every version, and properties that hold for any input.
//!
//! A golden file is never changed. One that is missing is written by the test that wants it, which then fails, so that
//! the new file is looked at and committed.
#![expect(clippy::disallowed_methods, reason = "golden files are read and written")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod batches;
mod golden;
mod guarantees;
mod messages;
mod messages_group;
mod messages_maintenance;
mod messages_tokens;
mod messages_usage;
mod pages;
mod segments;

use std::fs;
use std::path::Path;

use bytes::Bytes;
use carnax_core::record::{Batch, BatchBuilder, Compression, Header, NewRecord};
use carnax_core::time::Timestamp;

/// The committed bytes of a golden file; `today` is what is written if it is missing, empty for files of others.
fn golden(name: &str, today: &[u8]) -> Bytes {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
    if !path.exists() && !today.is_empty() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, today).unwrap();
        panic!("golden file {name} was missing and is written: look at it and commit it");
    }
    fs::read(&path).unwrap().into()
}

/// A record with owned parts, as a property test makes it.
#[derive(Debug, Clone, PartialEq)]
struct OwnedRecord {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

fn encode(records: &[OwnedRecord], compression: Compression) -> Batch {
    let mut builder = BatchBuilder::new(1 << 20);
    for record in records {
        let headers: Vec<Header> = record
            .headers
            .iter()
            .map(|(key, value)| Header { key: key.clone().into(), value: value.clone().map(Bytes::from) })
            .collect();
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        let timestamp = Timestamp::from_millis(record.timestamp);
        builder.push(&NewRecord { timestamp, key, value, headers: &headers }).unwrap();
    }
    Batch::parse_next(&mut builder.build(compression)).unwrap().unwrap()
}

fn decode(batch: &Batch) -> Vec<OwnedRecord> {
    let records = batch.records().unwrap().map(|record| {
        let record = record.unwrap();
        let headers = record.headers.iter();
        let headers =
            headers.map(|header| (header.key.to_vec(), header.value.as_ref().map(|value| value.to_vec())));
        OwnedRecord {
            timestamp: record.timestamp.millis(),
            key: record.key.as_ref().map(|key| key.to_vec()),
            value: record.value.as_ref().map(|value| value.to_vec()),
            headers: headers.collect(),
        }
    });
    records.collect()
}

/// Three records: a keyed one with a header that repeats, a tombstone, and an earlier one with an empty value.
fn sample_records() -> Vec<OwnedRecord> {
    let header = |value: Option<&str>| (b"h".to_vec(), value.map(|value| value.as_bytes().to_vec()));
    let record = |timestamp, key: Option<&str>, value: Option<&str>, headers| OwnedRecord {
        timestamp,
        key: key.map(|key| key.as_bytes().to_vec()),
        value: value.map(|value| value.as_bytes().to_vec()),
        headers,
    };
    let text = "a value that repeats itself ".repeat(20);
    vec![
        record(
            1_700_000_000_000,
            Some("UA"),
            Some(&text),
            vec![header(Some("1")), header(None), header(Some("1"))],
        ),
        record(1_700_000_000_500, Some("UA"), None, vec![]),
        record(1_699_999_999_000, None, Some(""), vec![]),
    ]
}
