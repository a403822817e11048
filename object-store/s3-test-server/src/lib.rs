//! A server that speaks S3 on loopback, for tests: it checks signatures and checksums, honours conditional writes, keeps its
//! objects in memory and misbehaves on demand.
//!
//! Protocol and signatures are those of the crate `s3s`; the store behind it and the faults are here. One bucket, [`BUCKET`],
//! exists. Depends on nothing of ours, so that any crate's tests can use it.

mod bucket;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use bucket::{Bucket, Shared, VANISH};

/// The bucket that exists.
pub const BUCKET: &str = "test-bucket";
/// Who may do everything.
pub const ACCESS_KEY: &str = "test-access-key";
/// The key to it.
pub const SECRET_KEY: &str = "test-secret-key";

/// The kinds of request that are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// `PutObject`
    Put,
    /// `GetObject`
    Get,
    /// `HeadObject`
    Head,
    /// `ListObjectsV2`
    List,
    /// `DeleteObjects`
    Delete,
}

/// What befalls one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: for scripts in which only some requests fail.
    None,
    /// 503 `SlowDown`; nothing is done.
    SlowDown,
    /// 500 `InternalError`; nothing is done.
    FailBefore,
    /// 500 `InternalError`; it is done all the same.
    FailAfter,
    /// 409 `ConditionalRequestConflict`; nothing is done.
    Conflict,
    /// 403 `AccessDenied`; nothing is done.
    Deny,
    /// It is done, and the connection closes without an answer.
    VanishAfter,
    /// The connection closes without an answer, and nothing is done.
    VanishBefore,
    /// It is done, and no answer comes as long as the client waits.
    HangAfter,
    /// The body of a get breaks off half-way.
    ShortBody,
}

/// The server. It stops, and closes its connections, when this is dropped.
#[derive(Debug)]
pub struct S3TestServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

impl S3TestServer {
    /// Starts on a loopback port that the system chooses.
    ///
    /// # Panics
    /// If there is no such port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free loopback port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared::default());
        let mut builder = S3ServiceBuilder::new(Bucket::new(Arc::clone(&shared)));
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let serving = tokio::spawn(serve(listener, builder.build()));
        Self { address, shared, serving }
    }

    /// The endpoint URL; to be used path style.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets the next requests of a kind meet these faults, one each, after those scripted before.
    pub fn script(&self, operation: Operation, faults: impl IntoIterator<Item = Fault>) {
        self.shared.script(operation, faults);
    }

    /// Refuses, with 403 `AccessDenied`, every put whose key holds one of these texts, until it is told otherwise.
    pub fn refuse_puts(&self, parts: &[&str]) {
        self.shared.refuse_puts(parts.iter().map(|part| (*part).to_owned()).collect());
    }

    /// Answers so many of a hundred requests of every kind with 503 `SlowDown`, at random, until it is told otherwise.
    pub fn slow_down(&self, percent: u64) {
        self.shared.slow_down(percent);
    }

    /// Delays every request that arrives from now on.
    pub fn set_latency(&self, latency: Duration) {
        self.shared.set_latency(latency);
    }

    /// How many requests of a kind arrived so far.
    pub fn requests(&self, operation: Operation) -> u64 {
        self.shared.requests(operation)
    }

    /// How many requests arrived so far.
    pub fn requests_total(&self) -> u64 {
        use Operation::{Delete, Get, Head, List, Put};
        [Put, Get, Head, List, Delete].map(|operation| self.requests(operation)).iter().sum()
    }

    /// How many requests were answered as [`slow_down`](Self::slow_down) says.
    pub fn slowed_down(&self) -> u64 {
        self.shared.slowed_down()
    }

    /// The keys of all objects with their sizes in bytes, in order of the keys.
    pub fn objects(&self) -> Vec<(String, u64)> {
        self.shared.objects()
    }

    /// The keys of all objects, in order.
    pub fn keys(&self) -> Vec<String> {
        self.shared.keys()
    }
}

impl Drop for S3TestServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Accepts connections until it is dropped, and drops them then.
async fn serve(listener: TcpListener, s3: S3Service) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        // Small answers are not to wait for the acknowledgement of earlier ones.
        let _ = stream.set_nodelay(true);
        let s3 = s3.clone();
        let answer = service_fn(move |request| answer(s3.clone(), request));
        connections.spawn(async move {
            // How a connection ends is the client's business.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

/// An error closes the connection without an answer.
async fn answer(s3: S3Service, request: Request<Incoming>) -> io::Result<Response<s3s::Body>> {
    match s3.call(request.map(s3s::Body::from)).await {
        Ok(response) if response.status().as_u16() == VANISH => Err(io::Error::other("told to vanish")),
        Ok(response) => Ok(response),
        Err(error) => Err(io::Error::other(format!("{error:?}"))),
    }
}
