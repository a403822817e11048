//! Starts frontends and speaks HTTP to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use carnax_core::id::Incarnation;
use carnax_core::object_key;
use carnax_core::record::{BatchBuilder, Compression, NewRecord};
use carnax_core::time::Timestamp;
use carnax_frontend::{Components, Role, Settings, run};
use carnax_object_store::{FaultStore, MemoryStore, ObjectStore as _};
use carnax_platform::clock::{Clock, SystemClock};
use carnax_platform::entropy::SystemEntropy;
use carnax_platform::network::TcpNetwork;
use carnax_queue::{MemoryQueues, Queues};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::sync::oneshot;

use super::fake_metadata::FakeMetadata;

/// Longer than anything here takes on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(30);

pub struct Frontend {
    pub address: String,
    pub store: Arc<FaultStore<MemoryStore>>,
    pub metadata: FakeMetadata,
    /// The clock of this frontend.
    pub clock: Arc<LeapingClock>,
    client: Client<HttpConnector, Full<Bytes>>,
    stop: Option<oneshot::Sender<()>>,
    ended: tokio::task::JoinHandle<()>,
}

/// The clock of the system, until it leaps.
#[derive(Debug)]
pub struct LeapingClock {
    system: SystemClock,
    ahead_millis: AtomicU64,
}

impl LeapingClock {
    pub fn leap(&self, by: Duration) {
        self.ahead_millis.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for LeapingClock {
    fn wall(&self) -> Timestamp {
        self.system.wall()
    }

    fn monotonic(&self) -> Duration {
        self.system.monotonic() + Duration::from_millis(self.ahead_millis.load(Ordering::SeqCst))
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// A frontend over a fresh cluster, with quick deadlines.
pub async fn start() -> Frontend {
    start_with(|_| {}).await
}

pub async fn start_with(change: impl FnOnce(&mut Settings)) -> Frontend {
    let store = Arc::new(FaultStore::new(MemoryStore::new()));
    start_over(FakeMetadata::start().await, store, change).await
}

pub async fn start_over(
    metadata: FakeMetadata,
    store: Arc<FaultStore<MemoryStore>>,
    change: impl FnOnce(&mut Settings),
) -> Frontend {
    start_with_queues(metadata, store, MemoryQueues::default(), change).await
}

pub async fn start_with_queues(
    metadata: FakeMetadata,
    store: Arc<FaultStore<MemoryStore>>,
    queues: impl Queues + 'static,
    change: impl FnOnce(&mut Settings),
) -> Frontend {
    let of_cluster = super::maintenance::incarnation_document(Incarnation(1)).into();
    // Another frontend may have been here before.
    let _written = store.inner().put_if_absent(object_key::INCARNATION, of_cluster).await;
    let mut settings = Settings::new(vec![metadata.address.clone()], "memory://test".parse().unwrap());
    "127.0.0.1:0".clone_into(&mut settings.listen);
    settings.roles = vec![Role::Serve];
    settings.append.linger = Duration::from_millis(2);
    settings.calls.try_timeout = Duration::from_millis(200);
    change(&mut settings);
    let clock = Arc::new(LeapingClock { system: SystemClock::new(), ahead_millis: AtomicU64::new(0) });
    let components = Components {
        clock: Arc::clone(&clock) as Arc<_>,
        entropy: Arc::new(SystemEntropy),
        network: Arc::new(TcpNetwork),
        object_store: Arc::clone(&store) as Arc<_>,
        queues: Arc::new(queues),
    };
    let (listening, address) = oneshot::channel();
    let (stop, stopped) = oneshot::channel::<()>();
    let listening = move |address: std::net::SocketAddr| listening.send(address.to_string()).unwrap();
    let ended = tokio::spawn(async move {
        let stopped = async {
            let _ = stopped.await;
        };
        Box::pin(run(settings, components, listening, stopped)).await.unwrap();
    });
    let address = address.await.unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http();
    Frontend { address, store, metadata, clock, client, stop: Some(stop), ended }
}

impl Frontend {
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let response = tokio::time::timeout(DEADLINE, self.client.request(request)).await.unwrap().unwrap();
        let (parts, body) = response.into_parts();
        let body = tokio::time::timeout(DEADLINE, body.collect()).await.unwrap().unwrap().to_bytes();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    /// A body is JSON unless a header says otherwise.
    pub async fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = body.into();
        if !body.is_empty() && headers.iter().all(|(name, _)| *name != "content-type") {
            request = request.header("content-type", "application/json");
        }
        self.send(request.body(Full::new(body)).unwrap()).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &[], "").await
    }

    pub async fn create(&self, topic: &str, partitions: u32) {
        let body = format!("{{\"partitions\":{partitions}}}");
        let answer = self.call("PUT", &format!("/v1/topics/{topic}"), &[], body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    }

    pub async fn create_as(&self, token: &str, topic: &str) {
        let bearer = format!("Bearer {token}");
        let answer =
            self.call("PUT", &format!("/v1/topics/{topic}"), &[("authorization", &bearer)], "{}").await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    }

    /// Appends one record to partition 0; its offset, or the problem.
    pub async fn append(&self, topic: &str, value: &str) -> Result<u64, Answer> {
        let body = format!("{{\"records\":[{{\"value\":\"{value}\"}}]}}");
        let path = format!("/v1/topics/{topic}/partitions/0/records");
        let answer = self.call("POST", &path, &[("content-type", "application/json")], body).await;
        if answer.status != StatusCode::OK {
            return Err(answer);
        }
        Ok(answer.json()["results"][0]["base_offset"].as_u64().unwrap())
    }

    /// All values of partition 0, in order.
    pub async fn values(&self, topic: &str) -> Vec<String> {
        let answer = self.get(&format!("/v1/topics/{topic}/partitions/0/records?offset=0")).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        let records = answer.json()["records"].as_array().unwrap().clone();
        records.iter().map(|record| record["value"].as_str().unwrap().to_owned()).collect()
    }

    pub fn begin_stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    pub async fn ended(self) {
        tokio::time::timeout(DEADLINE, self.ended).await.unwrap().unwrap();
    }

    pub async fn stop(mut self) {
        self.begin_stop();
        drop(std::mem::replace(&mut self.client, Client::builder(TokioExecutor::new()).build_http()));
        self.ended().await;
    }
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Checks that this is a well-formed problem, and gives it.
    #[track_caller]
    pub fn problem(&self, code: &str) -> Value {
        let problem = self.json();
        assert_eq!(problem["code"], code, "{self:?}");
        assert_eq!(problem["status"], self.status.as_u16(), "{self:?}");
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(problem["request_id"], self.headers["carnax-request-id"].to_str().unwrap());
        problem
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

/// A batch of records with these values, and timestamps from 1,000 on.
pub fn batch(values: &[&str], compression: Compression) -> Bytes {
    let mut builder = BatchBuilder::new(1 << 20);
    for (index, value) in (0i64..).zip(values) {
        let timestamp = Timestamp::from_millis(1_000 + index);
        let value = Some(value.as_bytes());
        builder.push(&NewRecord { timestamp, key: None, value, headers: &[] }).unwrap();
    }
    builder.build(compression)
}

/// Waits until something is so.
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, waiting).await.is_ok(), "waited in vain until {what}");
}
