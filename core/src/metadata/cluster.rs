//! The metadata cluster itself: who is in it, who leads, and how to change that.

use serde::{Deserialize, Serialize};

use crate::id::{ClusterId, Incarnation, LogIndex, NodeId};
use crate::time::Timestamp;

/// Describes the cluster as the asked node sees it; needs no quorum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeCluster {}

/// The cluster as one node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The cluster, once it is bootstrapped.
    pub cluster: Option<ClusterId>,
    /// The incarnation under which the asked node runs.
    pub incarnation: Option<Incarnation>,
    /// The node that was asked, once it has an id.
    pub answered_by: Option<NodeId>,
    /// The node that leads, as far as the asked node knows.
    pub leader: Option<NodeId>,
    /// The Raft term.
    pub term: u64,
    /// The highest entry that the asked node has applied.
    pub applied: LogIndex,
    /// Log time at that entry.
    pub log_time: Timestamp,
    /// How many voters the bootstrap list asks for: below that, appends are refused.
    pub voters_wanted: u32,
    /// All nodes, by id.
    pub nodes: Vec<NodeStatus>,
    /// Topics in the state.
    pub topics: u64,
    /// Partitions in the state.
    pub partitions: u64,
    /// Slices in the state.
    pub slices: u64,
    /// Segments in the state.
    pub segments: u64,
    /// Whether the disk of the asked node is nearly full, so that it proposes nothing.
    #[serde(default)]
    pub disk_full: bool,
    /// The feature level of the cluster: what every node of it knows. Nodes from before levels were told say nothing.
    #[serde(default)]
    pub feature_level: Option<u32>,
    /// The highest level that the asked node knows.
    #[serde(default)]
    pub feature_level_max: Option<u32>,
}

/// One node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The node.
    pub node: NodeId,
    /// Where its RPC listens.
    pub address: String,
    /// Whether it votes.
    pub role: NodeRole,
    /// The last entry known to be on its disk; only the leader knows.
    #[serde(default)]
    pub matched: Option<LogIndex>,
    /// Milliseconds since a quorum round last heard from it; only the leader knows.
    #[serde(default)]
    pub last_heard_millis: Option<u64>,
    /// The highest feature level that it knows, as far as the asked node has heard.
    #[serde(default)]
    pub feature_level_max: Option<u32>,
}

/// What a node is in Raft's membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeRole {
    /// It votes and counts for the quorum.
    Voter,
    /// It only receives the log.
    Learner,
}

/// Lets a running, empty node into the cluster: as a learner, and as a voter once it has caught up.
///
/// Sent by the joining node itself with its disk, or by an operator without one for a node that has joined as a learner.
/// Idempotent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddNode {
    /// Where its RPC listens.
    pub address: String,
    /// A random number that lies beside the node's log: another disk is another node. None: the node that runs at the
    /// address and has joined already.
    #[serde(default)]
    pub disk: Option<u128>,
    /// Whether it is to vote as soon as it has caught up. The nodes of the bootstrap list, and a node that comes back at
    /// its address with another disk, are promoted without asking.
    #[serde(default)]
    pub promote: bool,
    /// The highest feature level that a joining node knows; nodes from before levels were told say nothing.
    #[serde(default)]
    pub level_max: Option<u32>,
}

/// Raises the feature level of the cluster. Refused as long as a node does not know the new one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradeCluster {
    /// To which level; none: the highest that the leader knows.
    #[serde(default)]
    pub to: Option<u32>,
    /// Only say what would happen.
    #[serde(default)]
    pub dry_run: bool,
}

/// The feature level, before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClusterUpgraded {
    /// The level before.
    pub from: u32,
    /// The level that was asked for.
    pub to: u32,
    /// What is in the way, a sentence for each node; empty if nothing is.
    pub lacking: Vec<String>,
    /// Whether the level was raised now: a dry run raises nothing.
    pub raised: bool,
    /// All nodes, by id.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Object>))]
    pub nodes: Vec<NodeStatus>,
}

/// Takes a node out of the cluster. Its id is never used again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveNode {
    /// Which.
    pub node: NodeId,
}

/// Hands leadership over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferLeadership {
    /// To whom; none: to any voter that is up to date.
    #[serde(default)]
    pub to: Option<NodeId>,
}

/// The membership, after a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembershipChanged {
    /// The node that the change was about.
    pub node: NodeId,
    /// The cluster, for a node that joins.
    pub cluster: ClusterId,
    /// All nodes now, by id.
    pub nodes: Vec<NodeStatus>,
}
