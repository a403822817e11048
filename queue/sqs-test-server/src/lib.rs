//! A server that speaks SQS on loopback, for tests: the JSON protocol over queues in memory. It misbehaves on demand.
//!
//! The queues are [`MemoryQueue`]s, which the test holds as well: it decides what time it is for them. Signatures are not
//! checked, and checksums of messages are not answered. Queues are not created or deleted by requests.

mod answer;
mod script;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use carnax_queue::MemoryQueue;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use answer::{Answer, Queues, Refusal};
use script::Script;
pub use script::{Action, Fault};

/// Who may do everything, as may everybody else.
pub const ACCESS_KEY: &str = "test-access-key";
/// The key to it.
pub const SECRET_KEY: &str = "test-secret-key";

const ACCOUNT: &str = "000000000000";
const REQUEST_BYTES_MAX: usize = 2 * 1024 * 1024;

/// The server. It stops, and closes its connections, when this is dropped.
#[derive(Debug)]
pub struct SqsTestServer {
    address: SocketAddr,
    script: Arc<Script>,
    serving: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    queues: Queues,
    script: Arc<Script>,
}

impl SqsTestServer {
    /// Starts on a loopback port that the system chooses.
    ///
    /// # Panics
    /// If there is no such port.
    pub async fn start(queues: impl IntoIterator<Item = Arc<MemoryQueue>>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free loopback port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let script = Arc::new(Script::default());
        let queues = Queues::new(format!("http://{address}/{ACCOUNT}"), queues);
        let shared = Arc::new(Shared { queues, script: Arc::clone(&script) });
        Self { address, script, serving: tokio::spawn(serve(listener, shared)) }
    }

    /// The endpoint URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The URL of a queue.
    pub fn queue_url(&self, name: &str) -> String {
        format!("{}/{ACCOUNT}/{name}", self.endpoint())
    }

    /// Lets the next requests of a kind meet these faults, one each, after those scripted before.
    pub fn script(&self, action: Action, faults: impl IntoIterator<Item = Fault>) {
        self.script.add(action, faults);
    }

    /// Waits until exactly so many requests are held: those whose client has hung up are not.
    pub async fn until_held(&self, count: usize) {
        self.script.until_held(count).await;
    }

    /// How many requests of a kind arrived so far.
    pub fn requests(&self, action: Action) -> u64 {
        self.script.requests(action)
    }

    /// How many requests arrived so far, those of no known kind not counted.
    pub fn requests_total(&self) -> u64 {
        self.script.requests_total()
    }
}

impl Drop for SqsTestServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Accepts connections until it is dropped, and drops them then.
async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        // Small answers are not to wait for the acknowledgement of earlier ones.
        let _ = stream.set_nodelay(true);
        let shared = Arc::clone(&shared);
        let answer = service_fn(move |request| respond(Arc::clone(&shared), request));
        connections.spawn(async move {
            // How a connection ends is the client's business.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

/// An error closes the connection without an answer.
async fn respond(shared: Arc<Shared>, request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
    let target = request.headers().get("x-amz-target").and_then(|target| target.to_str().ok());
    let Some(action) = target.and_then(Action::named) else {
        return Ok(render(Err(Refusal::new(400, "InvalidAction", "no such action"))));
    };
    let body = Limited::new(request.into_body(), REQUEST_BYTES_MAX).collect().await;
    let body = body.map_err(|error| io::Error::other(error.to_string()))?.to_bytes();
    let fault = shared.script.next(action);
    if fault == Fault::Hold {
        shared.script.hold().await;
    }
    if let Some(refusal) = refusal_of(fault) {
        return Ok(render(Err(refusal)));
    }
    let answer = match serde_json::from_slice(&body) {
        Ok(input) => shared.queues.answer(action, &input).await,
        Err(_) => Err(Refusal::new(400, "SerializationException", "the body is not JSON")),
    };
    if fault == Fault::HoldAnswer {
        shared.script.hold().await;
    }
    match fault {
        Fault::LoseAnswer => Err(io::Error::other("told to lose the answer")),
        _ => Ok(render(answer)),
    }
}

fn refusal_of(fault: Fault) -> Option<Refusal> {
    match fault {
        Fault::None | Fault::LoseAnswer | Fault::Hold | Fault::HoldAnswer => None,
        Fault::Throttle => Some(Refusal::new(400, "RequestThrottled", "told to throttle")),
        Fault::Fail => Some(Refusal::new(500, "InternalFailure", "told to fail")),
        Fault::Deny => Some(Refusal::new(403, "AccessDeniedException", "told to deny")),
    }
}

fn render(answer: Answer) -> Response<Full<Bytes>> {
    let (status, code, body) = match answer {
        Ok(body) => (200, None, body),
        Err(refusal) => (refusal.status, Some(refusal.code), refusal.body()),
    };
    let mut response =
        Response::builder().status(status).header("content-type", "application/x-amz-json-1.0");
    if let Some(code) = code {
        // The names of the older protocol, which clients of this one still go by.
        response = response.header("x-amzn-query-error", format!("{code};Sender"));
    }
    response.body(Full::from(body.to_string())).expect("a status and headers that are well formed")
}
