//! Raises the feature level of the cluster, when every node of it knows the new one.

use std::time::Duration;

use carnax_core::error_code::ErrorCode;
use carnax_core::metadata::{ClusterUpgraded, UpgradeCluster};
use carnax_core::problem::Problem;
use carnax_metadata_raft::Member;
use carnax_metadata_state::{Command, FeatureLevel, Reply};

use super::{Handle, mismatched};
use crate::cluster;

/// A node that was not heard for so long may run anything by now.
const HEARD: Duration = Duration::from_secs(5);

impl Handle {
    pub(crate) async fn upgrade_cluster(&self, request: UpgradeCluster) -> Result<ClusterUpgraded, Problem> {
        self.counted(self.upgrade(request).await)
    }

    async fn upgrade(&self, request: UpgradeCluster) -> Result<ClusterUpgraded, Problem> {
        let from = self.linearizable_at_leader().await?.state.feature_level();
        let from =
            from.ok_or_else(|| Problem::new(ErrorCode::Unavailable, "the cluster is not bootstrapped"))?;
        let to = request.to.map_or(self.level_max(), FeatureLevel);
        if to < from {
            return Err(conflict(format!(
                "the cluster is at feature level {from}, and a level is never lowered: builds of level {to} would not understand what it \
                 has written; to go back, restore a backup from before the upgrade"
            )));
        }
        let lacking = self.lacking(to);
        let raised = !request.dry_run;
        if raised {
            if !lacking.is_empty() {
                return Err(conflict(lacking.join("; ")));
            }
            match self.propose(Command::RaiseLevel { to }).await? {
                Reply::LevelRaised { .. } => tracing::info!(%from, %to, "feature level is raised"),
                other => return Err(mismatched(&other)),
            }
        }
        Ok(ClusterUpgraded { from: from.0, to: to.0, lacking, raised, nodes: cluster::nodes(self) })
    }

    /// Why the level cannot be raised: one sentence for each node in the way.
    fn lacking(&self, to: FeatureLevel) -> Vec<String> {
        let status = self.raft().status();
        let peers = self.raft().peer_clocks();
        let now = self.0.stamper.wall();
        let level = |member: &Member| {
            if member.node == status.node {
                return Some(self.level_max());
            }
            let peer = peers.get(&member.node)?;
            (now.since(peer.heard_at) <= HEARD).then_some(peer.level_max)
        };
        let lacks = |member: &Member| {
            let who = format!("node {} at {}", member.node, member.address);
            match level(member) {
                Some(level) if level >= to => None,
                Some(level) => Some(format!(
                    "{who} knows feature levels up to {level}, not {to}: restart it with the new version"
                )),
                None => Some(format!(
                    "{who} was not heard of for {HEARD:?}: start it, or remove it from the cluster"
                )),
            }
        };
        status.members.iter().filter_map(lacks).collect()
    }
}

fn conflict(detail: String) -> Problem {
    Problem::new(ErrorCode::Conflict, detail)
}
