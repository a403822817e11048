//! Three queues on one clock: reached directly, or through a server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use carnax_core::time::Timestamp;
use carnax_platform::clock::Clock;
use carnax_queue::{
    MemoryQueue, MessageQueue, OutgoingMessage, Receive, ReceivedMessage, SqsQueue, SqsSettings,
};
use carnax_sqs_test_server::{ACCESS_KEY, SECRET_KEY, SqsTestServer};

/// When every story begins.
const BEGIN: Timestamp = Timestamp::from_millis(1_700_000_000_123);
pub(crate) const DELIVERIES_MAX: u32 = 2;

#[derive(Debug, Default)]
pub(crate) struct StoryClock {
    millis: AtomicU64,
}

impl StoryClock {
    pub(crate) fn advance(&self, by: Duration) {
        let millis = u64::try_from(by.as_millis()).expect("a short time");
        self.millis.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Clock for StoryClock {
    fn wall(&self) -> Timestamp {
        BEGIN.saturating_add(self.monotonic())
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.millis.load(Ordering::SeqCst))
    }
}

pub(crate) struct World {
    pub(crate) clock: Arc<StoryClock>,
    pub(crate) standard: Arc<dyn MessageQueue>,
    /// Gives up a message after [`DELIVERIES_MAX`].
    pub(crate) fifo: Arc<dyn MessageQueue>,
    pub(crate) dead_letters: Arc<dyn MessageQueue>,
    _server: Option<SqsTestServer>,
}

impl World {
    fn memory_queues(clock: &Arc<StoryClock>) -> [Arc<MemoryQueue>; 3] {
        let queue =
            |name| MemoryQueue::new(name, Arc::clone(clock) as Arc<dyn Clock>).expect("a queue's name");
        let dead_letters = Arc::new(queue("dead.fifo"));
        let fifo = queue("events.fifo").with_dead_letters(Arc::clone(&dead_letters), DELIVERIES_MAX);
        [Arc::new(queue("jobs")), Arc::new(fifo.expect("queues of one kind")), dead_letters]
    }

    fn in_memory() -> Self {
        let clock = Arc::new(StoryClock::default());
        let [standard, fifo, dead_letters] = Self::memory_queues(&clock);
        Self { clock, standard, fifo, dead_letters, _server: None }
    }

    async fn behind_a_server() -> Self {
        let clock = Arc::new(StoryClock::default());
        let server = SqsTestServer::start(Self::memory_queues(&clock)).await;
        let settings = SqsSettings::fixed(&server.endpoint(), ACCESS_KEY, SECRET_KEY);
        let open = async |name| {
            let queue = SqsQueue::open(&server.queue_url(name), &settings).await;
            Arc::new(queue.expect("a queue's URL"))
        };
        let (standard, fifo, dead_letters) =
            (open("jobs").await, open("events.fifo").await, open("dead.fifo").await);
        Self { clock, standard, fifo, dead_letters, _server: Some(server) }
    }
}

pub(crate) async fn on_both(story: impl AsyncFn(&World)) {
    story(&World::in_memory()).await;
    story(&World::behind_a_server().await).await;
}

/// Takes up to ten messages for so long, without waiting.
pub(crate) async fn take(queue: &dyn MessageQueue, visibility: Duration) -> Vec<ReceivedMessage> {
    let request = Receive { messages_max: 10, wait: Duration::ZERO, visibility };
    queue.receive(request).await.expect("a receive within the limits")
}

pub(crate) fn bodies(messages: &[ReceivedMessage]) -> Vec<&str> {
    messages.iter().map(|message| message.body.as_str()).collect()
}

/// For a FIFO queue; the body is the deduplication id as well.
pub(crate) fn in_group(group: &str, body: &str) -> OutgoingMessage {
    OutgoingMessage {
        id: body.to_owned(),
        body: body.to_owned(),
        group: Some(group.to_owned()),
        deduplication: Some(body.to_owned()),
        ..OutgoingMessage::default()
    }
}

pub(crate) fn plain(id: &str, body: &str) -> OutgoingMessage {
    OutgoingMessage { id: id.to_owned(), body: body.to_owned(), ..OutgoingMessage::default() }
}
