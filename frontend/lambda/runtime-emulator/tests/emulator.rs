//! The emulator, with the example `echo` for a function: the official runtime, as any function links it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use carnax_lambda_runtime_emulator::{EventSource, Function, FunctionSettings, InvokeError};
use carnax_platform::clock::SystemClock;
use carnax_queue::{Depth, MemoryQueue, MessageQueue, OutgoingMessage};
use serde_json::{Value, json};

const TIME: Duration = Duration::from_secs(30);

async fn echo() -> Function {
    let tests = std::env::current_exe().unwrap();
    let folder = tests.parent().and_then(|deps| deps.parent()).unwrap();
    let program: PathBuf = folder.join("examples").join("echo");
    assert!(program.is_file(), "the example echo is not built: cargo test builds it when no target is named");
    Function::start(&FunctionSettings::new(program)).await.unwrap()
}

/// `T` while it is stopped; Linux.
fn state(function: &Function) -> String {
    let path = format!("/proc/{}/stat", function.id().unwrap());
    let said = std::fs::read_to_string(path).unwrap();
    said.rsplit(") ").next().unwrap().split(' ').next().unwrap().to_owned()
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < TIME, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_function_answers_fails_or_ends_and_the_one_who_asked_learns_which() {
    let function = echo().await;
    assert!(function.ready().await.unwrap() > Duration::ZERO);
    assert_eq!(function.invoke(&json!({"a": 1})).await.unwrap(), json!({"a": 1}));
    let failed = function.invoke(&json!({"fail": "no wish to"})).await.unwrap_err();
    assert!(matches!(&failed, InvokeError::Failed(why) if why.contains("no wish to")), "{failed}");
    // A failure ends nothing.
    assert_eq!(function.invoke(&json!([])).await.unwrap(), json!([]));
    let ended = function.invoke(&json!({"end": 3})).await.unwrap_err();
    assert!(matches!(ended, InvokeError::Ended(status) if status.code() == Some(3)), "{ended}");
    assert!(
        matches!(function.invoke(&json!({})).await, Err(InvokeError::Ended(_))),
        "nobody starts it again"
    );
    assert!(!function.is_alive() && function.id().is_none());

    let no_function = FunctionSettings::new("/bin/true");
    let ended = Function::start(&no_function).await.unwrap().ready().await;
    assert!(matches!(ended, Err(InvokeError::Ended(_))), "it asked for no event: {ended:?}");
}

#[tokio::test]
async fn a_paused_function_stands_still_until_it_goes_on() {
    let function = echo().await;
    function.ready().await.unwrap();
    function.pause().await.unwrap();
    until("it is stopped", || state(&function) == "T").await;
    let event = json!("hello");
    let mut invoked = std::pin::pin!(function.invoke(&event));
    tokio::select! {
        biased;
        said = &mut invoked => panic!("a stopped process answered: {said:?}"),
        () = std::future::ready(()) => {}
    }
    assert_eq!(state(&function), "T", "an event wakes nobody");
    function.go_on().await.unwrap();
    assert_eq!(invoked.await.unwrap(), event);
    function.pause().await.unwrap();
    assert!(function.kill().await.is_ok_and(|status| !status.success()), "a paused process can be killed");
}

#[tokio::test]
async fn a_function_can_be_killed_between_its_work_and_its_answer() {
    let function = echo().await;
    let said = function.invoke_until_answer(&json!("done"), TIME).await.unwrap();
    assert_eq!(said.as_ref(), b"\"done\"");
    assert!(function.is_alive(), "it waits for its answer to be taken");
    assert!(!function.kill().await.unwrap().success());
}

#[tokio::test]
async fn a_queue_loses_what_was_done_and_keeps_what_was_not() {
    let queue = Arc::new(MemoryQueue::new("q", Arc::new(SystemClock::new())).unwrap());
    let source = EventSource::new(Arc::clone(&queue) as _, "arn:aws:sqs:eu-west-1:1:q");
    let message =
        |id: &str| OutgoingMessage { id: id.to_owned(), body: id.to_owned(), ..OutgoingMessage::default() };
    queue.send(&["a", "b"].map(message)).await.unwrap();
    let visible = |visible| Depth { visible, in_flight: 0 };

    let function = echo().await;
    let messages = source.receive(Duration::ZERO).await.unwrap();
    let event = source.event(&messages);
    let bodies: Vec<&Value> =
        event["Records"].as_array().unwrap().iter().map(|record| &record["body"]).collect();
    assert_eq!(
        (bodies, &event["Records"][0]["awsRegion"]),
        (vec![&json!("a"), &json!("b")], &json!("eu-west-1"))
    );
    let back = json!({"batchItemFailures": [{"itemIdentifier": messages[1].id}]});
    let delivery = source.settle(&messages, function.invoke(&back).await).await.unwrap();
    assert_eq!((delivery.messages, delivery.redelivered, delivery.back), (2, 0, 1));
    assert_eq!(queue.depth(), visible(1));

    function.kill().await.unwrap();
    let lost = source.deliver(&function, Duration::ZERO).await.unwrap().unwrap();
    assert_eq!((lost.messages, lost.redelivered, lost.back), (1, 1, 1));
    assert!(matches!(lost.answer, Err(InvokeError::Ended(_))));
    // An echo of the batch names no failure.
    let done = source.deliver(&echo().await, Duration::ZERO).await.unwrap().unwrap();
    assert_eq!((done.redelivered, done.back), (1, 0), "{done:?}");
    assert_eq!(queue.depth(), visible(0));
    assert!(source.deliver(&function, Duration::ZERO).await.unwrap().is_none());
}
