//! Sends one request to one endpoint and reads the answer. Decides nothing: that is the business of `retry`.

mod connector;
mod endpoints;
mod tls;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use carnax_core::access::Token;
use carnax_core::http::content_type;
use carnax_core::problem::ProblemDocument;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::error::RequestError;
use crate::retry::RetrySettings;

pub(crate) use connector::PooledConnector;
pub use connector::{Connection, Connector, TcpConnector};
pub(crate) use endpoints::{Endpoint, Endpoints};
pub(crate) use tls::Tls;

/// Bytes of an answer that is a JSON document.
pub(crate) const DOCUMENT_BYTES_MAX: usize = 16 * 1024 * 1024;
const IDLE_CONNECTION: Duration = Duration::from_secs(30);

/// What to send, whichever endpoint it goes to.
#[derive(Debug, Clone)]
pub(crate) struct ApiRequest {
    pub(crate) method: Method,
    /// From the slash on, with the query.
    pub(crate) path: String,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: Bytes,
    pub(crate) answer_bytes_max: usize,
}

impl ApiRequest {
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            headers: vec![(ACCEPT, HeaderValue::from_static(content_type::JSON))],
            body: Bytes::new(),
            answer_bytes_max: DOCUMENT_BYTES_MAX,
        }
    }

    pub(crate) fn json<T: serde::Serialize>(mut self, document: &T) -> Result<Self, RequestError> {
        self.body = serde_json::to_vec(document).map_err(RequestError::invalid)?.into();
        Ok(self.header(CONTENT_TYPE, HeaderValue::from_static(content_type::JSON)))
    }

    /// Sets a header in place of an earlier value.
    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.retain(|(earlier, _)| *earlier != name);
        self.headers.push((name, value));
        self
    }
}

/// A whole answer whose status is a success.
#[derive(Debug)]
pub(crate) struct ApiAnswer {
    pub(crate) endpoint: String,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl ApiAnswer {
    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, RequestError> {
        serde_json::from_slice(&self.body).map_err(|error| self.not_understood(error))
    }

    pub(crate) fn not_understood(&self, reason: impl fmt::Display) -> RequestError {
        RequestError::Answer {
            endpoint: self.endpoint.clone(),
            status: self.status.as_u16(),
            reason: reason.to_string(),
        }
    }
}

/// The connections of a client.
pub(crate) struct Transport {
    client: Client<PooledConnector, Full<Bytes>>,
    endpoints: Endpoints,
    /// The access token, as the header that shows it.
    authorization: Option<HeaderValue>,
    retry: RetrySettings,
    random: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Transport {
    pub(crate) fn new(
        endpoints: Endpoints,
        connector: PooledConnector,
        retry: RetrySettings,
        random: Arc<dyn Fn() -> u64 + Send + Sync>,
    ) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_CONNECTION)
            .build(connector);
        Self { client, endpoints, authorization: None, retry, random }
    }

    /// Shows a token with every request.
    pub(crate) fn with_token(mut self, token: Option<&Token>) -> Self {
        self.authorization = token.map(|token| {
            let header = HeaderValue::try_from(format!("Bearer {}", token.reveal()));
            let mut header = header.expect("letters, digits and underscores are a header value");
            header.set_sensitive(true);
            header
        });
        self
    }

    pub(crate) fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    pub(crate) fn retry(&self) -> &RetrySettings {
        &self.retry
    }

    pub(crate) fn random(&self) -> u64 {
        (self.random)()
    }

    /// One attempt at one endpoint.
    pub(crate) async fn attempt(
        &self,
        endpoint: usize,
        request: &ApiRequest,
        timeout: Duration,
    ) -> Result<ApiAnswer, RequestError> {
        let at = self.endpoints.get(endpoint);
        let exchange = Box::pin(self.exchange(at, request));
        match tokio::time::timeout(timeout, exchange).await {
            Ok(result) => result,
            Err(_) => Err(RequestError::TimedOut { endpoint: at.to_string(), timeout }),
        }
    }

    async fn exchange(&self, at: &Endpoint, request: &ApiRequest) -> Result<ApiAnswer, RequestError> {
        let mut builder = Request::builder().method(&request.method).uri(at.uri(&request.path));
        for (name, value) in &request.headers {
            builder = builder.header(name, value);
        }
        if let Some(authorization) = &self.authorization {
            builder = builder.header(AUTHORIZATION, authorization);
        }
        let body = Full::new(request.body.clone());
        let sent = builder.body(body).map_err(RequestError::invalid)?;
        let response = self.client.request(sent).await.map_err(|error| {
            let endpoint = at.to_string();
            if tls::is_untrusted(&error) {
                RequestError::Untrusted { endpoint, source: Arc::new(error) }
            } else if error.is_connect() {
                RequestError::Connect { endpoint, source: Arc::new(error) }
            } else {
                RequestError::Lost { endpoint, source: Arc::new(error) }
            }
        })?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, request.answer_bytes_max)
            .collect()
            .await
            .map_err(|error| RequestError::Lost { endpoint: at.to_string(), source: Arc::from(error) })?;
        let (status, headers) = (head.status, head.headers);
        let answer = ApiAnswer { endpoint: at.to_string(), status, headers, body: body.to_bytes() };
        if status.is_success() { Ok(answer) } else { Err(read_problem(&answer)) }
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

fn read_problem(answer: &ApiAnswer) -> RequestError {
    match serde_json::from_slice::<ProblemDocument>(&answer.body) {
        Ok(mut document) => {
            let header =
                answer.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
            let seconds: Option<u64> = header.or(document.facts.retry_after_seconds);
            document.status = answer.status.as_u16();
            RequestError::Refused {
                document: Box::new(document),
                retry_after: seconds.map(Duration::from_secs),
                endpoint: answer.endpoint.clone(),
            }
        }
        Err(_) => {
            let text: String = String::from_utf8_lossy(&answer.body).chars().take(200).collect();
            answer.not_understood(format_args!("no problem document: {text:?}"))
        }
    }
}
