//! The requests of the administration, as they arrive.

use std::time::Duration;

use carnax::{
    AlterSettingsRequest, AlterTopic, CommitOffsetsRequest, ErrorCode, NodeId, Offset, OffsetEntry,
    PartitionIndex, ResetOffsetsRequest, ResetTo, Start, Timestamp,
};
use serde_json::{Value, json};

use crate::log::{Log, topic_id};
use crate::server::{Reply, Seen, Server, client, client_builder, in_time};

#[tokio::test]
async fn every_call_sends_what_the_api_describes() {
    let log = Log::new(2);
    log.change(|state| state.partitions[1].next = 10);
    let server = Server::start(move |seen: Seen| {
        let last_page = seen.param("after") == Some("a");
        let topic =
            json!({"name": "a", "topic_id": topic_id(1), "partitions": 1, "config": {}, "created": 0});
        let reply = match (seen.method.as_str(), seen.path.as_str()) {
            ("GET", "/v1/topics") if last_page => Reply::json(&json!({"topics": [topic]})),
            ("GET", "/v1/topics") => Reply::json(&json!({"topics": [topic], "next_after": "a"})),
            ("DELETE", "/v1/topics/t") => Reply::json(&json!({"topic_id": topic_id(1)})),
            ("DELETE", path) if path.ends_with("/records") => Reply::json(&json!({"log_start_offset": 5})),
            ("PUT" | "PATCH", _) => Reply::json(&topic),
            ("POST", _) | ("DELETE", _) => Reply::json(&json!({})),
            _ => log.serve(&seen),
        };
        std::future::ready(reply)
    })
    .await;
    let admin = client(&server).admin();
    let partition = PartitionIndex(1);
    in_time(async {
        admin.create_topic("t", 12, &[("retention.ms", "5")]).await.unwrap();
        admin.alter_topic("t", &AlterTopic::default().partitions(3).set("a", "b").reset("c")).await.unwrap();
        assert_eq!(admin.list_topics("").await.unwrap().len(), 2, "both pages");
        assert_eq!(admin.delete_topic("t").await.unwrap(), topic_id(1));
        assert_eq!(admin.trim("t", partition, Offset(5)).await.unwrap(), Offset(5));
        let found = admin.offsets_for_times("t", Timestamp::from_millis(4)).await.unwrap();
        assert_eq!(found.into_values().map(|found| found.offset.0).collect::<Vec<_>>(), [0, 4]);
        for (start, offset) in [
            (Start::Earliest, 0),
            (Start::Latest, 10),
            (Start::Last(3), 7),
            (Start::Last(30), 0),
            (Start::Offset(Offset(11)), 10),
            (Start::Timestamp(Timestamp::from_millis(4)), 4),
        ] {
            assert_eq!(
                admin.offset("t", partition, start).await.unwrap().offset,
                Offset(offset),
                "{start:?}"
            );
        }
        admin.add_node("10.0.0.9:7001", true).await.unwrap();
        admin.remove_node(NodeId(3)).await.unwrap();
        admin.transfer_leadership(Some(NodeId(2))).await.unwrap();
    })
    .await;
    let changes: Vec<(String, Value)> = server
        .seen()
        .iter()
        .filter(|seen| seen.method != "GET")
        .map(|seen| {
            let body = serde_json::from_slice(&seen.body).unwrap_or(Value::Null);
            (format!("{} {}?{}", seen.method, seen.path, seen.query), body)
        })
        .collect();
    let change = |line: &str, body: Value| (line.to_owned(), body);
    let expected = [
        change("PUT /v1/topics/t?", json!({"partitions": 12, "config": {"retention.ms": "5"}})),
        change("PATCH /v1/topics/t?", json!({"partitions": 3, "config": {"a": "b", "c": null}})),
        change("DELETE /v1/topics/t?", Value::Null),
        change("DELETE /v1/topics/t/partitions/1/records?before=5", Value::Null),
        change("POST /v1/cluster/nodes?", json!({"address": "10.0.0.9:7001", "promote": true})),
        change("DELETE /v1/cluster/nodes/3?", Value::Null),
        change("POST /v1/cluster/leader?", json!({"to": 2})),
    ];
    assert_eq!(changes, expected);
}

#[tokio::test]
async fn every_call_about_wakeups_sends_what_the_api_describes() {
    let wakeup = json!({"name": "w", "queue": "https://q.example/1/w", "window_ms": 5, "created": 1, "pending_records": 7});
    let server = Server::start(move |seen: Seen| {
        let all = seen.method == "GET";
        std::future::ready(Reply::json(&if all { json!({ "wakeups": [wakeup] }) } else { wakeup.clone() }))
    })
    .await;
    let admin = client(&server).admin();
    in_time(async {
        let window = Some(Duration::from_millis(5));
        let made = admin.put_wakeup("t", "w", "https://q.example/1/w", window).await.unwrap();
        assert_eq!((made.name.as_str(), made.pending_records), ("w", 7));
        assert_eq!(admin.wakeups("t").await.unwrap(), [made]);
        admin.delete_wakeup("t", "w").await.unwrap();
        let wrong = admin.delete_wakeup("t", "../x").await.unwrap_err();
        assert!(wrong.problem().is_none(), "never sent");
    })
    .await;
    let lines: Vec<String> =
        server.seen().iter().map(|seen| format!("{} {}", seen.method, seen.path)).collect();
    let one = "/v1/topics/t/wakeups/w";
    assert_eq!(lines, [format!("PUT {one}"), "GET /v1/topics/t/wakeups".to_owned(), format!("DELETE {one}")]);
    let sent: Value = serde_json::from_slice(&server.seen()[0].body).unwrap();
    assert_eq!(sent, json!({"queue": "https://q.example/1/w", "window_ms": 5}));
}

#[tokio::test]
async fn every_call_about_groups_sends_what_the_api_describes() {
    let server = Server::start(move |seen: Seen| std::future::ready(groups(&seen))).await;
    let admin = client(&server).admin();
    let to = |to, dry_run| ResetOffsetsRequest { topics: Vec::new(), partitions: None, to, dry_run };
    in_time(async {
        let names: Vec<_> =
            admin.list_groups("g").await.unwrap().into_iter().map(|group| group.group).collect();
        assert_eq!(names, ["g".parse().unwrap(), "g2".parse().unwrap()], "both pages");
        let offsets = admin.group_offsets("g", &["t", "u"]).await.unwrap();
        assert_eq!((offsets.offsets.len(), offsets.lag), (2, 7), "both pages, summed up");
        assert_eq!(admin.describe_group("g").await.unwrap().epoch, 4);
        let entry = OffsetEntry {
            topic: "t".parse().unwrap(),
            topic_id: None,
            partition: PartitionIndex(0),
            offset: Some(Offset(5)),
            from: None,
            metadata: String::new(),
        };
        let commit = CommitOffsetsRequest { member: None, epoch: None, number: None, offsets: vec![entry] };
        assert!(!admin.commit_group_offsets("g", &commit).await.unwrap().ignored);
        assert!(admin.reset_group_offsets("g", &to(ResetTo::ShiftBy(-3), true)).await.unwrap().dry_run);
        assert!(admin.remove_group_member("g", "m:1").await.unwrap().was_member);
        assert_eq!(admin.delete_group("g").await.unwrap().offsets, 2);
        let mut change = AlterSettingsRequest::default();
        change.settings.insert("group.retention.ms".into(), None);
        assert!(admin.alter_settings(&change).await.unwrap().settings.is_empty());
        assert!(admin.settings().await.unwrap().settings.is_empty());
        assert!(admin.describe_group("a b").await.is_err() && admin.delete_group("").await.is_err());
    })
    .await;
    let lines: Vec<String> = server
        .seen()
        .iter()
        .map(|seen| {
            format!("{} {}?{} {}", seen.method, seen.path, seen.query, String::from_utf8_lossy(&seen.body))
        })
        .collect();
    let expected = [
        "GET /v1/groups?prefix=g ",
        "GET /v1/groups?prefix=g&after=g ",
        "GET /v1/groups/g/offsets?topic=t&topic=u ",
        "GET /v1/groups/g/offsets?topic=t&topic=u&after=%2F1%3A0 ",
        "GET /v1/groups/g? ",
        r#"POST /v1/groups/g/offsets? {"offsets":[{"topic":"t","partition":0,"offset":5}]}"#,
        r#"POST /v1/groups/g/offsets/reset? {"topics":[],"to":{"shift_by":-3},"dry_run":true}"#,
        "DELETE /v1/groups/g/members/m:1? ",
        "DELETE /v1/groups/g? ",
        r#"PATCH /v1/cluster/settings? {"settings":{"group.retention.ms":null}}"#,
        "GET /v1/cluster/settings? ",
    ];
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn changes_of_groups_are_repeated_only_where_a_repeat_does_no_harm() {
    let server = Server::start(|_| std::future::ready(Reply::HangUp)).await;
    let short = client_builder([&server]).operation_timeout(Duration::from_millis(400)).build().unwrap();
    let admin = short.admin();
    let reset = |to| ResetOffsetsRequest { topics: Vec::new(), partitions: None, to, dry_run: false };
    let attempts = async |call: &str| {
        let before = server.seen().len();
        let failed = match call {
            "shift" => admin.reset_group_offsets("g", &reset(ResetTo::ShiftBy(1))).await.is_err(),
            "earliest" => admin.reset_group_offsets("g", &reset(ResetTo::Earliest)).await.is_err(),
            _ => admin.delete_group("g").await.is_err(),
        };
        assert!(failed, "{call}");
        server.seen().len() - before
    };
    assert_eq!(in_time(attempts("shift")).await, 1);
    assert_eq!(in_time(attempts("delete")).await, 1);
    assert!(in_time(attempts("earliest")).await > 1);
}

/// Answers as a frontend does, in two pages where there are pages.
fn groups(seen: &Seen) -> Reply {
    let summary = |name: &str| json!({"group": name, "phase": "empty", "members": 0, "offsets": 1});
    let offset = json!({"topic": "t", "topic_id": topic_id(1), "partition": 0, "offset": 5,
        "log_start_offset": 0, "high_watermark": 9, "lag": 4});
    let last_page = seen.param("after").is_some();
    match (seen.method.as_str(), seen.path.as_str()) {
        ("GET", "/v1/groups") if last_page => Reply::json(&json!({"groups": [summary("g2")]})),
        ("GET", "/v1/groups") => Reply::json(&json!({"groups": [summary("g")], "next_after": "g"})),
        ("GET", "/v1/groups/g/offsets") if last_page => Reply::json(&json!({"offsets": [offset], "lag": 3})),
        ("GET", "/v1/groups/g/offsets") => {
            Reply::json(&json!({"offsets": [offset], "lag": 4, "next_after": "/1:0"}))
        }
        ("GET", "/v1/groups/g") => {
            Reply::json(&json!({"group": "g", "phase": "stable", "assignor": "sticky",
            "epoch": 4, "members": [], "offsets": 1, "last_active": 0}))
        }
        ("POST", "/v1/groups/g/offsets") => Reply::json(&json!({"ignored": false})),
        ("POST", "/v1/groups/g/offsets/reset") => Reply::json(&json!({"offsets": [], "dry_run": true})),
        ("DELETE", "/v1/groups/g/members/m:1") => Reply::json(&json!({"was_member": true})),
        ("DELETE", "/v1/groups/g") => Reply::json(&json!({"offsets": 2})),
        (_, "/v1/cluster/settings") => Reply::json(&json!({"settings": {}})),
        _ => Reply::problem(ErrorCode::RouteNotFound, |_| {}),
    }
}
