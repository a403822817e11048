//! The entrance: endpoints, time-outs, and the components that a client is made of.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use carnax_core::time::Timestamp;
use carnax_core::topic::TopicName;
use tokio::time::Instant;

use crate::admin::Admin;
use crate::append::AtomicAppend;
use crate::consumer::ConsumerBuilder;
use crate::error::{BuildError, RequestError};
use crate::group::GroupBuilder;
use crate::producer::ProducerBuilder;
use crate::raw::Raw;
use crate::retry::{self, Operation, RetrySettings};
use crate::route::{Route, Routes};
use crate::transport::{
    ApiAnswer, ApiRequest, Connector, Endpoint, Endpoints, PooledConnector, TcpConnector, Tls, Transport,
};

/// A client of a Carnax cluster. Cheap to clone; clones share connections and what is known of the endpoints.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    transport: Transport,
    request_timeout: Duration,
    operation_timeout: Duration,
    wall_clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
    entropy: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// How many unique ids were made.
    unique_ids: AtomicU64,
    routes: Routes,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("transport", &self.transport).finish_non_exhaustive()
    }
}

impl Client {
    /// Starts a client.
    ///
    /// ```
    /// let client = carnax::Client::builder().endpoints(["http://10.0.0.1:8080", "http://10.0.0.2:8080"]).build();
    /// assert!(client.is_ok());
    /// ```
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// Topics, offsets, and the metadata cluster.
    pub fn admin(&self) -> Admin {
        Admin::new(self.clone())
    }

    /// Starts a producer for one topic.
    pub fn producer(&self, topic: impl Into<String>) -> ProducerBuilder {
        ProducerBuilder::new(self.clone(), topic.into())
    }

    /// Begins an append of many topics and partitions that is done as a whole or not at all.
    pub fn append(&self) -> AtomicAppend {
        AtomicAppend::new(self.clone())
    }

    /// Starts a consumer of one topic.
    pub fn consumer(&self, topic: impl Into<String>) -> ConsumerBuilder {
        ConsumerBuilder::new(self.clone(), topic.into())
    }

    /// Starts a member of a consumer group.
    pub fn group(&self, group: impl Into<String>) -> GroupBuilder {
        GroupBuilder::new(self.clone(), group.into())
    }

    /// Record batches as they travel.
    pub fn raw(&self) -> Raw {
        Raw::new(self.clone())
    }

    /// An operation of this client's own time-outs. `repeat_unknown`: whether it is idempotent.
    pub(crate) fn operation(&self, repeat_unknown: bool) -> Operation {
        Operation {
            deadline: Instant::now() + self.shared.operation_timeout,
            attempt_timeout: self.shared.request_timeout,
            repeat_unknown,
            leave: None,
        }
    }

    pub(crate) fn backoff(&self, attempt: u32) -> Duration {
        retry::backoff(self.shared.transport.retry(), attempt, self.random())
    }

    pub(crate) fn random(&self) -> u64 {
        self.shared.transport.random()
    }

    pub(crate) fn wall_time(&self) -> Timestamp {
        (self.shared.wall_clock)()
    }

    /// A text that nobody else makes: 128 random bits, and a number in case that they are not random.
    pub(crate) fn unique_id(&self) -> String {
        let random = || (self.shared.entropy)();
        let number = self.shared.unique_ids.fetch_add(1, Ordering::Relaxed);
        format!("{:016x}{:016x}-{number:x}", random(), random())
    }

    /// What is known of a topic, or (if nothing is) what the cluster says.
    pub(crate) async fn route(&self, topic: &TopicName) -> Result<Route, RequestError> {
        match self.shared.routes.get(topic) {
            Some(route) => Ok(route),
            None => self.ask_route(topic).await,
        }
    }

    /// What the cluster says of a topic; remembered.
    pub(crate) async fn ask_route(&self, topic: &TopicName) -> Result<Route, RequestError> {
        let route = Route::ask(self, topic).await?;
        self.shared.routes.set(topic.clone(), route);
        Ok(route)
    }

    pub(crate) async fn execute(
        &self,
        request: &ApiRequest,
        operation: Operation,
    ) -> Result<ApiAnswer, RequestError> {
        retry::execute(&self.shared.transport, request, operation).await
    }
}

/// Settings and components of a [`Client`].
pub struct ClientBuilder {
    endpoints: Vec<String>,
    token: Option<String>,
    connector: Arc<dyn Connector>,
    authorities: Option<Vec<u8>>,
    connect_timeout: Duration,
    request_timeout: Duration,
    operation_timeout: Duration,
    endpoint_rest: Duration,
    retry: RetrySettings,
    random: Arc<dyn Fn() -> u64 + Send + Sync>,
    entropy: Arc<dyn Fn() -> u64 + Send + Sync>,
    wall_clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        let state = RandomState::new();
        Self {
            endpoints: Vec::new(),
            token: None,
            connector: Arc::new(TcpConnector),
            authorities: None,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            operation_timeout: Duration::from_secs(60),
            endpoint_rest: Duration::from_secs(10),
            retry: RetrySettings::default(),
            // Only spreads retries and sticky partitions: a keyed hash of the time is random enough.
            random: Arc::new(move || state.hash_one(SystemTime::now())),
            // Ids must differ even between copies of one machine's memory, so their randomness is always fresh.
            entropy: Arc::new(|| getrandom::u64().expect("the operating system has random numbers")),
            wall_clock: Box::new(|| {
                let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Timestamp::EPOCH.saturating_add(since_epoch)
            }),
        }
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

impl ClientBuilder {
    /// Where frontends listen, as `http://host:port` or `https://host:port`; the first one is used until it fails, then the next.
    #[must_use]
    pub fn endpoints<T: Into<String>>(mut self, endpoints: impl IntoIterator<Item = T>) -> Self {
        self.endpoints.extend(endpoints.into_iter().map(Into::into));
        self
    }

    /// The access token that every request shows, `carnax_<id>_<secret>` (default: none). Over plain `http` everybody on the way can
    /// read it.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Who signs the certificates of `https` endpoints, as PEM: one certificate of an authority or several. Without, those
    /// whom the operating system trusts.
    #[must_use]
    pub fn ca_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.authorities = Some(pem.into());
        self
    }

    /// How long a connection may take to come about, TLS included (default 5 s).
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long one request may take, from the connection to the last byte of the answer (default 30 s). A long-poll may
    /// take longer by what it was told to wait.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// How long a call may take over all its retries (default 60 s). Producers have a time-out of their own.
    #[must_use]
    pub fn operation_timeout(mut self, timeout: Duration) -> Self {
        self.operation_timeout = timeout;
        self
    }

    /// How long an endpoint that failed is left alone while another one is well (default 10 s).
    #[must_use]
    pub fn endpoint_rest(mut self, rest: Duration) -> Self {
        self.endpoint_rest = rest;
        self
    }

    /// The waits between attempts.
    #[must_use]
    pub fn retry(mut self, retry: RetrySettings) -> Self {
        self.retry = retry;
        self
    }

    /// What makes connections (default: TCP).
    #[must_use]
    pub fn connector(mut self, connector: impl Connector) -> Self {
        self.connector = Arc::new(connector);
        self
    }

    /// Where random numbers come from (default: the operating system). They jitter waits, choose partitions for records
    /// without a key, and make the ids of producers and the keys of appends, which must not repeat; nothing rests on their
    /// secrecy.
    #[must_use]
    pub fn random(mut self, random: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        self.random = Arc::new(random);
        self.entropy = Arc::clone(&self.random);
        self
    }

    /// What stamps records that have no timestamp of their own (default: the system's clock).
    #[must_use]
    pub fn wall_clock(mut self, clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        self.wall_clock = Box::new(clock);
        self
    }

    /// Makes the client. Connects to nothing yet.
    ///
    /// # Errors
    /// No endpoint, or one that is neither `http://host:port` nor `https://host:port`; a token that is none; certificates of
    /// authorities that cannot be used, or an `https` endpoint and none.
    pub fn build(self) -> Result<Client, BuildError> {
        let endpoints: Vec<Endpoint> =
            self.endpoints.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
        if endpoints.is_empty() {
            return Err(BuildError::NoEndpoint);
        }
        let secure = self.authorities.is_some() || endpoints.iter().any(Endpoint::is_secure);
        let tls = if secure { Some(Tls::new(self.authorities.as_deref())?) } else { None };
        let endpoints = Endpoints::new(endpoints, self.endpoint_rest);
        let token = self.token.map(|token| token.trim().parse()).transpose()?;
        let connector = PooledConnector::new(self.connector, tls, self.connect_timeout);
        let transport =
            Transport::new(endpoints, connector, self.retry, self.random).with_token(token.as_ref());
        let shared = Shared {
            transport,
            request_timeout: self.request_timeout,
            operation_timeout: self.operation_timeout,
            wall_clock: self.wall_clock,
            entropy: self.entropy,
            unique_ids: AtomicU64::new(0),
            routes: Routes::default(),
        };
        Ok(Client { shared: Arc::new(shared) })
    }
}
