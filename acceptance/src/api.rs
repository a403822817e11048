//! Plain HTTP, as any program would speak it: nothing is tried twice, and nothing of the SDK is used.

use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use carnax::ErrorCode;
use carnax_core::problem::ProblemDocument;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Serialize;
use serde::de::DeserializeOwned;

const TIMEOUT: Duration = Duration::from_secs(15);

/// Some frontends, by their addresses.
#[derive(Debug, Clone)]
pub struct Api {
    client: Client<HttpConnector, Full<Bytes>>,
    addresses: Vec<String>,
    timeout: Duration,
}

/// A call that was not answered as wished.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Failure {
    /// A frontend said no.
    #[error("{}: {}", .0.code, .0.detail)]
    Refused(Box<ProblemDocument>),
    /// Nobody answered: it may be done.
    #[error("no answer: {0}")]
    Lost(String),
}

impl Failure {
    /// Whether a frontend answered with this code.
    pub fn is(&self, code: ErrorCode) -> bool {
        self.problem().is_some_and(|problem| problem.code == code.as_str())
    }

    /// Whether the same call may succeed later.
    pub fn retryable(&self) -> bool {
        self.problem().is_none_or(|problem| problem.retryable)
    }

    /// What a frontend said.
    pub fn problem(&self) -> Option<&ProblemDocument> {
        match self {
            Self::Refused(problem) => Some(problem),
            Self::Lost(_) => None,
        }
    }
}

/// A call.
#[derive(Debug, Clone)]
pub struct Call {
    method: http::Method,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Option<Bytes>,
}

impl Call {
    /// `GET path`.
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: http::Method::GET, path: path.into(), headers: Vec::new(), body: None }
    }

    /// `DELETE path`.
    pub fn delete(path: impl Into<String>) -> Self {
        Self { method: http::Method::DELETE, ..Self::get(path) }
    }

    /// `POST path` with a document.
    ///
    /// # Errors
    /// If it cannot be written as JSON.
    pub fn post(path: impl Into<String>, body: &impl Serialize) -> Result<Self> {
        let body = Bytes::from(serde_json::to_vec(body).context("cannot write JSON")?);
        Ok(Self { method: http::Method::POST, body: Some(body), ..Self::get(path) })
    }

    /// `PUT path` with a document.
    ///
    /// # Errors
    /// If it cannot be written as JSON.
    pub fn put(path: impl Into<String>, body: &impl Serialize) -> Result<Self> {
        Ok(Self { method: http::Method::PUT, ..Self::post(path, body)? })
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

impl Api {
    /// Frontends that listen there.
    pub fn new(addresses: impl IntoIterator<Item = String>) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { client, addresses: addresses.into_iter().collect(), timeout: TIMEOUT }
    }

    /// The same, with less patience.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How many frontends there are.
    pub fn count(&self) -> usize {
        self.addresses.len()
    }

    /// Calls a frontend, once.
    ///
    /// # Errors
    /// Any [`Failure`].
    pub async fn call<T: DeserializeOwned>(&self, frontend: usize, call: &Call) -> Result<T, Failure> {
        let answer = tokio::time::timeout(self.timeout, self.send(frontend, call)).await;
        let (status, body) = match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(Failure::Lost(format!("{error:#}"))),
            Err(_) => return Err(Failure::Lost(format!("waited {:?}", self.timeout))),
        };
        let not_understood = |error| Failure::Lost(format!("{status} is not understood: {error}: {body:?}"));
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(not_understood);
        }
        let problem: ProblemDocument = serde_json::from_slice(&body).map_err(not_understood)?;
        Err(Failure::Refused(Box::new(problem)))
    }

    async fn send(&self, frontend: usize, call: &Call) -> Result<(http::StatusCode, Bytes)> {
        let address = self.addresses.get(frontend).context("there is no such frontend")?;
        let mut request =
            http::Request::builder().method(&call.method).uri(format!("http://{address}{}", call.path));
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        if call.body.is_some() {
            request = request.header(http::header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(call.body.clone().unwrap_or_default()))?;
        let answer = self.client.request(request).await?;
        let status = answer.status();
        Ok((status, answer.into_body().collect().await?.to_bytes()))
    }
}
