//! A cluster goes on at its level while nodes of two versions run, is raised when all know more, and never lowered.

use carnax_core::access::{Grant, Token};
use carnax_core::error_code::ErrorCode;
use carnax_core::metadata::{ClusterUpgraded, CreateToken, FindToken, UpgradeCluster};
use carnax_core::problem::Problem;
use carnax_core::quota::Quotas;

use crate::cluster::TestCluster;
use crate::writer::Writer;

const OLD: u32 = 5;
const NEW: u32 = 6;

fn token() -> CreateToken {
    let token = Token::from_random(1, [1, 1]);
    CreateToken {
        id: token.id().clone(),
        hash: token.hash(),
        description: String::new(),
        grants: vec![Grant::admin()],
        expires: None,
        quotas: Quotas::default(),
        only_without_admin: false,
    }
}

async fn upgrade(cluster: &TestCluster, to: Option<u32>, dry_run: bool) -> Result<ClusterUpgraded, Problem> {
    cluster.call(UpgradeCluster { to, dry_run }).await
}

/// Waits until the leader has heard from all nodes what they know.
async fn until_known(cluster: &TestCluster, levels: &[u32]) {
    let known = |status: &carnax_core::metadata::ClusterStatus| {
        let mut known: Vec<_> = status.nodes.iter().filter_map(|node| node.feature_level_max).collect();
        known.sort_unstable();
        status.leader.is_some() && status.leader == status.answered_by && known == levels
    };
    cluster.wait(&format!("levels {levels:?}"), known).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_renewed_one_by_one_and_then_the_level_is_raised_for_good() {
    let mut cluster = TestCluster::new(3);
    cluster.feature_level_max = Some(OLD);
    for node in 0..3 {
        cluster.start_node(node);
    }
    cluster.wait_for_voters(3).await;
    let mut writer = Writer::open(&cluster, "t").await;
    writer.commit(&cluster).await;
    let early = cluster.call(token()).await.unwrap_err();
    assert_eq!(early.code, ErrorCode::FeatureLevelTooLow, "{early}");

    cluster.feature_level_max = None;
    let steps = [[OLD, OLD, NEW], [OLD, NEW, NEW], [NEW, NEW, NEW]];
    for (node, levels) in steps.into_iter().enumerate() {
        cluster.stop_node(node).await;
        cluster.start_node(node);
        until_known(&cluster, &levels).await;
        writer.commit(&cluster).await;
        // Whoever leads, old or new, the log stays one that all can read.
        cluster.call(token()).await.unwrap_err();
        if levels[0] == OLD {
            let refused = upgrade(&cluster, Some(NEW), false).await.unwrap_err();
            assert!(
                refused.code == ErrorCode::Conflict || refused.code == ErrorCode::RouteNotFound,
                "{refused}"
            );
        }
    }
    let dry = upgrade(&cluster, None, true).await.unwrap();
    assert_eq!((dry.from, dry.to, dry.raised, dry.lacking.len()), (OLD, NEW, false, 0));
    cluster.call(token()).await.unwrap_err();
    let raised = upgrade(&cluster, None, false).await.unwrap();
    assert_eq!((raised.from, raised.to, raised.raised), (OLD, NEW, true));
    cluster.call(token()).await.unwrap();
    assert_eq!(cluster.call(FindToken { id: None }).await.unwrap().count, 1);
    assert_eq!(upgrade(&cluster, None, false).await.unwrap().from, NEW, "again changes nothing");
    let lower = upgrade(&cluster, Some(OLD), false).await.unwrap_err();
    assert!(lower.code == ErrorCode::Conflict && lower.detail.contains("never lowered"), "{lower}");
    writer.commit(&cluster).await;

    // A node that goes back to the old version stops, and says why; an empty one is not let in.
    cluster.feature_level_max = Some(OLD);
    cluster.stop_node(0).await;
    cluster.start_node(0);
    let why = format!("{:?}", cluster.ended(0).await);
    assert!(why.contains("needs feature level 6") && why.contains("up to 5"), "{why}");
    writer.commit(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_silent_keeps_the_level_where_it_is() {
    let mut cluster = TestCluster::new(3);
    cluster.feature_level_max = Some(OLD);
    for node in 0..3 {
        cluster.start_node(node);
    }
    cluster.wait_for_voters(3).await;
    cluster.feature_level_max = None;
    for node in 0..2 {
        cluster.stop_node(node).await;
        cluster.start_node(node);
        cluster.wait_for_voters(3).await;
    }
    until_known(&cluster, &[OLD, NEW, NEW]).await;
    let lacking = upgrade(&cluster, Some(NEW), false).await.unwrap_err();
    assert!(lacking.detail.contains("knows feature levels up to 5"), "{lacking}");
    cluster.kill_node(2);
    cluster.leader().await;
    // Whether the old node was heard a moment ago or not: nobody knows what it would run next.
    let silent = upgrade(&cluster, Some(NEW), false).await.unwrap_err();
    assert_eq!(silent.code, ErrorCode::Conflict, "{silent}");
    cluster.start_node(2);
    until_known(&cluster, &[NEW, NEW, NEW]).await;
    upgrade(&cluster, Some(NEW), false).await.unwrap();
}
