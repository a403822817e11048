//! Who is let in, and to what.
//!
//! A request shows a token in its `Authorization` header. What the metadata core knows of the token is asked once and then
//! believed for a while: [`FRESH`] in any case, [`STALE_MAX`] while no metadata node answers. So a token that is revoked ends
//! everywhere before ten seconds have passed, also for those who listen to a stream. Nothing is let in on a guess.
//!
//! Which permission a route needs stands in its table in [`http::routes`](crate::http); what a body names is checked by the handler, with
//! the [`Caller`].

mod lookup;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use carnax_core::access::{self, Grant, Operation, Resource, Token, TokenId};
use carnax_core::error_code::ErrorCode;
use carnax_core::metadata::{KnownToken, TouchToken};
use carnax_core::name::TopicPattern;
use carnax_core::problem::Problem;
use carnax_core::quota::Quotas;
use carnax_platform::clock::Clock;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use tokio::time::timeout;

use crate::metadata_client::MetadataClient;
use crate::metrics::Metrics;
use crate::quota::QuotaKeeper;
use lookup::{Lookups, Seen};

/// How long what is known of a token is believed without asking.
pub(crate) const FRESH: Duration = Duration::from_secs(4);
/// How long it is believed while nobody can be asked.
const STALE_MAX: Duration = Duration::from_secs(8);
/// How long it may take to note that a token was used; nothing depends on it.
const TOUCH_TIMEOUT: Duration = Duration::from_secs(1);
/// Every scheme is written as one likes (RFC 9110, section 11.1).
const SCHEME: &str = "bearer";

const _: () = assert!(FRESH.as_secs() < STALE_MAX.as_secs() && STALE_MAX.as_secs() < 10);

/// Who has to show a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Everybody.
    Everybody,
    /// Everybody, as soon as the cluster has any token.
    WhereThereAreTokens,
    /// Nobody.
    Nobody,
}

/// Knows who may do what.
#[derive(Debug)]
pub(crate) struct Access {
    rule: Rule,
    client: Arc<MetadataClient>,
    lookups: Lookups,
    quotas: Arc<QuotaKeeper>,
    metrics: Arc<Metrics>,
}

/// Who makes a request: the holder of a valid token, or somebody where none is needed.
#[derive(Clone)]
pub(crate) struct Caller(Option<Arc<Known>>);

struct Known {
    token: Token,
    grants: Vec<Grant>,
}

impl Access {
    pub(crate) fn new(
        rule: Rule,
        client: Arc<MetadataClient>,
        clock: Arc<dyn Clock>,
        quotas: Arc<QuotaKeeper>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let lookups = Lookups::new(Arc::clone(&client), clock, Arc::clone(&metrics));
        Self { rule, client, lookups, quotas, metrics }
    }

    /// Says who makes a request.
    ///
    /// # Errors
    /// `unauthenticated` without a token that is valid, where one is needed; `no_quorum` and the like if that cannot be known.
    pub(crate) async fn authenticate(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        let authenticated = match shown(headers)? {
            Some(token) => self.holder(token).await,
            None => self.anonymous().await,
        };
        let outcome = match &authenticated {
            Ok(Caller(Some(_))) => "token",
            Ok(Caller(None)) => "anonymous",
            Err(problem) if problem.code == ErrorCode::Unauthenticated => "refused",
            Err(_) => "unavailable",
        };
        self.metrics.access.authentications.with_label_values(&[outcome]).inc();
        authenticated
    }

    /// Whether a caller who was let in before still would be, to the same.
    ///
    /// # Errors
    /// As [`authenticate`](Self::authenticate).
    pub(crate) async fn again(&self, caller: &Caller) -> Result<Caller, Problem> {
        match &caller.0 {
            Some(known) => self.holder(known.token.clone()).await,
            None => self.anonymous().await,
        }
    }

    async fn anonymous(&self) -> Result<Caller, Problem> {
        let is_open = match self.rule {
            Rule::Everybody => false,
            Rule::WhereThereAreTokens => self.lookups.look(None).await?.count == 0,
            Rule::Nobody => true,
        };
        if is_open {
            return Ok(Caller(None));
        }
        let detail = "this needs an access token: send it as `Authorization: Bearer carnax_<id>_<secret>`";
        Err(unauthenticated(detail))
    }

    async fn holder(&self, token: Token) -> Result<Caller, Problem> {
        let seen = self.lookups.look(Some(token.id())).await?;
        if seen.token.is_none() {
            self.quotas.know(token.id(), &Quotas::default());
        }
        // One who does not know the secret learns nothing, not even whether there is such a token.
        let known = seen.token.as_ref().filter(|known| known.hash.is_of(&token));
        let known = known.ok_or_else(|| {
            unauthenticated("the access token is not known: it never was, or it was revoked")
        })?;
        if known.description.expires.is_some_and(|expires| expires <= seen.log_time) {
            return Err(unauthenticated(&format!("access token {} has expired", token.id())));
        }
        self.quotas.know(token.id(), &known.description.quotas);
        self.touch(&seen, known).await;
        Ok(Caller(Some(Arc::new(Known { token, grants: known.description.grants.clone() }))))
    }

    /// Notes that a token was used, if nobody did for long.
    async fn touch(&self, seen: &Seen, known: &KnownToken) {
        if !seen.should_touch(known) {
            return;
        }
        let id = known.description.id.clone();
        let touched = timeout(TOUCH_TIMEOUT, self.client.command(TouchToken { id })).await;
        if let Ok(Err(error)) = touched {
            tracing::debug!(problem = %error.into_problem(), "the use of a token could not be noted");
        }
    }
}

impl Caller {
    /// Whose token it is; none where no token is needed.
    pub(crate) fn token(&self) -> Option<&TokenId> {
        self.0.as_ref().map(|known| known.token.id())
    }

    /// The name under which the caller's idempotency keys are kept apart from those of others.
    pub(crate) fn principal(&self) -> String {
        self.token().map_or_else(String::new, TokenId::to_string)
    }

    /// Whether an operation is allowed.
    pub(crate) fn may(&self, operation: Operation, resource: Resource<'_>) -> bool {
        self.0.as_ref().is_none_or(|known| access::allows(&known.grants, operation, resource))
    }

    /// Allows an operation or says what is missing.
    ///
    /// # Errors
    /// `forbidden`. It is the same whether or not there is such a topic or group.
    pub(crate) fn check(&self, operation: Operation, resource: Resource<'_>) -> Result<(), Problem> {
        if self.may(operation, resource) { Ok(()) } else { Err(self.forbidden(operation, &resource)) }
    }

    /// Allows an operation on all topics that a pattern may ever match.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub(crate) fn check_pattern(&self, operation: Operation, pattern: &TopicPattern) -> Result<(), Problem> {
        let allowed = |known: &Arc<Known>| access::allows_pattern(&known.grants, operation, pattern);
        if self.0.as_ref().is_none_or(allowed) {
            return Ok(());
        }
        Err(self.forbidden(operation, &format_args!("every topic that matches {pattern}")))
    }

    /// Allows an operation that needs a grant on any topic, whichever.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub(crate) fn check_some_topic(&self, operation: Operation) -> Result<(), Problem> {
        if self.0.as_ref().is_none_or(|known| access::allows_some_topic(&known.grants, operation)) {
            return Ok(());
        }
        Err(self.forbidden(operation, &"any topic"))
    }

    fn forbidden(&self, operation: Operation, resource: &dyn fmt::Display) -> Problem {
        let token = self.token().map_or("", |token| token.as_str());
        let detail = format!("access token {token} does not allow {operation} on {resource}");
        Problem::new(ErrorCode::Forbidden, detail)
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Caller").field(&self.token()).finish()
    }
}

/// The token that a request shows, if any.
fn shown(headers: &HeaderMap) -> Result<Option<Token>, Problem> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(unauthenticated("there are two Authorization headers"));
    }
    let token = |value: &HeaderValue| {
        let (scheme, token) = value.to_str().ok()?.trim().split_once(' ')?;
        scheme.eq_ignore_ascii_case(SCHEME).then(|| token.trim().parse().ok()).flatten()
    };
    let unreadable = || unauthenticated("the Authorization header is not `Bearer carnax_<id>_<secret>`");
    token(value).map(Some).ok_or_else(unreadable)
}

fn unauthenticated(detail: &str) -> Problem {
    Problem::new(ErrorCode::Unauthenticated, detail)
}
