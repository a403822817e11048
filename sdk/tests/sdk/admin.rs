//! The requests of the administration, as they arrive.

use carnax::{AlterTopic, NodeId, Offset, PartitionIndex, Start, Timestamp};
use serde_json::{Value, json};

use crate::log::{Log, topic_id};
use crate::server::{Reply, Seen, Server, client, in_time};

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
