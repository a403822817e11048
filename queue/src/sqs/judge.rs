//! What a failed request, or a failed entry, means.

use std::error::Error;
use std::io;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sqs::config::http::HttpResponse;
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::types::BatchResultErrorEntry;

use crate::error::Failure;

/// What SQS says of receipts that are too old, mostly under the code of any invalid parameter: of deletions from FIFO queues,
/// and of changes of the visibility time.
const NOT_IN_FLIGHT: [&str; 2] =
    ["receipt handle has expired", "not available for visibility timeout change"];

pub(super) fn request<E>(error: &SdkError<E, HttpResponse>) -> Failure
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let SdkError::ServiceError(context) = error else {
        return silence(error);
    };
    let (status, error) = (context.raw().status().as_u16(), context.err());
    let (code, message) = (error.code().unwrap_or("no code"), error.message().unwrap_or("no message"));
    let said = format!("status {status}, {code}: {message}");
    match status {
        _ if is_throttle(code) => Failure::Throttled { said },
        429 => Failure::Throttled { said },
        401 | 403 => Failure::Denied { said },
        500.. => Failure::OutcomeUnknown { said },
        _ if is_denial(code) => Failure::Denied { said },
        _ => Failure::Misconfigured { said },
    }
}

pub(super) fn entry(failed: &BatchResultErrorEntry) -> Failure {
    let (code, message) = (failed.code(), failed.message().unwrap_or("no message"));
    let said = format!("{code}: {message}");
    if is_throttle(code) {
        Failure::Throttled { said }
    } else if !failed.sender_fault() {
        Failure::OutcomeUnknown { said }
    } else if is_denial(code) {
        Failure::Denied { said }
    } else if code.ends_with("MessageNotInflight")
        || NOT_IN_FLIGHT.iter().any(|words| message.contains(words))
    {
        Failure::NotInFlight
    } else {
        Failure::Invalid { reason: said }
    }
}

fn is_throttle(code: &str) -> bool {
    matches!(
        code,
        "RequestThrottled"
            | "Throttling"
            | "ThrottlingException"
            | "TooManyRequestsException"
            | "RequestLimitExceeded"
            | "KMS.ThrottlingException"
            // Too many messages are in flight.
            | "OverLimit"
    )
}

fn is_denial(code: &str) -> bool {
    matches!(
        code,
        "AccessDenied"
            | "AccessDeniedException"
            | "ExpiredToken"
            | "ExpiredTokenException"
            | "InvalidClientTokenId"
            | "UnrecognizedClientException"
            | "InvalidSignatureException"
            | "SignatureDoesNotMatch"
            | "MissingAuthenticationToken"
            | "InvalidSecurity"
            | "KMS.AccessDeniedException"
    )
}

/// What it means that no answer came.
fn silence<E: Error + 'static>(error: &SdkError<E, HttpResponse>) -> Failure {
    let said = chain(error);
    match find::<CredentialsError>(error) {
        Some(CredentialsError::ProviderTimedOut(_) | CredentialsError::ProviderError(_)) => {
            return Failure::Unavailable { said };
        }
        Some(_) => return Failure::Denied { said },
        None => {}
    }
    if let SdkError::ConstructionFailure(_) = error {
        return Failure::Misconfigured { said };
    }
    let refused =
        find::<io::Error>(error).is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    let unconnected =
        refused || find::<hyper_util::client::legacy::Error>(error).is_some_and(|error| error.is_connect());
    if unconnected { Failure::Unavailable { said } } else { Failure::OutcomeUnknown { said } }
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
