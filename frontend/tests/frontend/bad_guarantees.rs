//! Goal: every field and header of the calls with guarantees, wrong in every way, gets the documented problem, and nothing is
//! done. Method: a good request with one thing changed, table by table.

use bytes::Bytes;
use carnax_core::http::{AppendHead, AppendPart, write_envelope};
use carnax_core::id::PartitionIndex;
use carnax_core::record::Compression;
use serde_json::{Value, json};

use super::group_input::{post, refused};
use super::support::{Frontend, batch, start};

const APPEND: &str = "/v1/append";
const ENVELOPE: (&str, &str) = ("content-type", "application/vnd.carnax.append");
const ANOTHER: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";

async fn with_topics() -> Frontend {
    let frontend = start().await;
    frontend.create("t", 2).await;
    frontend.create("u", 1).await;
    frontend
}

async fn nothing_was_done(frontend: Frontend) {
    for topic in ["t", "u"] {
        assert!(frontend.values(topic).await.is_empty(), "{topic}");
    }
    frontend.stop().await;
}

/// An atomic append with every field that there is.
fn everything() -> Value {
    json!({
        "records": [{"topic": "t", "topic_id": ANOTHER, "partition": 0, "key": "k", "value": "v", "headers": [], "timestamp": 1}],
        "conditions": [{"topic": "t", "topic_id": ANOTHER, "partition": 0, "expected_next_offset": 0, "fencing_token": "x"}],
        "group": {"group": "g", "member": "m", "epoch": 1, "offsets": [
            {"topic": "u", "topic_id": ANOTHER, "partition": 0, "from": 0, "to": 1},
        ]},
    })
}

#[tokio::test]
async fn every_wrong_header_of_a_numbered_or_keyed_append_is_a_problem() {
    let frontend = with_topics().await;
    let long = |bytes: usize| "x".repeat(bytes);
    let (long_id, long_key) = (long(513), long(257));
    let producer = ("carnax-producer-id", "p");
    let sequence = ("carnax-sequence", "0");
    let cases: &[&[(&str, &str)]] = &[
        &[producer],
        &[sequence],
        &[("carnax-producer-epoch", "0")],
        &[("carnax-sequence-mode", "increasing"), ("idempotency-key", "k")],
        &[producer, sequence, ("idempotency-key", "k")],
        &[("carnax-producer-id", ""), sequence],
        &[("carnax-producer-id", "a b"), sequence],
        &[("carnax-producer-id", "ä"), sequence],
        &[("carnax-producer-id", &long_id), sequence],
        &[producer, ("carnax-producer-id", "q"), sequence],
        &[producer, sequence, sequence],
        &[producer, ("carnax-sequence", "")],
        &[producer, ("carnax-sequence", "-1")],
        &[producer, ("carnax-sequence", "+1")],
        &[producer, ("carnax-sequence", "1.0")],
        &[producer, ("carnax-sequence", "0x1")],
        &[producer, ("carnax-sequence", "1 2")],
        &[producer, ("carnax-sequence", "340282366920938463463374607431768211456")],
        &[producer, sequence, ("carnax-producer-epoch", "")],
        &[producer, sequence, ("carnax-producer-epoch", "-1")],
        &[producer, sequence, ("carnax-producer-epoch", "4294967296")],
        &[producer, sequence, ("carnax-producer-epoch", "x")],
        &[producer, sequence, ("carnax-sequence-mode", "")],
        &[producer, sequence, ("carnax-sequence-mode", "Contiguous")],
        &[producer, sequence, ("carnax-sequence-mode", "random")],
        &[("idempotency-key", "")],
        &[("idempotency-key", "a b")],
        &[("idempotency-key", "ä")],
        &[("idempotency-key", &long_key)],
        &[("idempotency-key", "k"), ("idempotency-key", "l")],
    ];
    let plain = json!({"records": [{"partition": 0, "value": "a"}]}).to_string();
    let atomic = json!({"records": [{"topic": "t", "partition": 0, "value": "a"}]}).to_string();
    for headers in cases {
        for path in ["/v1/topics/t/records", "/v1/topics/t/partitions/0/records", APPEND] {
            let body = if path == APPEND { &atomic } else { &plain };
            let answer = frontend.call("POST", path, headers, body.clone()).await;
            assert_eq!(answer.json()["code"], "invalid_value", "{path} {headers:?}");
            let problem = answer.problem("invalid_value");
            assert_eq!((&problem["status"], &problem["side_effects"]), (&422.into(), &"none".into()));
            let named = headers.iter().any(|(name, _)| problem["detail"].as_str().unwrap().contains(name));
            assert!(named, "it names a header: {problem}");
        }
    }
    nothing_was_done(frontend).await;
}

#[tokio::test]
async fn every_wrong_field_of_an_atomic_append_is_a_problem() {
    let frontend = with_topics().await;
    let good = everything();
    let (record, condition, moved) = ("/records/0", "/conditions/0", "/group/offsets/0");
    for base in [record, condition, moved] {
        for (field, wrong, code) in [
            ("topic", None, "malformed"),
            ("topic", Some(json!(null)), "malformed"),
            ("topic", Some(json!(1)), "malformed"),
            ("topic", Some(json!("")), "malformed"),
            ("topic", Some(json!("a/b")), "malformed"),
            ("topic", Some(json!("x".repeat(250))), "malformed"),
            ("topic", Some(json!("none")), "topic_not_found"),
            ("topic_id", Some(json!("mine")), "malformed"),
            ("topic_id", Some(json!(7)), "malformed"),
            ("topic_id", Some(json!(ANOTHER)), "topic_recreated"),
            ("partition", Some(json!(-1)), "malformed"),
            ("partition", Some(json!("0")), "malformed"),
            ("partition", Some(json!(1_u64 << 32)), "malformed"),
        ] {
            refused(&frontend, APPEND, &good, &format!("{base}/{field}"), wrong, code).await;
        }
    }
    let huge = || Some(json!(u64::MAX));
    for (field, wrong, code) in [
        ("/records", None, "malformed"),
        ("/records", Some(json!({})), "malformed"),
        ("/records", Some(json!([])), "invalid_value"),
        ("/records/0/value", None, "malformed"),
        ("/records/0/value", Some(json!(1)), "malformed"),
        ("/records/0/key", Some(json!(1)), "malformed"),
        ("/records/0/headers", Some(json!([["h"]])), "malformed"),
        ("/records/0/timestamp", Some(json!("now")), "malformed"),
        ("/conditions", Some(json!({})), "malformed"),
        ("/conditions", Some(json!(null)), "malformed"),
        ("/conditions/0/partition", None, "malformed"),
        ("/conditions/0/expected_next_offset", Some(json!(-1)), "malformed"),
        ("/conditions/0/expected_next_offset", Some(json!("0")), "malformed"),
        ("/conditions/0/expected_next_offset", huge(), "invalid_value"),
        ("/conditions/0/fencing_token", Some(json!("")), "malformed"),
        ("/conditions/0/fencing_token", Some(json!("a b")), "malformed"),
        ("/conditions/0/fencing_token", Some(json!("x".repeat(65))), "malformed"),
        ("/conditions/0/fencing_token", Some(json!(5)), "malformed"),
        ("/group", Some(json!([])), "malformed"),
        ("/group/group", None, "malformed"),
        ("/group/group", Some(json!("a b")), "malformed"),
        ("/group/group", Some(json!("g".repeat(250))), "malformed"),
        ("/group/member", None, "invalid_value"),
        ("/group/member", Some(json!("a b")), "malformed"),
        ("/group/member", Some(json!("m".repeat(129))), "malformed"),
        ("/group/epoch", None, "invalid_value"),
        ("/group/epoch", Some(json!(-1)), "malformed"),
        ("/group/epoch", Some(json!("1")), "malformed"),
        ("/group/offsets", None, "malformed"),
        ("/group/offsets", Some(json!([])), "invalid_value"),
        ("/group/offsets/0/partition", None, "malformed"),
        ("/group/offsets/0/from", None, "malformed"),
        ("/group/offsets/0/from", Some(json!("0")), "malformed"),
        ("/group/offsets/0/from", Some(json!(-1)), "malformed"),
        ("/group/offsets/0/from", huge(), "invalid_value"),
        ("/group/offsets/0/to", None, "malformed"),
        ("/group/offsets/0/to", Some(json!(null)), "malformed"),
        ("/group/offsets/0/to", huge(), "invalid_value"),
    ] {
        refused(&frontend, APPEND, &good, field, wrong, code).await;
    }
    nothing_was_done(frontend).await;
}

#[tokio::test]
async fn an_atomic_append_that_is_too_much_or_says_nothing_is_a_problem() {
    let frontend = with_topics().await;
    let record = || json!([{"topic": "t", "partition": 0, "value": "a"}]);
    let empty = post(&frontend, APPEND, json!({"records": [], "group": {"group": "g", "offsets": []}})).await;
    let detail = empty.problem("invalid_value")["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("/v1/groups/{group}/offsets"), "{detail}");
    let condition = |partition: u32| json!({"topic": "u", "partition": partition, "expected_next_offset": 0});
    let moved = |partition: u32| json!({"topic": "t", "partition": partition, "from": null, "to": 0});
    let group = |offsets: Vec<Value>| json!({"group": "g", "offsets": offsets});
    for (more, code) in [
        (json!({"conditions": [{"topic": "t", "partition": 0}]}), "invalid_value"),
        (json!({"conditions": [{"topic": "t", "partition": 0, "next": 1}]}), "malformed"),
        (json!({"conditions": [condition(1)]}), "partition_not_found"),
        (json!({"conditions": vec![condition(0); 1_001]}), "too_large"),
        (json!({"group": group(vec![moved(0), moved(0)])}), "invalid_value"),
        (json!({"group": group(vec![moved(2)])}), "partition_not_found"),
        (json!({"group": group((0..1_001).map(moved).collect())}), "too_large"),
        (json!({"group": {"group": "g", "offsets": [moved(0)], "number": 1}}), "malformed"),
        (
            json!({"group": {"group": "g", "offsets": [{"topic": "t", "partition": 0, "from": 0, "to": 1, "metadata": ""}]}}),
            "malformed",
        ),
        (json!({"condition": []}), "malformed"),
        (json!({"records": [{"topic": "t", "partition": 2, "value": "a"}]}), "partition_not_found"),
        (json!({"records": [{"topic": "t", "value": "a", "offset": 1}]}), "malformed"),
        (json!({"records": [{"topic": "t", "value": "x".repeat(2 << 20)}]}), "too_large"),
    ] {
        let mut body = json!({ "records": record() });
        more.as_object().unwrap().iter().for_each(|(name, value)| body[name] = value.clone());
        let shown: String = body.to_string().chars().take(300).collect();
        let answer = post(&frontend, APPEND, body).await;
        assert_eq!(answer.json()["code"], code, "{shown}");
        assert_eq!(answer.problem(code)["side_effects"], "none");
    }
    let body = json!({ "records": record() }).to_string();
    for media_type in ["text/plain", "application/x-ndjson", "application/vnd.carnax.batches"] {
        let headers = [("content-type", media_type)];
        frontend.call("POST", APPEND, &headers, body.clone()).await.problem("unsupported_media_type");
    }
    frontend.call("POST", "/v1/append?encoding=morse", &[], body.clone()).await.problem("invalid_value");
    frontend.call("POST", "/v1/append?partition=1", &[], body.clone()).await.problem("invalid_value");
    frontend.call("PUT", APPEND, &[], body.clone()).await.problem("method_not_allowed");
    frontend.call("POST", "/v1/append?encoding=base64", &[], body).await.problem("malformed");
    for named in [json!({"topic": "t"}), json!({"topic_id": ANOTHER})] {
        let mut record = json!({"value": "a"});
        named.as_object().unwrap().iter().for_each(|(name, value)| record[name] = value.clone());
        let body = json!({ "records": [record] });
        post(&frontend, "/v1/topics/t/records", body).await.problem("malformed");
    }
    nothing_was_done(frontend).await;
}

#[tokio::test]
async fn every_wrong_part_of_an_envelope_is_a_problem() {
    let frontend = with_topics().await;
    let part = |partition: u32, count: u32| AppendPart {
        topic: "t".parse().unwrap(),
        topic_id: None,
        partition: PartitionIndex(partition),
        partition_count: Some(count),
        bytes: 0,
    };
    let good = batch(&["a"], Compression::None);
    let mut torn = good.to_vec();
    *torn.last_mut().unwrap() ^= 1;
    let envelope = |parts: Vec<AppendPart>, batches: &[Bytes]| {
        write_envelope(AppendHead { parts, ..AppendHead::default() }, batches).unwrap()
    };
    let two = [good.clone(), good.clone()];
    let mut cut = envelope(vec![part(0, 2)], &two[..1]).to_vec();
    cut.truncate(cut.len() - 1);
    let recreated = AppendPart { topic_id: Some(ANOTHER.parse().unwrap()), ..part(0, 2) };
    let unknown = AppendPart { topic: "none".parse().unwrap(), ..part(0, 2) };
    let head = |json: &str| [&u32::try_from(json.len()).unwrap().to_be_bytes()[..], json.as_bytes()].concat();
    for (body, code) in [
        (Bytes::from_static(b"{}"), "malformed"),
        (Bytes::from_static(&[255; 40]), "malformed"),
        (cut.into(), "malformed"),
        (head("{}").into(), "malformed"),
        (head("{\"parts\":[],\"records\":[]}").into(), "malformed"),
        (head("{\"parts\":[]}").into(), "invalid_value"),
        (envelope(vec![part(0, 2)], &[Bytes::from_static(b"not a batch")]), "malformed"),
        (envelope(vec![part(0, 2)], &[torn.into()]), "corrupt_batch"),
        (envelope(vec![part(0, 2)], &[Bytes::new()]), "invalid_value"),
        (envelope(vec![part(0, 2), part(0, 2)], &two), "invalid_value"),
        (envelope(vec![part(0, 2), part(1, 3)], &two), "stale_routing"),
        (envelope(vec![part(0, 3)], &two[..1]), "stale_routing"),
        (envelope(vec![part(2, 2)], &two[..1]), "partition_not_found"),
        (envelope(vec![recreated], &two[..1]), "topic_recreated"),
        (envelope(vec![unknown], &two[..1]), "topic_not_found"),
    ] {
        let answer = frontend.call("POST", APPEND, &[ENVELOPE], body.clone()).await;
        assert_eq!(answer.json()["code"], code, "{body:?}");
        answer.problem(code);
    }
    let numbered = [ENVELOPE, ("carnax-producer-id", "p"), ("carnax-sequence", "0")];
    let body = envelope(vec![part(0, 2), part(1, 3)], &two);
    frontend.call("POST", APPEND, &numbered, body).await.problem("invalid_value");
    nothing_was_done(frontend).await;
}

#[tokio::test]
async fn every_wrong_field_of_a_token_or_an_epoch_is_a_problem() {
    let frontend = with_topics().await;
    let token = "/v1/topics/t/partitions/0/fencing-token";
    for (path, body, code) in [
        (token, json!({}), "malformed"),
        (token, json!({"from": "a"}), "malformed"),
        (token, json!({"token": ""}), "malformed"),
        (token, json!({"token": "a b"}), "malformed"),
        (token, json!({"token": "x".repeat(65)}), "malformed"),
        (token, json!({"token": 1}), "malformed"),
        (token, json!({"token": "a", "from": ""}), "malformed"),
        (token, json!({"token": "a", "from": 1}), "malformed"),
        (token, json!({"token": "a", "form": "b"}), "malformed"),
        (token, json!({"token": "a", "from": "b"}), "condition_failed"),
        ("/v1/topics/t/partitions/2/fencing-token", json!({"token": "a"}), "partition_not_found"),
        ("/v1/topics/t/partitions/x/fencing-token", json!({"token": "a"}), "invalid_value"),
        ("/v1/topics/none/partitions/0/fencing-token", json!({"token": "a"}), "topic_not_found"),
        ("/v1/topics/a%2fb/partitions/0/fencing-token", json!({"token": "a"}), "invalid_value"),
    ] {
        let answer = frontend.call("PUT", path, &[], body.to_string()).await;
        assert_eq!(answer.json()["code"], code, "{path} {body}");
        answer.problem(code);
    }
    let headers = [("carnax-topic-id", ANOTHER)];
    frontend.call("PUT", token, &headers, "{\"token\":\"a\"}").await.problem("topic_recreated");
    frontend.call("GET", token, &headers, "").await.problem("topic_recreated");
    let plain = [("content-type", "text/plain")];
    frontend.call("PUT", token, &plain, "{\"token\":\"a\"}").await.problem("unsupported_media_type");
    frontend.get("/v1/topics/t/partitions/9/fencing-token").await.problem("partition_not_found");
    frontend.get("/v1/topics/none/partitions/0/fencing-token").await.problem("topic_not_found");
    assert_eq!(frontend.get(token).await.json()["token"], Value::Null);

    let long = format!("/v1/producers/{}", "p".repeat(513));
    for path in ["/v1/producers/a%20b", "/v1/producers/%C3%A4", long.as_str()] {
        frontend.get(path).await.problem("invalid_value");
        frontend.call("POST", &format!("{path}/epoch"), &[], "{}").await.problem("invalid_value");
    }
    frontend.get("/v1/producers/p").await.problem("unknown_producer");
    for (body, code) in [
        (json!({"from": u32::MAX}), "conflict"),
        (json!({"from": -1}), "malformed"),
        (json!({"from": "0"}), "malformed"),
        (json!({"from": 1_u64 << 32}), "malformed"),
        (json!({"epoch": 0}), "malformed"),
        (json!([]), "malformed"),
    ] {
        let answer = post(&frontend, "/v1/producers/p/epoch", body.clone()).await;
        assert_eq!(answer.json()["code"], code, "{body}");
        answer.problem(code);
    }
    frontend.get("/v1/producers/p").await.problem("unknown_producer");
    nothing_was_done(frontend).await;
}
