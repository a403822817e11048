//! What is sent, received and answered.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use carnax_core::time::Timestamp;

/// A message on its way into a queue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutgoingMessage {
    /// Names the message within its batch: 1 to 80 of `A-Z a-z 0-9 - _`, distinct.
    pub id: String,
    /// The text; not empty, and of characters that XML 1.0 allows.
    pub body: String,
    /// Messages of one group are delivered in order, one receiver at a time. A FIFO queue needs it.
    pub group: Option<String>,
    /// A FIFO queue accepts but does not deliver what repeats one of the last five minutes. It needs it, and only it takes it:
    /// the content never decides what is a repeat, since two equal bodies can be two events.
    pub deduplication: Option<String>,
    /// String attributes beside the body.
    pub attributes: BTreeMap<String, String>,
}

/// What a queue says of a message that it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The queue's own name of the message.
    pub message_id: String,
    /// Its place in the order of its group; FIFO queues only.
    pub sequence: Option<u128>,
}

/// What a receiver asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receive {
    /// Messages at most: 1 to 10.
    pub messages_max: usize,
    /// How long to wait for the first one, at most 20 s; a fraction of a second counts as a whole one.
    pub wait: Duration,
    /// For how long nobody else gets them, at most 12 h; a fraction of a second counts as a whole one.
    pub visibility: Duration,
}

/// Entitles its holder to delete one delivery of a message, or to keep it from others for longer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Receipt(String);

impl Receipt {
    /// From the text that a queue gave out.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One delivery of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedMessage {
    /// The queue's own name of the message, the same in each delivery.
    pub id: String,
    /// Belongs to this delivery.
    pub receipt: Receipt,
    /// The text.
    pub body: String,
    /// The string attributes; those of other types are left out.
    pub attributes: BTreeMap<String, String>,
    /// The group that it was sent to.
    pub group: Option<String>,
    /// Its place in the order of its group, which may be above 2⁶⁴; FIFO queues only.
    pub sequence: Option<u128>,
    /// When the queue took it, by the queue's clock.
    pub sent: Timestamp,
    /// How often it was delivered, this delivery included.
    pub receive_count: u32,
}
