//! A node whose disk is nearly full leads no longer, proposes nothing, votes and follows all the same, and recovers by itself.

use std::time::{Duration, Instant};

use carnax_core::error_code::{ErrorCode, SideEffects};
use carnax_core::metadata::{ClusterStatus, DescribeCluster, TransferLeadership};
use carnax_core::offset::Offset;
use carnax_platform::rpc::CallError;

use crate::cluster::{PATIENCE, TestCluster};
use crate::writer::{Writer, base_offset};

const GIB: u64 = 1 << 30;

async fn status(cluster: &TestCluster, node: usize) -> Option<ClusterStatus> {
    cluster.channel(node).call(DescribeCluster {}, Duration::from_secs(1)).await.ok()
}

async fn until_full(cluster: &TestCluster, node: usize, full: bool) {
    let started = Instant::now();
    while status(cluster, node).await.is_none_or(|status| status.disk_full != full) {
        assert!(started.elapsed() < PATIENCE, "node {node} does not see its disk");
        tokio::task::yield_now().await;
    }
}

/// Waits until one of these nodes leads; says which.
async fn until_led_by(cluster: &TestCluster, nodes: &[usize]) -> usize {
    let started = Instant::now();
    loop {
        let leader = cluster.leader().await;
        if nodes.contains(&leader) {
            return leader;
        }
        assert!(started.elapsed() < PATIENCE, "node {leader} leads still");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_without_room_hands_over_and_still_votes_and_replicates() {
    let mut cluster = TestCluster::start_in_memory(3).await;
    let mut writer = Writer::open(&cluster, "t").await;
    assert_eq!(writer.commit(&cluster).await, Offset(0));
    let full = cluster.leader().await;
    let others: Vec<usize> = (0..3).filter(|node| *node != full).collect();
    // Of the two others, one has no room either: it is passed over.
    cluster.set_free(others[0], GIB - 1);
    until_full(&cluster, others[0], true).await;
    cluster.set_free(full, GIB - 1);
    assert_eq!(until_led_by(&cluster, &others[1..]).await, others[1]);
    assert_eq!(writer.commit(&cluster).await, Offset(10));

    // Two of three, of which one has no room: it replicates, and what it has is on a majority of disks.
    cluster.stop_node(others[0]).await;
    assert_eq!(writer.commit(&cluster).await, Offset(20), "a node without room follows");
    cluster.start_node(others[0]);
    cluster.wait_for_voters(3).await;
    cluster.kill_node(others[1]);
    // Both that are left have no room: one of them leads by the other's vote, and proposes nothing.
    let leader = until_led_by(&cluster, &[full, others[0]]).await;
    until_full(&cluster, leader, true).await;
    let commit = writer.next_commit();
    let refused = cluster.channel(leader).call(commit.clone(), Duration::from_secs(5)).await.unwrap_err();
    let CallError::Refused(problem) = refused else { panic!("{refused:?}") };
    assert_eq!((problem.code, problem.code.side_effects()), (ErrorCode::Unavailable, SideEffects::None));
    assert!(problem.code.retryable() && problem.detail.contains("nearly full"), "{problem}");
    assert_eq!(problem.facts.retry_after_seconds, Some(1));

    // There is room again: nobody has to be told.
    for node in [full, others[0]] {
        cluster.set_free(node, 2 * GIB);
    }
    assert_eq!(
        base_offset(&cluster.call(commit).await.unwrap()),
        Offset(30),
        "the refused number was not used up"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_node_has_room_reads_go_on_and_a_node_with_room_takes_over() {
    let cluster = TestCluster::start_in_memory(3).await;
    let mut writer = Writer::open(&cluster, "t").await;
    writer.commit(&cluster).await;
    for node in 0..3 {
        cluster.set_free(node, 0);
    }
    for node in 0..3 {
        until_full(&cluster, node, true).await;
    }
    let described = cluster.call(carnax_core::metadata::DescribeMaintenance {}).await;
    assert!(described.is_ok(), "a linearizable read writes nothing: {described:?}");
    // Whom an operator makes leader keeps it, as long as nobody has room.
    cluster.call(TransferLeadership { to: None }).await.unwrap();
    let leader = cluster.leader().await;
    let roomy = (leader + 1) % 3;
    cluster.set_free(roomy, 2 * GIB);
    assert_eq!(until_led_by(&cluster, &[roomy]).await, roomy);
    assert_eq!(writer.commit(&cluster).await, Offset(10));
}
