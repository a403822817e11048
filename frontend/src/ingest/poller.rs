//! Takes messages from a queue by asking for them, where nobody hands them over.
//!
//! ```text
//!  receive, waiting ─▶ take ─▶ committed or put aside: delete, in one batch
//!                       │  └─▶ failed: back to the queue a little later
//!                       └─ meanwhile the visibility of the whole batch is extended, some times
//! ```
//!
//! What failed goes back after a pause and not at once: each delivery counts towards the redrive of the queue, and a metadata
//! core that is away for a minute must not send good messages to the dead letters. The pause is the same for all of a batch,
//! and no message of a group is delivered while another one is in flight, so the order of the group is kept.
//!
//! Invariants: a message is deleted only after [`Ingest::take`] said that it is done. One batch at a time is in flight. A
//! silent queue sees receives and nothing else.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use carnax_queue::{
    BATCH_ENTRIES_MAX, MessageQueue, QueueError, Queues, RECEIVE_WAIT_MAX, Receipt, Receive, ReceivedMessage,
};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Ingest, IngestMessage};
use crate::run::Frontend;

/// The first pause after a failure of the queue; each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// No pause is longer.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The times of a poller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PollTimes {
    /// How long a receive waits for messages.
    pub wait: Duration,
    /// For how long nobody else gets a message; extended each time a third of it has passed.
    pub visibility: Duration,
    /// How often it is extended at most; then the batch is given up and comes again.
    pub extensions_max: u32,
    /// After what time a message that failed is delivered again.
    pub back_after: Duration,
}

impl Default for PollTimes {
    fn default() -> Self {
        Self {
            wait: RECEIVE_WAIT_MAX,
            visibility: Duration::from_secs(60),
            extensions_max: 10,
            back_after: Duration::from_secs(2),
        }
    }
}

impl Ingest {
    /// Takes the messages of the queue with an ARN until `stop`, and then finishes the batch in hand.
    ///
    /// Dropping the future leaves the outcome of that batch unknown: its messages come again and are recognised.
    pub async fn poll(
        &self,
        arn: &str,
        queue: &dyn MessageQueue,
        times: PollTimes,
        stop: &CancellationToken,
    ) {
        let request =
            Receive { messages_max: BATCH_ENTRIES_MAX, wait: times.wait, visibility: times.visibility };
        let (mut failures, mut refused): (u32, bool) = (0, false);
        loop {
            let received = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                received = queue.receive(request) => received,
            };
            let went_well = match received {
                Ok(messages) => {
                    let now = self.api.clock.wall().millis() / 1_000;
                    self.api.metrics.polling.received.with_label_values(&[arn]).set(now);
                    if std::mem::take(&mut refused) {
                        tracing::info!(queue = arn, "messages are received again");
                    }
                    messages.is_empty() || self.take_received(arn, queue, times, messages).await
                }
                Err(error) => {
                    if !std::mem::replace(&mut refused, true) {
                        tracing::warn!(queue = arn, %error, "no messages can be received: it is tried again, ever less often");
                    }
                    false
                }
            };
            failures = if went_well { 0 } else { failures.saturating_add(1) };
            if failures > 0 {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(self.pause(failures)) => {}
                }
            }
        }
    }

    /// Between half of the pause and all of it, so that many who failed together do not come back together.
    fn pause(&self, failures: u32) -> Duration {
        let pause = PAUSE_MIN.saturating_mul(1 << (failures - 1).min(16)).min(PAUSE_MAX);
        let half = pause / 2;
        half + half
            .mul_f64(f64::from(u16::try_from(self.api.entropy.next_u64() >> 48).unwrap_or(0)) / 65_536.0)
    }

    /// Says whether all of a batch was done.
    async fn take_received(
        &self,
        arn: &str,
        queue: &dyn MessageQueue,
        times: PollTimes,
        received: Vec<ReceivedMessage>,
    ) -> bool {
        let ids: Vec<(String, Receipt)> =
            received.iter().map(|message| (message.id.clone(), message.receipt.clone())).collect();
        let messages = received.into_iter().map(|message| from_received(arn, message)).collect();
        let taking = self.take(messages);
        tokio::pin!(taking);
        let every = times.visibility / 3;
        let mut ticks = tokio::time::interval_at(Instant::now() + every, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut extensions = 0;
        let failed = loop {
            tokio::select! {
                biased;
                failed = &mut taking => break failed,
                _ = ticks.tick() => {}
            }
            if extensions == times.extensions_max {
                tracing::warn!(queue = arn, "messages took too long: they come again");
                return false;
            }
            extensions += 1;
            // The appends go on while the queue is asked.
            let all: Vec<_> = ids.iter().map(|(_, receipt)| (receipt.clone(), times.visibility)).collect();
            tokio::select! {
                biased;
                failed = &mut taking => break failed,
                result = queue.extend(&all) => report(arn, "messages may be delivered twice", result),
            }
        };
        let failed: BTreeSet<String> = failed.into_iter().map(|failed| failed.id).collect();
        let (back, done): (Vec<_>, Vec<_>) = ids.into_iter().partition(|(id, _)| failed.contains(id));
        let all_done = back.is_empty();
        let counters = &self.api.metrics.polling.messages;
        counters.with_label_values(&[arn, "done"]).inc_by(done.len() as u64);
        counters.with_label_values(&[arn, "given_back"]).inc_by(back.len() as u64);
        let done: Vec<Receipt> = done.into_iter().map(|(_, receipt)| receipt).collect();
        if !done.is_empty() {
            report(arn, "messages that are done come again", queue.delete(&done).await);
        }
        if !all_done {
            let back: Vec<_> = back.into_iter().map(|(_, receipt)| (receipt, times.back_after)).collect();
            report(arn, "messages come again later than they could", queue.extend(&back).await);
        }
        all_done
    }
}

fn from_received(arn: &str, message: ReceivedMessage) -> IngestMessage {
    let ReceivedMessage { id, body, attributes, group, sequence, sent, .. } = message;
    IngestMessage { id, queue: arn.to_owned(), body, attributes, group, sequence, sent }
}

/// One line for a batch, whatever failed in it.
fn report(arn: &str, so: &str, result: Result<Vec<Result<(), QueueError>>, QueueError>) {
    let error = result.map_or_else(Some, |entries| entries.into_iter().find_map(Result::err));
    if let Some(error) = error {
        tracing::warn!(queue = arn, %error, "the queue did not take an answer: {so}");
    }
}

/// The pollers of a process, one a queue.
pub(crate) struct Pollers {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Pollers {
    pub(crate) fn start(frontend: &Frontend) -> Self {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        if let Some((rules, queues)) = frontend.polled() {
            let ingest = Arc::new(frontend.ingest(rules.clone()));
            for arn in rules.queues() {
                let (ingest, queues, stop) = (Arc::clone(&ingest), Arc::clone(queues), stop.clone());
                let arn = arn.to_owned();
                tasks.spawn(async move { poll_one(&ingest, &*queues, &arn, &stop).await });
            }
        }
        Self { tasks, stop }
    }

    /// Takes nothing new, and waits until the batches in hand are done. What is cut off then comes again.
    pub(crate) async fn finish(self, limit: Duration) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(limit, self.tasks.wait()).await.is_err() {
            tracing::warn!(
                batches = self.tasks.len(),
                "messages are in flight after the drain time: they come again"
            );
        }
    }
}

/// Polls one queue, as soon as it can be reached: what keeps it from that may pass.
async fn poll_one(ingest: &Ingest, queues: &dyn Queues, arn: &str, stop: &CancellationToken) {
    // Checked before the frontend listened.
    let Ok(url) = url_of(arn) else { return };
    let mut failures = 0;
    loop {
        let opened = tokio::select! {
            () = stop.cancelled() => return,
            opened = queues.open(&url) => opened,
        };
        let error = match opened {
            Ok(queue) => {
                tracing::info!(queue = arn, url, "a queue is polled");
                return ingest.poll(arn, &*queue, PollTimes::default(), stop).await;
            }
            Err(error) => error,
        };
        failures += 1;
        let pause = ingest.pause(failures);
        tracing::warn!(queue = arn, %error, ?pause, "a queue cannot be reached: trying again");
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Where a queue is found, by its ARN (`arn:PARTITION:sqs:REGION:ACCOUNT:NAME`).
///
/// # Errors
/// Why it is none.
pub(crate) fn url_of(arn: &str) -> Result<String, &'static str> {
    let parts: Vec<&str> = arn.split(':').collect();
    let ["arn", partition, "sqs", region, account, name] = parts[..] else {
        return Err("this is no ARN of an SQS queue");
    };
    let suffix = if partition == "aws-cn" { ".cn" } else { "" };
    Ok(format!("https://sqs.{region}.amazonaws.com{suffix}/{account}/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_found_by_its_arn() {
        let found = url_of("arn:aws:sqs:eu-west-1:123456789012:orders.fifo");
        assert_eq!(found, Ok("https://sqs.eu-west-1.amazonaws.com/123456789012/orders.fifo".to_owned()));
        let found = url_of("arn:aws-cn:sqs:cn-north-1:1:a");
        assert_eq!(found, Ok("https://sqs.cn-north-1.amazonaws.com.cn/1/a".to_owned()));
        for wrong in ["", "orders", "arn:aws:sns:eu-west-1:1:a", "arn:aws:sqs:eu-west-1:1:a:b"] {
            assert!(url_of(wrong).is_err(), "{wrong}");
        }
    }
}
