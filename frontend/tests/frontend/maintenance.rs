//! Goal: objects that were uploaded and never committed are deleted, and nothing else ever is, whatever fails and whoever
//! does it. Method: objects of all kinds and ages in one store, and the state machine itself behind the metadata node.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use carnax_core::cluster_document::{BYTES_MAX, FORMAT_VERSION, IncarnationDocument};
use carnax_core::id::{ClusterId, Incarnation, SegmentId, TopicId, TopicPartition};
use carnax_core::object_key::{self, SEGMENT_FOLDERS, SegmentKey};
use carnax_core::time::Timestamp;
use carnax_frontend::maintenance::{Maintenance, MaintenanceError, Work};
use carnax_frontend::{Components, Frontend as Embedded, Role, Settings};
use carnax_object_store::{Failure, Fault, FaultStore, GetRange, MemoryStore, ObjectStore, Verb};
use carnax_platform::clock::SystemClock;
use carnax_platform::entropy::SystemEntropy;
use carnax_platform::network::TcpNetwork;
use carnax_queue::{MemoryQueue, MemoryQueues, OutgoingMessage};
use http::StatusCode;

use super::fake_metadata::{FakeMetadata, START};
use super::support::{Frontend, start, start_with_queues, until};

const HOUR: Duration = Duration::from_secs(60 * 60);
/// After what time a pass is due.
const DUE: Duration = Duration::from_secs(7 * 60 * 60);

/// A worker of its own beside a frontend.
pub struct Worker {
    maintenance: Maintenance,
    _embedded: Embedded,
}

pub fn worker(frontend: &Frontend) -> Worker {
    let metadata = vec![frontend.metadata.address.clone()];
    let mut settings = Settings::new(metadata, "memory://test".parse().unwrap());
    settings.calls.try_timeout = Duration::from_millis(200);
    settings.calls.deadline = Duration::from_secs(1);
    let components = Components {
        clock: Arc::new(SystemClock::new()),
        entropy: Arc::new(SystemEntropy),
        network: Arc::new(TcpNetwork),
        object_store: Arc::clone(&frontend.store) as Arc<_>,
        queues: Arc::new(MemoryQueues::default()),
    };
    let embedded = Embedded::new(&settings, components, "worker").unwrap();
    Worker { maintenance: embedded.maintenance(), _embedded: embedded }
}

impl Worker {
    pub async fn work(&self) -> Result<Work, MaintenanceError> {
        self.maintenance.work(&|| false).await
    }
}

fn key(after_start: Duration, random: u128) -> SegmentKey {
    let time = Timestamp::from_millis(START).saturating_add(after_start);
    SegmentKey::appended(Incarnation(1), SegmentId::from_parts(time, random))
}

async fn put(store: &FaultStore<MemoryStore>, key: &str) {
    store.inner().put_if_absent(key, bytes::Bytes::from_static(b"left behind").into()).await.unwrap();
}

pub async fn keys(store: &FaultStore<MemoryStore>) -> BTreeSet<String> {
    let page = store.inner().list("", "", 1_000).await.unwrap();
    assert!(!page.more);
    let keys = page.objects.into_iter().map(|object| object.key);
    keys.filter(|key| key != object_key::INCARNATION).collect()
}

/// What says whose a bucket is.
pub fn incarnation_document(incarnation: Incarnation) -> bytes::Bytes {
    let cluster = ClusterId::from_bytes([1; 16]);
    let document =
        IncarnationDocument { format_version: FORMAT_VERSION, cluster, incarnation, former: Vec::new() };
    serde_json::to_vec(&document).unwrap().into()
}

/// How one kind of job is getting on.
async fn described(frontend: &Frontend, job: &str) -> serde_json::Value {
    let described = frontend.get("/v1/cluster/maintenance").await.json();
    let jobs = described["jobs"].as_array().unwrap();
    jobs.iter().find(|description| description["job"] == job).unwrap().clone()
}

/// A frontend with three segments, seven hours before now, the first of which is trimmed: dead, and deleted; and the keys of the
/// objects that are left.
async fn with_records() -> (Frontend, BTreeSet<String>) {
    let frontend = start().await;
    frontend.create("t", 1).await;
    for value in ["a", "b", "c"] {
        frontend.append("t", value).await.unwrap();
    }
    let trimmed = frontend.call("DELETE", "/v1/topics/t/partitions/0/records?before=1", &[], "").await;
    assert_eq!(trimmed.status, StatusCode::OK, "{trimmed:?}");
    assert_eq!(keys(&frontend.store).await.len(), 3);
    frontend.metadata.pass(Duration::from_secs(60 * 60));
    let work = worker(&frontend).work().await.unwrap();
    assert_eq!((work.finished, work.deleted), (1, 1), "what died an hour ago");
    let committed = keys(&frontend.store).await;
    assert_eq!(committed.len(), 2);
    frontend.metadata.pass(DUE - Duration::from_secs(60 * 60));
    (frontend, committed)
}

/// Of the records that are not trimmed.
async fn values(frontend: &Frontend) -> Vec<String> {
    let answer = frontend.get("/v1/topics/t/partitions/0/records?offset=1").await.json();
    let records = answer["records"].as_array().unwrap();
    records.iter().map(|record| record["value"].as_str().unwrap().to_owned()).collect()
}

/// Puts what was left behind: the orphans among it come second.
async fn leave_behind(frontend: &Frontend) -> (BTreeSet<String>, BTreeSet<String>) {
    let topic = TopicId::from_parts(Timestamp::from_millis(START), 1);
    let merged = Some(TopicPartition { topic, partition: carnax_core::id::PartitionIndex(0) });
    let old = key(Duration::ZERO, 99);
    let kept = [
        key(DUE - HOUR / 2, 1).to_string(),
        SegmentKey { incarnation: Incarnation(2), ..old }.to_string(),
        SegmentKey { merged, ..key(DUE - HOUR / 2, 3) }.to_string(),
        "1/segments/00/notes.txt".to_owned(),
        format!("{old}.bak"),
    ];
    let mut orphans: BTreeSet<String> =
        (0..50).map(|n| key(Duration::from_secs(60) * n, n.into()).to_string()).collect();
    orphans.insert(old.to_string());
    orphans.insert(SegmentKey { merged, ..old }.to_string());
    for key in kept.iter().chain(&orphans) {
        put(&frontend.store, key).await;
    }
    (kept.into(), orphans)
}

#[tokio::test]
async fn what_was_never_committed_is_deleted_and_nothing_else() {
    let (frontend, committed) = with_records().await;
    let (kept, orphans) = leave_behind(&frontend).await;
    assert_eq!(described(&frontend, "collect_orphans").await["last_success"], serde_json::Value::Null);
    assert!(described(&frontend, "collect_dead").await["last_success"].as_i64().unwrap() > START);

    let worker = worker(&frontend);
    let work = worker.work().await.unwrap();
    assert_eq!((work.finished, work.deleted, work.seen), (1, 52, 54), "{work:?}");
    assert_eq!(work.deleted_bytes, 52 * 11);
    assert_eq!(keys(&frontend.store).await, committed.union(&kept).cloned().collect());
    assert_eq!(values(&frontend).await, ["b", "c"]);
    assert_eq!(frontend.store.calls(Verb::List), u64::from(SEGMENT_FOLDERS) + 2);
    assert!(!orphans.is_empty());

    let calls = frontend.store.calls_total();
    let work = worker.work().await.unwrap();
    assert_eq!((work.finished, work.seen), (0, 0), "nothing is due");
    assert_eq!(frontend.store.calls_total(), calls, "the object store is left alone");
    let described = described(&frontend, "collect_orphans").await;
    assert!(described["last_success"].as_i64().unwrap() > START, "{described}");
    frontend.stop().await;
}

#[tokio::test]
async fn an_object_that_appears_behind_the_last_pass_is_found_by_the_next_one() {
    let (frontend, committed) = with_records().await;
    let worker = worker(&frontend);
    assert_eq!(worker.work().await.unwrap().finished, 1);
    let late = key(Duration::ZERO, 7).to_string();
    put(&frontend.store, &late).await;
    // This frontend was not told the time for hours: what it uploads first is refused as stale, and left behind too.
    frontend.append("t", "d").await.unwrap();
    frontend.metadata.pass(DUE);
    let work = worker.work().await.unwrap();
    assert_eq!((work.finished, work.deleted), (1, 2));
    let left = keys(&frontend.store).await;
    assert!(left.is_superset(&committed) && !left.contains(&late));
    assert_eq!(values(&frontend).await, ["b", "c", "d"]);
    frontend.stop().await;
}

#[tokio::test]
async fn a_pass_goes_on_where_it_was_laid_down_whatever_failed() {
    let (frontend, committed) = with_records().await;
    let (kept, _) = leave_behind(&frontend).await;
    let (first, second) = (worker(&frontend), worker(&frontend));
    // Not enough time for more than a hundred requests.
    let asked = AtomicU64::new(0);
    let enough = || asked.fetch_add(1, Ordering::SeqCst) >= 100;
    let work = first.maintenance.work(&enough).await.unwrap();
    assert_eq!(work.finished, 0);
    let listed = frontend.store.calls(Verb::List);
    assert!((1..=100).contains(&listed), "{listed}");

    let broken = || Fault::fail(Failure::Before);
    frontend.store.script(Verb::List, [broken()]);
    assert!(matches!(second.work().await, Err(MaintenanceError::ObjectStore(_))));
    frontend.store.script(Verb::DeleteMany, [broken()]);
    assert!(matches!(second.work().await, Err(MaintenanceError::ObjectStore(_))));
    frontend.metadata.lose_quorum(true);
    assert!(matches!(second.work().await, Err(MaintenanceError::Metadata(_))));
    frontend.metadata.lose_quorum(false);
    let work = first.work().await.unwrap();
    assert_eq!(work.finished, 1);
    assert_eq!(keys(&frontend.store).await, committed.union(&kept).cloned().collect());
    let listed = frontend.store.calls(Verb::List);
    assert!(listed <= u64::from(SEGMENT_FOLDERS) + 5, "no folder is looked at again: {listed}");
    frontend.stop().await;
}

#[tokio::test]
async fn a_process_with_the_role_works_when_a_queue_wakes_it_and_serves_no_records() {
    const URL: &str = "https://queues.invalid/1/maintenance";
    let (frontend, _) = with_records().await;
    let (_, orphans) = leave_behind(&frontend).await;
    let queue = Arc::new(MemoryQueue::new("maintenance", Arc::new(SystemClock::new())).unwrap());
    let queues = MemoryQueues::default().with(URL, Arc::clone(&queue));
    let maintainer = start_with_queues(
        FakeMetadata::clone(&frontend.metadata),
        Arc::clone(&frontend.store),
        queues,
        |settings| {
            settings.roles = vec![Role::Maintain];
            settings.maintenance_queue = Some(URL.to_owned());
        },
    )
    .await;
    maintainer.get("/v1/topics/t").await.problem("route_not_found");
    assert_eq!(maintainer.get("/healthz").await.status, StatusCode::OK);
    assert_eq!(frontend.store.calls(Verb::List), 0, "nobody woke it yet");

    let message = OutgoingMessage { id: "m".to_owned(), body: "{}".to_owned(), ..OutgoingMessage::default() };
    carnax_queue::send_one(&*queue, &message).await.unwrap();
    until("the orphans are gone", async || keys(&frontend.store).await.is_disjoint(&orphans)).await;
    until("the message is taken off", async || queue.depth().visible + queue.depth().in_flight == 0).await;
    maintainer.stop().await;
    frontend.stop().await;
}

#[tokio::test]
async fn a_process_without_a_queue_asks_by_itself() {
    let (frontend, _) = with_records().await;
    let (_, orphans) = leave_behind(&frontend).await;
    let both = start_with_queues(
        FakeMetadata::clone(&frontend.metadata),
        Arc::clone(&frontend.store),
        MemoryQueues::default(),
        |settings| settings.roles = vec![Role::Serve, Role::Maintain],
    )
    .await;
    until("the orphans are gone", async || keys(&frontend.store).await.is_disjoint(&orphans)).await;
    assert_eq!(values(&both).await, ["b", "c"]);
    both.stop().await;
    frontend.stop().await;
}

/// A restore takes the bucket.
async fn restore(store: &FaultStore<MemoryStore>) {
    let range = GetRange::WholeUpTo(BYTES_MAX);
    let (_, version) = store.inner().get(object_key::INCARNATION, range).await.unwrap();
    let document = incarnation_document(Incarnation(2));
    store.inner().compare_and_swap(object_key::INCARNATION, Some(version), document).await.unwrap();
}

/// The worker is at it already when the bucket is taken: it has its job, and waits for its first listing, if it makes one.
async fn deletes_nothing_after_a_restore(frontend: &Frontend) {
    let before = keys(&frontend.store).await;
    let lists = frontend.store.calls(Verb::List);
    let worker = worker(frontend);
    let refused = if described(frontend, "collect_dead").await["due_since"].is_null() {
        frontend.store.script(Verb::List, [Fault::delay(Duration::from_secs(3))]);
        let taken = async {
            until("the worker lists objects", async || frontend.store.calls(Verb::List) > lists).await;
            restore(&frontend.store).await;
        };
        tokio::join!(worker.work(), taken).0
    } else {
        restore(&frontend.store).await;
        worker.work().await
    };
    assert!(
        matches!(refused, Err(MaintenanceError::OtherIncarnation { found: Incarnation(2), .. })),
        "{refused:?}"
    );
    assert_eq!(keys(&frontend.store).await, before);
}

#[tokio::test]
async fn orphans_of_a_former_incarnation_are_left_to_the_restored_cluster() {
    let (frontend, _) = with_records().await;
    leave_behind(&frontend).await;
    deletes_nothing_after_a_restore(&frontend).await;
    frontend.stop().await;
}

#[tokio::test]
async fn what_died_under_a_former_incarnation_is_left_to_the_restored_cluster() {
    let (frontend, _) = with_records().await;
    worker(&frontend).work().await.unwrap();
    let trimmed = frontend.call("DELETE", "/v1/topics/t/partitions/0/records?before=2", &[], "").await;
    assert_eq!(trimmed.status, StatusCode::OK, "{trimmed:?}");
    frontend.metadata.pass(HOUR);
    deletes_nothing_after_a_restore(&frontend).await;
    frontend.stop().await;
}
