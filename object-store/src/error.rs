//! What can go wrong with an object store.

use std::error::Error;
use std::sync::Arc;

use carnax_core::error_code::ErrorCode;
use carnax_core::offset::ByteRange;

use crate::key::Version;
use crate::store::Verb;

/// A cause that several waiters can share (one read may serve many of them).
pub type SharedError = Arc<dyn Error + Send + Sync>;

/// A failure of one verb on one key.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ObjectStoreError {
    /// There is no object under the key.
    #[error("object not found: {key}")]
    NotFound {
        /// Which.
        key: String,
    },
    /// There is an object under the key already.
    #[error("object exists already: {key}")]
    AlreadyExists {
        /// Which.
        key: String,
    },
    /// The object is not at the version that a compare-and-swap expected. Nothing was written.
    #[error("object changed meanwhile; read it again: {key}")]
    VersionMismatch {
        /// Which.
        key: String,
        /// What was expected; none: no object.
        expected: Option<Version>,
    },
    /// The object ends before the range that was asked for.
    #[error("object is shorter than the range asked for: {key}, range {range}, size {size}")]
    ShortRead {
        /// Which.
        key: String,
        /// What was asked for.
        range: ByteRange,
        /// The object's size.
        size: u64,
    },
    /// The object is larger than the reader wants to take.
    #[error("object is larger than expected: {key}, size {size}, limit {limit}")]
    TooLarge {
        /// Which.
        key: String,
        /// Its size.
        size: u64,
        /// The bound.
        limit: u64,
    },
    /// The store asked for fewer requests, for longer than the call could wait. Nothing was done.
    #[error("object store throttles; slow down: {verb} {key}")]
    Throttled {
        /// What was called.
        verb: Verb,
        /// On which key, or listing prefix.
        key: String,
        /// What the store said.
        source: SharedError,
    },
    /// The store failed or could not be reached. Nothing was done.
    #[error("object store unavailable; try again: {verb} {key}")]
    Unavailable {
        /// What was called.
        verb: Verb,
        /// On which key, or listing prefix.
        key: String,
        /// Why.
        source: SharedError,
    },
    /// The store refused: credentials are missing, expired or do not allow this. Nothing was done.
    #[error("object store denies access; check credentials and permissions: {verb} {key}")]
    Denied {
        /// What was called.
        verb: Verb,
        /// On which key, or listing prefix.
        key: String,
        /// What the store said.
        source: SharedError,
    },
    /// A write was sent and its result is not known: it may have happened, or may still happen.
    #[error("outcome of a write to the object store is unknown; read before writing again: {verb} {key}")]
    OutcomeUnknown {
        /// What was called.
        verb: Verb,
        /// On which key.
        key: String,
        /// Why.
        source: SharedError,
    },
    /// The store cannot work as it is set up: no such bucket, no conditional writes, not a folder. Nothing was done.
    #[error("object store is not set up right: {detail}")]
    Misconfigured {
        /// What to change.
        detail: String,
        /// What was found, if somebody said so.
        source: Option<SharedError>,
    },
    /// The caller asked for what no store can do: a bug, or hostile input that got too far. Nothing was done.
    #[error("invalid object store request: {reason}: {key:?}")]
    Invalid {
        /// The key, cut to a printable length.
        key: String,
        /// What is wrong with the request.
        reason: &'static str,
    },
}

impl ObjectStoreError {
    /// The stable word for a caller of Carnax that this failure ends up with.
    ///
    /// `NotFound`, `ShortRead` and `TooLarge` mean that stored data is not what the metadata says; whoever can plan again
    /// handles them before that.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::NotFound { .. } | Self::ShortRead { .. } | Self::TooLarge { .. } => ErrorCode::DamagedBatch,
            Self::AlreadyExists { .. } | Self::VersionMismatch { .. } => ErrorCode::Conflict,
            Self::Throttled { .. }
            | Self::Unavailable { .. }
            | Self::Denied { .. }
            | Self::Misconfigured { .. } => ErrorCode::ObjectStoreUnavailable,
            Self::OutcomeUnknown { .. } => ErrorCode::OutcomeUnknown,
            Self::Invalid { .. } => ErrorCode::Internal,
        }
    }

    /// Whether the same call may succeed a little later without anybody changing anything.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Throttled { .. } | Self::Unavailable { .. } | Self::OutcomeUnknown { .. })
    }

    pub(crate) fn not_found(key: &str) -> Self {
        Self::NotFound { key: key.to_owned() }
    }

    pub(crate) fn already_exists(key: &str) -> Self {
        Self::AlreadyExists { key: key.to_owned() }
    }

    pub(crate) fn version_mismatch(key: &str, expected: Option<Version>) -> Self {
        Self::VersionMismatch { key: key.to_owned(), expected }
    }

    pub(crate) fn throttled(verb: Verb, key: &str, source: impl Into<SharedError>) -> Self {
        Self::Throttled { verb, key: key.to_owned(), source: source.into() }
    }

    pub(crate) fn unavailable(verb: Verb, key: &str, source: impl Into<SharedError>) -> Self {
        Self::Unavailable { verb, key: key.to_owned(), source: source.into() }
    }

    pub(crate) fn denied(verb: Verb, key: &str, source: impl Into<SharedError>) -> Self {
        Self::Denied { verb, key: key.to_owned(), source: source.into() }
    }

    pub(crate) fn outcome_unknown(verb: Verb, key: &str, source: impl Into<SharedError>) -> Self {
        Self::OutcomeUnknown { verb, key: key.to_owned(), source: source.into() }
    }

    pub(crate) fn invalid(key: &str, reason: &'static str) -> Self {
        Self::Invalid { key: key.chars().take(100).collect(), reason }
    }
}

/// A cause that is only a sentence.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Said(pub(crate) String);

impl Said {
    pub(crate) fn shared(text: impl Into<String>) -> SharedError {
        Arc::new(Self(text.into()))
    }
}
