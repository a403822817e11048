//! Goal: what was appended in any form is fetched in any form. Method: one topic, all forms crossed.

use bytes::{Bytes, BytesMut};
use carnax_core::http::{PartitionFrame, write_frame};
use carnax_core::id::PartitionIndex;
use carnax_core::record::{Batch, Compression};
use http::StatusCode;
use serde_json::json;

use super::support::{batch, start};

const JSON: (&str, &str) = ("content-type", "application/json");
const BATCHES: &str = "application/vnd.carnax.batches";

#[tokio::test]
async fn records_of_every_form_come_back_in_every_form() {
    let frontend = start().await;
    frontend.create("t", 1).await;
    let path = "/v1/topics/t/partitions/0/records";

    let body = r#"{"records":[{"key":"k","value":"ü","headers":[["h","1"],["h",null]],"timestamp":7},{"value":null}]}"#;
    let answer = frontend.call("POST", path, &[JSON], body).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(answer.json()["results"][0]["count"], 2);
    let lines = "{\"value\":\"AP8=\"}\n\n{\"value\":\"\",\"key\":\"\"}\n";
    let ndjson = ("content-type", "application/x-ndjson");
    let answer = frontend.call("POST", &format!("{path}?encoding=base64"), &[ndjson], lines).await;
    assert_eq!(answer.json()["results"][0]["base_offset"], 2, "{answer:?}");
    let two = [batch(&["x", "y"], Compression::Zstd), batch(&["z"], Compression::None)].concat();
    let answer = frontend.call("POST", path, &[("content-type", BATCHES)], two).await;
    assert_eq!(answer.json()["results"][0]["base_offset"], 4, "{answer:?}");
    let value = r#"{"records":[{"value":{"b" : [1.50, "a b"],"a":12345678901234567890}}]}"#;
    let answer = frontend.call("POST", &format!("{path}?encoding=json"), &[JSON], value).await;
    assert_eq!(answer.json()["results"][0]["base_offset"], 7, "{answer:?}");

    // JSON: as text until a value is none, then as base64, and as it was.
    let answer = frontend.get(&format!("{path}?offset=0&max_records=2")).await;
    let expected = json!([
        {"offset":0,"timestamp":7,"key":"k","value":"ü","headers":[["h","1"],["h",null]]},
    ]);
    assert_eq!(answer.json()["records"][0], expected[0], "{answer:?}");
    assert_eq!(answer.json()["records"][1]["value"], serde_json::Value::Null);
    assert_eq!(answer.json()["next_offset"], 2);
    assert_eq!(answer.json()["high_watermark"], 8);
    assert_eq!(answer.json()["caught_up"], false);
    let problem = frontend.get(&format!("{path}?offset=0")).await.problem("invalid_value");
    assert!(problem["detail"].as_str().unwrap().contains("encoding=base64"), "{problem}");
    let answer = frontend.get(&format!("{path}?offset=2&encoding=base64&max_records=5")).await;
    let values: Vec<_> =
        answer.json()["records"].as_array().unwrap().iter().map(|r| r["value"].clone()).collect();
    assert_eq!(values, ["AP8=", "", "eA==", "eQ==", "eg=="]);
    let answer = frontend.get(&format!("{path}?offset=7&encoding=json")).await;
    let text = std::str::from_utf8(&answer.body).unwrap();
    assert!(text.contains(r#""value":{"b":[1.50,"a b"],"a":12345678901234567890}"#), "{text}");
    assert_eq!(answer.json()["caught_up"], true);

    let lines =
        frontend.call("GET", &format!("{path}?last=4"), &[("accept", "application/x-ndjson")], "").await;
    assert_eq!(lines.body.iter().filter(|byte| **byte == b'\n').count(), 4);
    assert_eq!((lines.header("carnax-next-offset"), lines.header("carnax-caught-up")), ("8", "true"));

    // Batches: untouched but for their offsets.
    let answer = frontend.call("GET", &format!("{path}?offset=5"), &[("accept", BATCHES)], "").await;
    let batches = Batch::parse_all(answer.body.clone()).unwrap();
    assert!(batches.iter().all(|batch| batch.verify_records().is_ok()));
    let offsets: Vec<i64> = batches.iter().map(|batch| batch.header().base_offset).collect();
    assert_eq!(offsets, [4, 6, 7]);
    assert_eq!(batches[0].bytes()[8..], batch(&["x", "y"], Compression::Zstd)[8..]);
    assert_eq!(answer.header("carnax-next-offset"), "8");
    frontend.stop().await;
}

#[tokio::test]
async fn a_topic_takes_keyed_records_and_frames_and_keeps_keys_together() {
    let frontend = start().await;
    frontend.create("t", 12).await;
    let records: Vec<_> =
        (0..60).map(|n| json!({"key": format!("k{}", n % 5), "value": n.to_string()})).collect();
    let body = json!({ "records": records }).to_string();
    let answer = frontend.call("POST", "/v1/topics/t/records", &[JSON], body).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let results = answer.json()["results"].as_array().unwrap().clone();
    assert_eq!(results.iter().map(|result| result["count"].as_u64().unwrap()).sum::<u64>(), 60);
    for key in 0..5 {
        let name = format!("k{key}");
        let partition = carnax_core::partitioner::partition_of(name.as_bytes(), 12);
        let answer = frontend.get(&format!("/v1/topics/t/partitions/{partition}/records?offset=0")).await;
        let records = answer.json()["records"].as_array().unwrap().clone();
        let values: Vec<String> = records
            .iter()
            .filter(|record| record["key"] == name)
            .map(|record| record["value"].as_str().unwrap().to_owned())
            .collect();
        let expected: Vec<String> = (0..60).filter(|n| n % 5 == key).map(|n: u32| n.to_string()).collect();
        assert_eq!(values, expected, "{name}");
    }

    let mut body = BytesMut::new();
    for partition in [2, 9] {
        let batches = batch(&["f"], Compression::Lz4);
        write_frame(&mut body, &PartitionFrame { partition: PartitionIndex(partition), batches });
    }
    let headers = [("content-type", BATCHES), ("carnax-partition-count", "12")];
    let answer = frontend.call("POST", "/v1/topics/t/records", &headers, body.clone()).await;
    assert_eq!(answer.json()["results"].as_array().unwrap().len(), 2, "{answer:?}");

    // More partitions: what was routed by the old count is refused by name, with the new one.
    let altered = frontend.call("PATCH", "/v1/topics/t", &[], r#"{"partitions":13}"#).await;
    assert_eq!(altered.json()["partitions"], 13, "{altered:?}");
    let refused = frontend.call("POST", "/v1/topics/t/records", &headers, Bytes::from(body)).await;
    assert_eq!(refused.problem("stale_routing")["partition_count"], 13);
    frontend.stop().await;
}

#[tokio::test]
async fn topics_are_made_described_listed_changed_trimmed_and_deleted() {
    let frontend = start().await;
    frontend.create("a", 2).await;
    frontend.create("b", 1).await;
    let again = frontend.call("PUT", "/v1/topics/a", &[], r#"{"partitions":2}"#).await;
    assert_eq!(again.status, StatusCode::OK);
    frontend.call("PUT", "/v1/topics/a", &[], r#"{"partitions":3}"#).await.problem("topic_exists");
    let listed = frontend.get("/v1/topics?limit=1").await.json();
    assert_eq!((&listed["topics"][0]["name"], &listed["next_after"]), (&json!("a"), &json!("a")));
    for value in ["0", "1", "2"] {
        frontend.append("b", value).await.unwrap();
    }
    let trimmed = frontend.call("DELETE", "/v1/topics/b/partitions/0/records?before=2", &[], "").await;
    assert_eq!(trimmed.json()["log_start_offset"], 2, "{trimmed:?}");
    let below = frontend.get("/v1/topics/b/partitions/0/records?offset=0").await;
    assert_eq!(below.problem("offset_below_log_start")["log_start_offset"], 2);
    let above = frontend.get("/v1/topics/b/partitions/0/records?offset=9").await;
    assert_eq!(above.problem("offset_above_high_watermark")["high_watermark"], 3);
    let described = frontend.get("/v1/topics/b").await.json();
    assert_eq!(described["partition_offsets"][0]["high_watermark"], 3);
    assert_eq!(described["config"]["retention.ms"], "604800000");
    let id = described["topic_id"].as_str().unwrap().to_owned();
    assert_eq!(frontend.call("DELETE", "/v1/topics/b", &[], "").await.json()["topic_id"], id.as_str());
    frontend.create("b", 1).await;
    let stale =
        frontend.call("GET", "/v1/topics/b/partitions/0/records", &[("carnax-topic-id", &id)], "").await;
    stale.problem("topic_recreated");
    frontend.append("b", "x").await.unwrap();
    assert_eq!(frontend.values("b").await, ["x"]);

    assert_eq!(frontend.get("/healthz").await.status, StatusCode::OK);
    assert_eq!(frontend.get("/readyz").await.status, StatusCode::OK);
    assert_eq!(frontend.get("/v1/cluster").await.json()["metadata"]["leader"], 1);
    let metrics = frontend.get("/metrics").await;
    assert!(std::str::from_utf8(&metrics.body).unwrap().contains("carnax_frontend_acknowledge_seconds"));
    let openapi = frontend.get("/openapi.json").await.json();
    assert!(openapi["openapi"].as_str().unwrap().starts_with("3.1"), "{openapi}");
    for path in ["/v1/topics/{topic}/records", "/v1/cluster/nodes/{node}", "/readyz"] {
        assert!(openapi["paths"][path].is_object(), "{path}");
    }
    frontend.stop().await;
}
