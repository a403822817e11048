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
//! | `request` | from records to what travels, and from the answer back to records |
//! | `sequence` | which request has which number, and what follows when one fails: pure |
//! | `epoch` | raising the epoch, which tells what became of the one before |
//! | `sender` | the task that sends, in order, and repairs |

mod builder;
mod encode;
mod epoch;
mod queue;
mod record;
mod request;
mod sender;
mod sequence;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use carnax_core::error_code::SideEffects;
use carnax_core::id::PartitionIndex;
use carnax_core::name::ProducerId;
use carnax_core::record::Compression;
use carnax_core::topic::TopicName;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::client::Client;
use crate::error::RequestError;
use queue::{Pending, Queues};

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
    /// The record was taken, and its time was up before it was stored. It is not stored.
    #[error("record waited {waited:?} without being stored")]
    Expired {
        /// The delivery time-out.
        waited: Duration,
    },
    /// The record is stored, once, and the server no longer knows at which offset. It must not be sent again.
    #[error("record is stored in partition {partition} at an offset that is no longer known")]
    OffsetUnknown {
        /// Where it is stored.
        partition: PartitionIndex,
    },
    /// The request with the record failed for good. With `fenced`, another producer of the same id has taken over, and this
    /// one is closed.
    #[error("append failed")]
    Request(#[source] Arc<RequestError>),
}

impl ProduceError {
    /// Whether the record may be stored all the same.
    pub fn side_effects(&self) -> SideEffects {
        match self {
            Self::Request(error) => error.side_effects(),
            Self::OffsetUnknown { .. } => SideEffects::Possible,
            _ => SideEffects::None,
        }
    }

    /// Whether the same record may be stored when it is sent again later.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Request(error) => error.retryable(),
            Self::MemoryFull { .. } | Self::Expired { .. } => true,
            Self::TooLarge { .. } | Self::Invalid { .. } | Self::Closed | Self::OffsetUnknown { .. } => false,
        }
    }
}

/// A producer of one topic. Cheap to clone; clones share queues, memory and order.
///
/// **Duplicates.** Each request carries the producer's id, an epoch and a sequence, and the cluster accepts each sequence
/// once. A request whose outcome is unknown (the connection broke, the answer was late, a server died) is sent again under
/// its sequence, through any frontend, and gets the first answer if it was done before. So a record is stored exactly once,
/// or its delivery fails and says so: it is not stored, unless its [`side_effects`](ProduceError::side_effects) are
/// possible, which is left only when the cluster could not be reached until long after the delivery time-out. This holds
/// for what one producer is given once: whether a record that was sent before a process died is stored, the next process has
/// to find out for itself.
///
/// **Order.** Records of one partition, and so of one key, are stored in the order in which their [`send`](Self::send)
/// returned, with several requests in flight, over retries, failures of other requests and changes of the topic's partition
/// count (for a key, within each count). What comes after a record that failed is still sent.
///
/// **Epochs.** A producer begins with a random id, and asks nobody. With a [`producer_id`](ProducerBuilder::producer_id), it
/// shuts out the producers that had that id before; and is shut out, with `fenced`, by those that come after. Where it has
/// to give up a request whose outcome is unknown, it sends nothing more until it has raised its epoch: that makes the
/// outcome known.
///
/// Without idempotence ([`idempotent`](ProducerBuilder::idempotent)), a request with an unknown outcome is sent again and
/// may be stored twice, unless [`retry_unknown_outcomes`](ProducerBuilder::retry_unknown_outcomes) is off; and order rests on
/// one request a partition being in flight.
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
    /// Who sends, if requests are numbered.
    producer: Option<ProducerId>,
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
    compression: Compression,
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
    /// `TooLarge`, `Invalid`, `Closed`, (after the send time-out) `MemoryFull`, or `Request` with `fenced` once another
    /// producer has taken over; then the record was not taken.
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

    /// Who the producer is to the cluster; none without idempotence.
    pub fn id(&self) -> Option<&ProducerId> {
        self.handle.shared.producer.as_ref()
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

    /// A request is answered; `returned` are records of it that wait again, before all others.
    fn settle(
        &self,
        oldest: u64,
        partitions: &[PartitionIndex],
        returned: BTreeMap<PartitionIndex, Vec<Pending>>,
    ) {
        self.lock().settle(oldest, partitions, returned);
        self.tell_progress();
    }

    fn fail(&self, record: Pending, error: ProduceError) {
        self.memory.add_permits(record.charge as usize);
        record.answer(Err(error));
    }

    fn fail_waiting(&self, error: &ProduceError) {
        let waiting = self.lock().take_all();
        waiting.into_iter().for_each(|(_, record)| self.fail(record, error.clone()));
        self.tell_progress();
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
