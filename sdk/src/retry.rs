//! Sends a request until it is done, may not be repeated, or its time is up.
//!
//! Whether it may be repeated is decided by two facts alone: `retryable` and `side_effects` of the failure. Which
//! endpoint is next, and how long to wait, is decided here too; the sending itself is the transport's.

use std::time::Duration;

use carnax_core::error_code::{ErrorCode, SideEffects};
use tokio::time::Instant;

use crate::error::RequestError;
use crate::transport::{ApiAnswer, ApiRequest, Transport};

/// How long to wait between attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetrySettings {
    /// The wait after the first failure; doubles with every further one. Half of each wait is random.
    pub backoff_min: Duration,
    /// The longest wait, unless the server asks for a longer one.
    pub backoff_max: Duration,
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self { backoff_min: Duration::from_millis(50), backoff_max: Duration::from_secs(5) }
    }
}

/// No attempt begins with less time than this: it would be sent and not be waited for, and so make an outcome unknown
/// that is known.
pub(crate) const LAST_ATTEMPT_MIN: Duration = Duration::from_millis(100);

/// One thing that a user wants done, whatever number of requests it takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operation {
    /// When to give up.
    pub(crate) deadline: Instant,
    /// How long one attempt may take.
    pub(crate) attempt_timeout: Duration,
    /// Whether to repeat what may have been done already: right for what is idempotent.
    pub(crate) repeat_unknown: bool,
    /// A retryable problem that the caller has to do something about first.
    pub(crate) leave: Option<ErrorCode>,
}

impl Operation {
    fn may_repeat(&self, error: &RequestError) -> bool {
        let left = self.leave.is_some_and(|code| error.is(code));
        let harmless = error.side_effects() == SideEffects::None || self.repeat_unknown;
        error.retryable() && harmless && !left
    }
}

/// How long to wait before attempt `attempt + 1`, where `attempt` counts from 1: doubling, and half of it random.
pub(crate) fn backoff(settings: &RetrySettings, attempt: u32, random: u64) -> Duration {
    let doubled = settings.backoff_min.saturating_mul(2u32.saturating_pow(attempt.saturating_sub(1).min(16)));
    let whole = doubled.min(settings.backoff_max);
    let half = whole / 2;
    let millionths = u32::try_from(random % 1_000_000).unwrap_or(0);
    half + half * millionths / 1_000_000
}

/// Sends until done. Dropping the future leaves open whether the attempt in flight is done.
pub(crate) async fn execute(
    transport: &Transport,
    request: &ApiRequest,
    operation: Operation,
) -> Result<ApiAnswer, RequestError> {
    let mut attempts = 0;
    let mut side_effects = SideEffects::None;
    loop {
        attempts += 1;
        let endpoint = transport.endpoints().pick(Instant::now());
        let left = operation.deadline.saturating_duration_since(Instant::now());
        let error = match transport.attempt(endpoint, request, operation.attempt_timeout.min(left)).await {
            Ok(answer) => {
                transport.endpoints().praise(endpoint);
                return Ok(answer);
            }
            Err(error) => error,
        };
        if error.side_effects() == SideEffects::Possible {
            side_effects = SideEffects::Possible;
        }
        if error.blames_endpoint() {
            transport.endpoints().blame(endpoint, Instant::now());
        }
        let wait = wait_before_next(transport, &error, attempts);
        let worth_it = Instant::now() + wait + LAST_ATTEMPT_MIN <= operation.deadline;
        let elsewhere =
            matches!(error, RequestError::Untrusted { .. }) && transport.endpoints().has_good(Instant::now());
        if !(operation.may_repeat(&error) || elsewhere) || !worth_it {
            return Err(conclude(error, attempts, side_effects));
        }
        tracing::debug!(attempts, ?wait, %error, path = request.path, "request failed, trying again");
        tokio::time::sleep(wait).await;
    }
}

/// Nothing if another endpoint is believed to be well; else the back-off, and at least what the server asked for.
fn wait_before_next(transport: &Transport, error: &RequestError, attempts: u32) -> Duration {
    if error.blames_endpoint() && transport.endpoints().has_good(Instant::now()) {
        return Duration::ZERO;
    }
    match error.retry_after() {
        // The server knows when there will be room: to wait ever longer would leave it unused. A little more, so that those who were
        // refused together do not come together.
        Some(asked) if error.is(ErrorCode::TooManyRequests) => {
            asked + backoff(transport.retry(), 1, transport.random())
        }
        asked => backoff(transport.retry(), attempts, transport.random()).max(asked.unwrap_or_default()),
    }
}

fn conclude(error: RequestError, attempts: u32, side_effects: SideEffects) -> RequestError {
    if attempts == 1 { error } else { RequestError::GaveUp { attempts, side_effects, last: Box::new(error) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_doubles_up_to_its_bound_and_half_of_it_is_random() {
        let settings = RetrySettings::default();
        let range = |attempt| (backoff(&settings, attempt, 0), backoff(&settings, attempt, 999_999));
        let millis = Duration::from_millis;
        assert_eq!(range(1).0, millis(25));
        assert!(range(1).1 > millis(49) && range(1).1 < millis(50));
        assert_eq!(range(3).0, millis(100));
        assert_eq!(range(100).0, millis(2_500));
        assert!(range(100).1 < millis(5_000));
    }
}
