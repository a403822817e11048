//! Access tokens: shown with every request and nowhere else, and administered.

use std::time::Duration;

use carnax::{AlterToken, BuildError, Client, Grant, NewToken, Quotas};
use serde_json::{Value, json};

use crate::server::{Reply, Seen, Server, client_builder, in_time};

const TOKEN: &str = "carnax_ops_0123456789abcdefghijklmnopqrstuvwxyz";

#[tokio::test]
async fn every_request_shows_the_token_and_calls_about_tokens_send_what_the_api_describes() {
    let server = Server::start(move |seen: Seen| {
        let token =
            json!({"id": "a1", "description": "x", "grants": [{"operations": ["admin"]}], "created": 1});
        let with_secret = {
            let mut created = token.clone();
            created["token"] = json!("carnax_a1_secret");
            created
        };
        let reply = match (seen.method.as_str(), seen.param("after")) {
            ("POST", _) => Reply::json(&with_secret),
            ("GET", None) => Reply::json(&json!({"tokens": [token], "next_after": "a1"})),
            ("GET", Some(_)) => Reply::json(&json!({"tokens": [token]})),
            ("DELETE", _) => Reply::json(&json!({"id": "a1"})),
            _ => Reply::json(&token),
        };
        std::future::ready(reply)
    })
    .await;
    let client = client_builder([&server]).token(format!("{TOKEN}\n")).build().unwrap();
    assert!(!format!("{client:?}").contains("0123456789"), "{client:?}");
    let admin = client.admin();
    let grant: Grant = "read:topic/orders*".parse().unwrap();
    in_time(async {
        let quotas = Quotas { fetch_bytes_per_second: Some(9), ..Quotas::default() };
        let new =
            NewToken::new([grant.clone()]).description("x").expires_in(Duration::from_secs(2)).quotas(quotas);
        let created = admin.create_token(&new).await.unwrap();
        assert_eq!((created.token.as_str(), created.description.id.as_str()), ("carnax_a1_secret", "a1"));
        assert!(!format!("{created:?}").contains("secret"), "{created:?}");
        assert_eq!(admin.tokens().await.unwrap().len(), 2, "both pages");
        admin.alter_token("a1", &AlterToken::default().grants([grant]).expires_in(None)).await.unwrap();
        admin.alter_token("a1", &AlterToken::default().description("y").quotas(quotas)).await.unwrap();
        admin.revoke_token("a1").await.unwrap();
        assert!(admin.revoke_token("not an id").await.is_err());
    })
    .await;
    let seen = server.seen();
    let bearer = format!("Bearer {TOKEN}");
    assert!(seen.iter().all(|seen| seen.header("authorization") == Some(bearer.as_str())), "{seen:?}");
    let sent: Vec<_> = seen
        .iter()
        .map(|seen| {
            let body: Value = serde_json::from_slice(&seen.body).unwrap_or_default();
            (seen.method.to_string(), seen.path.clone(), body)
        })
        .collect();
    let grants = json!([{"operations": ["read"], "topics": {"prefix": "orders"}}]);
    let quotas = json!({"fetch_bytes_per_second": 9});
    let expected = [
        (
            "POST",
            "/v1/tokens",
            json!({"description": "x", "grants": grants, "expires_in_ms": 2_000, "quotas": quotas}),
        ),
        ("GET", "/v1/tokens", Value::Null),
        ("GET", "/v1/tokens", Value::Null),
        ("PATCH", "/v1/tokens/a1", json!({"grants": grants, "expires_in_ms": null})),
        ("PATCH", "/v1/tokens/a1", json!({"description": "y", "quotas": quotas})),
        ("DELETE", "/v1/tokens/a1", Value::Null),
    ];
    let expected = expected.map(|(method, path, body)| (method.to_owned(), path.to_owned(), body));
    assert_eq!(sent, expected);
}

#[test]
fn what_is_no_token_is_refused_at_once_and_not_repeated() {
    let built = Client::builder().endpoints(["http://127.0.0.1:1"]).token("Bearer hunter2hunter2").build();
    match built {
        Err(error @ BuildError::Token(_)) => assert!(!format!("{error} {error:?}").contains("hunter")),
        other => panic!("{other:?}"),
    }
}
