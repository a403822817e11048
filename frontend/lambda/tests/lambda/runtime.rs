//! An emulator of Lambda's runtime API, and the function's process behind it.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::StatusCode;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};

use super::core::Core;
use super::event::function_url;

const PATIENCE: Duration = Duration::from_secs(60);

/// What the function said of an event, or an error of it.
pub type Said = Result<Bytes, String>;

struct Event {
    id: String,
    deadline_ms: u128,
    payload: String,
    said: oneshot::Sender<Said>,
}

#[derive(Clone)]
struct Runtime {
    events: Arc<tokio::sync::Mutex<mpsc::Receiver<Event>>>,
    running: Arc<Mutex<BTreeMap<String, oneshot::Sender<Said>>>>,
}

/// A function that was started. Ends when it is dropped.
pub struct Function {
    events: mpsc::Sender<Event>,
    next: Mutex<u64>,
    _process: Child,
}

impl Function {
    /// Starts the function's process as Lambda does, with variables beside those that every function has.
    pub async fn start(core: &Core, variables: &[(&str, &str)]) -> Self {
        let (events, receiver) = mpsc::channel(1);
        let runtime =
            Runtime { events: Arc::new(tokio::sync::Mutex::new(receiver)), running: Arc::default() };
        let api = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route("/2018-06-01/runtime/invocation/{id}/response", post(responded))
            .route("/2018-06-01/runtime/invocation/{id}/error", post(failed))
            .with_state(runtime);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move { axum::serve(listener, api).await });
        let process = Command::new(env!("CARGO_BIN_EXE_carnax-lambda"))
            .env_clear()
            .env("AWS_LAMBDA_RUNTIME_API", address)
            .env("AWS_LAMBDA_FUNCTION_NAME", "carnax")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "1")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512")
            .env("AWS_LAMBDA_LOG_STREAM_NAME", "test")
            .env("AWS_REGION", "us-east-1")
            .env("CARNAX_LAMBDA_ROLE", "http")
            .env("CARNAX_METADATA", &core.address)
            .env("CARNAX_OBJECT_STORE", &core.object_store)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { events, next: Mutex::new(0), _process: process }
    }

    /// Invokes the function with time to spare, and gives what it answers.
    pub async fn invoke(&self, payload: &Value) -> Value {
        let said = self.invoke_for(payload, Duration::from_secs(30)).await;
        serde_json::from_slice(&said.unwrap()).unwrap()
    }

    /// Creates a topic through the function, of role `http`, as soon as the metadata node leads: until then it hangs up on
    /// everyone.
    pub async fn until_created(&self, topic: &str, document: &str) {
        let create = function_url("PUT", &format!("/v1/topics/{topic}"), "", Some(document));
        let started = Instant::now();
        loop {
            let created = self.invoke(&create).await;
            if matches!(created["statusCode"].as_u64(), Some(200 | 201)) {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "{created}");
        }
    }

    /// Invokes the function, which has so much time.
    pub async fn invoke_for(&self, payload: &Value, time: Duration) -> Said {
        let id = {
            let mut next = self.next.lock().unwrap();
            *next += 1;
            format!("request-{next}")
        };
        let deadline_ms = (SystemTime::now() + time).duration_since(UNIX_EPOCH).unwrap().as_millis();
        let (said, answer) = oneshot::channel();
        let event = Event { id, deadline_ms, payload: payload.to_string(), said };
        self.events.send(event).await.unwrap_or_else(|_| panic!("the runtime has ended"));
        tokio::time::timeout(PATIENCE, answer).await.expect("the function answers").unwrap()
    }
}

async fn next(State(runtime): State<Runtime>) -> Response {
    let Some(event) = runtime.events.lock().await.recv().await else {
        return StatusCode::GONE.into_response();
    };
    runtime.running.lock().unwrap().insert(event.id.clone(), event.said);
    let headers = [
        ("Lambda-Runtime-Aws-Request-Id", event.id),
        ("Lambda-Runtime-Deadline-Ms", event.deadline_ms.to_string()),
        ("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:1:function:carnax".to_owned()),
    ];
    (headers, event.payload).into_response()
}

async fn responded(State(runtime): State<Runtime>, Path(id): Path<String>, body: Bytes) -> StatusCode {
    say(&runtime, &id, Ok(body))
}

async fn failed(State(runtime): State<Runtime>, Path(id): Path<String>, body: Bytes) -> StatusCode {
    say(&runtime, &id, Err(String::from_utf8_lossy(&body).into_owned()))
}

fn say(runtime: &Runtime, id: &str, said: Said) -> StatusCode {
    let waiting = runtime.running.lock().unwrap().remove(id);
    // Fails if the test has given up.
    let _ = waiting.expect("an event that was given out").send(said);
    StatusCode::ACCEPTED
}
