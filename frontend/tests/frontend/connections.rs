//! Goal: nobody keeps a place or memory by doing nothing. Method: sockets that are silent, and one that never reads.

use std::time::Duration;

use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::support::{DEADLINE, Frontend, start_with, until};

const PARTITION: &str = "/v1/topics/t/partitions/0/records";
/// No connection of this test is used again when the frontend may already have ended it.
const CLOSE: (&str, &str) = ("connection", "close");

#[tokio::test]
async fn silent_sockets_are_cut_and_their_places_are_free_again_while_a_silent_stream_lives() {
    let frontend = start_with(|settings| {
        settings.http.connections_max = 8;
        settings.http.header_timeout = Duration::from_millis(500);
        settings.http.write_timeout = Duration::from_millis(100);
    })
    .await;
    let created = frontend.call("PUT", "/v1/topics/t", &[CLOSE], "{\"partitions\":1}").await;
    assert_eq!(created.status, StatusCode::CREATED, "{created:?}");
    let mut stream = TcpStream::connect(&frontend.address).await.unwrap();
    let request =
        format!("GET {PARTITION}?offset=0 HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    read_until(&mut stream, "HTTP/1.1 200").await;

    let mut silent = Vec::new();
    for begun in ["", "", "", "", "P", "PRI * HTTP/2.0\r\n", "GET /heal"] {
        let mut socket = TcpStream::connect(&frontend.address).await.unwrap();
        socket.write_all(begun.as_bytes()).await.unwrap();
        silent.push(socket);
    }
    for socket in &mut silent {
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(DEADLINE, socket.read_to_end(&mut rest)).await.unwrap();
    }
    until("a place is free", async || {
        frontend.call("GET", "/healthz", &[CLOSE], "").await.status == StatusCode::OK
    })
    .await;
    let body = "{\"records\":[{\"value\":\"late\"}]}";
    let appended = frontend.call("POST", PARTITION, &[CLOSE], body).await;
    assert_eq!(appended.status, StatusCode::OK, "{appended:?}");
    read_until(&mut stream, "\"late\"").await;
    drop(stream);
    frontend.stop().await;
}

#[tokio::test]
async fn a_reader_that_never_reads_is_cut_and_gives_back_the_memory_of_its_fetch() {
    let frontend = start_with(|settings| {
        // One fetch takes all of it.
        settings.fetch.fetch_memory_bytes = 256 << 10;
        settings.http.write_timeout = Duration::from_millis(200);
    })
    .await;
    frontend.create("t", 1).await;
    frontend.append("t", &"x".repeat(900_000)).await.unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut stalled = socket.connect(frontend.address.parse().unwrap()).await.unwrap();
    // More than the buffers of any kernel on the way.
    let request = format!("GET {PARTITION}?offset=0 HTTP/1.1\r\nhost: x\r\n\r\n").repeat(64);
    stalled.write_all(request.as_bytes()).await.unwrap();
    until("an answer was begun for the reader", async || metric(&frontend, "fetched_bytes_total").await > 0)
        .await;
    // The other one is that of this test.
    until("the reader is cut", async || metric(&frontend, "connections").await == 1).await;
    let others = frontend.get(&format!("{PARTITION}?offset=0")).await;
    assert_eq!(others.status, StatusCode::OK, "{:?}", others.headers);
    drop(stalled);
    frontend.stop().await;
}

async fn read_until(stream: &mut TcpStream, text: &str) {
    let mut seen = String::new();
    while !seen.contains(text) {
        let mut bytes = [0; 1_024];
        let read = tokio::time::timeout(DEADLINE, stream.read(&mut bytes)).await.unwrap().unwrap();
        assert!(read > 0, "ended after {seen:?}");
        seen.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
}

async fn metric(frontend: &Frontend, name: &str) -> u64 {
    let metrics = frontend.get("/metrics").await.body;
    let prefix = format!("carnax_frontend_{name} ");
    let text = std::str::from_utf8(&metrics).unwrap();
    text.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap().parse().unwrap()
}
