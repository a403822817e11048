//! What is sent, and what comes back.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use carnax_core::id::PartitionIndex;
use carnax_core::offset::Offset;
use carnax_core::record::Header;
use carnax_core::time::Timestamp;
use tokio::sync::oneshot;

use super::ProduceError;

/// A record to be appended.
///
/// ```
/// use carnax::{PartitionIndex, Record};
///
/// let delayed = Record::new(r#"{"delay":12}"#).with_key("UA").with_header("source", "radar");
/// let forget = Record::tombstone("UA");
/// let pinned = Record::new("to partition 3").to_partition(PartitionIndex(3));
/// # let _ = (delayed, forget, pinned);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Vec<Header>,
    pub(crate) timestamp: Option<Timestamp>,
    pub(crate) partition: Option<PartitionIndex>,
}

impl Record {
    /// A record without a key: it goes to whichever partition is being filled.
    pub fn new(value: impl Into<Bytes>) -> Self {
        Self { value: Some(value.into()), ..Self::default() }
    }

    /// A record without a value: in a compacted topic it removes its key.
    pub fn tombstone(key: impl Into<Bytes>) -> Self {
        Self { key: Some(key.into()), ..Self::default() }
    }

    /// Sets the key, which decides the partition: records of one key are stored in one partition, in order.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Adds a header at the end; keys may repeat.
    #[must_use]
    pub fn with_header(mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        self.headers.push(Header { key: key.into(), value: Some(value.into()) });
        self
    }

    /// Sets the timestamp; without, it is the time of the call to `send`.
    #[must_use]
    pub fn with_timestamp(mut self, timestamp: Timestamp) -> Self {
        self.timestamp = Some(timestamp);
        self
    }

    /// Chooses the partition, whatever the key.
    #[must_use]
    pub fn to_partition(mut self, partition: PartitionIndex) -> Self {
        self.partition = Some(partition);
        self
    }
}

/// Where a record is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordMetadata {
    /// Its partition.
    pub partition: PartitionIndex,
    /// Its offset there, which it keeps for ever.
    pub offset: Offset,
    /// Log time of the append.
    pub append_time: Timestamp,
}

/// Tells where a record is stored, once it is: durably, and readable through every frontend. Dropping it changes nothing.
#[derive(Debug)]
#[must_use = "a delivery that is dropped tells nobody whether the record was stored"]
pub struct Delivery(pub(super) oneshot::Receiver<Result<RecordMetadata, ProduceError>>);

impl Future for Delivery {
    type Output = Result<RecordMetadata, ProduceError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // The sender answers every record that was taken; it is gone only with its runtime.
        Pin::new(&mut self.0).poll(cx).map(|answer| answer.unwrap_or(Err(ProduceError::Closed)))
    }
}
