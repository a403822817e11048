//! What the metadata core knows of tokens, asked for once and kept for a while.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use carnax_core::access::TokenId;
use carnax_core::error_code::ErrorCode;
use carnax_core::limits;
use carnax_core::metadata::{FindToken, KnownToken, TokenFound};
use carnax_core::problem::Problem;
use carnax_core::time::Timestamp;
use carnax_platform::clock::Clock;
use tokio::sync::{Mutex as AsyncMutex, Semaphore};

use super::{FRESH, STALE_MAX};
use crate::metadata_client::MetadataClient;
use crate::metrics::Metrics;

/// Ids that are remembered, those of no token included; beyond it all are forgotten.
const KNOWN_MAX: usize = limits::TOKENS_MAX * 2;
/// How long it is believed that there is no such token: it may be created any moment.
const FRESH_ABSENCE: Duration = Duration::from_millis(500);
/// How long nobody is asked again after nobody could answer.
const REST: Duration = Duration::from_millis(500);
/// Tokens of which nothing is known that are asked for at the same time.
const STRANGERS_MAX: usize = 64;
/// How long is asked before what is old is believed instead.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(1);

/// What was found, as of now.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) token: Option<Arc<KnownToken>>,
    /// Tokens of the cluster.
    pub(super) count: u64,
    /// Log time now, as far as this frontend can reckon it.
    pub(super) log_time: Timestamp,
    /// Whether this is news: a use is noted then, if ever.
    is_new: bool,
}

/// Asks for tokens, each at most once at a time.
#[derive(Debug)]
pub(super) struct Lookups {
    client: Arc<MetadataClient>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    known: Mutex<BTreeMap<Option<TokenId>, Arc<AsyncMutex<Slot>>>>,
    /// For those of which nothing is known: whoever tries many must not keep the metadata core busy.
    strangers: Semaphore,
}

/// What is known of one token.
#[derive(Debug, Default)]
struct Slot {
    answer: Option<Answer>,
    /// When nobody could answer, and why.
    failed: Option<(Duration, Problem)>,
}

#[derive(Debug)]
struct Answer {
    /// Just before it was asked for: from then on it may be out of date.
    asked: Duration,
    token: Option<Arc<KnownToken>>,
    count: u64,
    log_time: Timestamp,
}

impl Seen {
    /// Whether nobody noted for long that the token is in use.
    pub(super) fn should_touch(&self, known: &KnownToken) -> bool {
        let noted = known.description.last_used;
        self.is_new && noted.is_none_or(|noted| self.log_time.since(noted) >= limits::TOKEN_USE_GRAIN)
    }
}

impl Lookups {
    pub(super) fn new(client: Arc<MetadataClient>, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        Self { client, clock, metrics, known: Mutex::default(), strangers: Semaphore::new(STRANGERS_MAX) }
    }

    /// What is known of a token, or (without one) whether there are any.
    ///
    /// # Errors
    /// Nobody could be asked, and what is known is too old.
    pub(super) async fn look(&self, id: Option<&TokenId>) -> Result<Seen, Problem> {
        let slot = self.slot(id);
        let mut slot = slot.lock().await;
        let now = self.clock.monotonic();
        let age = slot.answer.as_ref().map(|answer| now.saturating_sub(answer.asked));
        if let (Some(answer), Some(age)) = (&slot.answer, age)
            && age < answer.fresh()
        {
            return Ok(answer.seen(age, false));
        }
        if let Some((at, problem)) = &slot.failed
            && now.saturating_sub(*at) < REST
        {
            return slot.old(now).ok_or_else(|| problem.clone());
        }
        let is_known = slot.answer.as_ref().is_some_and(|answer| answer.token.is_some());
        let asked = self.ask(id, is_known).await;
        let later = self.clock.monotonic();
        match asked {
            Ok(found) => {
                let answer = Answer::new(now, found);
                let seen = answer.seen(later.saturating_sub(now), true);
                *slot = Slot { answer: Some(answer), failed: None };
                Ok(seen)
            }
            Err(problem) => {
                tracing::warn!(%problem, "an access token could not be looked up");
                slot.failed = Some((later, problem.clone()));
                slot.old(later).ok_or(problem)
            }
        }
    }

    async fn ask(&self, id: Option<&TokenId>, is_known: bool) -> Result<TokenFound, Problem> {
        let place = if is_known { None } else { Some(self.strangers.try_acquire().map_err(|_| too_many())?) };
        self.metrics.access.token_lookups.inc();
        let asking = self.client.query(FindToken { id: id.cloned() });
        if place.is_some() {
            return match asking.await {
                // A node from before there were tokens: as long as there is one, the cluster can have none.
                Err(problem) if problem.code == ErrorCode::RouteNotFound => {
                    Ok(TokenFound { token: None, count: 0, log_time: Timestamp::EPOCH })
                }
                found => found,
            };
        }
        tokio::time::timeout(REFRESH_TIMEOUT, asking).await.unwrap_or_else(|_| {
            let detail =
                format!("no metadata node said within {REFRESH_TIMEOUT:?} whether an access token is valid");
            Err(Problem::new(ErrorCode::NoQuorum, detail))
        })
    }

    fn slot(&self, id: Option<&TokenId>) -> Arc<AsyncMutex<Slot>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let id = id.cloned();
        if known.len() >= KNOWN_MAX && !known.contains_key(&id) {
            known.clear();
        }
        Arc::clone(known.entry(id).or_default())
    }
}

fn too_many() -> Problem {
    let detail = "too many unknown access tokens are shown at the same time; try again after a while";
    Problem::new(ErrorCode::TooManyRequests, detail).with(|facts| facts.retry_after_seconds = Some(1))
}

impl Slot {
    /// What is known, while it is not too old.
    fn old(&self, now: Duration) -> Option<Seen> {
        let answer = self.answer.as_ref()?;
        let age = now.saturating_sub(answer.asked);
        (answer.token.is_some() && age < STALE_MAX).then(|| answer.seen(age, false))
    }
}

impl Answer {
    fn new(asked: Duration, found: TokenFound) -> Self {
        let TokenFound { token, count, log_time } = found;
        Self { asked, token: token.map(Arc::new), count, log_time }
    }

    fn fresh(&self) -> Duration {
        // That there are no tokens at all is believed as long as that there is one.
        if self.token.is_some() || self.count == 0 { FRESH } else { FRESH_ABSENCE }
    }

    fn seen(&self, age: Duration, is_new: bool) -> Seen {
        Seen {
            token: self.token.clone(),
            count: self.count,
            log_time: self.log_time.saturating_add(age),
            is_new,
        }
    }
}
