//! Which endpoint to ask: stays with one, moves on when it fails, and leaves failed ones alone for a while.

use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::Uri;
use tokio::time::Instant;

use crate::error::BuildError;

/// Where a frontend listens: `http://host:port` or `https://host:port`, and perhaps a path that comes before every path of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    base: String,
}

impl Endpoint {
    pub(crate) fn uri(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Whether it is spoken to over TLS. Schemes are case-insensitive.
    pub(crate) fn is_secure(&self) -> bool {
        self.base.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)
    }
}

impl FromStr for Endpoint {
    type Err = BuildError;

    fn from_str(text: &str) -> Result<Self, BuildError> {
        let invalid =
            |reason: &str| BuildError::Endpoint { endpoint: text.to_owned(), reason: reason.to_owned() };
        let base = text.trim().trim_end_matches('/');
        let uri: Uri = base.parse().map_err(|_| invalid("it is no URL"))?;
        match uri.scheme_str() {
            Some("http" | "https") => {}
            _ => return Err(invalid("it begins neither with http:// nor with https://")),
        }
        if uri.host().is_none_or(str::is_empty) || uri.query().is_some() || base.contains('@') {
            return Err(invalid("it has a host, and neither a query nor a user"));
        }
        Ok(Self { base: base.to_owned() })
    }
}

/// All endpoints, in the order of preference at the start.
#[derive(Debug)]
pub(crate) struct Endpoints {
    all: Vec<Endpoint>,
    rest: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    current: usize,
    /// Until when each endpoint is left alone.
    bad_until: Vec<Option<Instant>>,
}

impl State {
    fn is_good(&self, endpoint: usize, now: Instant) -> bool {
        self.bad_until[endpoint].is_none_or(|until| until <= now)
    }
}

impl Endpoints {
    /// # Panics
    /// If there is none: the builder refuses that.
    pub(crate) fn new(all: Vec<Endpoint>, rest: Duration) -> Self {
        assert!(!all.is_empty(), "a client has an endpoint");
        let state = Mutex::new(State { current: 0, bad_until: vec![None; all.len()] });
        Self { all, rest, state }
    }

    pub(crate) fn get(&self, endpoint: usize) -> &Endpoint {
        &self.all[endpoint]
    }

    /// The current one while it is well; else the next that is; else the one that failed longest ago.
    pub(crate) fn pick(&self, now: Instant) -> usize {
        let mut state = self.lock();
        let count = self.all.len();
        let mut in_order = (0..count).map(|step| (state.current + step) % count);
        let good = in_order.find(|endpoint| state.is_good(*endpoint, now));
        let picked = good.unwrap_or_else(|| {
            (0..count).min_by_key(|endpoint| state.bad_until[*endpoint]).unwrap_or(state.current)
        });
        state.current = picked;
        picked
    }

    /// Whether any is believed to be well.
    pub(crate) fn has_good(&self, now: Instant) -> bool {
        let state = self.lock();
        (0..self.all.len()).any(|endpoint| state.is_good(endpoint, now))
    }

    pub(crate) fn praise(&self, endpoint: usize) {
        self.lock().bad_until[endpoint] = None;
    }

    pub(crate) fn blame(&self, endpoint: usize, now: Instant) {
        self.lock().bad_until[endpoint] = Some(now + self.rest);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_is_kept_until_it_fails_and_then_left_alone_for_a_while() {
        let all = ["http://a:1", "http://b:2/", "http://c:3"].map(|text| text.parse().unwrap());
        let endpoints = Endpoints::new(all.into(), Duration::from_secs(10));
        let start = Instant::now();
        assert_eq!((endpoints.pick(start), endpoints.pick(start)), (0, 0));
        endpoints.blame(0, start);
        assert_eq!(endpoints.pick(start), 1);
        let after = |seconds| start + Duration::from_secs(seconds);
        endpoints.blame(1, after(1));
        assert_eq!(endpoints.pick(after(2)), 2);
        assert_eq!(endpoints.pick(after(60)), 2, "it stays where it is well");
        for (endpoint, at) in [(2, 61), (1, 60), (0, 62)] {
            endpoints.blame(endpoint, after(at));
        }
        assert!(!endpoints.has_good(after(63)));
        assert_eq!(endpoints.pick(after(63)), 1, "the one that failed longest ago");
        endpoints.praise(0);
        assert_eq!(endpoints.pick(after(64)), 0, "it is well again");
    }

    #[test]
    fn endpoints_are_http_and_https_urls() {
        assert_eq!("http://a:80/x/".parse::<Endpoint>().unwrap().uri("/v1"), "http://a:80/x/v1");
        let secure = ["http://a", "https://a", "HTTPS://a:1/x"]
            .map(|text| text.parse::<Endpoint>().unwrap().is_secure());
        assert_eq!(secure, [false, true, true]);
        for wrong in ["", "a:80", "https://", "http://", "http://u@a", "http://a?x", "ftp://a"] {
            assert!(wrong.parse::<Endpoint>().is_err(), "{wrong}");
        }
    }
}
