//! The runtime API: what a function's process asks for its events, and where it leaves its answers.
//!
//! As Lambda documents it for custom runtimes, version 2018-06-01.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use http::StatusCode;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

/// What the function said of an event: its answer, or its error.
pub(crate) type Said = Result<Bytes, String>;

/// An event on its way to the function.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) payload: String,
    /// From the moment in which the function takes it.
    pub(crate) time: Duration,
    pub(crate) said: oneshot::Sender<Said>,
    /// Whether the function is told that its answer was taken; else it waits for that for ever.
    pub(crate) takes_answer: bool,
}

/// What waits for an answer.
#[derive(Debug)]
struct Running {
    said: oneshot::Sender<Said>,
    takes_answer: bool,
}

#[derive(Debug)]
struct Shared {
    events: tokio::sync::Mutex<mpsc::Receiver<Event>>,
    running: Mutex<BTreeMap<String, Running>>,
    first_next: watch::Sender<Option<Instant>>,
}

/// The routes, for the process of one environment. `first_next` is told when it asks for an event for the first time.
pub(crate) fn router(events: mpsc::Receiver<Event>, first_next: watch::Sender<Option<Instant>>) -> Router {
    let shared = Shared { events: tokio::sync::Mutex::new(events), running: Mutex::default(), first_next };
    Router::new()
        .route("/2018-06-01/runtime/invocation/next", get(next))
        .route("/2018-06-01/runtime/invocation/{id}/response", post(responded))
        .route("/2018-06-01/runtime/invocation/{id}/error", post(failed))
        .route("/2018-06-01/runtime/init/error", post(async || StatusCode::ACCEPTED))
        .layer(DefaultBodyLimit::disable())
        .with_state(Arc::new(shared))
}

async fn next(State(shared): State<Arc<Shared>>) -> Response {
    shared.first_next.send_if_modified(|first| {
        let is_first = first.is_none();
        first.get_or_insert_with(Instant::now);
        is_first
    });
    let Some(event) = shared.events.lock().await.recv().await else {
        // Nobody will invoke it any more: it is about to be killed.
        return std::future::pending().await;
    };
    let deadline = (SystemTime::now() + event.time).duration_since(UNIX_EPOCH).unwrap_or_default();
    let headers = [
        ("Lambda-Runtime-Aws-Request-Id", event.id.clone()),
        ("Lambda-Runtime-Deadline-Ms", deadline.as_millis().to_string()),
        ("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:1:function:emulated".to_owned()),
    ];
    let running = Running { said: event.said, takes_answer: event.takes_answer };
    shared.running().insert(event.id, running);
    (headers, event.payload).into_response()
}

async fn responded(State(shared): State<Arc<Shared>>, Path(id): Path<String>, body: Bytes) -> StatusCode {
    shared.say(&id, Ok(body)).await
}

async fn failed(State(shared): State<Arc<Shared>>, Path(id): Path<String>, body: Bytes) -> StatusCode {
    shared.say(&id, Err(String::from_utf8_lossy(&body).into_owned())).await
}

impl Shared {
    async fn say(&self, id: &str, said: Said) -> StatusCode {
        let Some(running) = self.running().remove(id) else {
            return StatusCode::BAD_REQUEST;
        };
        // Fails if whoever invoked has given up.
        let _ = running.said.send(said);
        if !running.takes_answer {
            std::future::pending::<()>().await;
        }
        StatusCode::ACCEPTED
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<String, Running>> {
        // A map is whole after each of its calls.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
