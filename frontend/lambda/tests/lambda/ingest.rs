//! Role `sqs-ingest`: flights that come through a FIFO queue, in groups by carrier.
//!
//! Lambda's event source mapping is imitated: batches of changing sizes, deliveries that are repeated although they were
//! answered, since the answer was lost. `CARNAX_INGEST_MESSAGES` says how many flights are sent; 2,000 if it is absent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use carnax_lambda_runtime_emulator::front::function_url;
use carnax_lambda_runtime_emulator::{EventSource, InvokeError};
use carnax_platform::clock::SystemClock;
use carnax_queue::{MemoryQueue, MessageQueue, OutgoingMessage};
use carnax_sqs_test_server::{ACCESS_KEY, Action, SECRET_KEY, SqsTestServer};
use serde_json::{Value, json};

use super::core;
use super::runtime::Function;

const QUEUE: &str = "arn:aws:sqs:us-east-1:1:flights.fifo";
const PARTITIONS: u32 = 4;
/// Every so many messages there is one that can be no record.
const POISON_EVERY: usize = 331;

fn queue(name: &str) -> Arc<MemoryQueue> {
    Arc::new(MemoryQueue::new(name, Arc::new(SystemClock::new())).unwrap())
}

fn carrier(flight: &str) -> String {
    serde_json::from_str::<Value>(flight).unwrap()["carrier"].as_str().unwrap().to_owned()
}

/// Sends flights, with poison between them; gives what should come of them, by carrier.
async fn send_flights(queue: &MemoryQueue, count: usize) -> (BTreeMap<String, Vec<String>>, usize) {
    let sample = include_str!("../../../../samples/flights.ndjson");
    let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let (mut messages, mut poison) = (Vec::new(), 0);
    for (number, flight) in sample.lines().cycle().take(count).enumerate() {
        let group = carrier(flight);
        let mut document: Value = serde_json::from_str(flight).unwrap();
        document["number"] = number.into();
        let mut send = |body: String, id: String| {
            messages.push(OutgoingMessage {
                id: format!("e{}", messages.len() % 10),
                body,
                group: Some(group.clone()),
                deduplication: Some(id),
                attributes: BTreeMap::new(),
            });
        };
        if number % POISON_EVERY == POISON_EVERY / 2 {
            send("no flight".to_owned(), format!("poison-{number}"));
            poison += 1;
        }
        send(document.to_string(), number.to_string());
        expected.entry(group).or_default().push(document.to_string());
    }
    for batch in messages.chunks(10) {
        assert!(queue.send(batch).await.unwrap().iter().all(Result::is_ok));
    }
    (expected, poison)
}

/// Hands out everything that is in the queue, as an event source mapping does.
async fn drain(queue: &Arc<MemoryQueue>, function: &Function) {
    let mut source = EventSource::new(Arc::clone(queue) as _, QUEUE);
    let (mut round, mut depth) = (0_usize, queue.depth());
    while depth.visible + depth.in_flight > 0 {
        round += 1;
        source.messages_max = 1 + round * 7 % 10;
        let messages = source.receive(Duration::ZERO).await.unwrap();
        let answer = function.invoke(&source.event(&messages)).await;
        let failures = answer["batchItemFailures"].as_array().unwrap_or_else(|| panic!("{answer}"));
        assert!(failures.is_empty(), "nothing has to wait, and what is wrong is put aside: {answer}");
        let is_lost = round.is_multiple_of(9);
        let answer = if is_lost { Err(InvokeError::Failed("answer lost".to_owned())) } else { Ok(answer) };
        let delivery = source.settle(&messages, answer).await.unwrap();
        assert_eq!(delivery.back, if is_lost { messages.len() } else { 0 });
        depth = queue.depth();
    }
}

async fn stored(function: &Function) -> BTreeMap<String, Vec<String>> {
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for partition in 0..PARTITIONS {
        let (path, mut offset) = (format!("/v1/topics/flights/partitions/{partition}/records"), 0);
        loop {
            let answer =
                function.invoke(&function_url("GET", &path, &format!("offset={offset}"), None)).await;
            let page: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
            for record in page["records"].as_array().unwrap() {
                let text = |field: &str| record[field].as_str().unwrap().to_owned();
                values.entry(text("key")).or_default().push(text("value"));
            }
            offset = page["next_offset"].as_u64().unwrap();
            if page["caught_up"] == true {
                break;
            }
        }
    }
    values
}

#[tokio::test(flavor = "multi_thread")]
async fn flights_through_a_fifo_queue_are_stored_once_in_order_and_poison_alone_is_put_aside() {
    let count = std::env::var("CARNAX_INGEST_MESSAGES").map_or(2_000, |count| count.parse().unwrap());
    let (given_up, dead) = (queue("given-up.fifo"), queue("dead.fifo"));
    let flights = MemoryQueue::new("flights.fifo", Arc::new(SystemClock::new())).unwrap();
    let flights = Arc::new(flights.with_dead_letters(Arc::clone(&given_up), 20).unwrap());
    let sqs = SqsTestServer::start([Arc::clone(&dead)]).await;

    let core = core::start().await;
    let http = Function::start(&core, &[]).await;
    let partitions = json!({ "partitions": PARTITIONS }).to_string();
    http.until_created("flights", &partitions).await;
    let rules = json!([{
        "queue": QUEUE, "topic": "flights", "key": "json:/carrier", "dead_letters": sqs.queue_url("dead.fifo"),
    }]);
    let variables = [
        ("CARNAX_LAMBDA_ROLE", "sqs-ingest"),
        ("CARNAX_INGEST", &rules.to_string()),
        ("AWS_ENDPOINT_URL_SQS", &sqs.endpoint()),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
    ];
    let ingest = Function::start(&core, &variables).await;

    let (expected, poison) = send_flights(&flights, count).await;
    drain(&flights, &ingest).await;
    assert_eq!(stored(&http).await, expected);
    assert_eq!((dead.depth().visible, given_up.depth().visible), (poison, 0), "poison, and nothing else");
    assert!(sqs.requests(Action::SendBatch) >= poison as u64);
}
