//! Goal: over HTTP, through any frontend, a request is done once and gets its first answer again, all of it or nothing is
//! done, and only if what it asks for holds.
//! Method: the same request again, in other orders, through a second frontend, after lost replies and changed topics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use carnax_core::http::{AppendHead, AppendPart, write_envelope};
use carnax_core::id::PartitionIndex;
use carnax_core::record::Compression;
use http::StatusCode;
use serde_json::{Value, json};

use super::fake_metadata::CommitFault;
use super::support::{Answer, Frontend, batch, start, start_over, start_with, until};

const RECORDS: &str = "/v1/topics/t/records";
const APPEND: &str = "/v1/append";
const BATCHES: (&str, &str) = ("content-type", "application/vnd.carnax.batches");
const ENVELOPE: (&str, &str) = ("content-type", "application/vnd.carnax.append");

/// Posts as sequence `sequence` of producer `p`.
async fn numbered(frontend: &Frontend, path: &str, sequence: u64, body: &Value) -> Answer {
    let sequence = sequence.to_string();
    let headers = [("carnax-producer-id", "p"), ("carnax-sequence", sequence.as_str())];
    frontend.call("POST", path, &headers, body.to_string()).await
}

#[track_caller]
fn done(answer: &Answer, duplicate: bool) -> Value {
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let document = answer.json();
    assert_eq!(document["duplicate"], duplicate, "{document}");
    document["results"].clone()
}

fn value(value: &str) -> Value {
    json!({"records": [{"partition": 0, "value": value}]})
}

/// Another frontend of the same cluster.
async fn second(frontend: &Frontend) -> Frontend {
    start_over(frontend.metadata.clone(), Arc::clone(&frontend.store), |_| {}).await
}

async fn metric(frontend: &Frontend, name: &str) -> u64 {
    let text = String::from_utf8(frontend.get("/metrics").await.body.to_vec()).unwrap();
    let line = text.lines().find(|line| line.starts_with(name));
    line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

#[tokio::test]
async fn a_repeat_gets_the_first_answer_through_any_frontend_however_it_would_be_routed_now() {
    let frontend = start().await;
    let other = second(&frontend).await;
    frontend.create("t", 2).await;
    let keyed: Vec<Value> = (0..20).map(|key| json!({"key": key.to_string(), "value": "x"})).collect();
    let body = json!({ "records": keyed });
    let first = done(&numbered(&frontend, RECORDS, 0, &body).await, false);
    assert_eq!(first.as_array().unwrap().len(), 2);
    assert_eq!(done(&numbered(&other, RECORDS, 0, &body).await, true), first);
    let grown = frontend.call("PATCH", "/v1/topics/t", &[], "{\"partitions\":5}").await;
    assert_eq!(grown.status, StatusCode::OK);
    for frontend in [&frontend, &other] {
        assert_eq!(done(&numbered(frontend, RECORDS, 0, &body).await, true), first);
    }
    let second = done(&numbered(&other, RECORDS, 1, &body).await, false);
    assert!(second.as_array().unwrap().len() > 2, "routed by five partitions: {second}");

    let problem = numbered(&other, RECORDS, 1, &value("x")).await.problem("body_mismatch");
    assert_eq!((&problem["status"], &problem["side_effects"]), (&422.into(), &"none".into()));
    numbered(&frontend, &format!("{RECORDS}?encoding=json"), 1, &body).await.problem("body_mismatch");
    done(&numbered(&frontend, &format!("{RECORDS}?encoding=text"), 1, &body).await, true);
    numbered(&frontend, "/v1/topics/t/partitions/0/records", 1, &value("x")).await.problem("body_mismatch");
    let problem = numbered(&frontend, RECORDS, 7, &body).await.problem("sequence_gap");
    assert_eq!((&problem["expected"], &problem["actual"]), (&"2".into(), &"7".into()));
    for sequence in 2..12 {
        done(&numbered(&frontend, RECORDS, sequence, &value("x")).await, false);
    }
    assert_eq!(done(&numbered(&other, RECORDS, 0, &body).await, true), json!([]), "no longer kept");
    assert_eq!(metric(&frontend, "carnax_frontend_appended_units_total").await, 11);
    assert_eq!(metric(&other, "carnax_frontend_duplicates_total{by=\"producer\"}").await, 3);
    assert_eq!(metric(&frontend, "carnax_frontend_units_refused_total{code=\"sequence_gap\"}").await, 1);
    frontend.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn epochs_fence_and_say_what_became_of_the_one_before() {
    let frontend = start().await;
    frontend.create("t", 1).await;
    let of = async |epoch: &str, sequence: &str, mode: &str| {
        let headers = [
            ("carnax-producer-id", "arn:aws:sqs:x:1:q.fifo/g"),
            ("carnax-producer-epoch", epoch),
            ("carnax-sequence", sequence),
            ("carnax-sequence-mode", mode),
        ];
        frontend.call("POST", RECORDS, &headers, value("x").to_string()).await
    };
    let producer = "/v1/producers/arn%3Aaws%3Asqs%3Ax%3A1%3Aq.fifo%2Fg";
    frontend.get(producer).await.problem("unknown_producer");
    let problem = of("0", "3", "contiguous").await.problem("unknown_producer");
    assert_eq!(problem["status"], 409);
    let huge = u128::MAX.to_string();
    done(&of("0", "340282366920938463463374607431768211454", "increasing").await, false);
    done(&of("0", &huge, "increasing").await, false);
    done(&of("0", "5", "increasing").await, true);
    let described = frontend.get(producer).await.json();
    assert_eq!((&described["epoch"], &described["last_sequence"]), (&0.into(), &huge.clone().into()));

    let epoch = format!("{producer}/epoch");
    for _ in 0..2 {
        let raised = frontend.call("POST", &epoch, &[], "{\"from\":0}").await.json();
        assert_eq!((&raised["epoch"], &raised["last_sequence"]), (&1.into(), &Value::Null));
        assert_eq!(
            (&raised["before"]["epoch"], &raised["before"]["last_sequence"]),
            (&0.into(), &huge.clone().into())
        );
        let last = raised["before"]["replies"].as_array().unwrap().last().unwrap().clone();
        assert_eq!(
            (&last["sequence"], &last["results"][0]["base_offset"]),
            (&huge.clone().into(), &1.into())
        );
    }
    let fenced = of("0", &huge, "increasing").await;
    let problem = fenced.problem("fenced");
    assert_eq!(
        (fenced.status, &problem["expected"], &problem["actual"]),
        (StatusCode::FORBIDDEN, &"1".into(), &"0".into())
    );
    of("3", "1", "contiguous").await.problem("sequence_gap");
    done(&of("3", "0", "contiguous").await, false);
    frontend.call("POST", &epoch, &[], "{\"from\":0}").await.problem("fenced");
    let above = frontend.call("POST", &epoch, &[], "{\"from\":4}").await.json();
    assert_eq!(
        (&above["epoch"], &above["before"]["epoch"]),
        (&5.into(), &4.into()),
        "nothing was in that one"
    );
    of("1", "0", "contiguous").await.problem("fenced");
    let started = frontend.call("POST", "/v1/producers/new/epoch", &[], "").await.json();
    assert_eq!((&started["epoch"], started.get("before")), (&0.into(), None));
    assert_eq!(frontend.values("t").await.len(), 3);
    frontend.stop().await;
}

#[tokio::test]
async fn an_idempotency_key_is_good_for_one_request_until_its_window_has_passed() {
    let frontend = start().await;
    let other = second(&frontend).await;
    frontend.create("t", 3).await;
    let keyless = json!({"records": [{"value": "a"}, {"value": "b"}]});
    let atomic = json!({"records": [{"topic": "t", "value": "c"}]});
    let with = async |frontend: &Frontend, key: &str, path: &str, body: &Value| {
        frontend.call("POST", path, &[("idempotency-key", key)], body.to_string()).await
    };
    let first = done(&with(&frontend, "\"k1\"", RECORDS, &keyless).await, false);
    assert_eq!(first.as_array().unwrap().len(), 1, "keyless records stay together");
    for frontend in [&frontend, &other] {
        assert_eq!(done(&with(frontend, "\"k1\"", RECORDS, &keyless).await, true), first);
        with(frontend, "\"k1\"", APPEND, &atomic).await.problem("body_mismatch");
    }
    let second = done(&with(&other, "k2", APPEND, &atomic).await, false);
    assert_eq!(second[0]["topic"], "t");
    assert_eq!(done(&with(&frontend, "k2", APPEND, &atomic).await, true), second);
    frontend.metadata.pass(Duration::from_secs(60 * 60 + 1));
    done(&with(&frontend, "k2", APPEND, &atomic).await, false);
    assert!(metric(&frontend, "carnax_frontend_duplicates_total{by=\"key\"}").await > 0);
    frontend.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn an_unknown_outcome_is_cleared_up_by_a_repeat_through_another_frontend() {
    let frontend = start_with(|settings| settings.append.commit_deadline = Duration::from_millis(500)).await;
    let other = second(&frontend).await;
    frontend.create("t", 1).await;
    done(&numbered(&frontend, RECORDS, 0, &value("a")).await, false);
    for (sequence, fault, is_done) in
        [(1, CommitFault::LoseReply, true), (2, CommitFault::LoseRequest, false)]
    {
        frontend.metadata.script([fault]);
        frontend.metadata.script([carnax_core::error_code::ErrorCode::NoQuorum; 40].map(CommitFault::Refuse));
        let problem = numbered(&frontend, RECORDS, sequence, &value("b")).await.problem("outcome_unknown");
        assert_eq!(problem["side_effects"], "possible");
        frontend.metadata.unscript();
        let results = done(&numbered(&other, RECORDS, sequence, &value("b")).await, is_done);
        assert_eq!(results[0]["base_offset"], sequence);
    }
    assert_eq!(frontend.values("t").await, ["a", "b", "b"]);
    frontend.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_repeat_of_what_went_to_a_topic_that_is_another_one_now_gets_its_first_answer() {
    let frontend = start().await;
    frontend.create("t", 2).await;
    let id = frontend.get("/v1/topics/t").await.json()["topic_id"].as_str().unwrap().to_owned();
    let send = async |sequence: &str, count: &str| {
        let headers = [
            BATCHES,
            ("carnax-topic-id", id.as_str()),
            ("carnax-partition-count", count),
            ("carnax-producer-id", "p"),
            ("carnax-sequence", sequence),
        ];
        let path = "/v1/topics/t/partitions/1/records";
        frontend.call("POST", path, &headers, batch(&["a"], Compression::None)).await
    };
    let first = done(&send("0", "2").await, false);
    frontend.call("PATCH", "/v1/topics/t", &[], "{\"partitions\":3}").await;
    assert_eq!(done(&send("0", "2").await, true), first, "routed by a count of the past");
    let problem = send("1", "2").await.problem("stale_routing");
    assert_eq!((&problem["retryable"], &problem["partition_count"]), (&true.into(), &3.into()));
    done(&send("1", "3").await, false);
    let key = [("idempotency-key", "k")];
    let body = json!({"records": [{"key": "k", "value": "v"}, {"value": "v"}]}).to_string();
    let keyed = done(&frontend.call("POST", RECORDS, &key, body.clone()).await, false);
    frontend.call("DELETE", "/v1/topics/t", &[], "").await;
    assert_eq!(done(&send("0", "2").await, true), first, "the topic is gone");
    assert_eq!(done(&frontend.call("POST", RECORDS, &key, body.clone()).await, true), keyed);
    assert_eq!(send("2", "3").await.problem("topic_not_found")["topic"], "t");
    let new = frontend.call("POST", RECORDS, &[("idempotency-key", "l")], body).await;
    assert!(new.problem("topic_not_found")["detail"].as_str().unwrap().contains("topic t"));
    frontend.create("t", 1).await;
    let again = send("0", "2").await;
    assert_eq!((done(&again, true), &again.json()["topic_id"]), (first, &id.as_str().into()));
    let problem = send("2", "3").await.problem("topic_recreated");
    assert_eq!((&problem["retryable"], &problem["topic"]), (&false.into(), &"t".into()));
    frontend.stop().await;
}

#[tokio::test]
async fn requests_that_overtake_each_other_end_in_order() {
    let frontend = Arc::new(
        start_with(|settings| {
            settings.append.linger = Duration::ZERO;
            settings.append.sequence_hold = Duration::from_secs(600);
        })
        .await,
    );
    frontend.create("t", 1).await;
    done(&numbered(&frontend, RECORDS, 0, &value("0")).await, false);
    let send = |sequence: u64| {
        let frontend = Arc::clone(&frontend);
        tokio::spawn(
            async move { numbered(&frontend, RECORDS, sequence, &value(&sequence.to_string())).await },
        )
    };
    let mut tasks: Vec<_> = [4, 2, 5, 3].map(send).into();
    until("four are held", async || metric(&frontend, "carnax_frontend_sequence_holds_total").await == 4)
        .await;
    assert_eq!(frontend.values("t").await, ["0"]);
    tasks.push(send(1));
    for task in tasks {
        done(&task.await.unwrap(), false);
    }
    assert_eq!(frontend.values("t").await, ["0", "1", "2", "3", "4", "5"]);
}

#[tokio::test]
async fn who_waits_in_vain_is_refused_and_what_fails_frees_its_sequence() {
    let frontend = start_with(|settings| settings.append.sequence_hold = Duration::from_millis(20)).await;
    frontend.create("t", 1).await;
    done(&numbered(&frontend, RECORDS, 0, &value("0")).await, false);
    numbered(&frontend, RECORDS, 2, &value("2")).await.problem("sequence_gap");
    frontend.metadata.script([CommitFault::Refuse(carnax_core::error_code::ErrorCode::TooLarge)]);
    numbered(&frontend, RECORDS, 1, &value("1")).await.problem("too_large");
    done(&numbered(&frontend, RECORDS, 1, &value("1")).await, false);
    done(&numbered(&frontend, RECORDS, 2, &value("2")).await, false);
    assert_eq!(frontend.values("t").await, ["0", "1", "2"]);
    frontend.stop().await;
}

#[tokio::test]
async fn an_atomic_append_is_done_whole_or_not_at_all() {
    let frontend = start().await;
    frontend.create("t", 2).await;
    frontend.create("orders", 3).await;
    let body = json!({"records": [
        {"topic": "t", "partition": 1, "value": "a"},
        {"topic": "orders", "key": "k", "value": null, "headers": [["h", "1"]], "timestamp": 5},
        {"topic": "t", "partition": 0, "value": "b"},
        {"topic": "t", "partition": 1, "value": "c"},
    ]});
    let results = done(&frontend.call("POST", APPEND, &[], body.to_string()).await, false);
    let place = |result: &Value| {
        let number = |name: &str| result[name].as_u64().unwrap();
        let topic = result["topic"].as_str().unwrap().to_owned();
        assert!(result["append_time"].as_i64().is_some() && result["topic_id"].as_str().is_some());
        (topic, number("partition"), number("base_offset"), number("count"))
    };
    let places: Vec<_> = results.as_array().unwrap().iter().map(place).collect();
    assert_eq!(places.len(), 3);
    assert_eq!((places[0].0.as_str(), places[0].2, places[0].3), ("orders", 0, 1));
    assert_eq!(places[1..], [("t".to_owned(), 0, 0, 1), ("t".to_owned(), 1, 0, 2)]);

    let next = |partition: u32, offset: u64| json!({"topic": "t", "partition": partition, "expected_next_offset": offset});
    let with = |conditions: Value| json!({"records": body["records"], "conditions": conditions}).to_string();
    let refused = frontend.call("POST", APPEND, &[], with(json!([next(0, 1), next(1, 1)]))).await;
    let problem = refused.problem("condition_failed");
    assert_eq!(refused.status, StatusCode::PRECONDITION_FAILED);
    assert_eq!((&problem["topic"], &problem["partition"]), (&"t".into(), &1.into()));
    assert_eq!((&problem["expected"], &problem["actual"]), (&"1".into(), &"2".into()));
    assert_eq!(frontend.values("t").await, ["b"], "nothing of it is there");
    let elsewhere =
        json!([next(0, 1), next(1, 2), {"topic": "orders", "partition": 2, "expected_next_offset": 9}]);
    frontend.call("POST", APPEND, &[], with(elsewhere)).await.problem("condition_failed");
    done(&frontend.call("POST", APPEND, &[], with(json!([next(0, 1), next(1, 2)]))).await, false);
    assert_eq!(frontend.values("t").await, ["b", "b"]);

    let mut gone = body.clone();
    gone["records"][3]["topic"] = "gone".into();
    frontend.call("POST", APPEND, &[], gone.to_string()).await.problem("topic_not_found");
    frontend.call("PATCH", "/v1/topics/orders", &[], "{\"partitions\":7}").await;
    let keyed: Vec<Value> =
        (0..30).map(|key| json!({"topic": "orders", "key": key.to_string(), "value": "x"})).collect();
    let results =
        done(&frontend.call("POST", APPEND, &[], json!({"records": keyed}).to_string()).await, false);
    assert!(results.as_array().unwrap().len() > 3, "routed anew");
    frontend.stop().await;
}

#[tokio::test]
async fn fencing_tokens_keep_out_who_has_another_one() {
    let frontend = start().await;
    frontend.create("t", 1).await;
    let path = "/v1/topics/t/partitions/0/fencing-token";
    let put = async |body: Value| frontend.call("PUT", path, &[], body.to_string()).await;
    let append = async |token: &str| {
        let body = json!({
            "records": [{"topic": "t", "partition": 0, "value": token}],
            "conditions": [{"topic": "t", "partition": 0, "fencing_token": token}],
        });
        frontend.call("POST", APPEND, &[], body.to_string()).await
    };
    assert_eq!(frontend.get(path).await.json(), json!({"token": null, "high_watermark": 0}));
    assert_eq!(append("one").await.problem("condition_failed")["actual"], "none");
    assert_eq!(
        put(json!({"token": "one", "from": null})).await.json(),
        json!({"token": "one", "high_watermark": 0})
    );
    done(&append("one").await, false);
    put(json!({"token": "two", "from": null})).await.problem("condition_failed");
    assert_eq!(
        put(json!({"token": "two", "from": "one"})).await.json(),
        json!({"token": "two", "high_watermark": 1})
    );
    let problem = append("one").await.problem("condition_failed");
    assert_eq!((&problem["expected"], &problem["actual"]), (&"one".into(), &"two".into()));
    done(&append("two").await, false);
    frontend.append("t", "who does not ask is let in").await.unwrap();
    assert_eq!(put(json!({"token": null})).await.json(), json!({"token": null, "high_watermark": 3}));
    append("two").await.problem("condition_failed");
    frontend.stop().await;
}

#[tokio::test]
async fn an_envelope_of_batches_goes_to_a_thousand_partitions_and_no_further() {
    let frontend = start().await;
    for topic in ["a", "b"] {
        frontend.create(topic, 600).await;
    }
    let envelope = |count: u32| {
        let part = |number: u32| AppendPart {
            topic: if number < 600 { "a" } else { "b" }.parse().unwrap(),
            topic_id: None,
            partition: PartitionIndex(number % 600),
            partition_count: Some(600),
            bytes: 0,
        };
        let parts = (0..count).rev().map(part).collect();
        let batches = vec![batch(&["x", "y"], Compression::Zstd); count as usize];
        write_envelope(AppendHead { parts, ..AppendHead::default() }, &batches).unwrap()
    };
    let headers = [ENVELOPE, ("carnax-producer-id", "p"), ("carnax-sequence", "0")];
    let mut answers: BTreeMap<bool, Value> = BTreeMap::new();
    for duplicate in [false, true] {
        let answer = frontend.call("POST", APPEND, &headers, envelope(1_000)).await;
        answers.insert(duplicate, done(&answer, duplicate));
    }
    assert_eq!(answers[&false], answers[&true]);
    let results = answers[&false].as_array().unwrap();
    assert_eq!(results.len(), 1_000);
    let place = |result: &Value| {
        (result["topic"].as_str().unwrap().to_owned(), result["partition"].as_u64().unwrap())
    };
    assert!(results.iter().map(place).is_sorted());
    assert!(results.iter().all(|result| result["count"] == 2 && result["base_offset"] == 0));
    let too_many: Vec<Value> =
        (0..1_001).map(|number| json!({"topic": if number < 600 {"a"} else {"b"}, "partition": number % 600, "value": "x"})).collect();
    let answer = frontend.call("POST", APPEND, &[], json!({"records": too_many}).to_string()).await;
    assert_eq!(answer.problem("too_large")["limit"], 1_000);
    let conditions: Vec<Value> = (0..1_000)
        .map(|number| json!({"topic": "a", "partition": number % 600, "fencing_token": "x".repeat(64)}))
        .collect();
    let all = json!({"records": too_many[..1_000], "conditions": conditions}).to_string();
    assert_eq!(frontend.call("POST", APPEND, &[], all).await.problem("too_large")["limit"], 256 * 1024);
    frontend.stop().await;
}

#[tokio::test]
async fn group_offsets_move_with_the_records_or_neither_does() {
    let frontend = start().await;
    let other = second(&frontend).await;
    frontend.create("t", 1).await;
    frontend.create("out", 1).await;
    for value in ["a", "b"] {
        frontend.append("t", value).await.unwrap();
    }
    let step = |from: Value, to: u64, who: Value| {
        let mut group =
            json!({"group": "g", "offsets": [{"topic": "t", "partition": 0, "from": from, "to": to}]});
        who.as_object().unwrap().iter().for_each(|(name, value)| group[name] = value.clone());
        json!({"records": [{"topic": "out", "partition": 0, "value": to.to_string()}], "group": group})
            .to_string()
    };
    let nobody = || json!({});
    done(&frontend.call("POST", APPEND, &[], step(Value::Null, 1, nobody())).await, false);
    let again = other.call("POST", APPEND, &[], step(Value::Null, 1, nobody())).await;
    let problem = again.problem("condition_failed");
    assert_eq!((&problem["expected"], &problem["actual"]), (&"none".into(), &"1".into()));
    let far = frontend.call("POST", APPEND, &[], step(json!(1), 3, nobody())).await;
    far.problem("offset_above_high_watermark");

    let joined =
        other.call("POST", "/v1/groups/g/members", &[], "{\"member\":\"m\",\"topics\":[\"t\"]}").await.json();
    let epoch = joined["epoch"].clone();
    let member = |member: &str, epoch: Value| json!({"member": member, "epoch": epoch});
    for (who, code) in [
        (nobody(), "not_owner"),
        (member("n", epoch.clone()), "unknown_member"),
        (member("m", json!(0)), "fenced"),
    ] {
        frontend.call("POST", APPEND, &[], step(json!(1), 2, who)).await.problem(code);
    }
    let key = [("idempotency-key", "step-2")];
    let good = step(json!(1), 2, member("m", epoch));
    let first = done(&frontend.call("POST", APPEND, &key, good.clone()).await, false);
    assert_eq!(done(&other.call("POST", APPEND, &key, good).await, true), first, "a repeat asks for nothing");
    assert_eq!(other.values("out").await, ["1", "2"]);
    assert_eq!(other.get("/v1/groups/g/offsets").await.json()["offsets"][0]["offset"], 2);
    frontend.stop().await;
    other.stop().await;
}
