//! Goal: streams of events deliver every record once and go on where they were. Method: bodies read piece by piece.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::support::{DEADLINE, Frontend, start_with};

/// The events of a stream: id and data.
pub(super) struct Events {
    body: hyper::body::Incoming,
    text: String,
    comments: usize,
}

impl Events {
    pub(super) async fn open(frontend: &Frontend, path: &str, last_id: Option<&str>) -> Self {
        let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let mut request = Request::get(format!("http://{}{path}", frontend.address));
        request = request.header("accept", "text/event-stream");
        if let Some(id) = last_id {
            request = request.header("last-event-id", id);
        }
        let response = client.request(request.body(Full::default()).unwrap()).await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: response.into_body(), text: String::new(), comments: 0 }
    }

    /// The next record, with the id behind it.
    pub(super) async fn next(&mut self) -> (String, Value) {
        self.read_until(|_| false).await.expect("only a record ends this")
    }

    /// Reads until the stream has shown that it lives although there is nothing to tell.
    async fn comment(&mut self) {
        let record = self.read_until(|comments| comments > 0).await;
        assert_eq!(record, None, "nothing was appended meanwhile");
    }

    /// Reads to the next record, or until so many comments have come as are enough.
    async fn read_until(&mut self, enough: impl Fn(usize) -> bool) -> Option<(String, Value)> {
        while !enough(self.comments) {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.text = rest;
                let field =
                    |name: &str| event.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
                match (field("id: "), field("data: "), field("event: ")) {
                    (Some(id), Some(data), None) => return Some((id, serde_json::from_str(&data).unwrap())),
                    (_, _, Some(kind)) if kind != "start" => panic!("{event}"),
                    (None, None, None) => self.comments += 1,
                    _ => {}
                }
                continue;
            }
            let frame = tokio::time::timeout(DEADLINE, self.body.frame()).await.unwrap().unwrap().unwrap();
            self.text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
        }
        None
    }
}

#[tokio::test]
async fn a_partition_is_followed_and_resumed_by_the_last_id() {
    let frontend = start_with(|settings| settings.fetch.stream_heartbeat = Duration::from_millis(20)).await;
    frontend.create("t", 1).await;
    frontend.append("t", "0").await.unwrap();
    let path = "/v1/topics/t/partitions/0/records?offset=0";
    let mut events = Events::open(&frontend, path, None).await;
    let (id, record) = events.next().await;
    assert_eq!((id.as_str(), &record["value"]), ("1", &"0".into()));
    events.comment().await;
    frontend.append("t", "1").await.unwrap();
    let (id, record) = events.next().await;
    assert_eq!((id.as_str(), &record["offset"]), ("2", &1.into()));
    drop(events);
    frontend.append("t", "2").await.unwrap();
    let mut resumed = Events::open(&frontend, path, Some("2")).await;
    assert_eq!(resumed.next().await.1["value"], "2");
}

#[tokio::test]
async fn a_topic_is_followed_over_all_partitions_and_resumed_without_loss_or_repetition() {
    let frontend = start_with(|_| {}).await;
    frontend.create("t", 3).await;
    let append = async |numbers: std::ops::Range<u32>| {
        let records: Vec<_> =
            numbers.map(|n| format!("{{\"partition\":{},\"value\":\"{n}\"}}", n % 3)).collect();
        let body = format!("{{\"records\":[{}]}}", records.join(","));
        let answer = frontend.call("POST", "/v1/topics/t/records", &[], body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    append(0..9).await;
    let path = "/v1/topics/t/records?follow&at=earliest";
    let mut seen = Vec::new();
    let mut events = Events::open(&frontend, path, None).await;
    let mut last = String::new();
    for _ in 0..5 {
        let (id, record) = events.next().await;
        seen.push(record["value"].as_str().unwrap().parse::<u32>().unwrap());
        last = id;
    }
    drop(events);
    let mut events = Events::open(&frontend, path, Some(&last)).await;
    for _ in 0..4 {
        seen.push(events.next().await.1["value"].as_str().unwrap().parse().unwrap());
    }
    append(9..12).await;
    for _ in 0..3 {
        let (_, record) = events.next().await;
        let value: u32 = record["value"].as_str().unwrap().parse().unwrap();
        assert_eq!(record["partition"], value % 3);
        seen.push(value);
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..12).collect::<Vec<u32>>());
    frontend.get("/v1/topics/t/records").await.problem("invalid_value");
}
