//! Settings of a producer.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use carnax_core::limits;
use carnax_core::record::Compression;
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::task::TaskTracker;

use super::queue::Queues;
use super::{Handle, Producer, Settings, Shared, sender};
use crate::client::Client;
use crate::error::RequestError;
use crate::raw::parse_topic;

/// Room for the lengths of frames beside the batches of a request.
const REQUEST_BYTES_MAX: usize = limits::REQUEST_BODY_BYTES_MAX / 2;

/// Settings of a [`Producer`].
///
/// ```no_run
/// # async fn example(client: carnax::Client) -> Result<(), carnax::RequestError> {
/// use std::time::Duration;
/// use carnax::Compression;
///
/// let producer = client
///     .producer("flights")
///     .linger(Duration::from_millis(20))
///     .compression(Compression::Zstd)
///     .memory_bytes(64 * 1024 * 1024)
///     .build()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct ProducerBuilder {
    client: Client,
    topic: String,
    settings: Settings,
}

impl ProducerBuilder {
    pub(crate) fn new(client: Client, topic: String) -> Self {
        let settings = Settings {
            linger: Duration::from_millis(5),
            batch_bytes: limits::BATCH_BYTES_DEFAULT,
            request_bytes: REQUEST_BYTES_MAX,
            memory_bytes: 32 * 1024 * 1024,
            compression: Compression::None,
            max_in_flight: 5,
            max_in_flight_per_partition: 1,
            send_timeout: Duration::from_secs(60),
            delivery_timeout: Duration::from_secs(120),
            request_timeout: Duration::from_secs(30),
            retry_unknown_outcomes: true,
        };
        Self { client, topic, settings }
    }

    /// How long a record may wait for others to share its batch (default 5 ms; zero: not at all).
    #[must_use]
    pub fn linger(mut self, linger: Duration) -> Self {
        self.settings.linger = linger;
        self
    }

    /// Bytes of a batch before compression (default about 1 MiB; at most the topic's `max.message.bytes`). A batch that is
    /// full does not linger.
    #[must_use]
    pub fn batch_bytes(mut self, bytes: usize) -> Self {
        self.settings.batch_bytes = bytes;
        self
    }

    /// Bytes of all batches in one request, before compression (default and maximum 8 MiB).
    #[must_use]
    pub fn request_bytes(mut self, bytes: usize) -> Self {
        self.settings.request_bytes = bytes.min(REQUEST_BYTES_MAX);
        self
    }

    /// Bytes of records that were taken and are not answered, each with an allowance of about 300 bytes for its upkeep
    /// (default 32 MiB). Beyond that, `send` waits. The encoded bodies of requests in flight come on top.
    #[must_use]
    pub fn memory_bytes(mut self, bytes: u32) -> Self {
        self.settings.memory_bytes = bytes;
        self
    }

    /// How batches are compressed (default: not at all).
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.settings.compression = compression;
        self
    }

    /// Requests in flight over all partitions (default 5, at least 1).
    #[must_use]
    pub fn max_in_flight(mut self, requests: usize) -> Self {
        self.settings.max_in_flight = requests.max(1);
        self
    }

    /// Requests in flight with records of the same partition (default 1, at least 1). With more than one, a retry can store
    /// records of one key in another order than they were sent.
    #[must_use]
    pub fn max_in_flight_per_partition(mut self, requests: usize) -> Self {
        self.settings.max_in_flight_per_partition = requests.max(1);
        self
    }

    /// How long `send` waits for memory (default 60 s).
    #[must_use]
    pub fn send_timeout(mut self, timeout: Duration) -> Self {
        self.settings.send_timeout = timeout;
        self
    }

    /// How long a record may take from `send` to its answer, over all retries (default 120 s).
    #[must_use]
    pub fn delivery_timeout(mut self, timeout: Duration) -> Self {
        self.settings.delivery_timeout = timeout;
        self
    }

    /// How long one request may take before it is tried again (default 30 s).
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.settings.request_timeout = timeout;
        self
    }

    /// Whether to send a request again whose outcome is unknown (default: yes).
    ///
    /// With it, every record is stored *at least* once unless its delivery fails, and may be stored twice; without it, at
    /// *most* once, and its delivery fails with [`SideEffects::Possible`](crate::SideEffects) when nobody knows.
    #[must_use]
    pub fn retry_unknown_outcomes(mut self, retry: bool) -> Self {
        self.settings.retry_unknown_outcomes = retry;
        self
    }

    /// Asks for the topic, and starts the producer.
    ///
    /// # Errors
    /// `topic_not_found`; any other [`RequestError`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn build(self) -> Result<Producer, RequestError> {
        let topic = parse_topic(&self.topic)?;
        let route = Box::pin(self.client.ask_route(&topic)).await?;
        let settings = self.settings;
        let shared = Arc::new(Shared {
            client: self.client,
            topic,
            memory: Semaphore::new(settings.memory_bytes as usize),
            queues: Mutex::new(Queues::new(settings.clone(), route)),
            settings,
            wake: Notify::new(),
            oldest: watch::Sender::new(None),
        });
        let sender = TaskTracker::new();
        sender.spawn(sender::run(Arc::clone(&shared)));
        sender.close();
        Ok(Producer { handle: Arc::new(Handle { shared, sender }) })
    }
}
