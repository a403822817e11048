//! What only `SqsQueue` can meet: servers that refuse, break or keep silent. Each test has a server of its own.

use std::sync::Arc;
use std::time::Duration;

use carnax_platform::clock::{Clock, SystemClock};
use carnax_queue::{
    Depth, Failure, MemoryQueue, MessageQueue, OutgoingMessage, Receipt, Receive, SqsQueue, SqsSettings,
};
use carnax_sqs_test_server::{ACCESS_KEY, Action, Fault, SECRET_KEY, SqsTestServer};
use tokio::net::TcpListener;

const QUEUE: &str = "events.fifo";
const URL_VARIABLE: &str = "TEST_QUEUE_URL";

async fn server() -> (Arc<MemoryQueue>, SqsTestServer) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let queue = Arc::new(MemoryQueue::new(QUEUE, clock).expect("a queue's name"));
    let server = SqsTestServer::start([Arc::clone(&queue)]).await;
    (queue, server)
}

async fn open(endpoint: &str, name: &str, try_time: Duration) -> SqsQueue {
    let mut settings = SqsSettings::fixed(endpoint, ACCESS_KEY, SECRET_KEY);
    settings.try_time = try_time;
    SqsQueue::open(&format!("{endpoint}/000000000000/{name}"), &settings).await.expect("a queue's URL")
}

fn message(name: &str) -> OutgoingMessage {
    OutgoingMessage {
        id: name.to_owned(),
        body: name.to_owned(),
        group: Some("g".to_owned()),
        deduplication: Some(name.to_owned()),
        ..OutgoingMessage::default()
    }
}

fn receive(wait: Duration) -> Receive {
    Receive { messages_max: 10, wait, visibility: Duration::from_mins(1) }
}

#[tokio::test]
async fn each_failure_says_whether_to_retry_and_whether_it_may_have_happened() {
    let (memory, server) = server().await;
    let queue = open(&server.endpoint(), QUEUE, Duration::from_secs(10)).await;
    assert_eq!(server.requests_total(), 0, "to open a queue asks nobody");
    let batch = [message("a")];

    server.script(Action::SendBatch, [Fault::Throttle, Fault::Deny, Fault::Fail, Fault::LoseAnswer]);
    let error = queue.send(&batch).await.expect_err("throttled");
    assert!(matches!(error.failure, Failure::Throttled { .. }), "{error:?}");
    assert_eq!((error.is_retryable(), error.may_have_happened()), (true, false));
    let error = queue.send(&batch).await.expect_err("denied");
    assert!(matches!(error.failure, Failure::Denied { .. }), "{error:?}");
    assert_eq!((error.is_retryable(), error.may_have_happened()), (false, false));
    for what in ["failed", "lost"] {
        let error = queue.send(&batch).await.expect_err(what);
        assert!(matches!(error.failure, Failure::OutcomeUnknown { .. }), "{error:?}");
        assert_eq!((error.is_retryable(), error.may_have_happened()), (true, true));
    }
    assert_eq!(memory.depth(), Depth { visible: 1, in_flight: 0 }, "the one whose answer was lost");
    queue.send(&batch).await.expect("a repeat").remove(0).expect("the same message");
    assert_eq!(memory.depth(), Depth { visible: 1, in_flight: 0 }, "a repeat is not kept twice");
    assert_eq!(server.requests(Action::SendBatch), 5, "one call is one request");

    server.script(Action::Receive, [Fault::LoseAnswer]);
    let error = queue.receive(receive(Duration::ZERO)).await.expect_err("lost");
    assert!(error.may_have_happened(), "{error:?}");
    assert_eq!(memory.depth(), Depth { visible: 0, in_flight: 1 }, "nobody holds it, until its time is over");
    let error = queue.delete(&[Receipt::new("x")]).await.expect("a batch").remove(0).expect_err("no receipt");
    assert!(matches!(error.failure, Failure::Invalid { .. }), "{error:?}");

    let missing = open(&server.endpoint(), "missing.fifo", Duration::from_secs(10)).await;
    let error = missing.send(&batch).await.expect_err("no such queue");
    assert!(matches!(error.failure, Failure::Misconfigured { .. }) && !error.is_retryable(), "{error:?}");
    assert!(
        error.to_string().contains("NonExistentQueue") && error.to_string().contains("missing.fifo"),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable_and_a_silent_one_unknown() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    let queue = open(&endpoint, QUEUE, Duration::from_millis(100)).await;
    // The system takes the connection, and nobody reads what comes on it.
    let error = queue.send(&[message("a")]).await.expect_err("silence");
    assert!(matches!(error.failure, Failure::OutcomeUnknown { .. }), "{error:?}");
    drop(listener);
    let queue = open(&endpoint, QUEUE, Duration::from_secs(10)).await;
    let error = queue.send(&[message("a")]).await.expect_err("nobody there");
    assert!(matches!(error.failure, Failure::Unavailable { .. }), "{error:?}");
    assert_eq!((error.is_retryable(), error.may_have_happened()), (true, false));
}

#[tokio::test]
async fn a_long_poll_may_last_longer_than_a_try() {
    let (_memory, server) = server().await;
    let queue = open(&server.endpoint(), QUEUE, Duration::from_millis(1_900)).await;
    assert_eq!(queue.receive(receive(Duration::from_secs(2))).await, Ok(vec![]));
    assert_eq!(server.requests(Action::Receive), 1);
}

#[tokio::test]
async fn endpoint_and_credentials_come_from_the_environment_and_no_region_is_needed() {
    let (memory, server) = server().await;
    for variable in ["AWS_ENDPOINT_URL_SQS", "AWS_ENDPOINT_URL"] {
        let output = tokio::process::Command::new(std::env::current_exe().expect("this test's own program"))
            .args(["--exact", "child_that_sends_where_its_environment_says", "--ignored"])
            .env_clear()
            .env(variable, server.endpoint())
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env(URL_VARIABLE, server.queue_url(QUEUE))
            .env("TEST_MESSAGE", variable)
            .kill_on_drop(true)
            .output()
            .await;
        let output = output.expect("the program runs again");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    assert_eq!(memory.depth().visible, 2);
}

#[tokio::test]
#[ignore = "only in a process with an environment of its own"]
async fn child_that_sends_where_its_environment_says() {
    let url = std::env::var(URL_VARIABLE).expect("the parent says where");
    let name = std::env::var("TEST_MESSAGE").expect("the parent says what");
    let queue = SqsQueue::open(&url, &SqsSettings::default()).await.expect("nothing is asked");
    queue.send(&[message(&name)]).await.expect("the environment says where and who").remove(0).expect("sent");
}

#[tokio::test]
async fn what_the_server_holds_is_done_or_not_and_ends_with_its_client() {
    let (memory, server) = server().await;
    let queue = open(&server.endpoint(), QUEUE, Duration::from_secs(10)).await;
    server.script(Action::SendBatch, [Fault::Hold, Fault::HoldAnswer]);
    for done in [0, 1] {
        let batch = [message("a")];
        tokio::select! {
            sent = queue.send(&batch) => panic!("answered: {sent:?}"),
            () = server.until_held(1) => {}
        }
        server.until_held(0).await;
        assert_eq!(memory.depth(), Depth { visible: done, in_flight: 0 });
    }
}
