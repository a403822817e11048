//! Every commit is told to the queue of a wake-up, whoever leads and however often the queue fails.

use std::sync::atomic::Ordering;
use std::time::Instant;

use carnax_core::error_code::ErrorCode;
use carnax_core::metadata::{DeleteWakeup, ListWakeups, PutWakeup, TopicRef, WakeupDescription};
use carnax_core::offset::Offset;

use crate::cluster::{PATIENCE, TestCluster};
use crate::queues::TestQueue;
use crate::writer::Writer;

const URL: &str = "http://queues.invalid/1/wake";

fn topic() -> TopicRef {
    TopicRef { name: "t".parse().unwrap(), id: None }
}

async fn put(cluster: &TestCluster, queue: &str) -> WakeupDescription {
    let (name, queue) = ("w".parse().unwrap(), queue.to_owned());
    cluster.call(PutWakeup { topic: topic(), name, queue, window_ms: 0 }).await.unwrap()
}

/// Reads events until they reach an offset; every offset from `from` on must be told, in order.
async fn told(queue: &TestQueue, from: Offset, to: Offset) {
    let mut reached = from;
    while reached < to {
        let event = queue.next().await;
        let range = event.partitions[0];
        assert!(range.from <= reached, "offsets {reached} to {} were left out", range.from);
        assert_eq!((event.topic.as_str(), event.wakeup.as_str(), event.partitions.len()), ("t", "w", 1));
        reached = reached.max(range.to);
    }
    assert_eq!(reached, to);
}

async fn until_nothing_is_pending(cluster: &TestCluster) {
    let started = Instant::now();
    loop {
        let list = cluster.call(ListWakeups { topic: topic() }).await.unwrap();
        if list.wakeups[0].pending_records == 0 {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "{list:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_is_told_of_every_commit_whoever_leads() {
    let mut cluster = TestCluster::start(3).await;
    let queue = cluster.queues.get(URL);
    let mut writer = Writer::open(&cluster, "t").await;
    writer.commit(&cluster).await;
    put(&cluster, URL).await;
    let first = writer.commit(&cluster).await;
    told(&queue, first, Offset(20)).await;
    until_nothing_is_pending(&cluster).await;
    assert_eq!((queue.waiting(), queue.sends.load(Ordering::SeqCst)), (0, 1), "nobody asks an idle queue");

    // Committed, and the leader dies before the queue takes the event.
    for round in 2..5 {
        queue.broken.store(true, Ordering::SeqCst);
        let sends = queue.sends.load(Ordering::SeqCst);
        let base = writer.commit(&cluster).await;
        assert_eq!(base, Offset(round * 10));
        let started = Instant::now();
        while queue.sends.load(Ordering::SeqCst) == sends {
            assert!(started.elapsed() < PATIENCE, "the leader tries");
            tokio::task::yield_now().await;
        }
        let leader = cluster.leader().await;
        cluster.kill_node(leader);
        queue.broken.store(false, Ordering::SeqCst);
        told(&queue, base, Offset(round * 10 + 10)).await;
        until_nothing_is_pending(&cluster).await;
        cluster.start_node(leader);
        cluster.wait_for_voters(3).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wakeup_moves_to_another_queue_with_what_the_first_one_did_not_take() {
    let cluster = TestCluster::start(1).await;
    let (queue, other) = (cluster.queues.get(URL), cluster.queues.get("http://queues.invalid/1/other.fifo"));
    let mut writer = Writer::open(&cluster, "t").await;
    put(&cluster, URL).await;
    queue.broken.store(true, Ordering::SeqCst);
    let base = writer.commit(&cluster).await;
    put(&cluster, "http://queues.invalid/1/other.fifo").await;
    told(&other, base, Offset(10)).await;
    until_nothing_is_pending(&cluster).await;
    assert_eq!(queue.waiting(), 0);

    let gone = DeleteWakeup { topic: topic(), name: "w".parse().unwrap() };
    cluster.call(gone.clone()).await.unwrap();
    assert_eq!(cluster.call(gone).await.unwrap_err().code, ErrorCode::WakeupNotFound);
    let sends = other.sends.load(Ordering::SeqCst);
    let base = writer.commit(&cluster).await;
    put(&cluster, URL).await;
    queue.broken.store(false, Ordering::SeqCst);
    let next = writer.commit(&cluster).await;
    assert_eq!(next.0, base.0 + 10);
    told(&queue, next, Offset(next.0 + 10)).await;
    assert_eq!(other.sends.load(Ordering::SeqCst), sends, "a wake-up that has ended tells nobody");
}
