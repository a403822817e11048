//! Goal: key compaction leaves the newest record of each key at its offset, every reader goes over the holes, and no failure on the
//! way costs a record. Method: many small segments of few keys, workers beside a frontend, faults in the object store, and the state
//! machine itself behind the metadata node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use carnax_core::record::{Batch, Compression};
use carnax_object_store::{Failure, Fault, Verb};
use http::StatusCode;
use serde_json::{Value, json};

use super::maintenance::{keys, worker};
use super::streams::Events;
use super::support::{Frontend, batch, start, start_over, until};

/// Longer than the grace period of dead objects, and than a partition is left alone after a compaction.
const LONG: Duration = Duration::from_secs(16 * 60);
/// How long tombstones stay.
const TOMBSTONES: Duration = Duration::from_secs(60 * 60);
const PARTITION: &str = "/v1/topics/t/partitions/0";

/// Offset and value by key, of the records that are there.
type Table = BTreeMap<String, (u64, Value)>;

async fn compacted(config: Value) -> Frontend {
    let frontend = start().await;
    let mut all =
        json!({"cleanup.policy": "compact", "delete.retention.ms": TOMBSTONES.as_millis().to_string()});
    all.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
    let body = json!({"partitions": 1, "config": all}).to_string();
    let created = frontend.call("PUT", "/v1/topics/t", &[], body).await;
    assert_eq!(created.status, StatusCode::CREATED, "{created:?}");
    frontend
}

/// Each record in a segment of its own.
async fn append(frontend: &Frontend, records: &[(&str, Option<&str>)]) {
    for (key, value) in records {
        let body = json!({"records": [{"partition": 0, "key": key, "value": value}]}).to_string();
        let answer = frontend.call("POST", "/v1/topics/t/records", &[], body).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        frontend.metadata.pass(Duration::from_millis(10));
    }
}

async fn records(frontend: &Frontend, from: u64, max: u32) -> Value {
    let answer = frontend.get(&format!("{PARTITION}/records?offset={from}&max_records={max}")).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.json()
}

/// What a reader sees who reads from an offset on, a few records at a time.
async fn read_from(frontend: &Frontend, mut offset: u64) -> Vec<(u64, String, Value)> {
    let mut seen = Vec::new();
    loop {
        let page = records(frontend, offset, 2).await;
        for record in page["records"].as_array().unwrap() {
            let key = record["key"].as_str().unwrap().to_owned();
            seen.push((record["offset"].as_u64().unwrap(), key, record["value"].clone()));
        }
        let next = page["next_offset"].as_u64().unwrap();
        if page["caught_up"] == true {
            assert_eq!(next, page["high_watermark"].as_u64().unwrap());
            return seen;
        }
        assert!(next > offset, "each page makes progress: {page}");
        offset = next;
    }
}

async fn table(frontend: &Frontend) -> Table {
    let seen = read_from(frontend, 0).await;
    assert!(seen.is_sorted_by_key(|(offset, ..)| *offset));
    seen.into_iter().map(|(offset, key, value)| (key, (offset, value))).collect()
}

async fn compact(frontend: &Frontend) {
    let work = worker(frontend).work().await.unwrap();
    assert_eq!(work.compacted, 1, "{work:?}");
}

const CHANGES: [(&str, Option<&str>); 14] = [
    ("a", Some("a0")),
    ("b", Some("b1")),
    ("a", Some("a2")),
    ("c", Some("c3")),
    ("b", None),
    ("a", Some("a5")),
    ("a", Some("a6")),
    ("d", Some("d7")),
    ("a", Some("a8")),
    ("c", Some("c9")),
    ("a", Some("a10")),
    ("a", Some("a11")),
    ("e", Some("e12")),
    ("a", Some("a13")),
];
/// The offsets that stay.
const NEWEST: [u64; 5] = [4, 7, 9, 12, 13];

#[tokio::test]
async fn the_newest_record_of_each_key_stays_and_every_reader_goes_over_the_holes() {
    let frontend = compacted(json!({})).await;
    append(&frontend, &CHANGES).await;
    let before = table(&frontend).await;
    let timestamps = records(&frontend, 0, 100).await;
    compact(&frontend).await;
    assert_eq!(table(&frontend).await, before, "the last word on each key, at its offset");
    let offsets = |seen: Vec<(u64, String, Value)>| seen.into_iter().map(|seen| seen.0).collect::<Vec<_>>();
    assert_eq!(offsets(read_from(&frontend, 0).await), NEWEST);
    assert_eq!(offsets(read_from(&frontend, 5).await), [7, 9, 12, 13], "a hole is a place to begin at");
    let kept = records(&frontend, 0, 100).await;
    assert_eq!(kept["records"][1], timestamps["records"][7], "the timestamp too");
    assert_eq!(records(&frontend, 14, 100).await["caught_up"], true);

    // Nobody compacts again what nobody wrote to, and what was replaced is deleted.
    frontend.metadata.pass(LONG);
    let work = worker(&frontend).work().await.unwrap();
    assert_eq!((work.compacted, work.deleted), (0, 14), "{work:?}");
    assert_eq!(keys(&frontend.store).await.len(), 1);

    // A frontend that has nothing in its cache, in every representation.
    let other = start_over(frontend.metadata.clone(), Arc::clone(&frontend.store), |_| {}).await;
    assert_eq!(table(&other).await, before);
    let path = format!("{PARTITION}/records?offset=0");
    let lines = other.call("GET", &path, &[("accept", "application/x-ndjson")], "").await;
    assert_eq!(lines.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count(), 5);
    let batches = other.call("GET", &path, &[("accept", "application/vnd.carnax.batches")], "").await;
    let mut seen = Vec::new();
    for batch in Batch::parse_all(batches.body).unwrap() {
        let base = u64::try_from(batch.header().base_offset).unwrap();
        seen.extend(batch.records().unwrap().map(|record| base + u64::from(record.unwrap().offset_delta)));
    }
    assert_eq!(seen, NEWEST);
    let mut events = Events::open(&other, &path, None).await;
    for offset in NEWEST {
        assert_eq!(events.next().await.1["offset"], offset);
    }
    append(&frontend, &[("f", Some("f14"))]).await;
    assert_eq!(events.next().await.1["offset"], 14);
    // The first record at or after a time that belongs to one that is gone.
    let time = &timestamps["records"][5]["timestamp"];
    let found = other.get(&format!("{PARTITION}/offsets?at={time}")).await.json();
    assert_eq!(found["offset"].as_u64().unwrap(), 7, "{found}");
    drop(events);
    other.stop().await;
    frontend.stop().await;
}

#[tokio::test]
async fn tombstones_stay_for_their_time_and_then_nothing_is_left_of_their_key() {
    let frontend = compacted(json!({})).await;
    append(&frontend, &[("a", Some("a0")), ("b", Some("b1")), ("a", None), ("b", None)]).await;
    compact(&frontend).await;
    let tombstones = Table::from([("a".to_owned(), (2, Value::Null)), ("b".to_owned(), (3, Value::Null))]);
    assert_eq!(table(&frontend).await, tombstones);
    frontend.metadata.pass(TOMBSTONES - LONG);
    assert_eq!(worker(&frontend).work().await.unwrap().compacted, 0);
    assert_eq!(table(&frontend).await, tombstones);
    append(&frontend, &[("c", Some("c4")), ("b", Some("b5"))]).await;
    frontend.metadata.pass(LONG);
    compact(&frontend).await;
    let expected = [("b".to_owned(), (5, json!("b5"))), ("c".to_owned(), (4, json!("c4")))];
    assert_eq!(table(&frontend).await, Table::from(expected));
    assert_eq!(read_from(&frontend, 0).await.len(), 2);
    // A partition of which nothing is left is a hole up to its high watermark.
    append(&frontend, &[("b", None), ("c", None)]).await;
    for _ in 0..2 {
        frontend.metadata.pass(LONG + TOMBSTONES);
        compact(&frontend).await;
    }
    let nothing = records(&frontend, 0, 10).await;
    assert_eq!((&nothing["records"], &nothing["next_offset"]), (&json!([]), &json!(8)));
    frontend.metadata.pass(LONG + TOMBSTONES);
    assert_eq!(worker(&frontend).work().await.unwrap().compacted, 0, "there is nothing to come back for");
    append(&frontend, &[("a", Some("a8"))]).await;
    assert_eq!(read_from(&frontend, 0).await, [(8, "a".to_owned(), json!("a8"))]);
    frontend.stop().await;
}

#[tokio::test]
async fn young_records_and_small_changes_are_left_alone() {
    let lag = Duration::from_secs(3_600);
    let config = json!({"min.compaction.lag.ms": lag.as_millis().to_string(),
        "message.timestamp.type": "LogAppendTime", "delete.retention.ms": "86400000"});
    let frontend = compacted(config).await;
    append(&frontend, &CHANGES).await;
    assert_eq!(worker(&frontend).work().await.unwrap().compacted, 0, "everything is young");
    frontend.metadata.pass(lag);
    append(&frontend, &[("a", Some("a14")), ("a", Some("a15"))]).await;
    let times = records(&frontend, 0, 100).await;
    compact(&frontend).await;
    let seen = records(&frontend, 0, 100).await;
    let offset = |record: &Value| record["offset"].as_u64().unwrap();
    let offsets: Vec<u64> = seen["records"].as_array().unwrap().iter().map(offset).collect();
    assert_eq!(offsets, [4, 7, 9, 12, 13, 14, 15], "what is young does not even supersede");
    for record in seen["records"].as_array().unwrap() {
        let place = usize::try_from(offset(record)).unwrap();
        assert_eq!(record, &times["records"][place], "records keep the time of their append");
    }
    frontend.metadata.pass(lag);
    let ratio = r#"{"config":{"min.cleanable.dirty.ratio":"0.9"}}"#;
    assert_eq!(frontend.call("PATCH", "/v1/topics/t", &[], ratio).await.status, StatusCode::OK);
    assert_eq!(worker(&frontend).work().await.unwrap().compacted, 0, "too little is new");
    frontend.stop().await;
}

#[tokio::test]
async fn whatever_fails_or_comes_too_late_nothing_is_lost_and_another_worker_ends_it() {
    let frontend = compacted(json!({})).await;
    append(&frontend, &CHANGES).await;
    let before = table(&frontend).await;
    let first = worker(&frontend);
    for (verb, failure) in [
        (Verb::Get, Failure::Before),
        (Verb::PutIfAbsent, Failure::Before),
        (Verb::PutIfAbsent, Failure::After),
    ] {
        frontend.store.script(verb, [Fault::fail(failure)]);
        assert!(first.work().await.is_err(), "{verb} {failure:?}");
        assert_eq!(read_from(&frontend, 0).await.len(), CHANGES.len());
    }
    // The first worker stands still with its object; the second one is faster.
    let puts = frontend.store.calls(Verb::PutIfAbsent);
    frontend.store.script(Verb::PutIfAbsent, [Fault::delay(Duration::from_secs(3))]);
    let late = tokio::spawn(async move { first.work().await });
    until("the first worker writes", async || frontend.store.calls(Verb::PutIfAbsent) > puts).await;
    frontend.metadata.pass(Duration::from_secs(90));
    compact(&frontend).await;
    // It has lost its lease, or finds that there is nothing left to do.
    if let Ok(work) = late.await.unwrap() {
        assert_eq!(work.compacted, 0, "{work:?}");
    }
    assert_eq!(table(&frontend).await, before);
    assert_eq!(read_from(&frontend, 0).await.len(), NEWEST.len());
    frontend.stop().await;
}

#[tokio::test]
async fn a_compacted_topic_takes_no_record_without_a_key_and_keeps_those_that_it_has() {
    let frontend = start().await;
    frontend.create("t", 1).await;
    for value in ["v0", "v1"] {
        frontend.append("t", value).await.unwrap();
    }
    append(&frontend, &[("a", Some("a2")), ("a", Some("a3"))]).await;
    let policy = r#"{"config":{"cleanup.policy":"compact"}}"#;
    assert_eq!(frontend.call("PATCH", "/v1/topics/t", &[], policy).await.status, StatusCode::OK);
    let path = format!("{PARTITION}/records");
    // A frontend that learns of the topic now.
    let other = start_over(frontend.metadata.clone(), Arc::clone(&frontend.store), |_| {}).await;
    let refused = other.append("t", "v").await.unwrap_err();
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    refused.problem("invalid_value");
    let headers = [("content-type", "application/vnd.carnax.batches")];
    for compression in [Compression::None, Compression::Zstd] {
        let body: Bytes = batch(&["v"], compression);
        other.call("POST", &path, &headers, body).await.problem("invalid_value");
    }
    compact(&other).await;
    let seen = records(&other, 0, 10).await;
    let values: Vec<_> = seen["records"].as_array().unwrap().iter().map(|record| &record["value"]).collect();
    assert_eq!(values, ["v0", "v1", "a3"]);
    other.stop().await;
    frontend.stop().await;
}
