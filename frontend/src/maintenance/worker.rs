//! The worker of a process: asks for jobs now and then, or when a queue wakes it.

use std::sync::Arc;
use std::time::Duration;

use carnax_platform::entropy::Entropy;
use carnax_queue::{Queues, RECEIVE_WAIT_MAX, Receive};
use tokio_util::sync::CancellationToken;

use super::{Maintenance, MaintenanceError};

/// Nobody asks more often, whatever the metadata core says.
const ASK_MIN: Duration = Duration::from_secs(1);
/// Everybody asks so often, since jobs are laid down and settings are changed.
const ASK_MAX: Duration = Duration::from_secs(10);
/// The first pause after a failure; each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_secs(600);
/// For how long a message that woke this worker is not shown to others: about as long as a worker has a job.
const VISIBILITY: Duration = Duration::from_secs(60);

/// Works until it is told to stop.
pub(crate) struct Worker {
    pub(crate) maintenance: Maintenance,
    pub(crate) entropy: Arc<dyn Entropy>,
    /// The URL of the queue that wakes it.
    pub(crate) queue: Option<String>,
    pub(crate) queues: Arc<dyn Queues>,
}

impl Worker {
    /// Works until `stop`; lays down what it is at then.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut failures: u32 = 0;
        loop {
            let went = match &self.queue {
                None => self.ask(&stop).await,
                Some(url) => self.wait_for_message(url, &stop).await,
            };
            let pause = match went {
                Ok(pause) => {
                    failures = 0;
                    pause
                }
                Err(error) => {
                    let pause = PAUSE_MIN.saturating_mul(1 << failures.min(10)).min(PAUSE_MAX);
                    failures = failures.saturating_add(1);
                    tracing::warn!(error, ?pause, "maintenance waits");
                    pause
                }
            };
            // Between half of it and all, so that workers which started together do not ask together.
            let share = u32::try_from(self.entropy.next_u64() >> 48).unwrap_or(0);
            let pause = pause / 2 + pause / 2 * share / (1 << 16);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn ask(&self, stop: &CancellationToken) -> Result<Duration, String> {
        match self.maintenance.work(&|| stop.is_cancelled()).await {
            Ok(work) => Ok(work.ask_again.clamp(ASK_MIN, ASK_MAX)),
            Err(error @ MaintenanceError::OtherIncarnation { .. }) => {
                tracing::error!(%error, "this process maintains nothing any more");
                stop.cancelled().await;
                Ok(Duration::ZERO)
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// Waits for a message, and takes it off when nothing is due any more.
    async fn wait_for_message(&self, url: &str, stop: &CancellationToken) -> Result<Duration, String> {
        let text = |error: carnax_queue::QueueError| error.to_string();
        let queue = self.queues.open(url).await.map_err(text)?;
        let request = Receive { messages_max: 1, wait: RECEIVE_WAIT_MAX, visibility: VISIBILITY };
        let received = tokio::select! {
            () = stop.cancelled() => return Ok(Duration::ZERO),
            received = queue.receive(request) => received.map_err(text)?,
        };
        let Some(message) = received.first() else { return Ok(Duration::ZERO) };
        self.ask(stop).await?;
        queue.delete(std::slice::from_ref(&message.receipt)).await.map_err(text)?;
        Ok(Duration::ZERO)
    }
}
