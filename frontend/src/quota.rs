//! Quotas: what may be done in a second with a token, and on a topic. Each frontend holds them by itself, as a broker of Kafka does
//! (KIP-13).
//!
//! What was used is paid for with time, so that a request may be larger than what is left: the next one waits until it is paid. A
//! refusal says for how long.

mod bucket;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use carnax_core::error_code::ErrorCode;
use carnax_core::id::TopicId;
use carnax_core::name::TokenId;
use carnax_core::problem::Problem;
use carnax_core::quota::{Direction, Measure, Quotas};
use carnax_platform::clock::Clock;

use crate::metadata_client::topics::Topic;
use crate::metrics::Metrics;
use bucket::Bucket;

/// Beyond so many buckets, those that owe nothing are forgotten, which changes nothing.
const BUCKETS_MAX: usize = 10_000;

/// Holds tokens and topics to their quotas.
#[derive(Debug)]
pub(crate) struct QuotaKeeper {
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    ledger: Mutex<Ledger>,
}

#[derive(Debug, Default)]
struct Ledger {
    /// Of tokens that have any, as they were when they were last looked up.
    tokens: HashMap<TokenId, Quotas>,
    buckets: HashMap<(Payer, Direction, Measure), Bucket>,
    /// So many buckets are looked through for those that owe nothing.
    sweep_at: usize,
}

/// Who pays for something.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Payer {
    Token(TokenId),
    Topic(TopicId),
}

/// One quota that something counts against.
#[derive(Debug)]
struct Charge {
    payer: Payer,
    direction: Direction,
    measure: Measure,
    per_second: u64,
    amount: u64,
    /// The payer, for people.
    name: String,
}

impl QuotaKeeper {
    pub(crate) fn new(clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        Self { clock, metrics, ledger: Mutex::default() }
    }

    /// Takes in the quotas of a token, as they are now.
    pub(crate) fn know(&self, token: &TokenId, quotas: &Quotas) {
        let mut ledger = self.ledger();
        if quotas.is_unlimited() {
            ledger.tokens.remove(token);
        } else if ledger.tokens.get(token) != Some(quotas) {
            ledger.tokens.insert(token.clone(), *quotas);
        }
    }

    /// Takes an append of so many bytes to each topic, or refuses all of it.
    ///
    /// # Errors
    /// `too_many_requests` with the time to wait; then nothing was counted.
    pub(crate) fn produce<'a>(
        &self,
        token: Option<&TokenId>,
        topics: impl IntoIterator<Item = (&'a Topic, u64)>,
    ) -> Result<(), Problem> {
        let mut ledger = self.ledger();
        let (mut charges, mut whole) = (Vec::new(), 0u64);
        for (topic, bytes) in topics {
            whole = whole.saturating_add(bytes);
            charges.extend(of_topic(topic, Direction::Produce, Measure::Bytes, bytes));
            charges.extend(of_topic(topic, Direction::Produce, Measure::Requests, 1));
        }
        charges.extend(ledger.of_token(token, Direction::Produce, Measure::Bytes, whole));
        charges.extend(ledger.of_token(token, Direction::Produce, Measure::Requests, 1));
        self.take(&mut ledger, &charges)
    }

    /// Takes a request that fetches, unless what was fetched before is not paid for.
    ///
    /// # Errors
    /// As [`produce`](Self::produce).
    pub(crate) fn fetch_request(&self, token: Option<&TokenId>, topic: &Topic) -> Result<(), Problem> {
        let mut ledger = self.ledger();
        // With no bytes, so that a request is not counted that is refused for those of before.
        let mut charges = ledger.of_fetched(token, topic, 0);
        charges.extend(of_topic(topic, Direction::Fetch, Measure::Requests, 1));
        charges.extend(ledger.of_token(token, Direction::Fetch, Measure::Requests, 1));
        self.take(&mut ledger, &charges)
    }

    /// Says how many bytes may be fetched at once: a second's worth, or all where there is no quota. They are counted when they
    /// were [`fetched`](Self::fetched).
    ///
    /// # Errors
    /// As [`produce`](Self::produce), while what was fetched before is not paid for.
    pub(crate) fn fetch_bytes(&self, token: Option<&TokenId>, topic: &Topic) -> Result<u64, Problem> {
        let mut ledger = self.ledger();
        let charges = ledger.of_fetched(token, topic, 0);
        let least = charges.iter().map(|charge| charge.per_second).min();
        self.take(&mut ledger, &charges)?;
        Ok(least.unwrap_or(u64::MAX).max(1))
    }

    /// Counts what was fetched.
    pub(crate) fn fetched(&self, token: Option<&TokenId>, topic: &Topic, bytes: u64) {
        let now = self.clock.monotonic();
        let mut ledger = self.ledger();
        for charge in ledger.of_fetched(token, topic, bytes) {
            ledger.bucket(&charge, now).charge(charge.amount, now);
        }
    }

    /// Counts all charges if each has something left.
    fn take(&self, ledger: &mut Ledger, charges: &[Charge]) -> Result<(), Problem> {
        let now = self.clock.monotonic();
        let waits = charges.iter().map(|charge| (ledger.bucket(charge, now).wait(now), charge));
        if let Some((wait, charge)) = waits.max_by_key(|(wait, _)| *wait).filter(|(wait, _)| !wait.is_zero())
        {
            let payer = match charge.payer {
                Payer::Token(_) => "token",
                Payer::Topic(_) => "topic",
            };
            let labels = [payer, charge.direction.as_str(), charge.measure.as_str()];
            self.metrics.access.quota_refusals.with_label_values(&labels).inc();
            return Err(refused(charge, wait));
        }
        for charge in charges {
            ledger.bucket(charge, now).charge(charge.amount, now);
        }
        Ok(())
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger {
    fn of_token(
        &self,
        token: Option<&TokenId>,
        direction: Direction,
        measure: Measure,
        amount: u64,
    ) -> Option<Charge> {
        let token = token?;
        let per_second = self.tokens.get(token)?.per_second(direction, measure)?;
        let (payer, name) = (Payer::Token(token.clone()), format!("access token {token}"));
        Some(Charge { payer, direction, measure, per_second, amount, name })
    }

    fn of_fetched(&self, token: Option<&TokenId>, topic: &Topic, bytes: u64) -> Vec<Charge> {
        let of_topic = of_topic(topic, Direction::Fetch, Measure::Bytes, bytes);
        let of_token = self.of_token(token, Direction::Fetch, Measure::Bytes, bytes);
        of_topic.into_iter().chain(of_token).collect()
    }

    fn bucket(&mut self, charge: &Charge, now: Duration) -> &mut Bucket {
        if self.buckets.len() >= self.sweep_at.max(BUCKETS_MAX) {
            self.buckets.retain(|_, bucket| !bucket.is_full(now));
            // Not again at once, if all of them owe something.
            self.sweep_at = 2 * self.buckets.len();
        }
        let key = (charge.payer.clone(), charge.direction, charge.measure);
        let bucket = self.buckets.entry(key).or_default();
        bucket.set_rate(charge.per_second, now);
        bucket
    }
}

fn of_topic(topic: &Topic, direction: Direction, measure: Measure, amount: u64) -> Option<Charge> {
    let per_second = topic.quotas.per_second(direction, measure)?;
    let (payer, name) = (Payer::Topic(topic.id), format!("topic {}", topic.name));
    Some(Charge { payer, direction, measure, per_second, amount, name })
}

fn refused(charge: &Charge, wait: Duration) -> Problem {
    let Charge { name, direction, measure, per_second, .. } = charge;
    // Rounded up: whoever waits so long does not come too early.
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    let detail = format!(
        "{name} has used up its quota of {per_second} {} per second for {} at this frontend; go on in {seconds} s",
        measure.as_str(),
        direction.as_str(),
    );
    Problem::new(ErrorCode::TooManyRequests, detail).with(|facts| {
        facts.retry_after_seconds = Some(seconds);
        facts.limit = Some(*per_second);
    })
}

#[cfg(test)]
mod tests;
