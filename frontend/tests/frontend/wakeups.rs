//! Goal: wake-ups are made, changed, listed and ended over HTTP, and wrong ones get the documented problem.

use serde_json::{Value, json};

use super::support::{Answer, Frontend, start};

const QUEUE: &str = "https://sqs.eu-west-1.amazonaws.com/1/wake";

async fn put(frontend: &Frontend, wakeup: &str, body: Value) -> Answer {
    frontend.call("PUT", &format!("/v1/topics/t/wakeups/{wakeup}"), &[], body.to_string()).await
}

async fn list(frontend: &Frontend) -> Value {
    frontend.get("/v1/topics/t/wakeups").await.json()["wakeups"].clone()
}

#[tokio::test]
async fn a_wakeup_is_made_changed_listed_and_ended() {
    let frontend = start().await;
    frontend.create("t", 1).await;
    frontend.append("t", "before").await.unwrap();
    let made = put(&frontend, "w", json!({"queue": QUEUE})).await.json();
    assert_eq!((&made["window_ms"], &made["pending_records"]), (&json!(100), &json!(0)));
    assert_eq!(put(&frontend, "w", json!({"queue": QUEUE})).await.json(), made, "once or twice is the same");

    frontend.append("t", "after").await.unwrap();
    let changed = put(&frontend, "w", json!({"queue": "http://127.0.0.1:1/q", "window_ms": 0})).await.json();
    assert_eq!((&changed["created"], &changed["pending_records"]), (&made["created"], &json!(1)));
    assert_eq!(list(&frontend).await, json!([changed]));

    let ended = frontend.call("DELETE", "/v1/topics/t/wakeups/w", &[], "").await;
    assert_eq!(ended.status, 204);
    assert_eq!(list(&frontend).await, json!([]));
    frontend.call("DELETE", "/v1/topics/t/wakeups/w", &[], "").await.problem("wakeup_not_found");
    frontend.stop().await;
}

#[tokio::test]
async fn every_wrong_field_of_a_wakeup_is_a_problem() {
    let frontend = start().await;
    frontend.create("t", 1).await;
    for (body, code) in [
        (json!({}), "malformed"),
        (json!({"queue": 1}), "malformed"),
        (json!({"queue": QUEUE, "more": 1}), "malformed"),
        (json!({"queue": QUEUE, "window_ms": -1}), "malformed"),
        (json!({"queue": QUEUE, "window_ms": 60_001}), "invalid_value"),
        (json!({"queue": "arn:aws:sqs:eu-west-1:1:wake"}), "invalid_value"),
        (json!({"queue": format!("https://{}", "x".repeat(512))}), "invalid_value"),
    ] {
        put(&frontend, "w", body).await.problem(code);
    }
    let good = json!({"queue": QUEUE});
    put(&frontend, "a%20b", good.clone()).await.problem("invalid_value");
    put(&frontend, &"x".repeat(65), good.clone()).await.problem("invalid_value");
    let none = frontend.call("PUT", "/v1/topics/none/wakeups/w", &[], good.to_string()).await;
    none.problem("topic_not_found");
    frontend.get("/v1/topics/none/wakeups").await.problem("topic_not_found");
    assert_eq!(list(&frontend).await, json!([]));
    frontend.stop().await;
}
