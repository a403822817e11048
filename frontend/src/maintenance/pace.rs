//! How fast maintenance asks the object store: never faster than it should, slower while the store says that it is too much.
//!
//! Additive increase, multiplicative decrease (Chiu and Jain, 1989): each request that is throttled halves the rate, each one that is
//! not makes it a little higher, up to the limit.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use carnax_object_store::ObjectStoreError;
use tokio::time::Instant;

/// Requests in a second, at most and at least.
const RATE_MAX: f64 = 200.0;
const RATE_MIN: f64 = 0.5;
/// What a request that went well adds.
const RATE_STEP: f64 = 0.5;

/// Shared by all jobs of a process.
#[derive(Debug)]
pub(crate) struct Pace(Mutex<Going>);

#[derive(Debug)]
struct Going {
    rate: f64,
    /// When the next request may begin.
    next: Option<Instant>,
}

impl Default for Pace {
    fn default() -> Self {
        Self(Mutex::new(Going { rate: RATE_MAX, next: None }))
    }
}

impl Pace {
    /// Does a request when it is its turn, and learns from how it went.
    pub(crate) async fn request<T>(
        &self,
        request: impl Future<Output = Result<T, ObjectStoreError>>,
    ) -> Result<T, ObjectStoreError> {
        self.turn().await;
        let result = request.await;
        self.learn(matches!(result, Err(ObjectStoreError::Throttled { .. })));
        result
    }

    /// Waits until the next request may begin.
    pub(crate) async fn turn(&self) {
        let turn = {
            let mut going = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let turn = going.next.map_or(now, |next| next.max(now));
            going.next = Some(turn + Duration::from_secs_f64(1.0 / going.rate));
            turn
        };
        tokio::time::sleep_until(turn).await;
    }

    /// Takes in whether a request was throttled.
    pub(crate) fn learn(&self, throttled: bool) {
        let mut going = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        going.rate = if throttled { going.rate / 2.0 } else { going.rate + RATE_STEP };
        going.rate = going.rate.clamp(RATE_MIN, RATE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn seconds(pace: &Pace, requests: u32) -> f64 {
        let started = Instant::now();
        for _ in 0..requests {
            pace.turn().await;
        }
        started.elapsed().as_secs_f64()
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_throttles_is_asked_less_often_and_later_as_often_as_before() {
        let pace = Pace::default();
        assert!(seconds(&pace, 401).await >= 2.0);
        for _ in 0..20 {
            pace.learn(true);
        }
        assert!(seconds(&pace, 11).await >= 18.0, "one in two seconds");
        for _ in 0..1_000 {
            pace.learn(false);
        }
        pace.turn().await;
        assert!(seconds(&pace, 400).await <= 2.5);
    }
}
