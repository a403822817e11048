//! What can go wrong with a queue.

use std::fmt;

/// What was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// A queue was made from its URL.
    Open,
    /// [`MessageQueue::send`](crate::MessageQueue::send)
    Send,
    /// [`MessageQueue::receive`](crate::MessageQueue::receive)
    Receive,
    /// [`MessageQueue::delete`](crate::MessageQueue::delete)
    Delete,
    /// [`MessageQueue::extend`](crate::MessageQueue::extend)
    Extend,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Send => "send",
            Self::Receive => "receive",
            Self::Delete => "delete",
            Self::Extend => "extend",
        })
    }
}

/// A failure of one call, or of one entry of its batch, on one queue.
///
/// It has no code of the public API: no request of a client waits for a queue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{failure}: {call} on {queue}")]
pub struct QueueError {
    /// The queue's name or URL.
    pub queue: String,
    /// What was called.
    pub call: Call,
    /// What happened.
    pub failure: Failure,
}

/// Why a call, or one entry of its batch, failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// A limit or a rule of queues is broken: a bug, or input that got too far. Nothing was done.
    #[error("invalid queue request, {reason}")]
    Invalid {
        /// Which, and by what.
        reason: String,
    },
    /// The receipt is too old: others may have the message by now. Nothing was done.
    #[error("message is not in flight by this receipt any more")]
    NotInFlight,
    /// The queue asked for fewer requests. Nothing was done.
    #[error("queue throttles; slow down, {said}")]
    Throttled {
        /// The queue's words.
        said: String,
    },
    /// The queue could not be reached. Nothing was done.
    #[error("queue unavailable; try again, {said}")]
    Unavailable {
        /// Why.
        said: String,
    },
    /// No answer says whether it was done; it may have been, or may still be.
    #[error("outcome of a queue request is unknown, {said}")]
    OutcomeUnknown {
        /// Why.
        said: String,
    },
    /// Credentials are missing, expired or do not allow this. Nothing was done.
    #[error("queue denies access; check credentials and permissions, {said}")]
    Denied {
        /// The queue's words.
        said: String,
    },
    /// There is no such queue, or it is not what it should be. Nothing was done.
    #[error("queue is not set up right, {said}")]
    Misconfigured {
        /// What was found.
        said: String,
    },
}

impl Failure {
    pub(crate) fn invalid(reason: impl Into<String>) -> Self {
        Self::Invalid { reason: reason.into() }
    }

    pub(crate) fn outcome_unknown(said: impl Into<String>) -> Self {
        Self::OutcomeUnknown { said: said.into() }
    }

    pub(crate) fn on(self, queue: &str, call: Call) -> QueueError {
        QueueError { queue: queue.to_owned(), call, failure: self }
    }
}

impl QueueError {
    /// Whether the same call may succeed a little later without anybody changing anything. Otherwise the failure is definite.
    ///
    /// A send whose outcome is unknown may be repeated with the same deduplication id on a FIFO queue; on a standard queue a
    /// repeat may arrive twice.
    pub const fn is_retryable(&self) -> bool {
        matches!(
            self.failure,
            Failure::Throttled { .. } | Failure::Unavailable { .. } | Failure::OutcomeUnknown { .. }
        )
    }

    /// Whether it may have been done in spite of the failure.
    pub const fn may_have_happened(&self) -> bool {
        matches!(self.failure, Failure::OutcomeUnknown { .. })
    }
}
