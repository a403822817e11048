//! Messages of SQS queues as records.
//!
//! ```text
//!  a batch of messages ─▶ by the rule of its queue: topic, key, value, headers ─▶ one unit a message ─▶ one segment, one commit
//!                                                     ├─ what can never become a record: put aside, to the dead letters
//!                                                     └─ what failed otherwise goes back to the queue
//! ```
//!
//! A message of a FIFO queue is applied once: its producer is the queue and the message group, its sequence the number that SQS
//! gave it, and whatever comes again, in whatever batch, is recognised. In a group, what stands behind a failure is not
//! applied and goes back too: otherwise the failed one, when it comes again, would seem to be a repeat. A message of a
//! standard queue is applied once within the window of idempotency keys, by its id.
//!
//! A message that can never become a record would hold up its group until SQS gives it up, and SQS gives up with it all that
//! was delivered as often: everything behind it. So it is put aside here, and the group goes on.
//!
//! Invariants: a message is reported as done only when its record is committed, or the queue for dead letters has taken it.
//! Where it goes and what it becomes depends on the message and the rule alone.

mod message;
mod poller;
mod rules;

use std::collections::BTreeSet;
use std::sync::Arc;

use carnax_core::error_code::ErrorCode;
use carnax_core::problem::Problem;
use carnax_queue::{Queues, send_one};
use tokio::sync::OwnedSemaphorePermit;

use crate::append::accept::batch::BatchedAppend;
use crate::http::Api;

pub use message::{IngestMessage, InvalidMessage};
pub use poller::PollTimes;
pub(crate) use poller::{Pollers, url_of};
pub use rules::{IngestRule, IngestRules, InvalidRules, KeySource};

/// A message that has to go back to its queue.
#[derive(Debug, Clone)]
pub struct FailedMessage {
    /// Its id.
    pub id: String,
    /// Why.
    pub problem: Problem,
}

/// Takes messages, by rules.
#[derive(Debug, Clone)]
pub struct Ingest {
    api: Arc<Api>,
    rules: Arc<IngestRules>,
    queues: Arc<dyn Queues>,
}

impl Ingest {
    pub(crate) fn new(api: Arc<Api>, rules: IngestRules, queues: Arc<dyn Queues>) -> Self {
        Self { api, rules: Arc::new(rules), queues }
    }

    /// Applies a batch of messages, those of a group in the order of their sequences, and says which of them have to go back: all
    /// others are done.
    ///
    /// All fail if the memory for appends does not suffice. Dropping the future leaves the outcome of all unknown: they have
    /// to go back, and are recognised when they come again.
    pub async fn take(&self, messages: Vec<IngestMessage>) -> Vec<FailedMessage> {
        let mut messages = messages;
        // Messages of a group next to each other, in its order.
        messages.sort_by_cached_key(|message| (message.chain(), message.sequence));
        let bytes: usize = messages.iter().map(IngestMessage::bytes).sum();
        // Twice: as they came, and as records.
        let permits = u32::try_from(bytes.saturating_mul(2)).unwrap_or(u32::MAX);
        let failed = match Arc::clone(&self.api.append_memory).try_acquire_many_owned(permits) {
            Ok(memory) => self.take_all(messages, Arc::new(memory)).await,
            Err(_) => {
                let detail = "the messages do not fit into the memory for appends now";
                let problem = Problem::new(ErrorCode::TooManyRequests, detail);
                messages.into_iter().map(|message| (message, problem.clone())).collect()
            }
        };
        let failed = failed.into_iter().map(|(IngestMessage { id, queue, .. }, problem)| {
            let code = problem.code.as_str();
            tracing::warn!(
                message_id = id,
                queue,
                code,
                detail = problem.detail,
                "a message goes back to its queue"
            );
            FailedMessage { id, problem }
        });
        failed.collect()
    }

    /// Applies what can be applied, puts aside what never can, and goes on behind that.
    async fn take_all(
        &self,
        mut messages: Vec<IngestMessage>,
        memory: Arc<OwnedSemaphorePermit>,
    ) -> Vec<(IngestMessage, Problem)> {
        loop {
            let failed = self.append(messages, &memory).await;
            let mut back = Vec::with_capacity(failed.len());
            let mut put_aside = false;
            for (message, problem) in failed {
                if self.put_aside(&message, &problem).await {
                    put_aside = true;
                } else {
                    back.push((message, problem));
                }
            }
            if !put_aside {
                return back;
            }
            // Fewer than before: what stood behind the ones put aside may be applied now, in the order as ever.
            messages = back.into_iter().map(|(message, _)| message).collect();
        }
    }

    /// Applies messages, and gives back those that failed, in their order.
    async fn append(
        &self,
        messages: Vec<IngestMessage>,
        memory: &Arc<OwnedSemaphorePermit>,
    ) -> Vec<(IngestMessage, Problem)> {
        let mut results: Vec<Option<Problem>> = vec![None; messages.len()];
        let (mut places, mut appends) = (Vec::new(), Vec::new());
        let mut broken: BTreeSet<Arc<str>> = BTreeSet::new();
        for (place, message) in messages.iter().enumerate() {
            let chain = message.chain();
            let prepared = match &chain {
                Some(chain) if broken.contains(chain) => Err(Problem::new(
                    ErrorCode::Unavailable,
                    "a message before it in its group failed: it has to wait",
                )),
                _ => self.rules.of(&message.queue).and_then(|rule| message.to_append(rule)),
            };
            match prepared {
                Ok((records, stamp)) => {
                    places.push(place);
                    appends.push(BatchedAppend { records, stamp, chain });
                }
                Err(problem) => {
                    broken.extend(chain);
                    results[place] = Some(problem);
                }
            }
        }
        let appended = self.api.accept.append_all(appends, memory).await;
        for (place, result) in places.into_iter().zip(appended) {
            results[place] = result.err();
        }
        let failed = messages.into_iter().zip(results);
        failed.filter_map(|(message, problem)| Some((message, problem?))).collect()
    }

    /// Sends a message that can never become a record to the dead letters; says whether they took it.
    async fn put_aside(&self, message: &IngestMessage, problem: &Problem) -> bool {
        let for_ever =
            matches!(problem.code, ErrorCode::InvalidValue | ErrorCode::Malformed | ErrorCode::TooLarge);
        let rule = self.rules.of(&message.queue).ok().filter(|_| for_ever);
        let Some(url) = rule.and_then(|rule| rule.dead_letters.as_deref()) else { return false };
        let (id, queue) = (&message.id, &message.queue);
        let letter = message.dead_letter(url, problem);
        let sent = match self.queues.open(url).await {
            Ok(dead_letters) => send_one(&*dead_letters, &letter).await,
            Err(error) => Err(error),
        };
        match sent {
            Ok(_) => {
                tracing::warn!(
                    message_id = id,
                    queue,
                    to = url,
                    detail = problem.detail,
                    "a message that can be no record is put aside"
                );
                true
            }
            Err(error) => {
                tracing::warn!(message_id = id, queue, to = url, %error, "a message that can be no record could not be put aside");
                false
            }
        }
    }
}
