//! Queues of this process, reached by URL, that can be told to fail.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use carnax_core::metadata::CommitEvent;
use carnax_platform::clock::SystemClock;
use carnax_queue::{
    Call, Failure, MemoryQueue, MessageQueue, OutgoingMessage, QueueError, QueueFuture, Queues, Receipt,
    Receive, ReceivedMessage, Sent,
};
use futures::FutureExt;

/// Shared by the nodes of a cluster.
#[derive(Debug, Default)]
pub(crate) struct TestQueues {
    by_url: Mutex<BTreeMap<String, Arc<TestQueue>>>,
}

/// A queue that can fail to take messages, and counts how often it was asked to.
#[derive(Debug)]
pub(crate) struct TestQueue {
    queue: MemoryQueue,
    pub(crate) broken: AtomicBool,
    pub(crate) sends: AtomicU64,
}

impl TestQueues {
    pub(crate) fn get(&self, url: &str) -> Arc<TestQueue> {
        let mut known = self.by_url.lock().unwrap();
        let queue = known.entry(url.to_owned()).or_insert_with(|| {
            let name = url.rsplit('/').next().unwrap();
            let queue = MemoryQueue::new(name, Arc::new(SystemClock::new())).unwrap();
            Arc::new(TestQueue { queue, broken: AtomicBool::new(false), sends: AtomicU64::new(0) })
        });
        Arc::clone(queue)
    }
}

impl Queues for TestQueues {
    fn open<'a>(&'a self, url: &'a str) -> QueueFuture<'a, Arc<dyn MessageQueue>> {
        let queue = self.get(url) as Arc<dyn MessageQueue>;
        async move { Ok(queue) }.boxed()
    }
}

impl TestQueue {
    /// Waits for the next event and takes it off.
    pub(crate) async fn next(&self) -> CommitEvent {
        serde_json::from_str(&self.next_body().await).unwrap()
    }

    /// Waits for the next message and takes it off.
    pub(crate) async fn next_body(&self) -> String {
        let wait = Duration::from_secs(20);
        let request = Receive { messages_max: 1, wait, visibility: Duration::from_secs(600) };
        let received = self.queue.receive(request).await.unwrap();
        let message = received.first().expect("an event comes in time");
        self.queue.delete(std::slice::from_ref(&message.receipt)).await.unwrap();
        message.body.clone()
    }

    /// Messages that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.depth().visible
    }
}

impl MessageQueue for TestQueue {
    fn name(&self) -> &str {
        self.queue.name()
    }

    fn send<'a>(&'a self, messages: &'a [OutgoingMessage]) -> QueueFuture<'a, Vec<Result<Sent, QueueError>>> {
        self.sends.fetch_add(1, Ordering::SeqCst);
        if self.broken.load(Ordering::SeqCst) {
            let failure = Failure::Unavailable { said: "told to fail".to_owned() };
            let error = QueueError { queue: self.name().to_owned(), call: Call::Send, failure };
            return async move { Err(error) }.boxed();
        }
        self.queue.send(messages)
    }

    fn receive(&self, request: Receive) -> QueueFuture<'_, Vec<ReceivedMessage>> {
        self.queue.receive(request)
    }

    fn delete<'a>(&'a self, receipts: &'a [Receipt]) -> QueueFuture<'a, Vec<Result<(), QueueError>>> {
        self.queue.delete(receipts)
    }

    fn extend<'a>(
        &'a self,
        extensions: &'a [(Receipt, Duration)],
    ) -> QueueFuture<'a, Vec<Result<(), QueueError>>> {
        self.queue.extend(extensions)
    }
}
