//! Makes calls.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use carnax_core::error_code::ErrorCode;
use carnax_core::limits;
use carnax_core::metadata::{Call, StreamCall};
use carnax_core::problem::Problem;
use futures::stream::{BoxStream, Stream, StreamExt};
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::Status;
use tonic::transport::Endpoint;

use super::codec::MessagePack;
use super::{BidirectionalCall, path, status};
use crate::network::Network;

const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// Answers of a streaming call; ends after the first error.
pub type ReplyStream<T> = BoxStream<'static, Result<T, CallError>>;

/// Why a call has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// The server answered with a problem.
    #[error(transparent)]
    Refused(#[from] Problem),
    /// No connection could be made: the server never saw the request.
    #[error("no connection to {address}: {reason}")]
    NotSent {
        /// The server.
        address: String,
        /// Why.
        reason: String,
    },
    /// The request was sent, or may have been, and no answer came.
    #[error("no answer from {address} to {call}: {reason}")]
    NoAnswer {
        /// The server.
        address: String,
        /// What was asked.
        call: &'static str,
        /// Why.
        reason: String,
    },
}

impl CallError {
    /// What to tell a client about it, for calls that change something.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Refused(problem) => problem.code,
            Self::NotSent { .. } => ErrorCode::Unavailable,
            Self::NoAnswer { .. } => ErrorCode::OutcomeUnknown,
        }
    }
}

/// How connections are made and kept.
#[derive(Debug, Clone)]
pub struct ChannelSettings {
    /// How long a connection may take.
    pub connect_timeout: Duration,
    /// How often an idle connection is probed; a probe that is not answered in the same time ends the connection.
    pub keep_alive: Option<Duration>,
}

impl Default for ChannelSettings {
    fn default() -> Self {
        Self { connect_timeout: Duration::from_secs(1), keep_alive: Some(Duration::from_secs(2)) }
    }
}

/// One connection to one server, made at the first call and again after it broke. Clones share it.
#[derive(Clone)]
pub struct Channel {
    address: Arc<str>,
    inner: tonic::transport::Channel,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Channel").field(&self.address).finish()
    }
}

impl Channel {
    /// A channel to `address` (`host:port`) over `network`. Nothing is sent yet.
    ///
    /// # Errors
    /// If the address is not one.
    pub fn new(network: Arc<dyn Network>, address: &str, settings: &ChannelSettings) -> io::Result<Self> {
        let invalid =
            |error| io::Error::new(io::ErrorKind::InvalidInput, format!("address {address:?}: {error}"));
        let mut endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(invalid)?
            .connect_timeout(settings.connect_timeout)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(STREAM_WINDOW_BYTES * 2)
            // Calls that are given up are forgotten at once. HTTP/2 would remember them for a second of the system's
            // clock, and in what order the others fail with their connection would depend on it: no simulation could be
            // replayed. Answers that come late are no mistake of a server, and no reason to hang up.
            .http2_max_concurrent_reset_streams(0)
            .http2_max_local_error_reset_streams(None);
        if let Some(interval) = settings.keep_alive {
            endpoint = endpoint
                .http2_keep_alive_interval(interval)
                .keep_alive_timeout(interval)
                .keep_alive_while_idle(true);
        }
        let shared: Arc<str> = address.into();
        let target = Arc::clone(&shared);
        let connector = tower::service_fn(move |_: http::Uri| {
            let (network, target) = (Arc::clone(&network), Arc::clone(&target));
            async move { network.connect(&target).await.map(TokioIo::new) }
        });
        Ok(Self { address: shared, inner: endpoint.connect_with_connector_lazy(connector) })
    }

    /// The server.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Asks and waits for the answer, at most for `deadline`. Dropping the future hangs up; the server may go on.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call<C: Call>(&self, request: C, deadline: Duration) -> Result<C::Reply, CallError> {
        let mut client = self.client();
        let answer = async {
            client.ready().await.map_err(|error| self.error(C::NAME, &Status::from_error(error.into())))?;
            let mut request = tonic::Request::new(request);
            request.set_timeout(deadline);
            let answer = client.unary(request, uri(C::NAME), codec::<C, C::Reply>()).await;
            answer.map(tonic::Response::into_inner).map_err(|status| self.error(C::NAME, &status))
        };
        tokio::time::timeout(deadline, answer).await.unwrap_or_else(|_| Err(self.late(C::NAME, deadline)))
    }

    /// Asks and waits for the stream of answers to begin, at most for `deadline`.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn stream<C: StreamCall>(
        &self,
        request: C,
        deadline: Duration,
    ) -> Result<ReplyStream<C::Item>, CallError> {
        let mut client = self.client();
        let answers = async {
            client.ready().await.map_err(|error| self.error(C::NAME, &Status::from_error(error.into())))?;
            let request = tonic::Request::new(request);
            let answers = client.server_streaming(request, uri(C::NAME), codec::<C, C::Item>()).await;
            answers.map(tonic::Response::into_inner).map_err(|status| self.error(C::NAME, &status))
        };
        let answers = tokio::time::timeout(deadline, answers);
        let answers = answers.await.unwrap_or_else(|_| Err(self.late(C::NAME, deadline)))?;
        Ok(self.replies(C::NAME, answers))
    }

    /// Opens streams in both directions, at most for `deadline`; requests are taken from `requests` as the connection
    /// allows.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn bidirectional<C: BidirectionalCall>(
        &self,
        requests: impl Stream<Item = C::Request> + Send + 'static,
        deadline: Duration,
    ) -> Result<ReplyStream<C::Reply>, CallError> {
        let mut client = self.client();
        let answers = async {
            client.ready().await.map_err(|error| self.error(C::NAME, &Status::from_error(error.into())))?;
            let requests = tonic::Request::new(requests);
            let answers = client.streaming(requests, uri(C::NAME), codec::<C::Request, C::Reply>()).await;
            answers.map(tonic::Response::into_inner).map_err(|status| self.error(C::NAME, &status))
        };
        let answers = tokio::time::timeout(deadline, answers);
        let answers = answers.await.unwrap_or_else(|_| Err(self.late(C::NAME, deadline)))?;
        Ok(self.replies(C::NAME, answers))
    }

    fn client(&self) -> tonic::client::Grpc<tonic::transport::Channel> {
        tonic::client::Grpc::new(self.inner.clone())
            .max_decoding_message_size(limits::RPC_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(limits::RPC_MESSAGE_BYTES_MAX)
    }

    fn replies<T: Send + 'static>(&self, call: &'static str, replies: tonic::Streaming<T>) -> ReplyStream<T> {
        let channel = self.clone();
        replies.map(move |reply| reply.map_err(|status| channel.error(call, &status))).boxed()
    }

    fn late(&self, call: &'static str, deadline: Duration) -> CallError {
        CallError::NoAnswer {
            address: self.address.to_string(),
            call,
            reason: format!("nothing came within {deadline:?}"),
        }
    }

    fn error(&self, call: &'static str, status: &Status) -> CallError {
        if let Some(problem) = status::to_problem(status) {
            return CallError::Refused(problem);
        }
        if status.code() == tonic::Code::Unimplemented {
            let detail = format!("{} does not know the call {call}: it runs another version", self.address);
            return CallError::Refused(Problem::new(ErrorCode::RouteNotFound, detail));
        }
        let address = self.address.to_string();
        let reason = chain(status);
        if never_connected(status) {
            CallError::NotSent { address, reason }
        } else {
            CallError::NoAnswer { address, call, reason }
        }
    }
}

fn uri(name: &str) -> PathAndQuery {
    PathAndQuery::try_from(path(name)).expect("call names are plain words")
}

fn codec<E, D>() -> MessagePack<E, D>
where
    E: Serialize + Send + 'static,
    D: DeserializeOwned + Send + 'static,
{
    MessagePack::new()
}

fn never_connected(status: &Status) -> bool {
    sources(status).any(<dyn std::error::Error>::is::<tonic::ConnectError>)
}

fn chain(status: &Status) -> String {
    let mut text = status.message().to_owned();
    for source in sources(status) {
        let source = source.to_string();
        if !text.contains(&source) {
            text = format!("{text}: {source}");
        }
    }
    text
}

fn sources(status: &Status) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(std::error::Error::source(status), |error| error.source())
}
