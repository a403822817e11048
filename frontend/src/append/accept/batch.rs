//! Many small requests that came together, each a unit of its own: they share a segment, and so a commit.

use std::collections::BTreeSet;
use std::sync::Arc;

use carnax_core::error_code::ErrorCode;
use carnax_core::limits;
use carnax_core::problem::Problem;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::atomic::AtomicAppend;
use super::{
    Accept, AppendRecords, AppendRequest, Appended, KnownTopics, ROUTINGS_MAX, Stamp, may_be_old_knowledge,
};
use crate::append::Arrival;

/// Requests that are submitted together.
const WAVE_REQUESTS_MAX: usize = 1_000;

/// One of many requests.
#[derive(Debug)]
pub(crate) struct BatchedAppend {
    pub(crate) records: AtomicAppend,
    pub(crate) stamp: Stamp,
    /// Requests of one chain are in order: when one fails, those after it in its chain are not done.
    pub(crate) chain: Option<Arc<str>>,
}

/// What is known of each request so far.
struct Results {
    /// None: not tried, or to be tried again.
    decided: Vec<Option<Result<Appended, Problem>>>,
    chains: Vec<Option<Arc<str>>>,
}

/// Requests that go into one segment, with those who wait for them.
#[derive(Default)]
struct Wave {
    submissions: Arrival,
    answers: Vec<(usize, oneshot::Receiver<Result<Appended, Problem>>)>,
    commit_bytes: usize,
}

impl Accept {
    /// Appends all, and says of each what became of it. Requests of one chain stand next to each other, in their order.
    ///
    /// Of a chain, what stands behind a failure is not done. Three things see to that. Nothing is submitted behind a failure,
    /// whatever round it is of. A chain never has requests in two segments of which the first is undecided: they are
    /// submitted in waves, each of them one segment, and the next wave begins when all of the last one are answered. Within a
    /// segment its requests stand next to each other, so that one is decided by the state that the one before it left: where
    /// there was no room for that one, there is none for the next.
    pub(crate) async fn append_all(
        &self,
        appends: Vec<BatchedAppend>,
        memory: &Arc<OwnedSemaphorePermit>,
    ) -> Vec<Result<Appended, Problem>> {
        let _in_progress = self.context.in_progress.token();
        let mut chains = Vec::with_capacity(appends.len());
        let mut requests = Vec::with_capacity(appends.len());
        for BatchedAppend { records, stamp, chain } in appends {
            chains.push(chain);
            let records = AppendRecords::Atomic(Box::new(records));
            requests.push(AppendRequest { records, stamp, memory: Arc::clone(memory), token: None });
        }
        let mut results = Results { decided: requests.iter().map(|_| None).collect(), chains };
        let mut known = None;
        for round in 0..ROUTINGS_MAX {
            if results.decided.iter().all(|result| is_final(result.as_ref())) {
                break;
            }
            let topics = match self.topics_of(&requests, round > 0).await {
                Ok(topics) => topics,
                Err(problem) => return results.or(&problem),
            };
            if known.as_ref() == Some(&topics) {
                // What failed did not fail by old knowledge. Where ids were left to the state machine, it has found no repeat:
                // so they are what is wrong.
                results.explain(&requests, &topics);
                break;
            }
            self.submit_round(&requests, &topics, &mut results).await;
            known = Some(topics);
        }
        results.or(&behind_a_failure())
    }

    async fn topics_of(&self, requests: &[AppendRequest], fresh: bool) -> Result<KnownTopics, Problem> {
        let names: BTreeSet<_> = requests.iter().flat_map(AppendRequest::topic_names).collect();
        match requests.first() {
            Some(first) => self.resolve(first, &names, fresh).await,
            None => Ok(KnownTopics::new()),
        }
    }

    /// Tries all that are not decided for good and stand behind no failure.
    async fn submit_round(&self, requests: &[AppendRequest], topics: &KnownTopics, results: &mut Results) {
        let (mut broken, mut wave) = (BTreeSet::new(), Wave::default());
        for (at, request) in requests.iter().enumerate() {
            if is_final(results.decided[at].as_ref()) {
                results.note(at, &mut broken);
                continue;
            }
            results.decided[at] = None;
            if results.stands_behind(at, &broken) {
                continue;
            }
            let content = match self.route(request, topics) {
                Ok(content) => content,
                Err(problem) => {
                    results.decided[at] = Some(Err(problem));
                    results.note(at, &mut broken);
                    continue;
                }
            };
            let bytes = content.commit_bytes_max();
            if !wave.has_room_for(bytes) {
                self.submit(std::mem::take(&mut wave), results, &mut broken).await;
                if results.stands_behind(at, &broken) {
                    continue;
                }
            }
            let (reply, answer) = oneshot::channel();
            wave.submissions.push(request.submission(content, reply));
            wave.answers.push((at, answer));
            wave.commit_bytes += bytes;
        }
        self.submit(wave, results, &mut broken).await;
    }

    /// Submits requests that go into one segment, and waits until all are answered.
    async fn submit(&self, wave: Wave, results: &mut Results, broken: &mut BTreeSet<Arc<str>>) {
        if wave.answers.is_empty() {
            return;
        }
        let sent = self.send(wave.submissions);
        for (at, answer) in wave.answers {
            let unanswered =
                || Problem::new(ErrorCode::OutcomeUnknown, "the append was given up without an answer");
            results.decided[at] = Some(match &sent {
                Ok(()) => answer.await.unwrap_or_else(|_| Err(unanswered())),
                Err(problem) => Err(problem.clone()),
            });
            results.note(at, broken);
        }
    }
}

impl Wave {
    fn has_room_for(&self, bytes: usize) -> bool {
        self.submissions.len() < WAVE_REQUESTS_MAX
            && self.commit_bytes + bytes <= limits::SEGMENT_COMMIT_BYTES_MAX
    }
}

impl Results {
    /// Notes the chain of a request that has failed.
    fn note(&self, at: usize, broken: &mut BTreeSet<Arc<str>>) {
        if matches!(self.decided[at], Some(Err(_))) {
            broken.extend(self.chains[at].clone());
        }
    }

    fn stands_behind(&self, at: usize, broken: &BTreeSet<Arc<str>>) -> bool {
        self.chains[at].as_ref().is_some_and(|chain| broken.contains(chain))
    }

    /// Says of what failed by its topic which one it was.
    fn explain(&mut self, requests: &[AppendRequest], topics: &KnownTopics) {
        for (request, result) in requests.iter().zip(&mut self.decided) {
            let by_topic = matches!(result, Some(Err(problem)) if may_be_old_knowledge(problem.code));
            if by_topic && let Err(problem) = request.check_ids(topics) {
                *result = Some(Err(problem));
            }
        }
    }

    /// All results; those that were not tried fail.
    fn or(self, problem: &Problem) -> Vec<Result<Appended, Problem>> {
        self.decided.into_iter().map(|result| result.unwrap_or_else(|| Err(problem.clone()))).collect()
    }
}

/// Whether asking for the topics anew cannot change a result.
fn is_final(result: Option<&Result<Appended, Problem>>) -> bool {
    match result {
        None => false,
        Some(Ok(_)) => true,
        Some(Err(problem)) => !may_be_old_knowledge(problem.code),
    }
}

fn behind_a_failure() -> Problem {
    Problem::new(ErrorCode::Unavailable, "one before it in its group failed: it has to wait")
}
