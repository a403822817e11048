//! Appends records: collects them into batches, sends the batches, and tells each record where it went.
//!
//! ```text
//! send ──▶ memory (waits) ──▶ queue of a partition ──▶ request ──▶ Delivery
//!            semaphore           linger, batch size      retries
//! ```
//!
//! | file | step |
//! |---|---|
//! | `record` | what is sent, and what comes back |
//! | `queue` | which records go into the next request: pure |
//! | `encode` | from records to batches |
//! | `sender` | the task that sends, and routes again |

mod builder;
mod encode;
mod queue;
mod record;
mod sender;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::client::Client;
use crate::error::RequestError;
use carnax_core::topic::TopicName;
use queue::Queues;

pub use builder::ProducerBuilder;
pub use record::{Delivery, Record, RecordMetadata};

/// A record that was not stored, or (see [`side_effects`](Self::side_effects)) may not have been.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProduceError {
    /// The record fits into no batch of the topic. It was not accepted.
    #[error("record is too large: a batch with it alone has {bytes} bytes, more than {bytes_max}")]
    TooLarge {
        /// Bytes of a batch with this record alone, before compression.
        bytes: usize,
        /// What the topic's `max.message.bytes` or the producer's memory allows.
        bytes_max: usize,
    },
    /// The topic has no such partition, or the record has too many headers. It was not accepted.
    #[error("record is not valid: {reason}")]
    Invalid {
        /// Why.
        reason: String,
    },
    /// The memory of the producer stayed full. The record was not accepted.
    #[error("memory of the producer stayed full for {waited:?}")]
    MemoryFull {
        /// How long it was waited for.
        waited: Duration,
    },
    /// The producer is closed. The record was not accepted.
    #[error("producer is closed")]
    Closed,
    /// The record was accepted, and its time was up before it could be sent. It is not stored.
    #[error("record waited {waited:?} without being sent")]
    Expired {
        /// The delivery time-out.
        waited: Duration,
    },
    /// The request with the record failed for good.
    #[error("append failed")]
    Request(#[source] Arc<RequestError>),
}

impl ProduceError {
    /// Whether the record may be stored all the same.
    pub fn side_effects(&self) -> carnax_core::error_code::SideEffects {
        match self {
            Self::Request(error) => error.side_effects(),
            _ => carnax_core::error_code::SideEffects::None,
        }
    }

    /// Whether the same record may be stored when it is sent again later.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Request(error) => error.retryable(),
            Self::MemoryFull { .. } | Self::Expired { .. } => true,
            Self::TooLarge { .. } | Self::Invalid { .. } | Self::Closed => false,
        }
    }
}

/// A producer of one topic. Cheap to clone; clones share queues, memory and order.
///
/// **Order.** Records of one partition, and so of one key, are stored in the order in which their
/// [`send`](Self::send) returned, as long as one request a partition is in flight (the default) and none fails for good:
/// what comes after a failed record is still sent.
///
/// **Duplicates.** A request whose outcome is unknown (the connection broke, the answer was late) is sent again, and then its
/// records may be stored twice, next to each other or not. To get the error instead, switch
/// [`retry_unknown_outcomes`](ProducerBuilder::retry_unknown_outcomes) off: then such a record is stored once or not at all.
///
/// **Dropping.** When the last clone is dropped, what was accepted is still sent, as long as the runtime lives;
/// [`close`](Self::close) waits for it.
#[derive(Debug, Clone)]
pub struct Producer {
    handle: Arc<Handle>,
}

/// What the clones of a producer share, beside what they share with the sender.
#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    sender: TaskTracker,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.refuse_more();
    }
}

/// What the producer and its sender share.
struct Shared {
    client: Client,
    topic: TopicName,
    settings: Settings,
    memory: Semaphore,
    queues: Mutex<Queues>,
    /// Something is there for the sender to look at.
    wake: Notify,
    /// The oldest record that is neither stored nor failed; none if all are.
    oldest: watch::Sender<Option<u64>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("topic", &self.topic).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone)]
struct Settings {
    linger: Duration,
    batch_bytes: usize,
    request_bytes: usize,
    memory_bytes: u32,
    compression: carnax_core::record::Compression,
    max_in_flight: usize,
    max_in_flight_per_partition: usize,
    send_timeout: Duration,
    delivery_timeout: Duration,
    request_timeout: Duration,
    retry_unknown_outcomes: bool,
}

impl Producer {
    /// Hands a record over. Returns when the producer has taken it, which waits while its memory is full; the
    /// [`Delivery`] then tells where it went, and may be dropped.
    ///
    /// Dropping the future of `send` before it returns means that the record was not taken.
    ///
    /// ```no_run
    /// # async fn example(producer: carnax::Producer) -> Result<(), carnax::ProduceError> {
    /// use carnax::Record;
    ///
    /// let first = producer.send(Record::new("a").with_key("k")).await?;
    /// let second = producer.send(Record::new("b").with_key("k")).await?;
    /// assert!(first.await?.offset < second.await?.offset);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `TooLarge`, `Invalid`, `Closed`, or (after the send time-out) `MemoryFull`; then the record was not taken.
    pub async fn send(&self, record: Record) -> Result<Delivery, ProduceError> {
        let shared = &self.handle.shared;
        let batch_bytes_max = shared.lock().route().batch_bytes_max;
        encode::check(&record, batch_bytes_max)?;
        let charge = shared.charge(&record)?;
        shared.take_memory(charge).await?;
        let now = Instant::now();
        let timestamp = record.timestamp.unwrap_or_else(|| shared.client.wall_time());
        let random = shared.client.random();
        let pushed = shared.lock().push(record, timestamp, charge, now, random);
        match pushed {
            Ok((delivery, look)) => {
                if look {
                    shared.wake.notify_one();
                }
                Ok(delivery)
            }
            Err(error) => {
                shared.memory.add_permits(charge as usize);
                Err(error)
            }
        }
    }

    /// Sends all that was taken before the call without waiting for more, and returns when each such record is stored or
    /// has failed. Which it was, each [`Delivery`] tells. Dropping the future changes nothing.
    pub async fn flush(&self) {
        let shared = &self.handle.shared;
        let mut oldest = shared.oldest.subscribe();
        let flushed = shared.lock().flush();
        let Some(last) = flushed else { return };
        shared.tell_progress();
        shared.wake.notify_one();
        // The sender goes on until everything is answered, and then says so.
        let _ = oldest.wait_for(|oldest| oldest.is_none_or(|oldest| oldest > last)).await;
    }

    /// Takes no more records (from any clone), and returns when all that were taken are stored or have failed.
    /// Dropping the future changes nothing.
    pub async fn close(&self) {
        self.handle.shared.refuse_more();
        self.handle.sender.wait().await;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what the oldest record is that is not answered; under the lock, so that no older answer overtakes it.
    fn tell_progress(&self) {
        let queues = self.lock();
        self.oldest.send_replace(queues.oldest());
    }

    fn refuse_more(&self) {
        self.lock().close();
        self.wake.notify_one();
    }

    /// The bytes of memory that a record takes.
    fn charge(&self, record: &Record) -> Result<u32, ProduceError> {
        let bytes = encode::memory_bytes(record);
        let bytes_max = self.settings.memory_bytes;
        let fits = u32::try_from(bytes).ok().filter(|bytes| *bytes <= bytes_max);
        fits.ok_or(ProduceError::TooLarge { bytes, bytes_max: bytes_max as usize })
    }

    async fn take_memory(&self, charge: u32) -> Result<(), ProduceError> {
        if let Ok(permit) = self.memory.try_acquire_many(charge) {
            permit.forget();
            return Ok(());
        }
        // Batches that wait for company must not keep the memory that this record waits for.
        let _waiting = Waiting::new(self);
        let waited = self.settings.send_timeout;
        match tokio::time::timeout(waited, self.memory.acquire_many(charge)).await {
            Ok(Ok(permit)) => {
                permit.forget();
                Ok(())
            }
            Ok(Err(_)) => Err(ProduceError::Closed),
            Err(_) => Err(ProduceError::MemoryFull { waited }),
        }
    }
}

/// Counts a caller that waits for memory, as long as it lives.
struct Waiting<'a>(&'a Shared);

impl<'a> Waiting<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.lock().waiting += 1;
        shared.wake.notify_one();
        Self(shared)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.lock().waiting -= 1;
    }
}
