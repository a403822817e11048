//! Accepts connections and serves them, within limits, until it is told to stop.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use carnax_core::error_code::ErrorCode;
use carnax_core::problem::Problem;
use carnax_platform::network::{Connection, Listener};
use http::{HeaderValue, Request};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::patience::Patience;
use super::problem;
use crate::config::HttpSettings;
use crate::metrics::Metrics;

/// Pause after a connection could not be accepted: out of file descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long one who is turned away may take to read why.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that are told at the same time that there are too many.
const REFUSALS_MAX: usize = 64;
/// Bytes of request headers, over HTTP/1.
const HEADER_BYTES_MAX: usize = 64 * 1024;
/// Requests that one HTTP/2 connection may have open.
const STREAMS_MAX: u32 = 256;
/// How long one HTTP/2 connection may be silent before it is probed.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Serves connections.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) router: Router,
    pub(crate) settings: HttpSettings,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tasks: TaskTracker,
    /// Ends the accepting of connections, and those that are idle.
    pub(crate) closing: CancellationToken,
    /// Cuts what is left.
    pub(crate) cut: CancellationToken,
}

impl Server {
    /// Accepts until closing; connections go on in tasks of their own, and end after the request in progress.
    pub(crate) async fn serve(self, mut listener: Box<dyn Listener>) {
        let places = Arc::new(Semaphore::new(self.settings.connections_max));
        let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
        loop {
            let accepted = tokio::select! {
                () = self.closing.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let connection = match accepted {
                Ok((connection, _)) => connection,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
                let server = self.clone();
                self.tasks.spawn(async move {
                    server.metrics.connections.inc();
                    server.connection(connection).await;
                    server.metrics.connections.dec();
                    drop(place);
                });
            } else if let Ok(place) = Arc::clone(&refusals).try_acquire_owned() {
                let server = self.clone();
                self.tasks.spawn(async move {
                    let _ = tokio::time::timeout(REFUSAL_TIMEOUT, server.refuse(connection)).await;
                    drop(place);
                });
            }
        }
    }

    async fn connection(&self, connection: Connection) {
        let service = self.router.clone().map_request(|request: Request<Incoming>| request.map(Body::new));
        let service = TowerToHyperService::new(service);
        let builder = self.builder();
        let HttpSettings { header_timeout, write_timeout, .. } = self.settings;
        let connection = Patience::new(connection, header_timeout, write_timeout);
        let serving = builder.serve_connection(TokioIo::new(connection), service);
        let mut serving = std::pin::pin!(serving);
        let mut told = false;
        let ended = loop {
            tokio::select! {
                ended = serving.as_mut() => break ended,
                () = self.closing.cancelled(), if !told => {
                    told = true;
                    serving.as_mut().graceful_shutdown();
                }
                () = self.cut.cancelled() => return,
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended early");
        }
    }

    /// Answers the first request with 503.
    async fn refuse(&self, connection: Connection) {
        let service = hyper::service::service_fn(|_: Request<Incoming>| async {
            let detail = "this frontend has as many connections as it may have; try another one";
            let mut response = problem::write(&Problem::new(ErrorCode::Unavailable, detail), None);
            response.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("close"));
            Ok::<_, Infallible>(response)
        });
        let builder = self.builder();
        if let Err(error) = builder.serve_connection(TokioIo::new(connection), service).await {
            tracing::debug!(%error, "a connection too many ended early");
        }
    }

    fn builder(&self) -> auto::Builder<TokioExecutor> {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.settings.header_timeout)
            .max_buf_size(HEADER_BYTES_MAX)
            .half_close(false);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE);
        builder
    }
}
