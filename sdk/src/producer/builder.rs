//! Settings of a producer.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use carnax_core::limits;
use carnax_core::record::Compression;
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::task::TaskTracker;

use super::queue::Queues;
use super::{Handle, Producer, Settings, Shared, sender};
use crate::admin::parse_producer;
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
    idempotent: bool,
    producer_id: Option<String>,
    /// None: as many as in flight at all where the sequence keeps their order, else one.
    max_in_flight_per_partition: Option<usize>,
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
        Self {
            client,
            topic,
            settings,
            idempotent: true,
            producer_id: None,
            max_in_flight_per_partition: None,
        }
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

    /// Whether the cluster is to store each record once, whatever is sent again (default: yes). See
    /// [`Producer`](Producer#duplicates).
    #[must_use]
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = idempotent;
        self
    }

    /// A name that the producer keeps over restarts: up to 512 visible ASCII characters (default: a random one). Of two
    /// producers with one id, the one that was built last is the only one whose records are stored.
    ///
    /// Two topics need two ids: to the cluster, all that carries an id is one producer.
    #[must_use]
    pub fn producer_id(mut self, id: impl Into<String>) -> Self {
        self.producer_id = Some(id.into());
        self
    }

    /// Requests in flight over all partitions (default 5, at least 1, with idempotence at most 8: for so many the cluster
    /// keeps its answers).
    #[must_use]
    pub fn max_in_flight(mut self, requests: usize) -> Self {
        self.settings.max_in_flight = requests.max(1);
        self
    }

    /// Requests in flight with records of the same partition, at least 1. The default is no bound of its own with
    /// idempotence, and 1 without: there, with more than one, a retry can store records of one key in another order than
    /// they were sent.
    #[must_use]
    pub fn max_in_flight_per_partition(mut self, requests: usize) -> Self {
        self.max_in_flight_per_partition = Some(requests.max(1));
        self
    }

    /// How long `send` waits for memory (default 60 s).
    #[must_use]
    pub fn send_timeout(mut self, timeout: Duration) -> Self {
        self.settings.send_timeout = timeout;
        self
    }

    /// How long a record may take from `send` to its answer, over all retries (default 120 s). If it is not known by then
    /// whether it is stored, finding out may take one more request time-out.
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

    /// Whether to send a request again whose outcome is unknown (default: yes). With idempotence this changes nothing: a
    /// repeat is always safe then.
    ///
    /// With it, every record is stored *at least* once unless its delivery fails, and may be stored twice; without it, at
    /// *most* once, and its delivery fails with [`SideEffects::Possible`](crate::SideEffects) when nobody knows.
    #[must_use]
    pub fn retry_unknown_outcomes(mut self, retry: bool) -> Self {
        self.settings.retry_unknown_outcomes = retry;
        self
    }

    /// Asks for the topic, and starts the producer. With an id, raises its epoch: when this returns, nothing of an earlier
    /// producer of that id can be stored any more.
    ///
    /// # Errors
    /// `topic_not_found`; `Invalid` for an id that is none, or one without idempotence; any other [`RequestError`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn build(self) -> Result<Producer, RequestError> {
        let topic = parse_topic(&self.topic)?;
        let route = Box::pin(self.client.ask_route(&topic)).await?;
        let mut settings = self.settings;
        let all = if self.idempotent { settings.max_in_flight } else { 1 };
        settings.max_in_flight_per_partition = self.max_in_flight_per_partition.unwrap_or(all);
        let (producer, epoch) = match (self.idempotent, self.producer_id) {
            (true, Some(id)) => {
                let raised = Box::pin(self.client.admin().raise_producer_epoch(&id, None)).await?;
                (Some(parse_producer(&id)?), raised.epoch)
            }
            (true, None) => (Some(parse_producer(&self.client.unique_id())?), 0),
            (false, Some(_)) => {
                return Err(RequestError::invalid("a producer id is for idempotent producers"));
            }
            (false, None) => (None, 0),
        };
        let shared = Arc::new(Shared {
            client: self.client,
            topic,
            producer,
            memory: Semaphore::new(settings.memory_bytes as usize),
            queues: Mutex::new(Queues::new(settings.clone(), route)),
            settings,
            wake: Notify::new(),
            oldest: watch::Sender::new(None),
        });
        let sender = TaskTracker::new();
        sender.spawn(sender::run(Arc::clone(&shared), epoch));
        sender.close();
        Ok(Producer { handle: Arc::new(Handle { shared, sender }) })
    }
}
