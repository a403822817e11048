//! Goal: whoever uses up a quota is told when to come again, and nobody else notices; what is refused leaves no trace; each token's
//! usage is told. Method: the real router over a metadata node of one; the frontend's clock leaps instead of waiting.

use std::time::Duration;

use carnax_core::access::Operation::{Describe, Read, Write};
use carnax_core::quota::Quotas;
use http::StatusCode;
use serde_json::{Value, json};

use super::access::{Tokens, on_topics};
use super::support::{Answer, Frontend, start};

const ONE: &str = r#"{"records":[{"value":"0123456789"}]}"#;
const SECOND: Duration = Duration::from_secs(1);

fn refused(answer: &Answer) -> u64 {
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{answer:?}");
    let problem = answer.problem("too_many_requests");
    assert_eq!((&problem["side_effects"], &problem["retryable"]), (&json!("none"), &json!(true)));
    let told = answer.header("retry-after").parse().unwrap();
    assert_eq!(problem["retry_after_seconds"], told);
    told
}

fn fine(answer: &Answer) -> Value {
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.json()
}

async fn set_quota(frontend: &Frontend, admin: &str, topic: &str, entries: Value) {
    let body = json!({ "config": entries }).to_string();
    let bearer = format!("Bearer {admin}");
    let path = format!("/v1/topics/{topic}");
    fine(&frontend.call("PATCH", &path, &[("authorization", &bearer)], body).await);
    // What is known of the topic is asked anew.
    frontend.clock.leap(Duration::from_secs(600));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_held_to_its_quotas_and_others_are_not() {
    let frontend = start().await;
    frontend.create("t", 1).await;
    let tokens = Tokens::of(&frontend).await;
    let quotas = Quotas {
        produce_bytes_per_second: Some(10),
        fetch_requests_per_second: Some(2),
        fetch_bytes_per_second: Some(50),
        ..Quotas::default()
    };
    let grants = || vec![on_topics(&[Read, Write, Describe], "t")];
    let (held, free) = (tokens.make_with(grants(), quotas).await, tokens.make(grants()).await);
    let append = async |token: &str| tokens.call("POST", "/v1/topics/t/records", token, ONE).await;
    let fetch =
        async |token: &str| tokens.call("GET", "/v1/topics/t/partitions/0/records?offset=0", token, "").await;
    fine(&append(&held).await);
    let wait = refused(&append(&held).await);
    assert_eq!(wait, (ONE.len() as u64 - 10).div_ceil(10) + u64::from(ONE.len().is_multiple_of(10)));
    fine(&append(&free).await);
    frontend.clock.leap(SECOND * u32::try_from(wait).unwrap());
    fine(&append(&held).await);

    let read = fine(&fetch(&held).await);
    assert!(!read["records"].as_array().unwrap().is_empty());
    // One batch is always read, however little is left.
    let wait = refused(&fetch(&held).await);
    fine(&fetch(&free).await);
    frontend.clock.leap(SECOND * u32::try_from(wait).unwrap());
    fine(&fetch(&held).await);

    let answer = fine(&fetch(&free).await);
    assert_eq!(answer["records"].as_array().unwrap().len(), 3, "what was refused was not appended");

    let usage = fine(&tokens.call("GET", "/v1/usage", &tokens.admin, "").await);
    let of = |token: &str| {
        let id = token.split('_').nth(1).unwrap();
        let rows = usage["tokens"].as_array().unwrap();
        rows.iter().find(|row| row["token"] == id).unwrap_or_else(|| panic!("{usage}"))["traffic"].clone()
    };
    assert_eq!((&of(&held)["records_in"], &of(&free)["records_in"]), (&json!(2), &json!(1)));
    assert_eq!(of(&free)["records_out"], 6);
    let bytes = |token: &str| of(token)["bytes_in"].as_u64().unwrap();
    assert!(bytes(&held) > bytes(&free) && bytes(&free) > 0, "{usage}");
    assert_eq!(bytes(&held) + bytes(&free), usage["traffic"]["bytes_in"].as_u64().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_is_held_to_its_quotas_whoever_uses_it_and_they_change_at_run_time() {
    let frontend = start().await;
    frontend.create("t", 1).await;
    frontend.create("other", 1).await;
    let tokens = Tokens::of(&frontend).await;
    let admin = tokens.admin.as_str();
    set_quota(&frontend, admin, "t", json!({"quota.produce.requests.per.second": "1"})).await;
    let append = async |topic: &str, key: &str| {
        let headers = [("authorization", format!("Bearer {admin}")), ("idempotency-key", key.to_owned())];
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        frontend.call("POST", &format!("/v1/topics/{topic}/records"), &headers, ONE.to_owned()).await
    };
    fine(&append("t", "a").await);
    assert_eq!(refused(&append("t", "b").await), 1);
    fine(&append("other", "c").await);
    let both = json!({"records":[{"topic":"t","value":"1"},{"topic":"other","value":"2"}]}).to_string();
    refused(&tokens.call("POST", "/v1/append", admin, &both).await);
    frontend.clock.leap(SECOND);
    fine(&tokens.call("POST", "/v1/append", admin, &both).await);
    refused(&append("t", "b").await);

    set_quota(&frontend, admin, "t", json!({"quota.produce.requests.per.second": "-1"})).await;
    for key in ["b", "d", "e"] {
        fine(&append("t", key).await);
    }
    let read = tokens.call("GET", "/v1/topics/t/partitions/0/records?offset=0", admin, "").await;
    assert_eq!(fine(&read)["records"].as_array().unwrap().len(), 5);

    // Each topic pays for its own records, headers too.
    set_quota(&frontend, admin, "t", json!({"quota.produce.bytes.per.second": "100"})).await;
    let heavy = json!({"records":[
        {"topic":"t","value":"1","headers":[["h", "x".repeat(350)]]},
        {"topic":"other","value":"2"},
    ]});
    fine(&tokens.call("POST", "/v1/append", admin, &heavy.to_string()).await);
    let light = json!({"records":[{"topic":"t","value":"1"},{"topic":"other","value":"2"}]});
    assert_eq!(refused(&tokens.call("POST", "/v1/append", admin, &light.to_string()).await), 3);
    fine(&append("other", "f").await);

    let wrong = json!({"config": {"quota.fetch.bytes.per.second": "much"}}).to_string();
    let answer = tokens.call("PATCH", "/v1/topics/t", admin, &wrong).await;
    assert!(answer.status.is_client_error(), "{answer:?}");
}
