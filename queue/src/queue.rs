//! The contract between Carnax and whatever carries its messages.

use std::fmt;
use std::time::Duration;

use futures::future::BoxFuture;

use crate::error::{Call, Failure, QueueError};
use crate::message::{OutgoingMessage, Receipt, Receive, ReceivedMessage, Sent};

/// What every verb returns.
pub type QueueFuture<'a, T> = BoxFuture<'a, Result<T, QueueError>>;

/// A queue of messages: each is delivered at least once, and again until somebody deletes it.
///
/// A queue whose name ends in `.fifo` is a FIFO queue, any other a standard one.
///
/// # For those who implement it
///
/// - **Limits** are checked before anything is done: a batch that breaks one fails as a whole with
///   [`Failure::Invalid`](crate::Failure::Invalid). A batch has 1 to 10 entries and at most 256 KiB.
/// - **Batches** are answered entry by entry, in the order in which they were given. The call itself fails only if nothing is
///   known of any entry.
/// - **Visibility.** A message that was received is *in flight*: nobody else gets it until its visibility time is over. Then
///   it is delivered again, with a new receipt and a higher count.
/// - **FIFO.** Messages of a group are delivered in the order of their sequences. While one of them is in flight, no other
///   receive gets any of that group; the groups do not wait for each other.
/// - **Deduplication.** A FIFO queue accepts a repeat within five minutes and delivers it never. Its answer may name the
///   message that was repeated, or one that nobody will see.
/// - **Unknown outcomes.** A call that may have been done although no answer says so fails with
///   [`Failure::OutcomeUnknown`](crate::Failure::OutcomeUnknown). After a receive, messages may be in flight that nobody
///   holds; they come again. Every other failure promises that nothing was done.
/// - **Cancellation.** Dropping the future of a call leaves its outcome unknown, in the same sense.
/// - **Nothing between calls**, and no repeats inside: one call is one request at most.
pub trait MessageQueue: fmt::Debug + Send + Sync {
    /// The queue's name or URL, for messages to people.
    fn name(&self) -> &str;

    /// Sends up to ten messages. What is answered `Ok` is kept in several zones.
    fn send<'a>(&'a self, messages: &'a [OutgoingMessage]) -> QueueFuture<'a, Vec<Result<Sent, QueueError>>>;

    /// Waits for messages and takes some of them, in flight from then on. Empty if none came in time.
    ///
    /// A standard queue may deliver in any order.
    fn receive(&self, request: Receive) -> QueueFuture<'_, Vec<ReceivedMessage>>;

    /// Deletes up to ten messages that were received. To delete one again is a success.
    ///
    /// # Errors
    /// An entry fails with [`Failure::NotInFlight`](crate::Failure::NotInFlight) if it is of a FIFO queue and its
    /// visibility time was over: the message will be, or was, delivered again.
    fn delete<'a>(&'a self, receipts: &'a [Receipt]) -> QueueFuture<'a, Vec<Result<(), QueueError>>>;

    /// Lets the visibility time of up to ten messages end so long after now: at most 12 h; zero gives a message back at once.
    ///
    /// # Errors
    /// An entry fails with [`Failure::NotInFlight`](crate::Failure::NotInFlight) if its message was deleted or its
    /// visibility time was over.
    fn extend<'a>(
        &'a self,
        extensions: &'a [(Receipt, Duration)],
    ) -> QueueFuture<'a, Vec<Result<(), QueueError>>>;
}

/// Sends a message alone.
///
/// # Errors
/// Those of [`MessageQueue::send`], of the batch or of its entry.
pub async fn send_one(queue: &dyn MessageQueue, message: &OutgoingMessage) -> Result<Sent, QueueError> {
    let mut sent = queue.send(std::slice::from_ref(message)).await?.into_iter();
    sent.next().unwrap_or_else(|| {
        Err(Failure::outcome_unknown("the queue said nothing of the message").on(queue.name(), Call::Send))
    })
}
