//! What can go wrong between the SDK and a frontend.
//!
//! Every error answers the two questions that decide whether to send again: [`RequestError::retryable`] and
//! [`RequestError::side_effects`].

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use carnax_core::error_code::{ErrorCode, SideEffects};
use carnax_core::problem::ProblemDocument;

/// A cause that many waiters share.
pub type SharedError = Arc<dyn Error + Send + Sync>;

/// A request that failed for good: it may not be repeated, or its time is up.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RequestError {
    /// The frontend answered with a problem.
    #[error("{}: {}", document.code, document.detail)]
    Refused {
        /// What it said.
        document: Box<ProblemDocument>,
        /// How long it asked to wait before the next try.
        retry_after: Option<Duration>,
        /// Which endpoint answered.
        endpoint: String,
    },
    /// No connection came about. Nothing was sent.
    #[error("cannot connect to {endpoint}")]
    Connect {
        /// Where.
        endpoint: String,
        /// Why.
        source: SharedError,
    },
    /// The server's certificate is not one that the client trusts for that endpoint. Nothing was sent.
    #[error("the certificate of {endpoint} is not trusted")]
    Untrusted {
        /// Where.
        endpoint: String,
        /// Why.
        source: SharedError,
    },
    /// The connection broke after the request may have been sent, and before the whole answer was there.
    #[error("connection to {endpoint} broke before the answer")]
    Lost {
        /// Where.
        endpoint: String,
        /// Why.
        source: SharedError,
    },
    /// No answer came in time; the request may still be done.
    #[error("no answer from {endpoint} within {timeout:?}")]
    TimedOut {
        /// Where.
        endpoint: String,
        /// How long it was waited for.
        timeout: Duration,
    },
    /// The answer is not one of a Carnax frontend: a proxy, another server, or another version.
    #[error("{endpoint} gave an answer (status {status}) that is not understood: {reason}")]
    Answer {
        /// Where.
        endpoint: String,
        /// The HTTP status.
        status: u16,
        /// What is wrong with it.
        reason: String,
    },
    /// Several attempts were made, and the last one failed too.
    #[error("gave up after {attempts} attempts")]
    GaveUp {
        /// How many.
        attempts: u32,
        /// Whether any of them may have been done.
        side_effects: SideEffects,
        /// How the last one failed.
        #[source]
        last: Box<RequestError>,
    },
    /// The request cannot be written: a name or a value that no server would take.
    #[error("request is not valid: {reason}")]
    Invalid {
        /// Why.
        reason: String,
    },
}

impl RequestError {
    /// Whether the same request may succeed later.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Refused { document, .. } => document.retryable,
            Self::Connect { .. } | Self::Lost { .. } | Self::TimedOut { .. } => true,
            // What proxies say for a server that is away.
            Self::Answer { status, .. } => matches!(status, 502..=504),
            Self::GaveUp { last, .. } => last.retryable(),
            Self::Invalid { .. } | Self::Untrusted { .. } => false,
        }
    }

    /// Whether the request may have been done all the same.
    pub fn side_effects(&self) -> SideEffects {
        match self {
            Self::Refused { document, .. } => document.side_effects,
            Self::Connect { .. } | Self::Untrusted { .. } | Self::Invalid { .. } => SideEffects::None,
            Self::Lost { .. } | Self::TimedOut { .. } | Self::Answer { .. } => SideEffects::Possible,
            Self::GaveUp { side_effects, .. } => *side_effects,
        }
    }

    /// What the frontend said, if one said anything.
    pub fn problem(&self) -> Option<&ProblemDocument> {
        match self {
            Self::Refused { document, .. } => Some(document),
            Self::GaveUp { last, .. } => last.problem(),
            Self::Connect { .. }
            | Self::Untrusted { .. }
            | Self::Lost { .. }
            | Self::TimedOut { .. }
            | Self::Answer { .. }
            | Self::Invalid { .. } => None,
        }
    }

    /// Whether the frontend answered with this code.
    pub fn is(&self, code: ErrorCode) -> bool {
        self.problem().is_some_and(|document| document.code == code.as_str())
    }

    /// What the frontend said is the case, where the request presumed something else: the next offset, the fencing token, the
    /// committed offset, the epoch.
    pub fn actual(&self) -> Option<&str> {
        self.problem()?.facts.actual.as_deref()
    }

    /// What the request presumed, where that was not the case.
    pub fn expected(&self) -> Option<&str> {
        self.problem()?.facts.expected.as_deref()
    }

    /// Whether another endpoint may do better.
    pub(crate) fn blames_endpoint(&self) -> bool {
        match self {
            Self::Refused { document, .. } => document.status == 503,
            Self::Connect { .. } | Self::Untrusted { .. } | Self::Lost { .. } | Self::TimedOut { .. } => true,
            Self::Answer { status, .. } => matches!(status, 502..=504),
            Self::GaveUp { .. } | Self::Invalid { .. } => false,
        }
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The same failure, where more is known (or feared) of what came of it.
    pub(crate) fn with_side_effects(self, side_effects: SideEffects) -> Self {
        if self.side_effects() == side_effects {
            return self;
        }
        match self {
            Self::GaveUp { attempts, last, .. } => Self::GaveUp { attempts, side_effects, last },
            once => Self::GaveUp { attempts: 1, side_effects, last: Box::new(once) },
        }
    }

    pub(crate) fn invalid(reason: impl std::fmt::Display) -> Self {
        Self::Invalid { reason: reason.to_string() }
    }
}

/// A client that cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// No endpoint was given.
    #[error("a client needs at least one endpoint")]
    NoEndpoint,
    /// What was given as an access token is none.
    #[error(transparent)]
    Token(#[from] carnax_core::access::InvalidToken),
    /// An endpoint that is not understood.
    #[error("an endpoint is http://HOST:PORT or https://HOST:PORT, not {endpoint:?}: {reason}")]
    Endpoint {
        /// What was given.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The certificates of authorities cannot be used.
    #[error("certificates of authorities cannot be used: {reason}")]
    Certificates {
        /// What is wrong with them.
        reason: String,
    },
}
