//! Goal: records are acknowledged once, in order, and only when they are in the log, whatever fails on the way.
//! Method: uploads and commits that are slow, lost or refused by script.

use std::sync::Arc;
use std::time::Duration;

use carnax_core::error_code::ErrorCode;
use carnax_core::id::Incarnation;
use carnax_core::record::Batch;
use carnax_frontend::{Components, RunError, Settings, run};
use carnax_object_store::{Failure, Fault, MemoryStore, Verb};
use carnax_platform::clock::SystemClock;
use carnax_platform::entropy::SystemEntropy;
use carnax_platform::network::TcpNetwork;
use carnax_queue::MemoryQueues;
use http::StatusCode;

use super::fake_metadata::CommitFault;
use super::support::{Answer, Frontend, start, start_with, until};

fn at_once(settings: &mut Settings) {
    settings.append.linger = Duration::ZERO;
}

/// Starts an append and waits until its upload has begun.
async fn begin(
    frontend: &Arc<Frontend>,
    value: &'static str,
) -> tokio::task::JoinHandle<Result<u64, Answer>> {
    let puts = frontend.store.calls(Verb::PutIfAbsent);
    let sender = Arc::clone(frontend);
    let task = tokio::spawn(async move { sender.append("t", value).await });
    until("its upload begins", async || frontend.store.calls(Verb::PutIfAbsent) > puts).await;
    task
}

#[tokio::test]
async fn segments_that_upload_in_parallel_are_committed_in_the_order_of_closing() {
    let frontend = Arc::new(start_with(at_once).await);
    frontend.create("t", 1).await;
    frontend.append("t", "first").await.unwrap();
    let delays = [300, 200, 100, 0].map(|millis| Fault::delay(Duration::from_millis(millis)));
    frontend.store.script(Verb::PutIfAbsent, delays);
    let mut tasks = Vec::new();
    for value in ["a", "b", "c", "d"] {
        tasks.push(begin(&frontend, value).await);
    }
    for (offset, task) in (1..).zip(tasks) {
        assert_eq!(task.await.unwrap().unwrap(), offset);
    }
    assert_eq!(frontend.values("t").await, ["first", "a", "b", "c", "d"]);
}

#[tokio::test]
async fn a_commit_without_an_answer_is_sent_again_under_its_number_and_done_once() {
    let frontend = start().await;
    frontend.create("t", 1).await;
    let refusals = [ErrorCode::NotLeader, ErrorCode::NoQuorum].map(CommitFault::Refuse);
    frontend.metadata.script([CommitFault::LoseReply, CommitFault::LoseRequest]);
    frontend.metadata.script(refusals);
    assert_eq!(frontend.append("t", "a").await.unwrap(), 0);
    let commits = frontend.metadata.commits();
    assert_eq!(commits.len(), 5, "{commits:?}");
    assert!(commits.iter().all(|commit| *commit == commits[0]), "{commits:?}");
    assert_eq!(frontend.append("t", "b").await.unwrap(), 1);
    assert_eq!(frontend.metadata.commits()[5], (commits[0].0, commits[0].1.next()));
    assert_eq!(frontend.values("t").await, ["a", "b"]);
    frontend.stop().await;
}

#[tokio::test]
async fn a_commit_that_is_given_up_is_unknown_and_its_session_is_abandoned() {
    let frontend = start_with(|settings| settings.append.commit_deadline = Duration::from_millis(700)).await;
    frontend.create("t", 1).await;
    frontend.append("t", "a").await.unwrap();
    // A refusal after a lost reply does not make the outcome known.
    frontend.metadata.script([CommitFault::LoseReply]);
    frontend.metadata.script([ErrorCode::NoQuorum; 40].map(CommitFault::Refuse));
    let unknown = frontend.append("t", "b").await.unwrap_err().problem("outcome_unknown");
    assert_eq!((&unknown["side_effects"], &unknown["status"]), (&"possible".into(), &504.into()));
    let abandoned = frontend.metadata.commits().last().unwrap().0;
    until("the script is used up", async || frontend.append("t", "c").await.is_ok()).await;
    assert_ne!(frontend.metadata.commits().last().unwrap().0, abandoned);
    assert_eq!(frontend.values("t").await, ["a", "b", "c"], "it had been done, once");
    frontend.stop().await;
}

#[tokio::test]
async fn what_was_uploaded_before_a_restore_is_not_committed_after_it() {
    let frontend = start_with(|settings| settings.append.commit_deadline = Duration::from_millis(700)).await;
    frontend.create("t", 1).await;
    frontend.append("t", "a").await.unwrap();
    frontend.metadata.script([CommitFault::LoseRequest; 40]);
    frontend.append("t", "b").await.unwrap_err().problem("outcome_unknown");
    frontend.metadata.restore(Incarnation(2));
    frontend.create("t", 1).await;
    // Its object lies under the earlier incarnation: a manifest of the later one would name an object that is not there.
    let refused = frontend.append("t", "c").await.unwrap_err();
    assert_eq!(refused.json()["side_effects"], "none", "{refused:?}");
    until("the incarnation is known", async || frontend.append("t", "d").await.is_ok()).await;
    assert_eq!(frontend.values("t").await, ["d"]);
    frontend.stop().await;
}

#[tokio::test]
async fn an_upload_that_misses_its_deadline_fails_everything_behind_it_without_side_effects() {
    let change = |settings: &mut Settings| {
        at_once(settings);
        settings.append.upload_deadline = Duration::from_millis(400);
    };
    let frontend = Arc::new(start_with(change).await);
    frontend.create("t", 1).await;
    frontend.append("t", "a").await.unwrap();
    frontend.store.script(Verb::PutIfAbsent, [Fault::delay(Duration::from_secs(3_600)), Fault::default()]);
    let late = begin(&frontend, "late").await;
    let behind = begin(&frontend, "behind").await;
    for task in [late, behind] {
        let answer = task.await.unwrap().unwrap_err();
        let problem = answer.problem("object_store_unavailable");
        assert_eq!((&problem["side_effects"], &problem["retryable"]), (&"none".into(), &true.into()));
        assert!(answer.headers.contains_key("retry-after"));
    }
    assert_eq!(frontend.append("t", "b").await.unwrap(), 1);
    assert_eq!(frontend.values("t").await, ["a", "b"]);
}

#[tokio::test]
async fn uploads_survive_failures_and_unknown_outcomes_of_the_store() {
    let frontend = start().await;
    frontend.create("t", 1).await;
    let faults = [Failure::Before, Failure::Lost, Failure::Throttled, Failure::After].map(Fault::fail);
    frontend.store.script(Verb::PutIfAbsent, faults);
    assert_eq!(frontend.append("t", "a").await.unwrap(), 0);
    assert_eq!(frontend.store.calls(Verb::PutIfAbsent), 5, "the last finds the object that was written");
    assert_eq!(frontend.store.calls(Verb::Head), 1);
    assert_eq!(frontend.values("t").await, ["a"]);
    frontend.stop().await;
}

#[tokio::test]
async fn expired_sessions_and_stale_segments_are_mended_without_the_client() {
    let frontend = start().await;
    frontend.create("t", 1).await;
    frontend.append("t", "a").await.unwrap();
    frontend.metadata.script([CommitFault::Refuse(ErrorCode::SessionExpired)]);
    frontend.append("t", "b").await.unwrap();
    let commits = frontend.metadata.commits();
    assert_ne!(commits[1].0, commits[2].0, "a new session: {commits:?}");
    // The frontend does not know yet that so much time has passed: its next id is too old.
    let puts = frontend.store.calls(Verb::PutIfAbsent);
    frontend.metadata.pass(Duration::from_secs(20 * 60));
    assert_eq!(frontend.append("t", "c").await.unwrap(), 2);
    assert_eq!(frontend.store.calls(Verb::PutIfAbsent), puts + 2);
    assert_eq!(frontend.values("t").await, ["a", "b", "c"]);
    frontend.stop().await;
}

#[tokio::test]
async fn a_crowd_shares_segments_and_batches_and_everyone_gets_its_own_offsets() {
    let frontend = Arc::new(start_with(|settings| settings.append.linger = Duration::from_millis(300)).await);
    frontend.create("t", 1).await;
    let mut tasks = Vec::new();
    for number in 0..50 {
        let frontend = Arc::clone(&frontend);
        tasks.push(tokio::spawn(async move {
            (frontend.append("t", &number.to_string()).await.unwrap(), number)
        }));
    }
    let mut expected = vec![String::new(); 50];
    for task in tasks {
        let (offset, number) = task.await.unwrap();
        expected[usize::try_from(offset).unwrap()] = number.to_string();
    }
    assert_eq!(frontend.values("t").await, expected);
    assert!(frontend.store.calls(Verb::PutIfAbsent) < 50);
    let accept = ("accept", "application/vnd.carnax.batches");
    let answer = frontend.call("GET", "/v1/topics/t/partitions/0/records", &[accept], "").await;
    assert!(Batch::parse_all(answer.body).unwrap().len() < 50);
}

#[tokio::test]
async fn without_a_quorum_appends_and_fetches_fail_and_nothing_is_shown() {
    let frontend = start_with(|settings| {
        settings.append.commit_deadline = Duration::from_millis(500);
        settings.calls.deadline = Duration::from_millis(500);
    })
    .await;
    frontend.create("t", 1).await;
    frontend.append("t", "a").await.unwrap();
    frontend.metadata.lose_quorum(true);
    let problem = frontend.append("t", "b").await.unwrap_err().problem("no_quorum");
    assert_eq!((&problem["side_effects"], &problem["retryable"]), (&"none".into(), &true.into()));
    frontend.get("/v1/topics/t/partitions/0/records?offset=0").await.problem("no_quorum");
    frontend.get("/readyz").await.problem("no_quorum");
    frontend.metadata.lose_quorum(false);
    assert_eq!(frontend.append("t", "c").await.unwrap(), 1);
    assert_eq!(frontend.values("t").await, ["a", "c"]);
    frontend.stop().await;
}

#[tokio::test]
async fn overload_is_answered_and_passes() {
    let frontend = start_with(|settings| {
        settings.append.append_memory_bytes = 400;
        settings.http.body_bytes_max = 200;
    });
    let frontend = Arc::new(frontend.await);
    frontend.create("t", 1).await;
    frontend.append("t", "a").await.unwrap();
    frontend.store.script(Verb::PutIfAbsent, [Fault::delay(Duration::from_millis(500))]);
    let long = "x".repeat(100);
    let leaked: &'static str = long.leak();
    let slow = begin(&frontend, leaked).await;
    let refused = frontend.append("t", leaked).await.unwrap_err();
    refused.problem("too_many_requests");
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.headers.contains_key("retry-after"));
    // Members of groups are heard all the same.
    let long = format!("{{\"client\":\"{leaked}{leaked}{leaked}{leaked}\",\"topics\":[\"t\"]}}");
    let joined = frontend.call("POST", "/v1/groups/g/members", &[], long).await;
    assert_eq!(joined.status, StatusCode::OK, "{joined:?}");
    assert_eq!(slow.await.unwrap().unwrap(), 1);
    assert_eq!(frontend.append("t", leaked).await.unwrap(), 2);
}

#[tokio::test]
async fn stopping_finishes_what_was_accepted_and_ends() {
    let mut frontend = start().await;
    frontend.create("t", 1).await;
    frontend.append("t", "a").await.unwrap();
    let puts = frontend.store.calls(Verb::PutIfAbsent);
    frontend.store.script(Verb::PutIfAbsent, [Fault::delay(Duration::from_millis(1_500))]);
    let store = Arc::clone(&frontend.store);
    let body = "POST /v1/topics/t/partitions/0/records HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 28\r\n\r\n{\"records\":[{\"value\":\"b\"}]} ";
    let mut connection = tokio::net::TcpStream::connect(&frontend.address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut connection, body.as_bytes()).await.unwrap();
    until("its upload begins", async || store.calls(Verb::PutIfAbsent) > puts).await;
    frontend.begin_stop();
    until("it is not ready", async || frontend.get("/readyz").await.status != StatusCode::OK).await;
    frontend.get("/readyz").await.problem("draining");
    frontend.append("t", "c").await.unwrap_err().problem("draining");
    let mut answer = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut connection, &mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    frontend.ended().await;
}

#[tokio::test]
async fn a_client_that_hangs_up_loses_nothing_and_an_idle_frontend_leaves_the_store_alone() {
    let frontend = start().await;
    frontend.create("t", 1).await;
    frontend.append("t", "a").await.unwrap();
    frontend.store.script(Verb::PutIfAbsent, [Fault::delay(Duration::from_millis(200))]);
    let puts = frontend.store.calls(Verb::PutIfAbsent);
    {
        let append = frontend.append("t", "b");
        let begun = until("its upload begins", async || frontend.store.calls(Verb::PutIfAbsent) > puts);
        tokio::select! {
            _ = append => panic!("it cannot be answered before its upload has ended"),
            () = begun => {}
        }
    }
    assert_eq!(frontend.append("t", "c").await.unwrap(), 2);
    assert_eq!(frontend.values("t").await, ["a", "b", "c"]);

    let calls = frontend.store.calls_total();
    for path in ["/readyz", "/metrics", "/v1/cluster", "/v1/topics/t", "/healthz"] {
        assert_eq!(frontend.get(path).await.status, StatusCode::OK);
    }
    let empty = frontend.get("/v1/topics/t/partitions/0/records?at=latest&wait_ms=500").await;
    assert_eq!(empty.json()["records"].as_array().unwrap().len(), 0);
    assert_eq!(frontend.store.calls_total(), calls);
    frontend.stop().await;
}

#[tokio::test]
async fn a_frontend_that_could_never_do_what_it_is_told_does_not_start() {
    let mut settings = Settings::new(vec!["127.0.0.1:1".to_owned()], "memory://test".parse().unwrap());
    let rules = r#"[{"queue": "arn:aws:sns:eu-west-1:1:flights", "topic": "t"}]"#;
    let polling = Settings { ingest: Some(rules.parse().unwrap()), ..settings.clone() };
    settings.append.append_memory_bytes = 2 * settings.http.body_bytes_max - 1;
    let components = Components {
        clock: Arc::new(SystemClock::new()),
        entropy: Arc::new(SystemEntropy),
        network: Arc::new(TcpNetwork),
        object_store: Arc::new(MemoryStore::new()),
        queues: Arc::new(MemoryQueues::default()),
    };
    let start =
        |settings| run(settings, components.clone(), |_| panic!("it listens"), std::future::pending());
    let started = start(settings).await;
    assert!(matches!(started, Err(RunError::AppendMemory { least: 33_554_432, .. })), "{started:?}");
    let started = start(polling).await;
    assert!(matches!(&started, Err(RunError::Queue { queue, .. }) if queue.contains(":sns:")), "{started:?}");
}
