//! Which endpoint is asked, and what is asked again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use carnax::{Client, ErrorCode, RequestError, SideEffects};
use tokio::time::Instant;

use crate::log::Log;
use crate::server::{Reply, Server, client, client_builder, in_time};

#[tokio::test]
async fn a_client_stays_with_one_endpoint_and_moves_on_when_it_is_away_or_says_503() {
    let log = Log::new(1);
    let serve = |log: Log| Server::start(move |seen| std::future::ready(log.serve(&seen)));
    let first = serve(log.clone()).await;
    let draining = Server::start(|_| async { Reply::problem(ErrorCode::Draining, |_| {}) }).await;
    let last = serve(log).await;
    let client = client_builder([&first, &draining, &last]).build().unwrap();
    for _ in 0..3 {
        in_time(client.admin().describe_topic("t")).await.unwrap();
    }
    assert_eq!((first.seen().len(), draining.seen().len(), last.seen().len()), (3, 0, 0));
    drop(first);
    for _ in 0..3 {
        in_time(client.admin().describe_topic("t")).await.unwrap();
    }
    assert_eq!((draining.seen().len(), last.seen().len()), (1, 3), "a failed endpoint is left alone");
}

#[tokio::test]
async fn only_what_the_problem_allows_is_repeated() {
    for (code, attempts) in [
        (ErrorCode::NoQuorum, 3),
        (ErrorCode::TooManyRequests, 3),
        (ErrorCode::TopicNotFound, 1),
        (ErrorCode::InvalidValue, 1),
        (ErrorCode::Internal, 1),
        (ErrorCode::OutcomeUnknown, 1),
    ] {
        let calls = AtomicUsize::new(0);
        let server = Server::start(move |_| {
            let reply = match calls.fetch_add(1, Ordering::Relaxed) {
                0 | 1 => Reply::problem(code, |_| {}),
                _ => Reply::problem(ErrorCode::TopicExists, |_| {}),
            };
            std::future::ready(reply)
        })
        .await;
        // Deleting is not idempotent: another topic may have the name by then.
        let error = in_time(client(&server).admin().delete_topic("t")).await.unwrap_err();
        assert_eq!(server.seen().len(), attempts, "{code}");
        let expected = if attempts == 1 { code } else { ErrorCode::TopicExists };
        assert!(error.is(expected), "{code}: {error:?}");
        assert_eq!(error.side_effects(), expected.side_effects(), "{code}");
    }
}

#[tokio::test]
async fn an_unknown_outcome_is_repeated_only_for_idempotent_calls_and_is_never_forgotten() {
    let calls = AtomicUsize::new(0);
    let server = Server::start(move |_| {
        let reply = match calls.fetch_add(1, Ordering::Relaxed) {
            0 | 1 => Reply::HangUp,
            _ => Reply::problem(ErrorCode::TopicNotFound, |_| {}),
        };
        std::future::ready(reply)
    })
    .await;
    let admin = client(&server).admin();
    let error = in_time(admin.delete_topic("t")).await.unwrap_err();
    assert!(matches!(error, RequestError::Lost { .. }), "{error:?}");
    assert_eq!((server.seen().len(), error.side_effects()), (1, SideEffects::Possible));
    let error = in_time(admin.describe_topic("t")).await.unwrap_err();
    assert!(matches!(error, RequestError::GaveUp { attempts: 2, .. }), "{error:?}");
    assert_eq!(error.side_effects(), SideEffects::Possible, "the first attempt may have been done");
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_obeyed_and_the_deadline_of_the_operation_is_kept() {
    let calls = AtomicUsize::new(0);
    let server = Server::start(move |_| {
        let reply = match calls.fetch_add(1, Ordering::Relaxed) {
            0 => Reply::problem(ErrorCode::TooManyRequests, |facts| facts.retry_after_seconds = Some(7)),
            1 => Reply::problem(ErrorCode::TopicNotFound, |_| {}),
            _ => Reply::problem(ErrorCode::TooManyRequests, |facts| facts.retry_after_seconds = Some(3_600)),
        };
        std::future::ready(reply)
    })
    .await;
    let client = client(&server);
    let start = Instant::now();
    let error = client.admin().describe_topic("t").await.unwrap_err();
    assert!(error.is(ErrorCode::TopicNotFound), "{error:?}");
    assert!(start.elapsed() >= Duration::from_secs(7), "{:?}", start.elapsed());
    let start = Instant::now();
    let error = client.admin().describe_topic("t").await.unwrap_err();
    assert!(error.is(ErrorCode::TooManyRequests) && error.retryable(), "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(60), "an hour is beyond the deadline: no use in waiting");
}

/// A server that lets one request through in each second is asked again in each second, not ever more rarely.
#[tokio::test(start_paused = true)]
async fn a_client_that_is_told_when_to_come_again_comes_then_however_often() {
    const REFUSALS: usize = 20;
    let calls = AtomicUsize::new(0);
    let server = Server::start(move |_| {
        let reply = match calls.fetch_add(1, Ordering::Relaxed) {
            ..REFUSALS => {
                Reply::problem(ErrorCode::TooManyRequests, |facts| facts.retry_after_seconds = Some(1))
            }
            _ => Reply::problem(ErrorCode::TopicNotFound, |_| {}),
        };
        std::future::ready(reply)
    })
    .await;
    let client = client_builder([&server]).operation_timeout(Duration::from_secs(60)).build().unwrap();
    let start = Instant::now();
    let error = client.admin().describe_topic("t").await.unwrap_err();
    assert!(error.is(ErrorCode::TopicNotFound), "{error:?}");
    let waited = start.elapsed();
    let told = Duration::from_secs(REFUSALS as u64);
    assert!(waited >= told && waited < told + told / 5, "{waited:?}");
}

#[tokio::test]
async fn a_proxy_that_answers_for_a_server_that_is_away_does_not_confuse_the_client() {
    let server = Server::start(|seen| async move {
        let status = if seen.path.ends_with("/a") { 502 } else { 404 };
        Reply::Answer(http::Response::builder().status(status).body("<html>".into()).unwrap())
    })
    .await;
    let client = client_builder([&server]).operation_timeout(Duration::from_millis(400)).build().unwrap();
    let error = in_time(client.admin().describe_topic("a")).await.unwrap_err();
    assert!(error.retryable() && server.seen().len() > 1, "{error:?}");
    let error = in_time(client.admin().describe_topic("b")).await.unwrap_err();
    assert!(matches!(&error, RequestError::Answer { status: 404, .. }), "{error:?}");
    assert!(!error.retryable());
}

#[tokio::test]
async fn names_that_would_change_the_path_are_refused_before_anything_is_sent() {
    let client = Client::builder().endpoints(["http://127.0.0.1:9"]).build().unwrap();
    for name in ["", "a/b", "..", "a?b", "a b"] {
        let error = client.admin().describe_topic(name).await.unwrap_err();
        assert!(matches!(error, RequestError::Invalid { .. }), "{name}: {error:?}");
    }
}
