//! Goal: every answer comes from a fresh plan, reads little, and names what is damaged.
//! Method: a second frontend over the same cluster and store, whose cache is empty.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use carnax_core::record::{Batch, Compression};
use carnax_object_store::{Fault, GetRange, ObjectStore, Payload, Verb};
use http::StatusCode;

use super::support::{Frontend, batch, start, start_over, until};

const BATCHES: &str = "application/vnd.carnax.batches";

async fn second(first: &Frontend) -> Frontend {
    start_over(first.metadata.clone(), Arc::clone(&first.store), |_| {}).await
}

async fn append_batches(frontend: &Frontend, body: impl Into<Bytes>) {
    let path = "/v1/topics/t/partitions/0/records";
    let answer = frontend.call("POST", path, &[("content-type", BATCHES)], body).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
}

#[tokio::test]
async fn a_long_poll_wakes_on_commit_and_survives_a_feed_that_is_silent_or_cut() {
    let a = start().await;
    let b = Arc::new(second(&a).await);
    a.create("t", 1).await;
    until("b follows the feed", async || a.metadata.is_followed()).await;
    let wait = |offset: u64| {
        let b = Arc::clone(&b);
        tokio::spawn(async move {
            let path = format!("/v1/topics/t/partitions/0/records?offset={offset}&wait_ms=25000");
            b.get(&path).await.json()
        })
    };
    let plans = a.metadata.plans();
    let waiting = wait(0);
    until("b has planned", async || a.metadata.plans() > plans).await;
    a.append("t", "woken").await.unwrap();
    assert_eq!(waiting.await.unwrap()["records"][0]["value"], "woken");
    assert!(a.metadata.plans() <= plans + 3, "it does not poll");

    // A commit that the feed never tells is seen when the feed comes back.
    a.metadata.silence_feed(true);
    let plans = a.metadata.plans();
    let waiting = wait(1);
    until("b has planned", async || a.metadata.plans() > plans).await;
    a.append("t", "untold").await.unwrap();
    a.metadata.cut_feed();
    assert_eq!(waiting.await.unwrap()["records"][0]["value"], "untold");

    // And at the end of the wait at the latest.
    let plans = a.metadata.plans();
    let late = Arc::clone(&b);
    let waiting = tokio::spawn(async move {
        late.get("/v1/topics/t/partitions/0/records?offset=2&wait_ms=1500").await.json()
    });
    until("b has planned", async || a.metadata.plans() > plans).await;
    a.append("t", "late").await.unwrap();
    assert_eq!(waiting.await.unwrap()["records"][0]["value"], "late");
}

#[tokio::test]
async fn concurrent_misses_are_one_get_and_own_segments_are_none() {
    let a = start().await;
    a.create("t", 1).await;
    a.append("t", "x").await.unwrap();
    assert_eq!(a.values("t").await, ["x"]);
    assert_eq!(a.store.calls(Verb::Get), 0);
    let b = Arc::new(second(&a).await);
    a.store.script(Verb::Get, [Fault::delay(Duration::from_millis(300))]);
    let readers: Vec<_> = (0..20)
        .map(|_| {
            let b = Arc::clone(&b);
            tokio::spawn(async move { b.values("t").await })
        })
        .collect();
    for reader in readers {
        assert_eq!(reader.await.unwrap(), ["x"]);
    }
    assert_eq!(a.store.calls(Verb::Get), 1);
    assert_eq!(b.values("t").await, ["x"]);
    assert_eq!(a.store.calls(Verb::Get), 1);
}

#[tokio::test]
async fn a_batch_inside_a_large_slice_is_found_without_reading_the_slice() {
    let a = start().await;
    a.create("t", 1).await;
    let long = "v".repeat(200_000);
    let body: Vec<u8> =
        (0..40).flat_map(|n| batch(&[&format!("{n}{long}")], Compression::None).to_vec()).collect();
    append_batches(&a, body).await;
    let b = second(&a).await;
    let answer = b.get("/v1/topics/t/partitions/0/records?offset=20&max_bytes=1").await.json();
    assert_eq!(answer["records"].as_array().unwrap().len(), 1, "one whole batch, whatever max_bytes");
    assert!(answer["records"][0]["value"].as_str().unwrap().starts_with("20v"));
    assert_eq!((&answer["next_offset"], &answer["caught_up"]), (&21.into(), &false.into()));
    assert_eq!(a.store.calls(Verb::Get), 2, "the end of the object, and the blocks of the batch");
    let metrics = b.get("/metrics").await;
    let text = std::str::from_utf8(&metrics.body).unwrap().to_owned();
    let cached = text.lines().find_map(|line| line.strip_prefix("carnax_frontend_cache_bytes ")).unwrap();
    assert!(cached.parse::<u64>().unwrap() < 4 << 20, "{cached}");

    let accept = [("accept", BATCHES)];
    let path = "/v1/topics/t/partitions/0/records?offset=0&max_bytes=16777216";
    let all = b.call("GET", path, &accept, "").await;
    let batches = Batch::parse_all(all.body).unwrap();
    let offsets: Vec<i64> = batches.iter().map(|batch| batch.header().base_offset).collect();
    assert_eq!(offsets, (0..40).collect::<Vec<i64>>());
}

#[tokio::test]
async fn a_damaged_batch_is_named_and_its_neighbours_are_read() {
    let a = start().await;
    a.create("t", 1).await;
    let three = [["a", "b"], ["c", "d"], ["e", "f"]].map(|values| batch(&values, Compression::None));
    append_batches(&a, three.concat()).await;
    let key = a.store.list("", "", 10).await.unwrap().objects[0].key.clone();
    let (object, _) = a.store.get(&key, GetRange::WholeUpTo(1 << 20)).await.unwrap();
    for damage_at in [70, 9] {
        let mut damaged = object.to_vec();
        damaged[8 + three[0].len() + damage_at] ^= 0x55;
        a.store.delete_many(std::slice::from_ref(&key)).await.pop().unwrap().unwrap();
        a.store.put_if_absent(&key, Payload::new(vec![damaged.into()])).await.unwrap();
        let b = second(&a).await;
        let path = "/v1/topics/t/partitions/0/records?offset=";
        let before = b.get(&format!("{path}0")).await.json();
        assert_eq!(before["records"].as_array().unwrap().len(), 2);
        assert_eq!((&before["next_offset"], &before["caught_up"]), (&2.into(), &false.into()));
        for inside in [2, 3] {
            let problem = b.get(&format!("{path}{inside}")).await.problem("damaged_batch");
            assert_eq!(problem["next_offset"], 4);
            assert!(problem["detail"].as_str().unwrap().contains("offsets 2 to 3"), "{problem}");
        }
        let behind = b.get(&format!("{path}4")).await.json();
        assert_eq!(behind["records"][1]["value"], "f");
        assert_eq!(behind["next_offset"], 6);
    }
    // An object that is gone is planned again, once, and then named.
    a.store.delete_many(std::slice::from_ref(&key)).await.pop().unwrap().unwrap();
    let c = second(&a).await;
    let plans = a.metadata.plans();
    c.get("/v1/topics/t/partitions/0/records?offset=0").await.problem("damaged_batch");
    assert_eq!(a.metadata.plans(), plans + 2);
}

#[tokio::test]
async fn times_find_their_exact_record() {
    let a = start().await;
    a.create("t", 1).await;
    append_batches(&a, batch(&["0", "1", "2"], Compression::Gzip)).await;
    append_batches(&a, batch(&["3", "4", "5", "6", "7"], Compression::None)).await;
    let offset = async |at: &str| a.get(&format!("/v1/topics/t/partitions/0/offsets?at={at}")).await.json();
    for (at, expected, timestamp) in [
        ("0", 0, Some(1_000)),
        ("1001", 1, Some(1_001)),
        ("1003", 6, Some(1_003)),
        ("1004", 7, Some(1_004)),
        ("1005", 8, None),
    ] {
        let answer = offset(at).await;
        assert_eq!(answer["offset"], expected, "{at}");
        assert_eq!(answer["timestamp"].as_i64(), timestamp, "{at}");
    }
    assert_eq!(offset("earliest").await, serde_json::json!({"offset": 0, "timestamp": 1_000}));
    assert_eq!(offset("latest").await, serde_json::json!({"offset": 8}));
    let fetched = a.get("/v1/topics/t/partitions/0/records?at=1003&max_records=1").await.json();
    assert_eq!(fetched["records"][0]["value"], "6");

    let body = r#"{"config":{"message.timestamp.type":"LogAppendTime"}}"#;
    assert_eq!(a.call("PUT", "/v1/topics/stamped", &[], body).await.status, StatusCode::CREATED);
    let path = "/v1/topics/stamped/partitions/0/records";
    let appended = a.call("POST", path, &[("content-type", BATCHES)], batch(&["x"], Compression::None)).await;
    let time = appended.json()["results"][0]["append_time"].as_i64().unwrap();
    assert_eq!(a.get(path).await.json()["records"][0]["timestamp"], time);
    let raw = a.call("GET", path, &[("accept", BATCHES)], "").await;
    let stamped = &Batch::parse_all(raw.body).unwrap()[0];
    stamped.verify_checksum().unwrap();
    assert_eq!(stamped.max_timestamp().millis(), time);
    let found = a.get(&format!("/v1/topics/stamped/partitions/0/offsets?at={time}")).await.json();
    assert_eq!(found["offset"], 0);
}
