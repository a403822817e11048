//! Plain HTTP over the simulated network: one connection a call, nothing is tried twice.

use std::time::Duration;

use carnax_core::error_code::SideEffects;
use carnax_core::problem::ProblemDocument;
use carnax_platform::network::Network;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::SimulatedNetwork;

/// A call.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    method: &'static str,
    path: String,
    headers: String,
    body: Vec<u8>,
}

/// A call that was not answered as wished.
#[derive(Debug, Clone)]
pub(crate) enum Failure {
    /// A frontend said no.
    Refused(Box<ProblemDocument>),
    /// Nobody knows what became of it.
    Unknown,
}

impl Failure {
    /// What the frontend said, if that means that nothing was done.
    pub(crate) fn code(&self) -> Option<&str> {
        match self {
            Self::Refused(problem) if problem.side_effects == SideEffects::None => Some(&problem.code),
            Self::Refused(_) | Self::Unknown => None,
        }
    }
}

impl Call {
    pub(crate) fn get(path: String) -> Self {
        Self { method: "GET", path, headers: String::new(), body: Vec::new() }
    }

    pub(crate) fn delete(path: String) -> Self {
        Self { method: "DELETE", ..Self::get(path) }
    }

    pub(crate) fn post(path: String, body: &impl Serialize) -> Result<Self, serde_json::Error> {
        Ok(Self { method: "POST", body: serde_json::to_vec(body)?, ..Self::get(path) })
    }

    pub(crate) fn header(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        self.headers.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    /// Calls a frontend and waits so long for its answer.
    pub(crate) async fn send<T: DeserializeOwned>(
        &self,
        host: &str,
        patience: Duration,
    ) -> Result<T, Failure> {
        let answer = tokio::time::timeout(patience, self.exchange(host)).await;
        let Ok(Ok(answer)) = answer else { return Err(Failure::Unknown) };
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").ok_or(Failure::Unknown)?;
        let (head, body) = (&answer[..end], &answer[end + 4..]);
        let status = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
        if status.starts_with(b"2") {
            return serde_json::from_slice(body).map_err(|_| Failure::Unknown);
        }
        let problem = serde_json::from_slice(body).map_err(|_| Failure::Unknown)?;
        Err(Failure::Refused(Box::new(problem)))
    }

    async fn exchange(&self, host: &str) -> std::io::Result<Vec<u8>> {
        let Self { method, path, headers, body } = self;
        let mut connection = SimulatedNetwork.connect(&format!("{host}:8080")).await?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n{headers}\r\n",
            body.len()
        );
        connection.write_all(&[head.as_bytes(), body].concat()).await?;
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).await?;
        Ok(answer)
    }
}
