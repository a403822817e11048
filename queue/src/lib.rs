//! The message queue: one narrow trait of four verbs and what implements it.
//!
//! | implementation | for | where the messages lie |
//! |---|---|---|
//! | [`SqsQueue`] | production | a queue of Amazon SQS, or of a server that speaks its protocol |
//! | [`MemoryQueue`] | tests, simulation | this process, on a clock that is handed in |
//!
//! The contract stands at [`MessageQueue`]; `queue/tests/contract/` checks it on both.
//!
//! Invariants: the crate knows nothing of topics, events or jobs. A queue delivers at least once: whoever receives must bear
//! a message twice. Nothing runs between calls, so that an idle queue costs nothing, and nothing is repeated inside a call:
//! the error says whether the caller should.

mod error;
mod limits;
mod memory;
mod message;
mod open;
mod queue;
mod sqs;

pub use error::{Call, Failure, QueueError};
pub use limits::{
    BATCH_BYTES_MAX, BATCH_ENTRIES_MAX, MESSAGE_ATTRIBUTES_MAX, RECEIVE_WAIT_MAX, VISIBILITY_MAX,
};
pub use memory::{Depth, MemoryQueue};
pub use message::{OutgoingMessage, Receipt, Receive, ReceivedMessage, Sent};
pub use open::{MemoryQueues, Queues, SqsQueues};
pub use queue::{MessageQueue, QueueFuture, send_one};
pub use sqs::{SqsQueue, SqsSettings};
