//! What one failed try means.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use crate::error::{ObjectStoreError, Said, SharedError};
use crate::store::Verb;

const NO_BUCKET: &str = "the bucket does not exist";

/// One failed try of a request.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) cause: Cause,
    /// Whether a write may have been done, or may still be, although this is how it ended.
    pub(super) may_have_happened: bool,
    source: SharedError,
}

/// Why a try failed.
#[derive(Debug)]
pub(super) enum Cause {
    /// The store asks for fewer requests.
    Throttled,
    /// The store or the way to it failed.
    Broken,
    /// No such object.
    NotFound,
    /// The condition of a write does not hold.
    ConditionFailed,
    /// The range begins behind the object's end.
    OutsideObject,
    /// Not allowed.
    Denied,
    /// The bucket or the endpoint is not what it should be.
    Misconfigured(&'static str),
    /// The store answered, and this is what it means to the caller.
    Final(ObjectStoreError),
}

impl Failed {
    fn new(cause: Cause, may_have_happened: bool, source: SharedError) -> Self {
        Self { cause, may_have_happened, source }
    }

    pub(super) fn timed_out(limit: Duration) -> Self {
        Self::new(Cause::Broken, true, Said::shared(format!("no answer within {limit:?}")))
    }

    /// An answer that breaks the protocol, or broke off.
    pub(super) fn broken(what: impl Into<String>) -> Self {
        Self::new(Cause::Broken, true, Said::shared(what))
    }

    /// The store said so, and nothing was done.
    pub(super) fn throttled(what: impl Into<String>) -> Self {
        Self::new(Cause::Throttled, false, Said::shared(what))
    }

    pub(super) fn is_transient(&self) -> bool {
        matches!(self.cause, Cause::Throttled | Cause::Broken)
    }

    pub(super) fn is_throttled(&self) -> bool {
        matches!(self.cause, Cause::Throttled)
    }

    /// What the caller gets if this was the last try and no cause has a meaning of its own for the verb.
    pub(super) fn into_error(self, verb: Verb, key: &str, doubtful: bool) -> ObjectStoreError {
        let Self { cause, source, .. } = self;
        match cause {
            Cause::Final(error) => error,
            _ if doubtful && verb.writes() => ObjectStoreError::outcome_unknown(verb, key, source),
            Cause::Throttled => ObjectStoreError::throttled(verb, key, source),
            Cause::Broken | Cause::ConditionFailed | Cause::OutsideObject => {
                ObjectStoreError::unavailable(verb, key, source)
            }
            Cause::NotFound if verb.writes() || verb == Verb::List => {
                ObjectStoreError::Misconfigured { detail: NO_BUCKET.to_owned(), source: Some(source) }
            }
            Cause::NotFound => ObjectStoreError::not_found(key),
            Cause::Denied => ObjectStoreError::denied(verb, key, source),
            Cause::Misconfigured(detail) => {
                ObjectStoreError::Misconfigured { detail: detail.to_owned(), source: Some(source) }
            }
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

impl From<ObjectStoreError> for Failed {
    fn from(error: ObjectStoreError) -> Self {
        Self::new(Cause::Final(error), false, Said::shared("the store answered"))
    }
}

impl<E> From<SdkError<E, HttpResponse>> for Failed
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    fn from(error: SdkError<E, HttpResponse>) -> Self {
        let (cause, may_have_happened) = match &error {
            SdkError::ServiceError(context) => {
                judge_answer(context.raw().status().as_u16(), context.err().code().unwrap_or(""))
            }
            _ => judge_silence(&error),
        };
        // The SDK's own messages say little, and its errors cannot be shared: what is known goes into one sentence.
        Self::new(cause, may_have_happened, Said::shared(describe(&error)))
    }
}

fn describe<E: ProvideErrorMetadata + Error + 'static>(error: &SdkError<E, HttpResponse>) -> String {
    let SdkError::ServiceError(context) = error else {
        return chain(error);
    };
    let (status, error) = (context.raw().status().as_u16(), context.err());
    let (code, message) = (error.code().unwrap_or("no code"), error.message().unwrap_or("no message"));
    let request = context.raw().headers().get("x-amz-request-id").unwrap_or("unknown");
    format!("status {status}, {code}: {message} (request {request})")
}

/// An error and its causes in one line.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        line.push_str(": ");
        line.push_str(&cause.to_string());
        next = cause.source();
    }
    line
}

/// What an error answer means, and whether a write may have been done in spite of it.
fn judge_answer(status: u16, code: &str) -> (Cause, bool) {
    match (status, code) {
        (
            _,
            "SlowDown" | "Throttling" | "ThrottlingException" | "RequestLimitExceeded" | "TooManyRequests",
        )
        | (429, _) => (Cause::Throttled, false),
        (404, "NoSuchBucket") => (Cause::Misconfigured(NO_BUCKET), false),
        (404, _) => (Cause::NotFound, false),
        (412, _) => (Cause::ConditionFailed, false),
        (416, _) => (Cause::OutsideObject, false),
        // Another write of the key was under way: this one was not done and is to be sent again.
        (409, "ConditionalRequestConflict" | "OperationAborted") => (Cause::Broken, false),
        // The body did not arrive, or not as it was sent.
        (400, "RequestTimeout" | "BadDigest" | "XAmzContentSHA256Mismatch" | "IncompleteBody") => {
            (Cause::Broken, false)
        }
        (401 | 403, _) | (400, "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired") => {
            (Cause::Denied, false)
        }
        (300..=399, _) | (400, "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException") => {
            (Cause::Misconfigured("the bucket is elsewhere; set AWS_REGION to its region"), false)
        }
        (501, _) => {
            (Cause::Misconfigured("the server lacks what Carnax needs, as conditional writes"), false)
        }
        // Not `SlowDown`, so nobody says that nothing was done.
        (503, _) => (Cause::Throttled, true),
        (500..=599, _) => (Cause::Broken, true),
        _ => (Cause::Misconfigured("the server refuses the request"), false),
    }
}

/// What it means that no answer came.
fn judge_silence<E: Error + 'static>(error: &SdkError<E, HttpResponse>) -> (Cause, bool) {
    match find::<CredentialsError>(error) {
        Some(CredentialsError::ProviderTimedOut(_) | CredentialsError::ProviderError(_)) => {
            return (Cause::Broken, false);
        }
        Some(_) => return (Cause::Denied, false),
        None => {}
    }
    if let SdkError::ConstructionFailure(_) = error {
        return (Cause::Misconfigured("the request could not be made"), false);
    }
    let refused =
        find::<io::Error>(error).is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    let unconnected =
        refused || find::<hyper_util::client::legacy::Error>(error).is_some_and(|error| error.is_connect());
    (Cause::Broken, !unconnected)
}

fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}
