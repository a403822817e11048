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
use carnax_platform::network::Listener;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
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
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

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
            let mut builder = auto::Builder::new(TokioExecutor::new());
            builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
            let connection = builder.serve_connection(TokioIo::new(connection), service);
            tokio::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = shutdown.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection broke");
            }
            drop(place);
        });
    }
    connections.close();
    connections.wait().await;
}

type Accepted = (carnax_platform::network::Connection, tokio::sync::OwnedSemaphorePermit);

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
