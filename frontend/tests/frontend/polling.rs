//! Goal: a poller deletes a message only when its record is committed, keeps it from others meanwhile, and leaves a silent
//! queue alone. Method: a queue in memory behind one that counts calls and loses deletes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use carnax_frontend::ingest::PollTimes;
use carnax_object_store::{FaultStore, MemoryStore};
use carnax_platform::clock::SystemClock;
use carnax_queue::{
    Call, Failure, MemoryQueue, MessageQueue, OutgoingMessage, QueueError, QueueFuture, Queues, Receipt,
    Receive, ReceivedMessage, Sent,
};
use futures::FutureExt;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::fake_metadata::FakeMetadata;
use super::ingest::{FIFO, Taker, with_topics};
use super::support::{Frontend, start_with_queues, until};

const GROUPS: [&str; 3] = ["AA", "UA", "DL"];
const TIMES: PollTimes = PollTimes {
    wait: Duration::from_secs(1),
    visibility: Duration::from_secs(1),
    extensions_max: 10,
    back_after: Duration::ZERO,
};

#[derive(Debug)]
struct Watched {
    queue: MemoryQueue,
    /// Deletes that are still to be lost.
    lose: AtomicUsize,
    receives: AtomicUsize,
    deletes: AtomicUsize,
    extends: AtomicUsize,
}

impl MessageQueue for Watched {
    fn name(&self) -> &str {
        self.queue.name()
    }

    fn send<'a>(&'a self, messages: &'a [OutgoingMessage]) -> QueueFuture<'a, Vec<Result<Sent, QueueError>>> {
        self.queue.send(messages)
    }

    fn receive(&self, request: Receive) -> QueueFuture<'_, Vec<ReceivedMessage>> {
        self.receives.fetch_add(1, Ordering::SeqCst);
        self.queue.receive(request)
    }

    fn delete<'a>(&'a self, receipts: &'a [Receipt]) -> QueueFuture<'a, Vec<Result<(), QueueError>>> {
        self.deletes.fetch_add(1, Ordering::SeqCst);
        let less = |left: usize| left.checked_sub(1);
        if self.lose.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok() {
            let failure = Failure::OutcomeUnknown { said: "lost".to_owned() };
            let lost = QueueError { queue: self.name().to_owned(), call: Call::Delete, failure };
            return std::future::ready(Err(lost)).boxed();
        }
        self.queue.delete(receipts)
    }

    fn extend<'a>(
        &'a self,
        extensions: &'a [(Receipt, Duration)],
    ) -> QueueFuture<'a, Vec<Result<(), QueueError>>> {
        self.extends.fetch_add(1, Ordering::SeqCst);
        self.queue.extend(extensions)
    }
}

fn watched(lose: usize) -> Arc<Watched> {
    let queue = MemoryQueue::new("flights.fifo", Arc::new(SystemClock::new())).unwrap();
    let [receives, deletes, extends] = [(); 3].map(|()| AtomicUsize::new(0));
    Arc::new(Watched { queue, lose: AtomicUsize::new(lose), receives, deletes, extends })
}

async fn send(queue: &Watched, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let message = OutgoingMessage {
            id: "m".to_owned(),
            body: number.to_string(),
            group: Some(GROUPS[number % 3].to_owned()),
            deduplication: Some(number.to_string()),
            attributes: BTreeMap::new(),
        };
        carnax_queue::send_one(queue, &message).await.unwrap();
    }
}

fn poll(taker: &Taker, queue: &Arc<Watched>) -> (JoinHandle<()>, CancellationToken) {
    let (ingest, queue, stop) = (taker.ingest.clone(), Arc::clone(queue), CancellationToken::new());
    let until = stop.clone();
    (tokio::spawn(async move { ingest.poll(FIFO, &*queue, TIMES, &until).await }), stop)
}

fn is_empty(queue: &Watched) -> bool {
    let depth = queue.queue.depth();
    depth.visible + depth.in_flight == 0
}

async fn values(frontend: &Frontend) -> BTreeMap<String, Vec<usize>> {
    let mut values: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for partition in 0..2 {
        let path = format!("/v1/topics/t/partitions/{partition}/records?offset=0&max_records=10000");
        for record in frontend.get(&path).await.json()["records"].as_array().unwrap() {
            let text = |field: &str| record[field].as_str().unwrap().to_owned();
            values.entry(text("key")).or_default().push(text("value").parse().unwrap());
        }
    }
    values
}

fn expected(count: usize) -> BTreeMap<String, Vec<usize>> {
    let of = |group: usize| (GROUPS[group].to_owned(), (group..count).step_by(3).collect());
    (0..3).map(of).collect()
}

#[tokio::test]
async fn messages_are_applied_once_in_the_order_of_their_groups_though_deletes_are_lost_and_pollers_die() {
    let (frontend, taker) = with_topics(2).await;
    let queue = watched(3);
    send(&queue, 0..45).await;
    let (first, _stop) = poll(&taker, &queue);
    until("a delete is lost", async || queue.lose.load(Ordering::SeqCst) < 3).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    assert!(!is_empty(&queue), "what was committed and not deleted comes again");
    send(&queue, 45..60).await;
    let (second, stop) = poll(&taker, &queue);
    until("the queue is empty", async || is_empty(&queue)).await;
    stop.cancel();
    second.await.unwrap();
    assert_eq!(queue.lose.load(Ordering::SeqCst), 0);
    assert_eq!(values(&frontend).await, expected(60));
}

#[tokio::test]
async fn messages_stay_in_the_queue_and_are_kept_from_others_while_the_core_takes_nothing() {
    let (frontend, taker) = with_topics(2).await;
    let queue = watched(0);
    frontend.metadata.lose_quorum(true);
    send(&queue, 0..9).await;
    let (task, stop) = poll(&taker, &queue);
    until("the messages are extended", async || queue.extends.load(Ordering::SeqCst) > 0).await;
    until("they were given back and come again", async || queue.receives.load(Ordering::SeqCst) > 2).await;
    assert_eq!(queue.deletes.load(Ordering::SeqCst), 0);
    frontend.metadata.lose_quorum(false);
    until("the queue is empty", async || is_empty(&queue)).await;
    stop.cancel();
    task.await.unwrap();
    assert_eq!(values(&frontend).await, expected(9));
}

#[tokio::test]
async fn a_silent_queue_sees_receives_and_nothing_else_and_a_poller_ends_while_it_waits() {
    let (_frontend, taker) = with_topics(1).await;
    let queue = watched(0);
    let (task, stop) = poll(&taker, &queue);
    until("it is asked again", async || queue.receives.load(Ordering::SeqCst) > 2).await;
    stop.cancel();
    task.await.unwrap();
    let others = queue.deletes.load(Ordering::SeqCst) + queue.extends.load(Ordering::SeqCst);
    assert_eq!(others, 0);
}

/// One queue under the URL that belongs to its ARN.
#[derive(Debug)]
struct OneQueue {
    queue: Arc<Watched>,
    /// Openings that are still to fail.
    fail: AtomicUsize,
}

impl Queues for OneQueue {
    fn open<'a>(&'a self, url: &'a str) -> QueueFuture<'a, Arc<dyn MessageQueue>> {
        assert_eq!(url, "https://sqs.eu-west-1.amazonaws.com/1/flights.fifo");
        let less = |left: usize| left.checked_sub(1);
        if self.fail.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok() {
            let failure = Failure::Unavailable { said: "no credentials yet".to_owned() };
            let error = QueueError { queue: url.to_owned(), call: Call::Open, failure };
            return std::future::ready(Err(error)).boxed();
        }
        let queue = Arc::clone(&self.queue) as Arc<dyn MessageQueue>;
        std::future::ready(Ok(queue)).boxed()
    }
}

#[tokio::test]
async fn a_process_with_rules_polls_its_queues_as_soon_as_they_are_reached_until_it_stops() {
    let queue = watched(0);
    send(&queue, 0..30).await;
    let store = Arc::new(FaultStore::new(MemoryStore::new()));
    let queues = OneQueue { queue: Arc::clone(&queue), fail: AtomicUsize::new(2) };
    let frontend = start_with_queues(FakeMetadata::start().await, store, queues, |settings| {
        let rules = r#"[{"queue": "arn:aws:sqs:eu-west-1:1:flights.fifo", "topic": "t"}]"#;
        settings.ingest = Some(rules.parse().unwrap());
    })
    .await;
    frontend.create("t", 2).await;
    until("the queue is empty", async || is_empty(&queue)).await;
    assert_eq!(values(&frontend).await, expected(30));
    frontend.stop().await;
    let receives = queue.receives.load(Ordering::SeqCst);
    send(&queue, 30..31).await;
    assert!(!is_empty(&queue));
    assert_eq!(queue.receives.load(Ordering::SeqCst), receives, "nobody polls any more");
}
