//! The S3 store against a real server of the protocol on loopback, which misbehaves as told.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use carnax_core::offset::ByteRange;
use carnax_s3_test_server::{ACCESS_KEY, BUCKET, Fault, Operation, S3TestServer, SECRET_KEY};

use super::*;
use crate::contract::{self, Extent};

/// Enough for a loopback answer, and what a try that is never answered costs.
const TRY_TIME: Duration = Duration::from_secs(5);

async fn open(server: &S3TestServer) -> S3Store {
    S3Store::open(BUCKET, "some/prefix", settings(server)).await
}

fn settings(server: &S3TestServer) -> S3Settings {
    S3Settings { try_time: TRY_TIME, ..S3Settings::fixed(&server.endpoint(), ACCESS_KEY, SECRET_KEY) }
}

fn payload(text: &'static str) -> Payload {
    Payload::from(Bytes::from_static(text.as_bytes()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_s3_store_keeps_the_contract() {
    let server = S3TestServer::start().await;
    contract::check(Arc::new(open(&server).await)).await;
    assert!(server.keys().iter().all(|key| key.starts_with("some/prefix/")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_s3_store_keeps_the_contract_when_requests_are_refused_throttled_and_lost() {
    let server = S3TestServer::start().await;
    let before =
        [Fault::SlowDown, Fault::None, Fault::FailBefore, Fault::None, Fault::None, Fault::VanishBefore];
    for operation in [Operation::Get, Operation::Head, Operation::List, Operation::Delete] {
        server
            .script(operation, before.into_iter().chain([Fault::FailAfter, Fault::VanishAfter, Fault::None]));
    }
    // Puts that may have happened have a test of their own: a swap is allowed to answer that it does not know.
    server.script(
        Operation::Put,
        [Fault::SlowDown, Fault::None, Fault::Conflict, Fault::None, Fault::SlowDown],
    );
    let store = S3Store::open(BUCKET, "", settings(&server)).await;
    let extent = Extent { rounds: 5, writers: 4, object_bytes_max: 1024 * 1024 };
    contract::check_to(Arc::new(store), extent).await;
}

#[tokio::test]
async fn a_put_that_was_done_without_an_answer_is_recognized_and_anothers_is_not() {
    let server = S3TestServer::start().await;
    let store = open(&server).await;
    for (key, fault) in [("after-500", Fault::FailAfter), ("vanished", Fault::VanishAfter)] {
        server.script(Operation::Put, [fault]);
        store.put_if_absent(key, payload("mine")).await.expect("it is our own object");
        let again = store.put_if_absent(key, payload("mine")).await;
        assert!(matches!(again, Err(ObjectStoreError::AlreadyExists { .. })), "{again:?}");
    }
    let heads = server.requests(Operation::Head);
    assert_eq!(heads, 2, "only where it was in doubt");

    store.put_if_absent("taken", payload("theirs")).await.expect("the key is free");
    server.script(Operation::Put, [Fault::FailBefore]);
    let refused = store.put_if_absent("taken", payload("mine")).await;
    assert!(matches!(refused, Err(ObjectStoreError::AlreadyExists { .. })), "{refused:?}");
    assert_eq!(server.requests(Operation::Head), heads + 1);
}

#[tokio::test]
async fn a_put_that_nobody_answers_ends_in_time_as_unknown() {
    let server = S3TestServer::start().await;
    let settings = S3Settings { try_time: Duration::from_millis(100), tries_max: 3, ..settings(&server) };
    let store = S3Store::open(BUCKET, "p", settings).await;
    server.script(Operation::Put, [Fault::HangAfter]);
    store.put_if_absent("once", payload("x")).await.expect("the second try finds the first");

    server.script(Operation::Put, [Fault::VanishBefore, Fault::SlowDown, Fault::SlowDown]);
    let unknown = store.put_if_absent("doubt", payload("x")).await;
    assert!(
        matches!(unknown, Err(ObjectStoreError::OutcomeUnknown { .. })),
        "one try of three may have happened"
    );
    server.script(Operation::Put, [Fault::SlowDown, Fault::SlowDown, Fault::SlowDown]);
    let throttled = store.put_if_absent("throttled", payload("x")).await;
    assert!(matches!(throttled, Err(ObjectStoreError::Throttled { .. })), "{throttled:?}");
    assert_eq!(server.keys(), ["p/once"]);
}

#[tokio::test]
async fn a_swap_in_doubt_is_never_taken_for_a_success_or_a_refusal() {
    let server = S3TestServer::start().await;
    let store = open(&server).await;
    let swap = |expected, text: &'static str| {
        store.compare_and_swap("k", expected, Bytes::from_static(text.as_bytes()))
    };
    server.script(Operation::Put, [Fault::VanishAfter]);
    let unknown = swap(None, "first").await;
    assert!(matches!(unknown, Err(ObjectStoreError::OutcomeUnknown { .. })), "{unknown:?}");
    let (bytes, version) = store.get("k", GetRange::WholeUpTo(9)).await.expect("it was done");
    assert_eq!(bytes, "first");

    server.script(Operation::Put, [Fault::FailBefore]);
    let second =
        swap(Some(version.clone()), "second").await.expect("the repeated try is the first that is done");
    server.script(Operation::Put, [Fault::FailBefore]);
    let unknown = swap(Some(version), "third").await;
    assert!(matches!(unknown, Err(ObjectStoreError::OutcomeUnknown { .. })), "{unknown:?}");
    server.script(Operation::Put, [Fault::SlowDown, Fault::Conflict]);
    swap(Some(second), "fourth").await.expect("refused tries leave no doubt");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_read_again_and_never_handed_out() {
    let server = S3TestServer::start().await;
    let store = open(&server).await;
    store.put_if_absent("k", payload("0123456789")).await.expect("the key is free");
    server.script(Operation::Get, [Fault::ShortBody, Fault::ShortBody]);
    let (bytes, _) =
        store.get("k", ByteRange { start: 2, length: 6 }.into()).await.expect("the third try is whole");
    assert_eq!(bytes, "234567");
    assert_eq!(server.requests(Operation::Get), 3);
    server.script(Operation::Get, [Fault::ShortBody; 6]);
    let broken = store.get("k", GetRange::WholeUpTo(10)).await;
    assert!(matches!(broken, Err(ObjectStoreError::Unavailable { .. })), "{broken:?}");
}

#[tokio::test]
async fn a_payload_with_a_wrong_checksum_is_refused() {
    let server = S3TestServer::start().await;
    let store = S3Store::open(BUCKET, "", S3Settings { tries_max: 1, ..settings(&server) }).await;
    let wrong = Payload::with_checksum(vec![Bytes::from_static(b"bytes")], 1);
    store.put_if_absent("k", wrong).await.expect_err("the checksum is wrong");
    assert!(server.keys().is_empty());
}

#[tokio::test]
async fn what_cannot_work_is_said_at_once_with_what_to_change() {
    let server = S3TestServer::start().await;
    let store = S3Store::open("other-bucket", "", settings(&server)).await;
    for error in [
        store.put_if_absent("k", payload("x")).await.expect_err("no bucket"),
        store.get("k", GetRange::WholeUpTo(1)).await.expect_err("no bucket"),
        store.list("", "", 1).await.expect_err("no bucket"),
    ] {
        let told = format!("{error}");
        assert!(
            matches!(error, ObjectStoreError::Misconfigured { .. }) && told.contains("bucket"),
            "{error:?}"
        );
    }
    assert_eq!(server.requests_total(), 3, "nothing is tried twice");

    let wrong_key = S3Settings::fixed(&server.endpoint(), ACCESS_KEY, "wrong");
    let denied = S3Store::open(BUCKET, "", wrong_key).await.put_if_absent("k", payload("x")).await;
    assert!(matches!(denied, Err(ObjectStoreError::Denied { .. })), "{denied:?}");

    let endpoint = server.endpoint();
    drop(server);
    let settings = S3Settings { tries_max: 2, ..S3Settings::fixed(&endpoint, ACCESS_KEY, SECRET_KEY) };
    let store = S3Store::open(BUCKET, "", settings).await;
    // The server takes a moment to close.
    let refused = async {
        while !matches!(
            store.put_if_absent("k", payload("x")).await,
            Err(ObjectStoreError::Unavailable { .. })
        ) {}
    };
    let refused = tokio::time::timeout(Duration::from_secs(30), refused).await;
    refused.expect("a connection that was refused carried nothing");
}

#[tokio::test]
async fn an_idle_store_sends_nothing() {
    let server = S3TestServer::start().await;
    let store = open(&server).await;
    assert_eq!(server.requests_total(), 0, "opening asks for nothing");
    store.put_if_absent("k", payload("x")).await.expect("the key is free");
    assert_eq!((server.requests(Operation::Put), server.requests_total()), (1, 1), "a put is one request");
    store.get("k", GetRange::WholeUpTo(1)).await.expect("it was put");
    assert_eq!((server.requests(Operation::Get), server.requests_total()), (1, 2), "a get is one request");
}

#[tokio::test]
async fn endpoint_and_credentials_come_from_the_environment_and_no_region_is_needed() {
    let server = S3TestServer::start().await;
    let home = tempfile::tempdir().expect("a folder");
    let output = tokio::process::Command::new(std::env::current_exe().expect("this test's own program"))
        .args(["--exact", "s3::tests::child_that_puts_with_what_its_environment_says", "--ignored"])
        .env_clear()
        .env("HOME", home.path())
        .env("AWS_ENDPOINT_URL_S3", server.endpoint())
        .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .kill_on_drop(true)
        .output()
        .await;
    let output = output.expect("the program runs again");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(server.keys(), ["from/environment/k"]);
}

#[tokio::test]
#[ignore = "only in a process with an environment of its own"]
async fn child_that_puts_with_what_its_environment_says() {
    let url = format!("s3://{BUCKET}/from/environment").parse().expect("a URL");
    let settings = crate::ObjectStoreSettings { s3_path_style: true };
    let store = crate::open(&url, &settings).await.expect("nothing is asked of the bucket");
    store.put_if_absent("k", payload("x")).await.expect("the environment says where and who");
}

#[tokio::test]
async fn every_request_that_reaches_the_server_is_counted_once_whatever_became_of_it() {
    let server = S3TestServer::start().await;
    let settings = S3Settings { try_time: Duration::from_millis(500), ..settings(&server) };
    let store = S3Store::open(BUCKET, "p", settings).await;
    use Operation::{Delete, Get, Head, List, Put};
    let bad = [Fault::SlowDown, Fault::FailAfter, Fault::VanishBefore, Fault::None, Fault::VanishAfter];
    for operation in [Put, Get, Head, List, Delete] {
        server.script(operation, bad);
    }
    server.script(Put, [Fault::None, Fault::HangAfter]);
    for (key, text) in [("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")] {
        let _ = store.put_if_absent(key, payload(text)).await;
        let _ = store.get(key, GetRange::WholeUpTo(9)).await;
        let _ = store.head(key).await;
        let _ = store.list(key, "", 10).await;
    }
    let keys: Vec<String> = (0..1_001).map(|key| format!("x{key}")).collect();
    let _ = store.delete_many(&keys).await;
    let counted = store.take_requests();
    let served = [Put, Get, Head, List, Delete].map(|operation| server.requests(operation));
    assert_eq!([counted.put, counted.get, counted.head, counted.list, counted.delete], served);
    assert_eq!(counted.total(), server.requests_total());
    assert!(counted.put > 4 && counted.delete > 2, "retries were needed: {counted:?}");
    assert!(store.take_requests().is_zero(), "each is told once");

    let nowhere = S3Settings { tries_max: 2, ..S3Settings::fixed("http://127.0.0.1:1", "a", "b") };
    let unreachable = S3Store::open(BUCKET, "", nowhere).await;
    assert!(unreachable.head("a").await.is_err());
    assert!(unreachable.take_requests().is_zero(), "what was never sent is not counted");
}
