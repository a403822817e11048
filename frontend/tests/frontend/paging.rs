//! Goal: old slices leave the metadata core, and readers, retention and the search for orphans find them all the same. Method: a
//! history of merged slices, workers beside a frontend, and the state machine itself behind the metadata node.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use carnax_core::object_key::PageKey;
use carnax_object_store::{Failure, Fault, ObjectStore, Verb};
use http::StatusCode;
use serde_json::{Value, json};

use super::maintenance::{keys, worker};
use super::support::{Frontend, start, start_over};

const START: i64 = 1_600_000_000_000;
const RECORDS: i64 = 48;

/// A partition with forty-eight records in four merged slices, the first two of which are in a page.
pub async fn with_history() -> Frontend {
    let frontend = start().await;
    let body = json!({"partitions": 1, "config": {"retention.ms": "-1"}}).to_string();
    assert_eq!(frontend.call("PUT", "/v1/topics/t", &[], body).await.status, StatusCode::CREATED);
    let settings = json!({"settings": {"merge.slices": "12", "page.slices": "2"}}).to_string();
    let altered = frontend.call("PATCH", "/v1/cluster/settings", &[], settings).await;
    assert_eq!(altered.status, StatusCode::OK, "{altered:?}");
    let worker = worker(&frontend);
    for number in 0..RECORDS {
        let body =
            json!({"records": [{"value": format!("{number} {}", "x".repeat(3_000)), "timestamp": START + number}]}).to_string();
        let answer = frontend.call("POST", "/v1/topics/t/records", &[], body).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        if number % 12 == 11 && number < RECORDS - 1 {
            assert_eq!(worker.work().await.unwrap().merged, 1);
        }
    }
    let work = worker.work().await.unwrap();
    assert_eq!((work.merged, work.paged, work.finished), (1, 1, 2), "{work:?}");
    frontend
}

pub async fn pages(frontend: &Frontend) -> Vec<String> {
    keys(&frontend.store).await.into_iter().filter(|key| key.parse::<PageKey>().is_ok()).collect()
}

async fn values(frontend: &Frontend, from: i64) -> Vec<i64> {
    let mut next = from;
    let mut values = Vec::new();
    loop {
        let path = format!("/v1/topics/t/partitions/0/records?offset={next}&max_records=7");
        let answer = frontend.get(&path).await.json();
        for record in answer["records"].as_array().unwrap() {
            assert_eq!(record["offset"].as_i64().unwrap(), from + values.len() as i64);
            values.push(record["value"].as_str().unwrap().split(' ').next().unwrap().parse().unwrap());
        }
        next = answer["next_offset"].as_i64().unwrap();
        if answer["caught_up"] == Value::Bool(true) {
            return values;
        }
    }
}

#[tokio::test]
async fn what_is_paged_out_is_read_as_before() {
    let frontend = with_history().await;
    let other = start_over(frontend.metadata.clone(), Arc::clone(&frontend.store), |_| {}).await;
    for reader in [&frontend, &other] {
        for from in [0, 11, 23, 24, 40] {
            assert_eq!(values(reader, from).await, (from..RECORDS).collect::<Vec<_>>());
        }
        for at in [0, 5, 23, 24, 47] {
            let path = format!("/v1/topics/t/partitions/0/offsets?at={}", START + at);
            let found = reader.get(&path).await.json();
            assert_eq!((&found["offset"], &found["timestamp"]), (&at.into(), &(START + at).into()));
        }
    }
    let topic = frontend.get("/v1/topics/t").await.json();
    assert!(topic["partition_offsets"][0]["bytes"].as_i64().unwrap() > RECORDS * 3_000, "{topic}");
    // A page is read once.
    let third = start_over(frontend.metadata.clone(), Arc::clone(&frontend.store), |_| {}).await;
    values(&third, 0).await;
    let reads = frontend.store.calls(Verb::Get);
    values(&third, 0).await;
    assert_eq!(frontend.store.calls(Verb::Get), reads);
    for frontend in [third, other, frontend] {
        frontend.stop().await;
    }
}

#[tokio::test]
async fn a_page_goes_with_its_last_record_and_takes_its_objects_along() {
    let frontend = with_history().await;
    frontend.metadata.pass(Duration::from_secs(60 * 60));
    worker(&frontend).work().await.unwrap();
    let before = keys(&frontend.store).await;
    assert_eq!((pages(&frontend).await.len(), before.len()), (1, 5), "{before:?}");
    let trim = async |before: u32| {
        let path = format!("/v1/topics/t/partitions/0/records?before={before}");
        assert_eq!(frontend.call("DELETE", &path, &[], "").await.status, StatusCode::OK);
        frontend.metadata.pass(Duration::from_secs(16 * 60));
    };
    trim(23).await;
    worker(&frontend).work().await.unwrap();
    assert_eq!(keys(&frontend.store).await, before, "one record of the page is left");
    assert_eq!(values(&frontend, 23).await, (23..RECORDS).collect::<Vec<_>>());
    trim(24).await;
    // The first worker dies after the slices' objects are gone, the second after the page is.
    frontend.store.script(Verb::DeleteMany, [Fault::fail(Failure::After)]);
    assert!(worker(&frontend).work().await.is_err());
    frontend.store.script(Verb::DeleteMany, [Fault::delay(Duration::ZERO), Fault::fail(Failure::After)]);
    assert!(worker(&frontend).work().await.is_err());
    assert_eq!(pages(&frontend).await.len(), 0);
    worker(&frontend).work().await.unwrap();
    assert_eq!(keys(&frontend.store).await.len(), 2);
    assert_eq!(values(&frontend, 24).await, (24..RECORDS).collect::<Vec<_>>());
    let found = frontend.get("/v1/cluster/maintenance").await.json();
    let dead = found["jobs"].as_array().unwrap().iter().find(|job| job["job"] == "collect_dead").unwrap();
    assert_eq!((&dead["backlog"], &dead["due_since"]), (&0.into(), &Value::Null));
    frontend.stop().await;
}

#[tokio::test]
async fn what_a_page_refers_to_is_no_orphan_even_if_the_page_cannot_be_read() {
    let frontend = with_history().await;
    frontend.metadata.pass(Duration::from_secs(60 * 60));
    worker(&frontend).work().await.unwrap();
    let page = pages(&frontend).await.remove(0);
    let mut orphan: PageKey = page.parse().unwrap();
    orphan.page = carnax_core::id::PageId::from_parts(orphan.page.time(), 5);
    let bytes = || bytes::Bytes::from_static(b"left behind").into();
    frontend.store.inner().put_if_absent(&orphan.to_string(), bytes()).await.unwrap();
    let before: BTreeSet<String> = keys(&frontend.store).await;

    // Cannot be read: nothing is deleted that it may cover, but the page that was never committed.
    frontend.metadata.pass(Duration::from_secs(7 * 60 * 60));
    frontend.store.script(Verb::Get, [Fault::fail(Failure::Before)]);
    let work = worker(&frontend).work().await.unwrap();
    assert_eq!((work.finished, work.deleted), (1, 1), "{work:?}");
    let mut left = before.clone();
    left.remove(&orphan.to_string());
    assert_eq!(keys(&frontend.store).await, left);

    // It can be read: the same.
    frontend.append("t", "48").await.unwrap();
    frontend.metadata.pass(Duration::from_secs(7 * 60 * 60));
    worker(&frontend).work().await.unwrap();
    assert!(keys(&frontend.store).await.is_superset(&left));
    assert_eq!(values(&frontend, 0).await, (0..=RECORDS).collect::<Vec<_>>());
    frontend.stop().await;
}

#[tokio::test]
async fn a_page_that_is_damaged_is_named_and_nothing_is_skipped() {
    let frontend = with_history().await;
    let page = pages(&frontend).await.remove(0);
    let store = frontend.store.inner();
    store.delete_many(std::slice::from_ref(&page)).await.remove(0).unwrap();
    store.put_if_absent(&page, bytes::Bytes::from_static(b"not a page at all").into()).await.unwrap();
    let problem = frontend.get("/v1/topics/t/partitions/0/records?offset=3").await.problem("damaged_batch");
    assert!(problem["detail"].as_str().unwrap().contains(&page), "{problem}");
    assert_eq!(values(&frontend, 24).await, (24..RECORDS).collect::<Vec<_>>());
    frontend.stop().await;
}
