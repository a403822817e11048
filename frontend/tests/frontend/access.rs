//! Goal: what a token allows is allowed, and ends with it; nothing is seen beyond it, and its secret is seen nowhere.
//! Method: the real router over a metadata node of one; the frontend's clock leaps instead of waiting.

use std::time::Duration;

use carnax_core::access::{Grant, Names, Operation};
use carnax_core::http::{CreateTokenRequest, CreatedTokenResponse};
use carnax_core::quota::Quotas;
use http::StatusCode;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::{Answer, DEADLINE, Frontend, start, start_with, until};

pub fn grant(operations: &[Operation], topics: Option<Names>, groups: Option<Names>, cluster: bool) -> Grant {
    Grant { operations: operations.iter().copied().collect(), topics, groups, cluster }
}

pub fn on_topics(operations: &[Operation], prefix: &str) -> Grant {
    grant(operations, Some(Names::Prefix(prefix.to_owned())), None, false)
}

pub fn on_groups(operations: &[Operation], prefix: &str) -> Grant {
    grant(operations, None, Some(Names::Prefix(prefix.to_owned())), false)
}

pub fn on_cluster(operation: Operation) -> Grant {
    grant(&[operation], None, None, true)
}

pub fn on_all_topics() -> Grant {
    use Operation::{Alter, Create, Describe, Read, Write};
    on_topics(&[Read, Write, Create, Alter, Describe], "")
}

pub fn on_all_groups() -> Grant {
    on_groups(&[Operation::Group, Operation::Describe], "")
}

/// Makes tokens as an administrator does.
pub struct Tokens<'a> {
    frontend: &'a Frontend,
    pub admin: String,
}

impl<'a> Tokens<'a> {
    /// Makes the first token, an administrator's.
    pub async fn of(frontend: &'a Frontend) -> Self {
        let answer = create(frontend, None, request(vec![Grant::admin()])).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        // From now on others are asked for theirs.
        frontend.clock.leap(Duration::from_secs(60));
        Self { frontend, admin: token_in(&answer) }
    }

    pub async fn make(&self, grants: Vec<Grant>) -> String {
        self.make_with(grants, Quotas::default()).await
    }

    pub async fn make_with(&self, grants: Vec<Grant>, quotas: Quotas) -> String {
        let request = CreateTokenRequest { quotas, ..request(grants) };
        token_in(&create(self.frontend, Some(&self.admin), request).await)
    }

    pub async fn make_expired(&self) -> String {
        let request = CreateTokenRequest { expires_in_ms: Some(1_000), ..request(vec![Grant::admin()]) };
        let answer = create(self.frontend, Some(&self.admin), request).await;
        self.frontend.metadata.pass(Duration::from_secs(1));
        token_in(&answer)
    }

    pub async fn make_revoked(&self) -> String {
        let token = self.make(vec![Grant::admin()]).await;
        self.revoke(&token).await;
        token
    }

    pub async fn revoke(&self, token: &str) {
        let id = token.split('_').nth(1).unwrap();
        let revoked = self.call("DELETE", &format!("/v1/tokens/{id}"), &self.admin, "").await;
        assert_eq!(revoked.status, StatusCode::OK, "{revoked:?}");
    }

    pub async fn call(&self, method: &str, path: &str, token: &str, body: &str) -> Answer {
        let bearer = format!("Bearer {token}");
        self.frontend.call(method, path, &[("authorization", &bearer)], body.to_owned()).await
    }
}

fn request(grants: Vec<Grant>) -> CreateTokenRequest {
    let (description, quotas) = ("of a test".to_owned(), Quotas::default());
    CreateTokenRequest { description, grants, expires_in_ms: None, quotas }
}

async fn create(frontend: &Frontend, admin: Option<&str>, request: CreateTokenRequest) -> Answer {
    let bearer = admin.map(|admin| format!("Bearer {admin}"));
    let headers: Vec<_> = bearer.iter().map(|bearer| ("authorization", bearer.as_str())).collect();
    frontend.call("POST", "/v1/tokens", &headers, serde_json::to_vec(&request).unwrap()).await
}

fn token_in(answer: &Answer) -> String {
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    assert_eq!(answer.header("cache-control"), "no-store");
    serde_json::from_slice::<CreatedTokenResponse>(&answer.body).unwrap().token
}

fn names(answer: &Answer, list: &str, name: &str) -> Vec<String> {
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let rows = answer.json()[list].as_array().unwrap().clone();
    rows.iter().map(|row| row[name].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_frontend_on_loopback_is_open_until_there_is_a_token() {
    let frontend = start().await;
    frontend.create("flights", 1).await;
    let early = create(&frontend, None, request(vec![on_all_topics()])).await;
    early.problem("invalid_value");
    let tokens = Tokens::of(&frontend).await;
    frontend.get("/v1/topics").await.problem("unauthenticated");
    let listed = tokens.call("GET", "/v1/topics", &tokens.admin, "").await;
    assert_eq!(names(&listed, "topics", "name"), ["flights"]);
    frontend.get("/healthz").await.json();
    frontend.stop().await;

    let frontend = start_with(|settings| settings.access = Some(carnax_frontend::AccessRule::Tokens)).await;
    frontend.get("/v1/topics").await.problem("unauthenticated");
    frontend.stop().await;
}

#[tokio::test]
async fn a_caller_sees_only_what_the_token_allows() {
    let frontend = start().await;
    for topic in ["a", "flights-1", "flights-2", "g", "z"] {
        frontend.create(topic, 1).await;
    }
    let commit = json!({"offsets": [
        {"topic": "a", "partition": 0, "offset": 0},
        {"topic": "flights-1", "partition": 0, "offset": 0},
    ]});
    for group in ["billing", "flights-x", "z"] {
        let path = format!("/v1/groups/{group}/offsets");
        let committed = frontend.call("POST", &path, &[], commit.to_string()).await;
        assert_eq!(committed.status, StatusCode::OK, "{committed:?}");
    }
    let tokens = Tokens::of(&frontend).await;
    let reader = tokens
        .make(vec![on_topics(&[Operation::Read], "flights"), on_groups(&[Operation::Group], "flights")])
        .await;
    let listed = tokens.call("GET", "/v1/topics", &reader, "").await;
    assert_eq!(names(&listed, "topics", "name"), ["flights-1", "flights-2"]);
    let page = tokens.call("GET", "/v1/topics?limit=1", &reader, "").await;
    assert_eq!(
        (names(&page, "topics", "name").len(), page.json()["next_after"].as_str()),
        (1, Some("flights-1"))
    );
    let last = tokens.call("GET", "/v1/topics?limit=1&after=flights-1", &reader, "").await;
    assert_eq!(names(&last, "topics", "name"), ["flights-2"]);
    assert!(last.json().get("next_after").is_none(), "that there is more is not said: {last:?}");
    let groups = tokens.call("GET", "/v1/groups", &reader, "").await;
    assert_eq!(names(&groups, "groups", "group"), ["flights-x"]);
    let offsets = tokens.call("GET", "/v1/groups/flights-x/offsets", &reader, "").await;
    assert_eq!(names(&offsets, "offsets", "topic"), ["flights-1"]);
    // Whether or not it is there.
    for topic in ["a", "nowhere"] {
        tokens.call("GET", &format!("/v1/topics/{topic}"), &reader, "").await.problem("forbidden");
    }
    frontend.stop().await;
}

#[tokio::test]
async fn what_a_body_names_must_be_allowed_too() {
    let frontend = start().await;
    frontend.create("flights-1", 1).await;
    frontend.create("orders", 1).await;
    let tokens = Tokens::of(&frontend).await;
    let token = tokens
        .make(vec![
            on_topics(&[Operation::Read, Operation::Write], "flights-"),
            on_groups(&[Operation::Group], "flights-"),
        ])
        .await;
    let record = json!({"topic": "flights-1", "value": "x"});
    let to_orders = json!({"topic": "orders", "value": "x"});
    let condition = json!({"topic": "orders", "partition": 0, "expected_next_offset": 0});
    let moved = |topic: &str| json!([{"topic": topic, "partition": 0, "from": null, "to": 1}]);
    let group = |group: &str, topic: &str| json!({"group": group, "offsets": moved(topic)});
    let offsets = |topic: &str| json!({"offsets": [{"topic": topic, "partition": 0, "offset": 0}]});
    let (append, members) = ("/v1/append", "/v1/groups/flights-g/members");
    let (commit, reset) = ("/v1/groups/flights-h/offsets", "/v1/groups/flights-h/offsets/reset");
    let cases = [
        (append, json!({"records": [record]}), true),
        (append, json!({"records": [record, to_orders]}), false),
        (append, json!({"records": [record], "conditions": [condition]}), false),
        (append, json!({"records": [record], "group": group("flights-x", "flights-1")}), true),
        (append, json!({"records": [record], "group": group("billing", "flights-1")}), false),
        (append, json!({"records": [record], "group": group("flights-y", "orders")}), false),
        (members, json!({"topics": ["flights-1"]}), true),
        (members, json!({"topics": ["flights-1", "orders"]}), false),
        (members, json!({"patterns": ["flights-*"]}), true),
        (members, json!({"patterns": ["*"]}), false),
        (commit, offsets("flights-1"), true),
        (commit, offsets("orders"), false),
        (reset, json!({"topics": ["flights-1"], "to": "earliest"}), true),
        (reset, json!({"topics": ["orders"], "to": "earliest"}), false),
    ];
    for (path, body, allowed) in cases {
        let answer = tokens.call("POST", path, &token, &body.to_string()).await;
        if allowed {
            assert_eq!(answer.status, StatusCode::OK, "{path} {body}: {answer:?}");
        } else {
            answer.problem("forbidden");
        }
    }
    // A reset of all that is committed reaches what others have committed.
    let theirs = tokens.call("POST", commit, &tokens.admin, &offsets("orders").to_string()).await;
    assert_eq!(theirs.status, StatusCode::OK, "{theirs:?}");
    tokens.call("POST", reset, &token, r#"{"to":"earliest"}"#).await.problem("forbidden");
    frontend.stop().await;
}

/// The id of a topic opens no door: a name that one may write to, beside the id of another topic, writes to neither.
#[tokio::test]
async fn the_id_of_another_topic_beside_an_allowed_name_writes_nothing() {
    let frontend = start().await;
    frontend.create("flights-1", 1).await;
    frontend.create("orders", 1).await;
    let foreign = frontend.get("/v1/topics/orders").await.json()["topic_id"].as_str().unwrap().to_owned();
    let tokens = Tokens::of(&frontend).await;
    let token = tokens.make(vec![on_topics(&[Operation::Write], "flights-")]).await;
    let bearer = format!("Bearer {token}");
    let headers = |key| {
        [("authorization", bearer.as_str()), ("idempotency-key", key), ("carnax-topic-id", foreign.as_str())]
    };
    let body = r#"{"records":[{"value":"forged","partition":0}]}"#;
    let plain = frontend.call("POST", "/v1/topics/flights-1/records", &headers("k1"), body).await;
    plain.problem("topic_recreated");
    let body = json!({"records": [
        {"topic": "flights-1", "topic_id": foreign, "partition": 0, "value": "forged"},
    ]});
    let atomic = frontend.call("POST", "/v1/append", &headers("k2")[..2], body.to_string()).await;
    atomic.problem("topic_recreated");
    let condition =
        json!({"topic": "flights-1", "topic_id": foreign, "partition": 0, "expected_next_offset": 9});
    let body = json!({"records": [{"topic": "flights-1", "value": "x"}], "conditions": [condition]});
    let asked = frontend.call("POST", "/v1/append", &headers("k3")[..2], body.to_string()).await;
    asked.problem("topic_recreated");
    for topic in ["orders", "flights-1"] {
        let path = format!("/v1/topics/{topic}/partitions/0/records?offset=0");
        let read = tokens.call("GET", &path, &tokens.admin, "").await;
        assert_eq!(read.json()["high_watermark"], 0, "{topic}: {read:?}");
    }
    frontend.stop().await;
}

#[tokio::test]
async fn a_revoked_token_is_refused_within_ten_seconds_on_streams_too() {
    let frontend = start().await;
    frontend.create("flights", 1).await;
    let tokens = Tokens::of(&frontend).await;
    let token = tokens.make(vec![on_topics(&[Operation::Read], "flights")]).await;
    let path = "/v1/topics/flights/partitions/0/records?offset=0";
    assert_eq!(tokens.call("GET", path, &token, "").await.status, StatusCode::OK);
    let mut stream = TcpStream::connect(&frontend.address).await.unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\nconnection: close\r\nauthorization: bearer {token}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut start = [0; 15];
    tokio::time::timeout(DEADLINE, stream.read_exact(&mut start)).await.unwrap().unwrap();
    assert_eq!(&start, b"HTTP/1.1 200 OK");

    tokens.revoke(&token).await;
    frontend.clock.leap(Duration::from_secs(10));
    let refused = tokens.call("GET", path, &token, "").await;
    assert_eq!(refused.problem("unauthenticated")["retryable"], false);
    let mut rest = Vec::new();
    tokio::time::timeout(DEADLINE, stream.read_to_end(&mut rest)).await.expect("the stream ends").unwrap();
    frontend.stop().await;
}

#[tokio::test]
async fn a_known_token_is_believed_for_a_while_when_nobody_can_be_asked_and_no_longer() {
    let frontend = start_with(|settings| {
        settings.calls.deadline = Duration::from_millis(300);
        settings.calls.try_timeout = Duration::from_millis(100);
    })
    .await;
    let tokens = Tokens::of(&frontend).await;
    let scraper = tokens.make(vec![on_cluster(Operation::Describe)]).await;
    let unseen = tokens.make(vec![on_cluster(Operation::Describe)]).await;
    assert_eq!(tokens.call("GET", "/metrics", &scraper, "").await.status, StatusCode::OK);
    frontend.metadata.lose_quorum(true);
    frontend.clock.leap(Duration::from_secs(6));
    assert_eq!(
        tokens.call("GET", "/metrics", &scraper, "").await.status,
        StatusCode::OK,
        "it was valid just now"
    );
    tokens.call("GET", "/metrics", &unseen, "").await.problem("no_quorum");
    frontend.clock.leap(Duration::from_secs(3));
    tokens.call("GET", "/metrics", &scraper, "").await.problem("no_quorum");
    frontend.metadata.lose_quorum(false);
    until("the token is believed again", async || {
        tokens.call("GET", "/metrics", &scraper, "").await.status == StatusCode::OK
    })
    .await;
    frontend.stop().await;
}

#[tokio::test]
async fn tokens_are_listed_changed_and_shown_without_their_secrets() {
    let frontend = start().await;
    let tokens = Tokens::of(&frontend).await;
    let token = tokens.make(vec![on_topics(&[Operation::Read], "flights")]).await;
    let (id, secret) = (token.split('_').nth(1).unwrap(), token.split('_').nth(2).unwrap());
    let list = tokens.call("GET", "/v1/tokens", &tokens.admin, "").await;
    let listed = list.json()["tokens"].as_array().unwrap().clone();
    assert_eq!(listed.len(), 2);
    assert!(
        listed.iter().all(|token| token.get("hash").is_none() && token.get("token").is_none()),
        "{list:?}"
    );
    let own = listed.iter().find(|listed| listed["id"] == id).unwrap();
    assert_eq!((&own["description"], own.get("last_used")), (&json!("of a test"), None));

    let wider = json!({"description": "wider", "expires_in_ms": 60_000, "quotas": {"fetch_bytes_per_second": 9},
        "grants": [{"operations": ["read"], "topics": {"prefix": ""}}]});
    let path = format!("/v1/tokens/{id}");
    let altered = tokens.call("PATCH", &path, &tokens.admin, &wider.to_string()).await.json();
    assert_eq!((&altered["description"], &altered["quotas"]), (&json!("wider"), &wider["quotas"]));
    assert!(altered["expires"].as_i64() > altered["created"].as_i64());
    let endless = tokens.call("PATCH", &path, &tokens.admin, r#"{"expires_in_ms":null}"#).await.json();
    assert!(endless.get("expires").is_none() && endless["description"] == "wider", "{endless}");
    // It is used, which is noted, and it shows in no answer and no metric.
    frontend.create_as(&tokens.admin, "elsewhere").await;
    let read = tokens.call("GET", "/v1/topics/elsewhere", &token, "").await;
    assert_eq!(read.status, StatusCode::OK, "{read:?}");
    let mut shown = vec![tokens.call("GET", "/v1/tokens", &tokens.admin, "").await];
    assert!(shown[0].json()["tokens"].as_array().unwrap().iter().all(|token| token["last_used"].is_i64()));
    shown.push(tokens.call("GET", "/metrics", &tokens.admin, "").await);
    for wrong in [&token[..token.len() - 1], &format!("{token}x"), &format!("{token} {token}")] {
        shown.push(tokens.call("GET", "/v1/topics", wrong, "").await);
    }
    shown.push(tokens.call("DELETE", &format!("/v1/tokens/{token}"), &tokens.admin, "").await);
    shown.push(tokens.call("DELETE", "/v1/topics/elsewhere", &token, "").await);
    for answer in shown {
        let text = format!("{:?} {}", answer.headers, String::from_utf8_lossy(&answer.body));
        assert!(!text.contains(&secret[..20]), "{text}");
    }
    tokens.call("DELETE", "/v1/tokens/nobody", &tokens.admin, "").await.problem("token_not_found");
    frontend.stop().await;
}

/// Keys of one caller mean nothing to another: neither can learn of, or spoil, what the other sent.
#[tokio::test]
async fn idempotency_keys_belong_to_their_token() {
    let frontend = start().await;
    frontend.create("flights", 1).await;
    let tokens = Tokens::of(&frontend).await;
    let mut offsets = Vec::new();
    for _ in 0..2 {
        let token = tokens.make(vec![on_topics(&[Operation::Write], "")]).await;
        let headers = [("authorization", &*format!("Bearer {token}")), ("idempotency-key", "k")];
        for _ in 0..2 {
            let body = r#"{"records":[{"value":"x"}]}"#;
            let answer = frontend.call("POST", "/v1/topics/flights/records", &headers, body).await;
            offsets.push(answer.json()["results"][0]["base_offset"].as_u64().unwrap());
        }
    }
    assert_eq!(offsets, [0, 0, 1, 1]);
    frontend.stop().await;
}

/// While the metadata nodes are of the version before, nobody can have a token: loopback stays open, and who asks for tokens gets none.
#[tokio::test]
async fn a_new_frontend_serves_before_old_metadata_nodes() {
    for (rule, is_open) in [(None, true), (Some(carnax_frontend::AccessRule::Tokens), false)] {
        let frontend = start_with(|settings| settings.access = rule).await;
        frontend.metadata.know_no_tokens();
        let anonymous = frontend.get("/v1/topics").await;
        let token = format!("Bearer carnax_ops_{}", "0".repeat(52));
        let shown = frontend.call("GET", "/v1/topics", &[("authorization", &token)], "").await;
        shown.problem("unauthenticated");
        if is_open {
            assert_eq!(anonymous.status, StatusCode::OK, "{anonymous:?}");
        } else {
            anonymous.problem("unauthenticated");
        }
        frontend.stop().await;
    }
}
