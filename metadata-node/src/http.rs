//! The small JSON port beside the RPC: alive, ready, metrics, and the cluster as this node sees it.
//!
//! For operators and load balancers: it answers without a quorum, and nothing on it changes anything.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use carnax_core::error_code::ErrorCode;
use carnax_core::http::content_type;
use carnax_core::problem::{Problem, ProblemDocument};
use carnax_platform::network::{Connection, Listener};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus::TextEncoder;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::handle::Handle;
use crate::run::Joined;

/// Connections beyond this wait to be accepted.
const CONNECTIONS_MAX: usize = 256;
/// What a node says until it is part of a cluster.
const WAITS: &str = "the node has not joined a cluster yet; its log says what it waits for";
/// How long a connection may be silent before a request, and how long one that is told to end may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection may live: whoever takes no bytes keeps its place no longer.
const LIFE_MAX: Duration = Duration::from_secs(5 * 60);

#[derive(Debug, Serialize)]
struct Ready {
    ready: bool,
    reasons: Vec<String>,
}

/// Serves until `shutdown`, then ends idle connections and waits for answers in progress.
pub(crate) async fn serve(mut listener: Box<dyn Listener>, joined: Joined, shutdown: CancellationToken) {
    let service = TowerToHyperService::new(router(joined));
    let connections = TaskTracker::new();
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = accept(&mut listener, &room) => accepted,
        };
        let (connection, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (service, shutdown) = (service.clone(), shutdown.clone());
        connections.spawn(async move {
            converse(connection, service, shutdown).await;
            drop(place);
        });
    }
    connections.close();
    connections.wait().await;
}

/// Serves one connection, over HTTP/1 alone: there every wait for a peer's bytes has a limit.
async fn converse(connection: Connection, service: TowerToHyperService<Router>, shutdown: CancellationToken) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE).half_close(false);
    let serving = builder.serve_connection(TokioIo::new(connection), service);
    let mut serving = std::pin::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => Some(ended),
        () = shutdown.cancelled() => None,
        () = tokio::time::sleep(LIFE_MAX) => None,
    };
    let ended = match ended {
        Some(ended) => Ok(ended),
        None => {
            serving.as_mut().graceful_shutdown();
            tokio::time::timeout(PATIENCE, serving).await
        }
    };
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection broke"),
        Err(_) => tracing::debug!("a connection was cut"),
    }
}

type Accepted = (Connection, tokio::sync::OwnedSemaphorePermit);

async fn accept(listener: &mut Box<dyn Listener>, room: &Arc<Semaphore>) -> io::Result<Accepted> {
    let place = Arc::clone(room).acquire_owned().await.map_err(io::Error::other)?;
    let (connection, _) = listener.accept().await?;
    Ok((connection, place))
}

fn router(joined: Joined) -> Router {
    Router::new()
        .route("/healthz", get(|| async { Json(serde_json::json!({"alive": true})) }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/v1/cluster", get(cluster))
        .fallback(|| async { problem(&Problem::new(ErrorCode::RouteNotFound, "no such path on this port")) })
        .with_state(joined)
}

async fn ready(State(joined): State<Joined>) -> Response {
    let reasons = joined.get().map_or_else(|| vec![WAITS.to_owned()], Handle::why_not_ready);
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Ready { ready: reasons.is_empty(), reasons })).into_response()
}

async fn cluster(State(joined): State<Joined>) -> Response {
    match joined.get() {
        Some(handle) => Json(handle.cluster_status()).into_response(),
        None => problem(&Problem::new(ErrorCode::Unavailable, WAITS)),
    }
}

async fn metrics(State(joined): State<Joined>) -> Response {
    let Some(handle) = joined.get() else { return problem(&Problem::new(ErrorCode::Unavailable, WAITS)) };
    match TextEncoder::new().encode_to_string(&handle.metrics().registry.gather()) {
        Ok(text) => ([("content-type", prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            problem(&Problem::new(ErrorCode::Internal, format!("metrics cannot be written: {error}")))
        }
    }
}

fn problem(problem: &Problem) -> Response {
    let status = StatusCode::from_u16(problem.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let document = ProblemDocument::from_problem(problem, None);
    (status, [("content-type", content_type::PROBLEM)], Json(document)).into_response()
}

#[cfg(test)]
mod tests {
    use carnax_platform::network::{Network, TcpNetwork};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_does_not_speak_is_hung_up_and_one_that_asks_is_answered() {
        let listener = TcpNetwork.listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_address().unwrap();
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, Joined::default(), shutdown.clone()));
        for opening in [
            "",
            "PRI * HT",
            "GET /healthz HTTP/1.1\r\nhost: x\r\n",
            "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n",
        ] {
            let mut peer = TcpStream::connect(address).await.unwrap();
            peer.write_all(opening.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            let hung_up = tokio::time::timeout(PATIENCE * 3, peer.read_to_end(&mut answer)).await;
            assert!(hung_up.is_ok(), "{opening:?} is left alone");
            let answered = answer.starts_with(b"HTTP/1.1 200");
            assert_eq!(answered, opening.ends_with("\r\n\r\n"), "{opening:?}");
        }
        shutdown.cancel();
        serving.await.unwrap();
    }
}
