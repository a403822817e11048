//! Goal: every wrong field of every call about groups, offsets and settings gets the documented problem. Method: one good
//! document a call, wrong in one field at a time.

use serde_json::{Value, json};

use super::support::{Frontend, start};

const MEMBERS: &str = "/v1/groups/g/members";
const OFFSETS: &str = "/v1/groups/g/offsets";
const RESET: &str = "/v1/groups/g/offsets/reset";

pub async fn post(frontend: &Frontend, path: &str, body: Value) -> super::support::Answer {
    frontend.call("POST", path, &[], body.to_string()).await
}

/// Sends a good document with one field changed (null: `Value::Null` stays, a missing one is taken out).
pub async fn refused(
    frontend: &Frontend,
    path: &str,
    good: &Value,
    field: &str,
    wrong: Option<Value>,
    code: &str,
) {
    let mut body = good.clone();
    match &wrong {
        Some(wrong) => *body.pointer_mut(field).unwrap() = wrong.clone(),
        None => {
            let (parent, name) = field.rsplit_once('/').unwrap();
            body.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name).unwrap();
        }
    }
    let answer = post(frontend, path, body).await;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    assert_eq!(answer.json()["code"], code, "{path} {field}={wrong:?}: {text}");
    answer.problem(code);
}

#[tokio::test]
async fn every_wrong_field_of_a_join_or_heartbeat_is_a_problem() {
    let frontend = start().await;
    let good = json!({
        "member": "m", "client": "me", "topics": ["t"], "patterns": ["t-*"], "assignor": "range",
        "session_timeout_ms": 10_000,
    });
    for (field, wrong, code) in [
        ("/member", json!("a b"), "malformed"),
        ("/member", json!(""), "malformed"),
        ("/member", json!("x".repeat(129)), "malformed"),
        ("/member", json!(7), "malformed"),
        ("/client", json!(null), "malformed"),
        ("/client", json!("x".repeat(513)), "invalid_value"),
        ("/topics", json!("t"), "malformed"),
        ("/topics", json!(["a/b"]), "malformed"),
        ("/topics", json!(["x".repeat(250)]), "malformed"),
        ("/topics", json!(vec!["t"; 101]), "invalid_value"),
        ("/patterns", json!([1]), "malformed"),
        ("/patterns", json!(["t.[a-z]"]), "malformed"),
        ("/patterns", json!([""]), "malformed"),
        ("/assignor", json!("uniform"), "malformed"),
        ("/assignor", json!(1), "malformed"),
        ("/session_timeout_ms", json!(999), "invalid_value"),
        ("/session_timeout_ms", json!(1_800_001), "invalid_value"),
        ("/session_timeout_ms", json!(-1), "malformed"),
        ("/session_timeout_ms", json!("10s"), "malformed"),
    ] {
        refused(&frontend, MEMBERS, &good, field, Some(wrong), code).await;
    }
    post(&frontend, MEMBERS, json!({})).await.problem("invalid_value");
    post(&frontend, MEMBERS, json!({"topics": ["t"], "topic": "t"})).await.problem("malformed");
    post(&frontend, "/v1/groups/a%20b/members", good.clone()).await.problem("invalid_value");
    post(&frontend, &format!("/v1/groups/{}/members", "g".repeat(250)), good).await.problem("invalid_value");
    let good = json!({"epoch": 1, "assignment_epoch": 1});
    let path = format!("{MEMBERS}/m/heartbeat");
    for field in ["/epoch", "/assignment_epoch"] {
        for wrong in [None, Some(json!(null)), Some(json!(-1)), Some(json!("1")), Some(json!(1.5))] {
            refused(&frontend, &path, &good, field, wrong, "malformed").await;
        }
    }
    refused(&frontend, &path, &good, "/epoch", Some(json!(1_u64 << 32)), "malformed").await;
    post(&frontend, &format!("{MEMBERS}/a%20b/heartbeat"), good.clone()).await.problem("invalid_value");
    post(&frontend, &format!("{MEMBERS}/{}/heartbeat", "m".repeat(129)), good).await.problem("invalid_value");
    frontend
        .call("POST", &path, &[("content-type", "text/plain")], "{}")
        .await
        .problem("unsupported_media_type");
    frontend.stop().await;
}

#[tokio::test]
async fn every_wrong_field_of_an_offset_commit_is_a_problem() {
    let frontend = start().await;
    frontend.create("t", 2).await;
    let good = json!({
        "member": "m", "epoch": 1, "number": 1,
        "offsets": [{"topic": "t", "topic_id": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "partition": 0, "offset": 0, "from": 0, "metadata": "x"}],
    });
    let huge = json!(u64::MAX);
    for (field, wrong, code) in [
        ("/member", Some(json!("a b")), "malformed"),
        ("/member", Some(json!(1)), "malformed"),
        ("/member", None, "invalid_value"),
        ("/epoch", None, "invalid_value"),
        ("/epoch", Some(json!("1")), "malformed"),
        ("/epoch", Some(json!(-1)), "malformed"),
        ("/number", Some(json!(-1)), "malformed"),
        ("/number", Some(json!("1")), "malformed"),
        ("/offsets", None, "malformed"),
        ("/offsets", Some(json!([])), "invalid_value"),
        ("/offsets", Some(json!({})), "malformed"),
        (
            "/offsets",
            Some(json!(vec![json!({"topic": "t", "partition": 0, "offset": 0}); 1_001])),
            "too_large",
        ),
        ("/offsets/0/topic", None, "malformed"),
        ("/offsets/0/topic", Some(json!("a/b")), "malformed"),
        ("/offsets/0/topic", Some(json!("none")), "topic_not_found"),
        ("/offsets/0/topic_id", Some(json!("mine")), "malformed"),
        ("/offsets/0/topic_id", Some(json!("01ARZ3NDEKTSV4RRFFQ69G5FAV")), "topic_recreated"),
        ("/offsets/0/partition", None, "malformed"),
        ("/offsets/0/partition", Some(json!(-1)), "malformed"),
        ("/offsets/0/offset", None, "malformed"),
        ("/offsets/0/offset", Some(json!("0")), "malformed"),
        ("/offsets/0/offset", Some(json!(-1)), "malformed"),
        ("/offsets/0/offset", Some(huge.clone()), "invalid_value"),
        ("/offsets/0/from", Some(json!(-1)), "malformed"),
        ("/offsets/0/from", Some(huge), "invalid_value"),
        ("/offsets/0/metadata", Some(json!(null)), "malformed"),
        ("/offsets/0/metadata", Some(json!("x".repeat(4_097))), "invalid_value"),
    ] {
        refused(&frontend, OFFSETS, &good, field, wrong, code).await;
    }
    let far = json!({"offsets": [{"topic": "t", "partition": 2, "offset": 0}]});
    let problem = post(&frontend, OFFSETS, far).await.problem("partition_not_found");
    assert_eq!(problem["partition_count"], 2);
    let number = json!({"number": 1, "offsets": [{"topic": "t", "partition": 0, "offset": 0}]});
    post(&frontend, OFFSETS, number).await.problem("invalid_value");
    let unknown = json!({"offsets": [{"topic": "t", "partition": 0, "offset": 0, "meta": ""}]});
    post(&frontend, OFFSETS, unknown).await.problem("malformed");
    post(&frontend, OFFSETS, json!({"offset": []})).await.problem("malformed");
    frontend.stop().await;
}

#[tokio::test]
async fn every_wrong_field_of_a_reset_or_parameter_of_a_question_is_a_problem() {
    let frontend = start().await;
    let good = json!({"topics": ["t"], "partitions": [0], "to": "earliest", "dry_run": true});
    for (field, wrong) in [
        ("/topics", Some(json!("t"))),
        ("/topics", Some(json!(["a/b"]))),
        ("/partitions", Some(json!([-1]))),
        ("/partitions", Some(json!(0))),
        ("/to", None),
        ("/to", Some(json!("noon"))),
        ("/to", Some(json!({"offset": -1}))),
        ("/to", Some(json!({"offset": "1"}))),
        ("/to", Some(json!({"timestamp": "now"}))),
        ("/to", Some(json!({"duration_ms": -1}))),
        ("/to", Some(json!({"shift_by": 1.5}))),
        ("/to", Some(json!({"shift_by": 1, "offset": 1}))),
        ("/dry_run", Some(json!("yes"))),
    ] {
        refused(&frontend, RESET, &good, field, wrong, "malformed").await;
    }
    refused(&frontend, RESET, &good, "/partitions", Some(json!([])), "invalid_value").await;
    post(&frontend, RESET, json!({"to": "latest", "dryrun": true})).await.problem("malformed");
    for (method, path, code) in [
        ("GET", "/v1/groups?limit=0", "invalid_value"),
        ("GET", "/v1/groups?limit=1001", "invalid_value"),
        ("GET", "/v1/groups?after=a%20b", "invalid_value"),
        ("GET", "/v1/groups?order=name", "invalid_value"),
        ("GET", "/v1/groups/a%20b", "invalid_value"),
        ("DELETE", "/v1/groups/a%20b", "invalid_value"),
        ("PUT", "/v1/groups/g", "method_not_allowed"),
        ("GET", "/v1/groups/g/members", "method_not_allowed"),
        ("GET", "/v1/groups/g/offsets?limit=5001", "invalid_value"),
        ("GET", "/v1/groups/g/offsets?limit=x", "invalid_value"),
        ("GET", "/v1/groups/g/offsets?limit=1&limit=2", "invalid_value"),
        ("GET", "/v1/groups/g/offsets?after=0", "invalid_value"),
        ("GET", "/v1/groups/g/offsets?after=01ARZ3NDEKTSV4RRFFQ69G5FAV.x", "invalid_value"),
        ("GET", "/v1/groups/g/offsets?topic=", "invalid_value"),
        ("GET", "/v1/groups/g/offsets?topic=t,a%2fb", "invalid_value"),
        ("GET", "/v1/groups/g/offsets?partition=0", "invalid_value"),
        ("DELETE", "/v1/groups/g/members/m?epoch=-1", "invalid_value"),
        ("DELETE", "/v1/groups/g/members/m?force=1", "invalid_value"),
        ("DELETE", "/v1/groups/g/members/a%20b", "invalid_value"),
        ("GET", "/v1/topics/t/offsets", "invalid_value"),
        ("GET", "/v1/topics/t/offsets?at=noon", "invalid_value"),
        ("GET", "/v1/topics/t/offsets?at=latest", "topic_not_found"),
    ] {
        let answer = frontend.call(method, path, &[], "").await;
        assert_eq!(answer.json()["code"], code, "{method} {path}");
        answer.problem(code);
    }
    frontend.stop().await;
}

#[tokio::test]
async fn settings_are_changed_brought_back_and_refused_when_they_are_wrong() {
    let frontend = start().await;
    let path = "/v1/cluster/settings";
    let defaults = frontend.get(path).await.json();
    assert_eq!(defaults["settings"]["idempotency.window.ms"], "3600000");
    let change = async |body: Value| frontend.call("PATCH", path, &[], body.to_string()).await;
    let changed = change(json!({"settings": {"producer.max": 7, "idempotency.max": "9"}})).await.json();
    assert_eq!(
        (&changed["settings"]["producer.max"], &changed["settings"]["idempotency.max"]),
        (&json!("7"), &json!("9"))
    );
    let back = change(json!({"settings": {"producer.max": null}})).await.json();
    assert_eq!(
        (&back["settings"]["producer.max"], &back["settings"]["idempotency.max"]),
        (&json!("100000"), &json!("9"))
    );
    for (wrong, code) in [
        (json!({"settings": {"producer.size": 1}}), "invalid_value"),
        (json!({"settings": {"producer.size": null}}), "invalid_value"),
        (json!({"settings": {"producer.max": -1}}), "invalid_value"),
        (json!({"settings": {"producer.window.ms": "1 h"}}), "invalid_value"),
        (json!({"settings": {"idempotency.window.ms": 999}}), "invalid_value"),
        (json!({"settings": {"group.offsets.retention.ms": ""}}), "invalid_value"),
        (json!({"settings": {"idempotency.max": 1, "producer.max": true}}), "invalid_value"),
        (json!({"settings": {"producer.max": 1.5}}), "malformed"),
        (json!({"settings": ["producer.max"]}), "malformed"),
        (json!({"producer.max": 1}), "malformed"),
    ] {
        change(wrong).await.problem(code);
    }
    assert_eq!(frontend.get(path).await.json(), back, "what was refused changed nothing");
    frontend.stop().await;
}

#[tokio::test]
async fn every_call_is_described() {
    let frontend = start().await;
    let described = frontend.get("/openapi.json").await.json();
    for (method, path) in [
        ("post", MEMBERS.replace("/g/", "/{group}/")),
        ("delete", "/v1/groups/{group}/members/{member}".to_owned()),
        ("post", "/v1/groups/{group}/members/{member}/heartbeat".to_owned()),
        ("get", "/v1/groups".to_owned()),
        ("get", "/v1/groups/{group}".to_owned()),
        ("delete", "/v1/groups/{group}".to_owned()),
        ("get", OFFSETS.replace("/g/", "/{group}/")),
        ("post", OFFSETS.replace("/g/", "/{group}/")),
        ("post", RESET.replace("/g/", "/{group}/")),
        ("get", "/v1/topics/{topic}/offsets".to_owned()),
        ("get", "/v1/cluster/settings".to_owned()),
        ("patch", "/v1/cluster/settings".to_owned()),
    ] {
        let call = &described["paths"][&path][method];
        assert!(call["responses"]["200"]["content"].is_object(), "{method} {path}: {call}");
    }
    let schemas = described["components"]["schemas"].as_object().unwrap();
    for name in ["JoinGroupRequest", "OffsetEntry", "ResetTo", "AssignedTopic", "GroupPhase"] {
        assert!(schemas.contains_key(name), "{name}");
    }
    frontend.stop().await;
}
