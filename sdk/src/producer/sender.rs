//! The task that sends: takes what is due, keeps a bounded number of requests in flight, answers every record once.

use std::collections::BTreeMap;
use std::sync::Arc;

use carnax_core::error_code::{ErrorCode, SideEffects};
use carnax_core::http::{AppendResponse, AppendResult, FencedEpochResponse};
use carnax_core::limits;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use super::epoch::{Raise, Raised};
use super::request::{Request, judge};
use super::sequence::{Fate, Outcome, Remedy, Verdict, Window};
use super::{ProduceError, Shared};
use crate::error::RequestError;
use crate::retry::{LAST_ATTEMPT_MIN, Operation};

/// Something that ran beside the sender.
enum Ended {
    Appended { sequence: u64, result: Result<AppendResponse, RequestError> },
    Raised(Raised),
}

struct Sender {
    shared: Arc<Shared>,
    window: Window,
    /// By their sequences; those that the window waits for, and that are not answered.
    requests: BTreeMap<u64, Request>,
    tasks: JoinSet<Ended>,
    /// Who says that another producer has taken over.
    fenced: Option<RequestError>,
    /// How often in a row the epoch could not be raised.
    raises_failed: u32,
    /// How often in a row the topic was asked for.
    reroutes: u32,
}

/// Runs until the producer is closed and everything is answered.
pub(super) async fn run(shared: Arc<Shared>, epoch: u32) {
    let size = shared.settings.max_in_flight;
    let window = match &shared.producer {
        Some(_) => Window::numbered(epoch, size.min(limits::PRODUCER_REPLIES)),
        None => Window::unnumbered(size),
    };
    let tasks = JoinSet::new();
    let requests = BTreeMap::new();
    let sender = Sender { shared, window, requests, tasks, fenced: None, raises_failed: 0, reroutes: 0 };
    sender.run().await;
}

impl Sender {
    async fn run(mut self) {
        loop {
            self.fail_expired();
            self.start_requests().await;
            if self.remedy() {
                continue;
            }
            let (stale, finished, next_look) = {
                let queues = self.shared.lock();
                (queues.stale, queues.is_finished(), queues.next_look(self.window.admits()))
            };
            let idle = self.tasks.is_empty();
            if stale && idle && !self.window.is_troubled() {
                self.reroute().await;
                continue;
            }
            if finished && idle {
                return;
            }
            tokio::select! {
                biased;
                Some(ended) = self.tasks.join_next() => self.take_note(ended),
                () = self.shared.wake.notified() => {}
                () = sleep_until(next_look) => {}
            }
        }
    }

    fn fail_expired(&self) {
        let expired = self.shared.lock().take_expired(Instant::now());
        if !expired.is_empty() {
            let waited = self.shared.settings.delivery_timeout;
            expired.into_iter().for_each(|record| self.shared.fail(record, ProduceError::Expired { waited }));
            self.shared.tell_progress();
        }
    }

    /// Sends what was held, then takes new requests, in order.
    async fn start_requests(&mut self) {
        loop {
            while let Some(sequence) = self.window.next_to_send() {
                self.start(sequence);
            }
            if !self.window.admits() {
                return;
            }
            let Some(draft) = self.shared.lock().take_request(Instant::now()) else { return };
            let Some(request) = Request::prepare(&self.shared, draft).await else { continue };
            let sequence = self.window.push();
            let request = match &self.shared.producer {
                Some(producer) => request.stamp(producer, self.window.epoch(), sequence),
                None => request,
            };
            self.requests.insert(sequence, request);
        }
    }

    fn start(&mut self, sequence: u64) {
        let Some(request) = self.requests.get(&sequence) else { return };
        let settings = &self.shared.settings;
        let last_attempt = LAST_ATTEMPT_MIN.min(settings.delivery_timeout / 2);
        if Instant::now() + last_attempt > request.deadline {
            self.conclude(sequence, (Outcome::Failed, false), &[]);
            return;
        }
        let operation = Operation {
            deadline: request.deadline,
            attempt_timeout: settings.request_timeout,
            // Under the same sequence, nothing is stored twice.
            repeat_unknown: self.shared.producer.is_some() || settings.retry_unknown_outcomes,
            leave: Some(ErrorCode::StaleRouting),
        };
        let (client, api) = (self.shared.client.clone(), request.api.clone());
        self.tasks.spawn(async move {
            let answer = Box::pin(client.execute(&api, operation)).await;
            Ended::Appended { sequence, result: answer.and_then(|answer| answer.json()) }
        });
    }

    fn take_note(&mut self, ended: Result<Ended, JoinError>) {
        match ended {
            Ok(Ended::Appended { sequence, result }) => {
                let judged = judge(&result);
                match result {
                    Ok(response) => self.conclude(sequence, judged, &response.results),
                    Err(error) => {
                        if judged.0 == Outcome::Fenced {
                            self.fenced = Some(error.clone());
                        }
                        if let Some(request) = self.requests.get_mut(&sequence) {
                            request.error = Some(error);
                        }
                        self.conclude(sequence, judged, &[]);
                    }
                }
            }
            Ok(Ended::Raised(raised)) => self.take_note_of_raise(raised),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // Only a runtime that ends cancels tasks.
            Err(_) => {}
        }
    }

    fn conclude(&mut self, sequence: u64, (outcome, possible): (Outcome, bool), results: &[AppendResult]) {
        match outcome {
            Outcome::Stale => self.shared.lock().stale = true,
            Outcome::Stored => self.reroutes = 0,
            Outcome::OutOfOrder | Outcome::Failed | Outcome::Collided | Outcome::Fenced => {}
        }
        let verdict = self.window.conclude(sequence, outcome, possible);
        if verdict == Verdict::Wait {
            return;
        }
        let Some(request) = self.requests.remove(&sequence) else { return };
        let side_effects = if possible { SideEffects::Possible } else { SideEffects::None };
        match verdict {
            Verdict::Stored => request.stored(&self.shared, results),
            Verdict::Failed => request.fail_with(&self.shared, side_effects),
            Verdict::Again => request.send_anew(&self.shared),
            Verdict::Wait => {}
        }
    }

    /// Ends the trouble, or begins to, if there is any and nothing is in flight; tells whether there was something to do.
    fn remedy(&mut self) -> bool {
        let raises = !self.tasks.is_empty();
        match self.window.remedy() {
            Some(Remedy::Rewind) => {
                let fates = self.window.rewind();
                self.tell(fates, None);
            }
            Some(Remedy::Close) => self.close(),
            // Without anything to send, there is time until there is.
            Some(Remedy::Raise) if !raises && self.shared.lock().oldest().is_some() => self.raise(),
            Some(Remedy::Raise) | None => return false,
        }
        true
    }

    fn raise(&mut self) {
        let Some(producer) = self.shared.producer.clone() else { return };
        let client = self.shared.client.clone();
        let attempt_timeout = self.shared.settings.request_timeout;
        let wait = match self.raises_failed {
            0 => std::time::Duration::ZERO,
            failed => client.backoff(failed),
        };
        let own = self.window.epoch();
        tracing::debug!(%producer, epoch = own, "raising the epoch");
        self.tasks.spawn(async move {
            tokio::time::sleep(wait).await;
            let deadline = Instant::now() + attempt_timeout;
            let raise = Raise { client, producer, own, deadline, attempt_timeout };
            Ended::Raised(Box::pin(raise.run()).await)
        });
    }

    fn take_note_of_raise(&mut self, raised: Raised) {
        match raised {
            Raised::To { epoch, before } => {
                self.raises_failed = 0;
                let fates = self.window.raised(epoch, last_sequence(&before));
                self.tell(fates, Some(&before));
            }
            Raised::Fenced(error) => {
                self.fenced = Some(error);
                self.close();
            }
            Raised::Failed(error) => {
                self.raises_failed += 1;
                self.fail_overdue(&error);
            }
        }
    }

    /// Answers the requests whose time is up; all that wait too, if the epoch will never be raised.
    fn fail_overdue(&mut self, error: &RequestError) {
        let now = Instant::now();
        let hopeless = !error.retryable();
        let (over, left) = std::mem::take(&mut self.requests)
            .into_iter()
            .partition(|(_, request)| hopeless || request.deadline <= now);
        self.requests = left;
        let over: BTreeMap<u64, Request> = over;
        for (sequence, mut request) in over {
            let possible = self.window.is_possible(sequence);
            request.error.get_or_insert_with(|| error.clone());
            request.fail_with(&self.shared, if possible { SideEffects::Possible } else { SideEffects::None });
        }
        if hopeless {
            let error = error.clone().with_side_effects(SideEffects::None);
            self.shared.fail_waiting(&ProduceError::Request(Arc::new(error)));
        }
    }

    /// Tells the requests what became of them; those that are sent anew wait in their old order.
    fn tell(&mut self, fates: Vec<(u64, Fate)>, before: Option<&FencedEpochResponse>) {
        // From the last to the first, since each goes before all that wait.
        for (sequence, fate) in fates.into_iter().rev() {
            let Some(request) = self.requests.remove(&sequence) else { continue };
            match fate {
                Fate::Stored => request.stored(&self.shared, &kept_results(before, sequence)),
                Fate::Again => request.send_anew(&self.shared),
                Fate::Failed => request.fail_with(&self.shared, SideEffects::None),
                Fate::Unknown => request.fail_with(&self.shared, SideEffects::Possible),
            }
        }
    }

    /// Another producer has taken over: nothing is ever sent again.
    fn close(&mut self) {
        let Some(fenced) = self.fenced.clone() else { return };
        self.requests.values_mut().for_each(|request| request.error = Some(fenced.clone()));
        let fates = self.window.close();
        self.tell(fates, None);
        let error = ProduceError::Request(Arc::new(fenced.with_side_effects(SideEffects::None)));
        self.shared.lock().close_with(error.clone());
        self.shared.fail_waiting(&error);
    }

    /// Asks how many partitions the topic has now, and routes again. If nobody knows, nothing that waits can be sent.
    async fn reroute(&mut self) {
        self.reroutes += 1;
        if self.reroutes > 1 {
            tokio::time::sleep(self.shared.client.backoff(self.reroutes - 1)).await;
        }
        match Box::pin(self.shared.client.ask_route(&self.shared.topic)).await {
            Ok(route) => self.shared.lock().reroute(route),
            Err(error) => {
                self.shared.lock().stale = false;
                self.shared.fail_waiting(&ProduceError::Request(Arc::new(error)));
            }
        }
    }
}

async fn sleep_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// The last accepted sequence of an epoch. One that is not understood is beyond all of ours.
fn last_sequence(before: &FencedEpochResponse) -> Option<u128> {
    before.last_sequence.as_ref().map(|last| last.parse().unwrap_or(u128::MAX))
}

/// Where the records of a request of an epoch that is over went; empty if that is not known (any more).
fn kept_results(before: Option<&FencedEpochResponse>, sequence: u64) -> Vec<AppendResult> {
    let text = sequence.to_string();
    let kept = before.and_then(|before| before.replies.iter().find(|reply| reply.sequence == text));
    let results = kept.into_iter().flat_map(|reply| &reply.results);
    let result = results.map(|result| AppendResult {
        partition: result.partition,
        base_offset: result.base_offset,
        count: result.count,
        append_time: result.append_time,
    });
    result.collect()
}
