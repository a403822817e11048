//! The execution environment of a function: it is frozen between two events, and holds a frontend that is fresh enough.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use carnax_core::time::Timestamp;
use carnax_frontend::{Components, Frontend};
use carnax_object_store::ObjectStoreSettings;
use carnax_platform::clock::{Clock, SystemClock};
use carnax_platform::entropy::SystemEntropy;
use carnax_platform::network::TcpNetwork;
use carnax_queue::{Queues, SqsQueues};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use crate::settings::Arguments;

/// Makes frontends, and replaces them when they have stood still for too long.
#[derive(Debug)]
pub(crate) struct Environment {
    pub(crate) arguments: Arguments,
    clock: Arc<dyn Clock>,
    queues: Arc<dyn Queues>,
    current: Mutex<Option<Current>>,
    /// Events that are being handled: more than one where Lambda hands several to an environment.
    invocations: watch::Sender<usize>,
}

/// An event that is being handled, and the frontend that it is handled with.
#[derive(Debug)]
pub(crate) struct Invocation {
    pub(crate) frontend: Arc<Frontend>,
    invocations: watch::Sender<usize>,
}

/// The times of an invocation, from the margin before its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// Nobody waits for records any longer.
    pub(crate) waits_end: Instant,
    /// The answer must be complete: a quarter of the margin is left for handing it over.
    pub(crate) answer: Instant,
    /// The invocation is cut off.
    pub(crate) end: Instant,
}

#[derive(Debug)]
struct Current {
    frontend: Arc<Frontend>,
    /// The wall clock at the last event.
    used: Timestamp,
}

impl Environment {
    /// Makes nothing yet.
    pub(crate) fn new(arguments: Arguments) -> Self {
        let queues = Arc::new(SqsQueues::default());
        let (clock, invocations) = (Arc::new(SystemClock::new()), watch::Sender::new(0));
        Self { arguments, clock, queues, current: Mutex::new(None), invocations }
    }

    /// Begins to handle an event that has come now.
    ///
    /// # Errors
    /// If none can be made from the settings.
    pub(crate) async fn begin(&self) -> anyhow::Result<Invocation> {
        let frontend = self.frontend().await?;
        self.invocations.send_modify(|count| *count += 1);
        Ok(Invocation { frontend, invocations: self.invocations.clone() })
    }

    async fn frontend(&self) -> anyhow::Result<Arc<Frontend>> {
        let mut current = self.current.lock().await;
        let now = self.clock.wall();
        if let Some(known) = current.as_mut() {
            if !is_stale(known.used, now, self.arguments.stale) {
                known.used = now;
                return Ok(Arc::clone(&known.frontend));
            }
            tracing::info!(last_used = %known.used, "the function stood still; its connections and caches are replaced");
        }
        let frontend = Arc::new(self.make().await?);
        *current = Some(Current { frontend: Arc::clone(&frontend), used: now });
        Ok(frontend)
    }

    /// Lets go of a frontend whose work could not be waited for: its tasks end with the last request that it answers.
    pub(crate) async fn discard(&self, frontend: &Arc<Frontend>) {
        let mut current = self.current.lock().await;
        if current.as_ref().is_some_and(|known| Arc::ptr_eq(&known.frontend, frontend)) {
            *current = None;
        }
    }

    /// The same, whichever it is.
    pub(crate) async fn discard_any(&self) {
        *self.current.lock().await = None;
    }

    /// Waits until nothing goes on in the frontend, or another event is handled too: the environment stands still only
    /// behind the last one. A frontend that does not come to rest in time is let go of.
    pub(crate) async fn settle(&self, invocation: Invocation, end: Instant) {
        let frontend = Arc::clone(&invocation.frontend);
        // Of several that end together, the last one sees nobody else.
        drop(invocation);
        let mut invocations = self.invocations.subscribe();
        let at_rest = async {
            tokio::select! {
                () = frontend.quiet() => {}
                // Never fails: the sender is ours.
                _ = invocations.wait_for(|count| *count > 0) => {}
            }
        };
        if tokio::time::timeout_at(end, at_rest).await.is_err() {
            tracing::warn!("the frontend did not come to rest within the invocation");
            self.discard(&frontend).await;
        }
    }

    async fn make(&self) -> anyhow::Result<Frontend> {
        let settings = &self.arguments.frontend;
        let store = ObjectStoreSettings { s3_path_style: settings.s3_path_style };
        let components = Components {
            clock: Arc::clone(&self.clock),
            entropy: Arc::new(SystemEntropy),
            network: Arc::new(TcpNetwork),
            object_store: carnax_object_store::open(&settings.object_store, &store).await?,
            queues: Arc::clone(&self.queues),
        };
        let name = std::env::var("AWS_LAMBDA_LOG_STREAM_NAME").unwrap_or_else(|_| "lambda".to_owned());
        Ok(Frontend::new(settings, components, &name)?)
    }
}

impl Deref for Invocation {
    type Target = Frontend;

    fn deref(&self) -> &Frontend {
        &self.frontend
    }
}

impl Drop for Invocation {
    fn drop(&mut self) {
        self.invocations.send_modify(|count| *count = count.saturating_sub(1));
    }
}

impl Times {
    /// Of an invocation that ends then.
    pub(crate) fn until(environment: &Environment, end: Instant) -> Self {
        let margin = environment.arguments.margin;
        let before = |margin| end.checked_sub(margin).unwrap_or(end);
        Self { waits_end: before(margin), answer: before(margin / 4), end }
    }
}

/// Whether too much time has passed since the last event, or the clock was set back, so that nobody knows.
fn is_stale(used: Timestamp, now: Timestamp, limit: Duration) -> bool {
    now < used || now.since(used) > limit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stood_still_for_longer_than_the_limit_is_stale_and_so_is_a_clock_that_was_set_back() {
        let at = Timestamp::from_millis;
        let limit = Duration::from_secs(30);
        assert!(!is_stale(at(0), at(30_000), limit));
        assert!(is_stale(at(0), at(30_001), limit));
        assert!(is_stale(at(1), at(0), limit));
    }
}
