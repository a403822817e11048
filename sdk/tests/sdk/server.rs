//! An HTTP server whose answers are a function of the request.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use carnax::{Client, ClientBuilder, ErrorCode, ProblemDocument, RetrySettings};
use carnax_core::problem::{Facts, Problem};
use futures::future::BoxFuture;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Seen {
    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        self.query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|pair| pair.1)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// What the script does with a request.
pub(crate) enum Reply {
    Answer(Response<Full<Bytes>>),
    /// Closes the connection without an answer.
    HangUp,
}

impl Reply {
    pub(crate) fn json<T: serde::Serialize>(document: &T) -> Self {
        Self::Answer(Response::new(Full::new(serde_json::to_vec(document).unwrap().into())))
    }

    pub(crate) fn problem(code: ErrorCode, set: impl FnOnce(&mut Facts)) -> Self {
        let problem = Problem::new(code, "as the script says").with(set);
        let document = ProblemDocument::from_problem(&problem, None);
        let mut answer =
            Response::builder().status(code.status()).header("content-type", "application/problem+json");
        if let Some(seconds) = document.facts.retry_after_seconds {
            answer = answer.header("retry-after", seconds);
        }
        Self::Answer(answer.body(Full::new(serde_json::to_vec(&document).unwrap().into())).unwrap())
    }
}

pub(crate) type Script = dyn Fn(Seen) -> BoxFuture<'static, Reply> + Send + Sync;

/// A running server; stops when it is dropped.
pub(crate) struct Server {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start<F>(script: impl Fn(Seen) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Reply> + Send + 'static,
    {
        Self::start_as(None, script).await
    }

    /// With the certificate that it is given, over TLS.
    pub(crate) async fn start_as<F>(
        tls: Option<TlsAcceptor>,
        script: impl Fn(Seen) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Reply> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let script: Arc<Script> = Arc::new(move |request| Box::pin(script(request)));
        let task = tokio::spawn(accept(listener, tls, script, Arc::clone(&seen)));
        Self { url, seen, task }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn seen_count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// The requests with this method, in the order of their arrival.
    pub(crate) fn seen_with(&self, method: &Method) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.method == method).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    script: Arc<Script>,
    seen: Arc<Mutex<Vec<Seen>>>,
) {
    // Connections end with the server.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (script, seen) = (Arc::clone(&script), Arc::clone(&seen));
        let service = service_fn(move |request: Request<Incoming>| {
            let (script, seen) = (Arc::clone(&script), Arc::clone(&seen));
            async move {
                let (head, body) = request.into_parts();
                let request = Seen {
                    method: head.method,
                    path: head.uri.path().to_owned(),
                    query: head.uri.query().unwrap_or_default().to_owned(),
                    headers: head.headers,
                    body: body.collect().await.map_err(|_| "client went away")?.to_bytes(),
                };
                seen.lock().unwrap().push(request.clone());
                match script(request).await {
                    Reply::Answer(answer) => Ok(answer),
                    Reply::HangUp => Err("as the script says"),
                }
            }
        });
        let tls = tls.clone();
        connections.spawn(async move {
            let builder = hyper::server::conn::http1::Builder::new();
            let _ = match tls {
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => builder.serve_connection(TokioIo::new(stream), service).await,
                    Err(_) => Ok(()),
                },
                None => builder.serve_connection(TokioIo::new(stream), service).await,
            };
            Ok::<(), Infallible>(())
        });
    }
}

/// A client that repeats almost at once, and always draws the same number: two producers of two such clients need ids.
pub(crate) fn client_builder<'a>(servers: impl IntoIterator<Item = &'a Server>) -> ClientBuilder {
    Client::builder()
        .endpoints(servers.into_iter().map(|server| server.url.clone()))
        .retry(RetrySettings { backoff_min: Duration::from_millis(1), backoff_max: Duration::from_millis(5) })
        .random(|| 7)
}

pub(crate) fn client(server: &Server) -> Client {
    client_builder([server]).build().unwrap()
}

/// Fails instead of hanging for ever.
pub(crate) async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), Box::pin(future)).await.expect("done within 30 s")
}
