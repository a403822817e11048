use std::time::Duration;

use carnax_core::error_code::ErrorCode;
use carnax_core::id::PartitionIndex;
use carnax_core::metadata::{
    AddNode, ClusterStatus, FetchFrom, FetchPlan, PlanFetch, TopicRef, TransferLeadership, WatchCommits,
};
use carnax_core::offset::Offset;
use carnax_core::problem::Problem;
use carnax_platform::rpc::CallError;
use futures::StreamExt;

use crate::cluster::{PATIENCE, TestCluster};
use crate::writer::{Writer, base_offset};

fn plan(topic: &str) -> PlanFetch {
    let topic = TopicRef { name: topic.parse().unwrap(), id: None };
    let from = FetchFrom::Earliest;
    PlanFetch { topic, partition: PartitionIndex(0), from, max_bytes: 1_000_000, max_slices: 1_000 }
}

/// What one node answers, asked until it has a quorum.
async fn plan_at(cluster: &TestCluster, node: usize) -> FetchPlan {
    let ask = async {
        loop {
            if let Ok(plan) = cluster.channel(node).call(plan("t"), Duration::from_secs(5)).await {
                return plan;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, ask).await.expect("the node answers in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_form_a_cluster_and_survive_the_loss_of_each() {
    let mut cluster = TestCluster::start(3).await;
    let mut writer = Writer::open(&cluster, "t").await;
    assert_eq!(writer.commit(&cluster).await, Offset(0));

    for round in 1..=3 {
        let leader = cluster.leader().await;
        cluster.stop_node(leader).await;
        assert_eq!(writer.commit(&cluster).await, Offset(round * 10), "two of three go on");
        cluster.start_node(leader);
        let seen = plan_at(&cluster, leader).await;
        assert_eq!(
            seen.high_watermark,
            Offset(round * 10 + 10),
            "a node that comes back reads what it missed"
        );
    }
    for node in 0..3 {
        assert_eq!(plan_at(&cluster, node).await.high_watermark, Offset(40), "every node answers reads");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_waits_until_the_wanted_voters_vote() {
    let mut cluster = TestCluster::new(3);
    cluster.start_node(0);
    cluster.start_node(1);
    cluster.wait_for_voters(2).await;
    let mut writer = Writer::open(&cluster, "t").await;
    let commit = writer.next_commit();
    let leader = cluster.leader().await;
    let refused = cluster.channel(leader).call(commit.clone(), Duration::from_secs(5)).await.unwrap_err();
    assert!(
        matches!(&refused, CallError::Refused(problem) if problem.code == ErrorCode::Unavailable),
        "{refused}"
    );
    cluster.start_node(2);
    cluster.wait_for_voters(3).await;
    assert_eq!(
        base_offset(&cluster.call(commit).await.unwrap()),
        Offset(0),
        "the refused number was not used up"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_disk_comes_back_as_another_node_and_nothing_is_lost() {
    let mut cluster = TestCluster::start(3).await;
    let mut writer = Writer::open(&cluster, "t").await;
    writer.commit(&cluster).await;
    let leader = cluster.leader().await;
    let (wiped, down) = ((leader + 1) % 3, (leader + 2) % 3);
    // None, as long as a node that has just started knows of nobody.
    let newest = |status: &ClusterStatus| status.nodes.iter().map(|node| node.node).max();
    let before = newest(&cluster.wait_for_voters(3).await);

    cluster.stop_node(down).await;
    writer.commit(&cluster).await;
    cluster.stop_node(wiped).await;
    cluster.wipe_disk(wiped);
    cluster.start_node(wiped);
    let alone = cluster.channel(leader).call(plan("t"), Duration::from_secs(9)).await.unwrap_err();
    assert!(
        matches!(&alone, CallError::Refused(problem) if problem.code.retryable()),
        "one of three: {alone}"
    );

    cluster.start_node(down);
    cluster.wait("a node with a new id", |status| newest(status) > before).await;
    cluster.wait_for_voters(3).await;
    assert_eq!(writer.commit(&cluster).await, Offset(20));
    assert_eq!(plan_at(&cluster, wiped).await.high_watermark, Offset(30));
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_hand_leadership_over_remove_nodes_and_are_told_what_is_wrong() {
    let mut cluster = TestCluster::start(3).await;
    let mut writer = Writer::open(&cluster, "t").await;
    let before = cluster.leader().await;
    let feed = cluster.channel(before).stream(WatchCommits {}, PATIENCE).await.unwrap();
    let mut feed = feed.map(Result::unwrap);
    assert!(feed.next().await.unwrap().partitions.is_empty(), "the first notice says where the feed begins");
    writer.commit(&cluster).await;
    let notice = feed.next().await.unwrap();
    assert_eq!((notice.partitions[0].topic, notice.partitions[0].high_watermark), (writer.topic, Offset(10)));
    drop(feed);

    let moved = cluster.call(TransferLeadership { to: None }).await.unwrap();
    let after =
        cluster.wait("the successor", |s| s.leader == Some(moved.node) && s.answered_by == s.leader).await;
    let unknown = AddNode { address: "127.0.0.1:1".to_owned(), disk: None, promote: true, level_max: None };
    let refused: Problem = cluster.call(unknown).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::NodeNotFound, "{refused}");

    let leaving = after.nodes.iter().find(|node| Some(node.node) != after.leader).unwrap().clone();
    let place = cluster.nodes.iter().position(|node| node.address == leaving.address).unwrap();
    cluster.stop_node(place).await;
    cluster.call(carnax_core::metadata::RemoveNode { node: leaving.node }).await.unwrap();
    cluster.wait_for_voters(2).await;
    assert_eq!(writer.commit(&cluster).await, Offset(10));
}
