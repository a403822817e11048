//! Goal: whatever comes in gets a clear problem, costs little and hurts nobody else.
//! Method: a table of wrong requests, then connections that misbehave; at the end a good request works.

use std::time::Duration;

use bytes::Bytes;
use carnax_core::record::Compression;
use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::{DEADLINE, Frontend, batch, start, start_with, until};

const RECORDS: &str = "/v1/topics/t/records";
const PARTITION: &str = "/v1/topics/t/partitions/0/records";
const BATCHES: &str = "application/vnd.carnax.batches";

async fn refused(frontend: &Frontend, path: &str, media_type: &str, body: impl Into<Bytes>, code: &str) {
    let answer = frontend.call("POST", path, &[("content-type", media_type)], body).await;
    let problem = answer.problem(code);
    assert!(problem["detail"].as_str().unwrap().len() > 10, "{problem}");
    assert_eq!(problem["side_effects"], "none");
}

#[tokio::test]
async fn a_body_that_a_web_page_of_a_stranger_could_send_is_refused() {
    let frontend = start().await;
    frontend.create("t", 1).await;
    for media_type in ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
        let body = "{\"records\":[{\"value\":\"a\"}]}";
        for path in [RECORDS, PARTITION] {
            refused(&frontend, path, media_type, body, "unsupported_media_type").await;
        }
        refused(&frontend, "/v1/cluster/leader", media_type, "{}", "unsupported_media_type").await;
    }
    assert!(frontend.values("t").await.is_empty());
}

#[tokio::test]
async fn wrong_json_is_refused_with_its_place() {
    let frontend = start().await;
    frontend.create("t", 2).await;
    for body in [
        "",
        "x",
        "{",
        "[]",
        "{}",
        "{\"records\":{}}",
        "{\"records\":[{}]}",
        "{\"records\":[{\"value\":1}]}",
        "{\"records\":[{\"value\":\"a\",\"wrong\":1}]}",
        "{\"records\":[{\"value\":\"a\",\"partition\":-1}]}",
        "{\"records\":[{\"value\":\"a\",\"headers\":[[\"k\"]]}]}",
        "{\"records\":[{\"value\":\"\\ud800\"}]}",
        "{\"records\":[{\"value\":\"a\"}]}x",
    ] {
        refused(&frontend, RECORDS, "application/json", body, "malformed").await;
    }
    let deep = "[".repeat(100_000);
    refused(&frontend, RECORDS, "application/json", deep.clone(), "malformed").await;
    let deep = format!("{{\"records\":[{{\"value\":{deep}");
    refused(&frontend, &format!("{RECORDS}?encoding=json"), "application/json", deep, "malformed").await;
    refused(
        &frontend,
        RECORDS,
        "application/json",
        &b"{\"records\":[{\"value\":\"\xff\"}]}"[..],
        "malformed",
    )
    .await;
    refused(&frontend, RECORDS, "application/json", "{\"records\":[]}", "invalid_value").await;
    refused(&frontend, RECORDS, "application/x-ndjson", "{\"value\":\"a\"}\n{\"value\":", "malformed").await;
    let not_base64 = "{\"records\":[{\"value\":\"a-b\"}]}";
    refused(&frontend, &format!("{RECORDS}?encoding=base64"), "application/json", not_base64, "malformed")
        .await;
    refused(&frontend, &format!("{RECORDS}?encoding=morse"), "application/json", "{}", "invalid_value").await;
    refused(&frontend, &format!("{RECORDS}?wrong=1"), "application/json", "{}", "invalid_value").await;
    refused(&frontend, RECORDS, "text/plain", "a", "unsupported_media_type").await;
    let far = "{\"records\":[{\"value\":\"a\",\"partition\":2}]}";
    refused(&frontend, RECORDS, "application/json", far, "partition_not_found").await;
    let other = "{\"records\":[{\"value\":\"a\",\"partition\":1}]}";
    refused(&frontend, PARTITION, "application/json", other, "invalid_value").await;
    refused(&frontend, "/v1/topics/none/records", "application/json", "{}", "topic_not_found").await;
    refused(&frontend, "/v1/topics/%20/records", "application/json", "{}", "invalid_value").await;
    refused(&frontend, "/v1/topics/t/partitions/x/records", "application/json", "{}", "invalid_value").await;
    let many = format!("{{\"records\":[{}]}}", vec!["{\"value\":null}"; 100_001].join(","));
    refused(&frontend, RECORDS, "application/json", many, "too_large").await;
    let long = format!("{{\"records\":[{{\"value\":\"{}\"}}]}}", "x".repeat(2_000_000));
    refused(&frontend, RECORDS, "application/json", long, "too_large").await;
    refused(&frontend, RECORDS, "application/json", vec![b' '; (16 << 20) + 1], "too_large").await;
    let headers = format!(
        "{{\"records\":[{{\"value\":\"\",\"headers\":[{}]}}]}}",
        vec!["[\"k\",\"v\"]"; 1_001].join(",")
    );
    refused(&frontend, RECORDS, "application/json", headers, "too_large").await;
    frontend.append("t", "good").await.unwrap();
    frontend.stop().await;
}

#[tokio::test]
async fn wrong_batches_are_refused_and_never_stored() {
    let frontend = start().await;
    frontend.create("t", 2).await;
    let good = batch(&["a", "b"], Compression::None);
    let change = |at: usize, bytes: &[u8]| {
        let mut changed = good.to_vec();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    refused(&frontend, PARTITION, BATCHES, change(65, &[0xff]), "corrupt_batch").await;
    refused(&frontend, PARTITION, BATCHES, change(8, &i32::MAX.to_be_bytes()), "too_large").await;
    refused(&frontend, PARTITION, BATCHES, change(8, &(-1i32).to_be_bytes()), "malformed").await;
    refused(&frontend, PARTITION, BATCHES, change(16, &[1]), "malformed").await;
    refused(&frontend, PARTITION, BATCHES, change(57, &i32::MAX.to_be_bytes()), "corrupt_batch").await;
    refused(&frontend, PARTITION, BATCHES, "", "invalid_value").await;
    for length in [1, 12, 60, good.len() - 1] {
        refused(&frontend, PARTITION, BATCHES, good.slice(..length), "malformed").await;
        let behind_a_good_one = [&good[..], &good[..length]].concat();
        refused(&frontend, PARTITION, BATCHES, behind_a_good_one, "malformed").await;
    }
    refused(&frontend, RECORDS, BATCHES, vec![0, 0, 0, 0, 255, 255, 255, 255], "malformed").await;
    let far = [&9u32.to_be_bytes()[..], &u32::try_from(good.len()).unwrap().to_be_bytes(), &good].concat();
    refused(&frontend, RECORDS, BATCHES, far, "partition_not_found").await;
    let large = batch(&[&"x".repeat((1 << 20) - 100), "y"], Compression::None);
    let config = r#"{"config":{"max.message.bytes":2048}}"#;
    frontend.call("PATCH", "/v1/topics/t", &[], config).await;
    refused(&frontend, PARTITION, BATCHES, large, "too_large").await;
    assert_eq!(frontend.values("t").await, Vec::<String>::new());
    assert_eq!(frontend.store.calls_total(), 0);
    frontend.stop().await;
}

#[tokio::test]
async fn wrong_routes_methods_and_parameters_are_problems() {
    let frontend = start().await;
    frontend.create("t", 1).await;
    for (method, path, code) in [
        ("GET", "/", "route_not_found"),
        ("GET", "/v2/topics", "route_not_found"),
        ("POST", "/v1/topics", "method_not_allowed"),
        ("PATCH", "/healthz", "method_not_allowed"),
        ("GET", "/v1/topics/t/partitions/0/records?offset=-1", "invalid_value"),
        ("GET", "/v1/topics/t/partitions/0/records?offset=18446744073709551615", "invalid_value"),
        ("GET", "/v1/topics/t/partitions/0/records?offset=0&last=1", "invalid_value"),
        ("GET", "/v1/topics/t/partitions/0/records?max_bytes=0", "invalid_value"),
        ("GET", "/v1/topics/t/partitions/0/records?max_records=100001", "invalid_value"),
        ("GET", "/v1/topics/t/partitions/0/records?wait_ms=30001", "invalid_value"),
        ("GET", "/v1/topics/t/partitions/0/records?at=noon", "invalid_value"),
        ("GET", "/v1/topics/t/partitions/1/records", "partition_not_found"),
        ("GET", "/v1/topics/t/partitions/4294967296/records", "invalid_value"),
        ("GET", "/v1/topics/none", "topic_not_found"),
        ("GET", "/v1/topics?limit=0", "invalid_value"),
        ("PUT", "/v1/topics/..%2f", "invalid_value"),
        ("DELETE", "/v1/topics/t/partitions/0/records", "invalid_value"),
        ("DELETE", "/v1/cluster/nodes/x", "invalid_value"),
    ] {
        let answer = frontend.call(method, path, &[], "").await;
        answer.problem(code);
    }
    for body in ["{\"partitions\":0}", "{\"config\":{\"retention.ms\":\"soon\"}}"] {
        frontend.call("PUT", "/v1/topics/new", &[], body).await.problem("invalid_value");
    }
    frontend.call("PUT", "/v1/topics/new", &[], "{\"parts\":1}").await.problem("malformed");
    let given = frontend.call("GET", "/healthz", &[("carnax-request-id", "mine-1")], "").await;
    assert_eq!(given.header("carnax-request-id"), "mine-1");
    frontend.stop().await;
}

#[tokio::test]
async fn slow_bodies_and_half_closed_connections_end_and_nobody_else_notices() {
    let frontend = start_with(|settings| settings.http.body_timeout = Duration::from_millis(200)).await;
    frontend.create("t", 1).await;
    let head = format!(
        "POST {PARTITION} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{{\"rec"
    );
    let mut slow = TcpStream::connect(&frontend.address).await.unwrap();
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut half_closed = TcpStream::connect(&frontend.address).await.unwrap();
    half_closed.write_all(head.as_bytes()).await.unwrap();
    half_closed.shutdown().await.unwrap();
    let mut garbage = TcpStream::connect(&frontend.address).await.unwrap();
    garbage.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n").await.unwrap();
    frontend.append("t", "good").await.unwrap();
    let mut answer = vec![0; 4_096];
    let read = tokio::time::timeout(DEADLINE, slow.read(&mut answer)).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&answer[..read]).into_owned();
    assert!(text.starts_with("HTTP/1.1 408") && text.contains("carnax-request-id"), "{text}");
    for connection in [&mut half_closed, &mut garbage] {
        let mut rest = Vec::new();
        // Answered or cut: but not kept.
        let _ = tokio::time::timeout(DEADLINE, connection.read_to_end(&mut rest)).await.unwrap();
        assert!(!String::from_utf8_lossy(&rest).starts_with("HTTP/1.1 200"));
    }
    assert_eq!(frontend.values("t").await, ["good"]);
    frontend.stop().await;
}

/// Two thousand connections, or as many as this process may open: each has two ends here, and other tests run beside.
fn places() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let open_files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft =
        open_files.and_then(|rest| rest.split_whitespace().next()?.parse::<usize>().ok()).unwrap_or(1_024);
    (soft / 4).clamp(50, 2_000)
}

#[tokio::test]
async fn idle_connections_are_bounded_and_one_too_many_is_told_so() {
    let places = places();
    let frontend = start_with(move |settings| settings.http.connections_max = places).await;
    frontend.create("t", 1).await;
    let mut idle = Vec::new();
    // One place is held by the client of this test.
    while idle.len() < places - 1 {
        idle.push(TcpStream::connect(&frontend.address).await.unwrap());
    }
    until("all places are taken", async || {
        let metrics = frontend.get("/metrics").await;
        std::str::from_utf8(&metrics.body)
            .unwrap()
            .contains(&format!("carnax_frontend_connections {places}\n"))
    })
    .await;
    let mut refused = TcpStream::connect(&frontend.address).await.unwrap();
    refused.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(DEADLINE, refused.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("retry-after") && answer.contains("unavailable"), "{answer}");
    frontend.append("t", "good").await.unwrap();
    drop(idle);
    until("the places are free again", async || {
        let other = TcpStream::connect(&frontend.address).await.unwrap();
        let (mut other, mut answer) = (other, String::new());
        other.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        other.read_to_string(&mut answer).await.is_ok() && answer.starts_with("HTTP/1.1 200")
    })
    .await;
    assert_eq!(frontend.get("/healthz").await.status, StatusCode::OK);
    frontend.stop().await;
}
