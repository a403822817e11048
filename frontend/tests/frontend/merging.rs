//! Goal: merging changes where records lie and nothing that a reader sees. Method: many small segments, workers beside a frontend,
//! faults in the object store, and the state machine itself behind the metadata node.

use std::sync::Arc;
use std::time::Duration;

use carnax_core::object_key::SegmentKey;
use carnax_object_store::{Failure, Fault, ObjectStore, Verb};
use http::StatusCode;
use serde_json::{Value, json};

use super::maintenance::{Worker, keys, worker};
use super::support::{Frontend, start, start_over};

/// Longer than the grace period of dead objects.
const GRACE: Duration = Duration::from_secs(16 * 60);

async fn records(frontend: &Frontend, partition: u32) -> Value {
    let answer = frontend
        .get(&format!("/v1/topics/t/partitions/{partition}/records?offset=0&max_records=10000"))
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.json()
}

/// A topic of two partitions with forty records each, every two in a segment of their own.
async fn with_small_segments(config: Value) -> Frontend {
    let frontend = start().await;
    let created = frontend
        .call("PUT", "/v1/topics/t", &[], json!({"partitions": 2, "config": config}).to_string())
        .await;
    assert_eq!(created.status, StatusCode::CREATED, "{created:?}");
    for number in 0..40 {
        let record = |partition: u32| {
            json!({"partition": partition, "key": format!("k{number}"), "value": format!("{partition}-{number}"),
                   "headers": [["h", "x"]], "timestamp": 1_600_000_000_000_i64 + number})
        };
        let body = json!({"records": [record(0), record(1)]}).to_string();
        let answer = frontend.call("POST", "/v1/topics/t/records", &[], body).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        frontend.metadata.pass(Duration::from_millis(10));
    }
    frontend
}

async fn merge(worker: &Worker) {
    let work = worker.work().await.unwrap();
    assert_eq!((work.finished, work.merged), (1, 1), "{work:?}");
}

#[tokio::test]
async fn readers_do_not_notice_that_slices_are_merged() {
    let frontend = with_small_segments(json!({"retention.ms": "-1"})).await;
    let before = (records(&frontend, 0).await, records(&frontend, 1).await);
    assert_eq!(before.0["records"].as_array().unwrap().len(), 40);
    merge(&worker(&frontend)).await;
    assert_eq!((records(&frontend, 0).await, records(&frontend, 1).await), before);
    let all = keys(&frontend.store).await;
    assert_eq!(all.len(), 41, "one object for both partitions, and what it replaces");

    frontend.metadata.pass(GRACE);
    let work = worker(&frontend).work().await.unwrap();
    assert_eq!((work.finished, work.deleted), (1, 40), "{work:?}");
    assert_eq!((records(&frontend, 0).await, records(&frontend, 1).await), before);
    // A frontend that has nothing in its cache, and finds a record in the middle, by offset and by time.
    let other = start_over(frontend.metadata.clone(), Arc::clone(&frontend.store), |_| {}).await;
    assert_eq!((records(&other, 0).await, records(&other, 1).await), before);
    let answer = other.get("/v1/topics/t/partitions/1/records?offset=17&max_records=1").await.json();
    assert_eq!(answer["records"][0]["value"], "1-17");
    let answer = other.get("/v1/topics/t/partitions/1/offsets?at=1600000000023").await.json();
    assert_eq!(answer["offset"], 23);
    // Small batches have become few: what a frontend encoded is packed.
    let key = keys(&frontend.store).await.into_iter().next().unwrap();
    let whole = carnax_object_store::GetRange::WholeUpTo(1 << 20);
    let (object, _) = frontend.store.inner().get(&key, whole).await.unwrap();
    let footer = carnax_core::segment::Footer::verify_object(&object).unwrap();
    assert_eq!((footer.slices().len(), footer.batches().len()), (2, 2));
    assert!(key.parse::<SegmentKey>().unwrap().merged.is_none());
    other.stop().await;
    frontend.stop().await;
}

#[tokio::test]
async fn records_keep_the_time_of_their_append() {
    let frontend =
        with_small_segments(json!({"retention.ms": "-1", "message.timestamp.type": "LogAppendTime"})).await;
    let before = records(&frontend, 0).await;
    let times: Vec<i64> =
        before["records"].as_array().unwrap().iter().map(|r| r["timestamp"].as_i64().unwrap()).collect();
    assert!(times.is_sorted_by(|a, b| a < b), "{times:?}");
    merge(&worker(&frontend)).await;
    assert_eq!(records(&frontend, 0).await, before);
    let found = frontend.get(&format!("/v1/topics/t/partitions/0/offsets?at={}", times[30])).await.json();
    assert_eq!((&found["offset"], &found["timestamp"]), (&30.into(), &times[30].into()));
    let altered = frontend
        .call("PATCH", "/v1/topics/t", &[], r#"{"config":{"message.timestamp.type":"CreateTime"}}"#)
        .await;
    assert_eq!(altered.status, StatusCode::OK);
    assert_eq!(records(&frontend, 0).await, before, "what was merged has its times for good");
    frontend.stop().await;
}

#[tokio::test]
async fn whatever_fails_in_a_merge_nothing_is_lost_and_another_worker_ends_it() {
    let frontend = with_small_segments(json!({"retention.ms": "-1"})).await;
    let before = (records(&frontend, 0).await, records(&frontend, 1).await);
    let (first, second) = (worker(&frontend), worker(&frontend));
    for (verb, failure) in [
        (Verb::Get, Failure::Before),
        (Verb::PutIfAbsent, Failure::Before),
        (Verb::PutIfAbsent, Failure::After),
    ] {
        frontend.store.script(verb, [Fault::fail(failure)]);
        assert!(first.work().await.is_err(), "{verb} {failure:?}");
        assert_eq!((records(&frontend, 0).await, records(&frontend, 1).await), before);
    }
    merge(&second).await;
    assert_eq!((records(&frontend, 0).await, records(&frontend, 1).await), before);
    frontend.stop().await;
}

#[tokio::test]
async fn damaged_batches_are_not_merged_and_the_others_are() {
    let frontend = with_small_segments(json!({"retention.ms": "-1"})).await;
    let before = records(&frontend, 1).await;
    // The first batch of the first object belongs to partition 0.
    let key = keys(&frontend.store).await.into_iter().next().unwrap();
    let store = frontend.store.inner();
    let (object, _) = store.get(&key, carnax_object_store::GetRange::WholeUpTo(1 << 20)).await.unwrap();
    let mut damaged = object.to_vec();
    damaged[8 + 70] ^= 1;
    store.delete_many(std::slice::from_ref(&key)).await.remove(0).unwrap();
    store.put_if_absent(&key, bytes::Bytes::from(damaged).into()).await.unwrap();
    let error = worker(&frontend).work().await.unwrap_err().to_string();
    assert!(error.contains("damaged") && error.contains("checksum"), "{error}");
    assert_eq!(records(&frontend, 1).await, before);
    let slices = frontend.get("/v1/topics/t?offsets=true").await.json();
    assert_eq!(frontend.store.calls(Verb::PutIfAbsent), 41, "{slices}");
    frontend.stop().await;
}
