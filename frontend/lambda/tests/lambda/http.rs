//! Role `http`: the API through every front of Lambda.

use std::time::{Duration, Instant};

use carnax_lambda_runtime_emulator::front::{function_url, load_balancer, v1, v2};
use futures::StreamExt;
use serde_json::{Value, json};

use super::core;
use super::runtime::Function;

const RECORDS: &str = "/v1/topics/t/partitions/0/records";

fn body(answer: &Value) -> Value {
    serde_json::from_str(answer["body"].as_str().unwrap_or_else(|| panic!("{answer}"))).unwrap()
}

fn values(answer: &Value) -> Vec<String> {
    assert_eq!(answer["statusCode"], 200, "{answer}");
    let records = body(answer)["records"].as_array().unwrap().clone();
    records.iter().map(|record| record["value"].as_str().unwrap().to_owned()).collect()
}

async fn with_topic(variables: &[(&str, &str)]) -> (core::Core, Function) {
    let core = core::start().await;
    let function = Function::start(&core, variables).await;
    function.until_created("t", "{\"partitions\":1}").await;
    (core, function)
}

async fn append(function: &Function, value: &str) -> Value {
    let records = json!({ "records": [{ "value": value }] }).to_string();
    function.invoke(&function_url("POST", "/v1/topics/t/records", "", Some(&records))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_in_through_one_front_is_read_through_every_other() {
    let (_core, function) = with_topic(&[]).await;
    for (offset, value) in ["a", "b ä"].into_iter().enumerate() {
        let appended = append(&function, value).await;
        assert_eq!(body(&appended)["results"][0]["base_offset"], offset, "{appended}");
    }
    let all = ["a", "b ä"];
    assert_eq!(values(&function.invoke(&function_url("GET", RECORDS, "offset=0", None)).await), all);
    assert_eq!(values(&function.invoke(&v2("dev", "GET", RECORDS, "offset=1", None)).await), all[1..]);
    assert_eq!(values(&function.invoke(&v1("prod", "GET", RECORDS, &[("offset", "0")])).await), all);
    assert_eq!(values(&function.invoke(&load_balancer("GET", RECORDS, &[("offset", "1")])).await), all[1..]);

    let wrong = function.invoke(&function_url("GET", RECORDS, "offset=x", None)).await;
    assert_eq!(wrong["headers"]["content-type"], "application/problem+json", "{wrong}");
    assert_eq!((&wrong["statusCode"], &body(&wrong)["code"]), (&json!(422), &json!("invalid_value")));
    let absent = function.invoke(&v1("prod", "GET", "/v1/topics/none", &[])).await;
    assert_eq!((&absent["statusCode"], &body(&absent)["code"]), (&json!(404), &json!("topic_not_found")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_and_a_stream_end_before_the_invocation_does() {
    let (_core, function) = with_topic(&[("CARNAX_LAMBDA_MARGIN_MS", "300")]).await;
    append(&function, "first").await;
    let time = Duration::from_secs(2);
    let started = Instant::now();
    let poll = function_url("GET", RECORDS, "offset=1&wait_ms=30000", None);
    let said = function.invoke_for(&poll, time).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(1_000), "it waited");
    assert_eq!(values(&serde_json::from_slice(&said).unwrap()), Vec::<String>::new());

    let mut follow = function_url("GET", RECORDS, "offset=0", None);
    follow["headers"]["accept"] = json!("text/event-stream");
    let said = function.invoke_for(&follow, time).await.unwrap();
    let answer: Value = serde_json::from_slice(&said).unwrap();
    assert_eq!(answer["statusCode"], 200, "{answer}");
    assert!(answer["body"].as_str().unwrap().contains("first"), "{answer}");

    // Both waited, and left nothing behind that would disturb the next one.
    assert_eq!(append(&function, "second").await["statusCode"], 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_streamed_behind_its_head_where_the_front_takes_that() {
    let core = core::start().await;
    let function = Function::start(&core, &[("CARNAX_LAMBDA_RESPONSES", "streamed")]).await;
    let get = function_url("GET", "/v1/topics/none", "", None);
    let said = function.invoke_for(&get, Duration::from_secs(30)).await.unwrap();
    // Status and headers as JSON, eight zeros, the body: what function URLs with the mode RESPONSE_STREAM read.
    let end_of_head = said.windows(8).position(|bytes| bytes == [0; 8]).unwrap();
    let head: Value = serde_json::from_slice(&said[..end_of_head]).unwrap();
    let problem: Value = serde_json::from_slice(&said[end_of_head + 8..]).unwrap();
    assert_eq!(head["statusCode"], problem["status"], "{head} {problem}");
    assert_eq!(head["headers"]["content-type"], "application/problem+json");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_stood_still_goes_on_with_another_frontend() {
    let (_core, function) = with_topic(&[("CARNAX_LAMBDA_STALE_MS", "0")]).await;
    for round in 0..5 {
        assert_eq!(append(&function, &format!("{round}")).await["statusCode"], 200);
    }
    let fetched = function.invoke(&function_url("GET", RECORDS, "offset=0", None)).await;
    assert_eq!(values(&fetched), ["0", "1", "2", "3", "4"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_acknowledged_when_the_core_is_away() {
    let (core, function) = with_topic(&[]).await;
    drop(core);
    let records = json!({ "records": [{ "value": "lost" }] }).to_string();
    let post = function_url("POST", "/v1/topics/t/records", "", Some(&records));
    let said = function.invoke_for(&post, Duration::from_secs(4)).await.unwrap();
    let answer: Value = serde_json::from_slice(&said).unwrap();
    assert!(answer["statusCode"].as_u64().unwrap() >= 500, "{answer}");
    assert_eq!(body(&answer)["retryable"], true, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_that_come_together_share_segments_where_an_environment_takes_several_events() {
    const TOGETHER: usize = 8;
    // One upload at a time, so that those who come meanwhile are together for certain.
    let concurrency = TOGETHER.to_string();
    let variables = [("AWS_LAMBDA_MAX_CONCURRENCY", concurrency.as_str()), ("CARNAX_UPLOADS_MAX", "1")];
    let (core, function) = with_topic(&variables).await;
    let values_sent: Vec<String> = (0..20 * TOGETHER).map(|number| number.to_string()).collect();
    let appends: Vec<_> = values_sent.iter().map(|value| append(&function, value)).collect();
    let answers: Vec<Value> = futures::stream::iter(appends).buffer_unordered(TOGETHER).collect().await;
    assert!(answers.iter().all(|answer| answer["statusCode"] == 200), "{answers:?}");
    let read = function.invoke(&function_url("GET", RECORDS, "offset=0&max_records=1000", None)).await;
    let mut stored = values(&read);
    stored.sort_by_key(|value| value.parse::<usize>().unwrap());
    assert_eq!(stored, values_sent);
    let segments = core.segments().await;
    assert!(segments < values_sent.len(), "{segments} segments for {} appends", values_sent.len());
}
