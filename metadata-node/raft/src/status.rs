//! What a node knows of itself and its cluster, without asking anyone.

use std::time::Duration;

use carnax_core::id::{LogIndex, NodeId};
use openraft::{Instant, RaftMetrics, ServerState};

use crate::types::{LogId, Types};

/// What a node is in its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It leads.
    Leader,
    /// It votes and follows.
    Follower,
    /// It votes and stands for election.
    Candidate,
    /// It follows without a vote.
    Learner,
    /// It has stopped.
    Stopped,
}

/// A node of the cluster, as the asked node knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Which.
    pub node: NodeId,
    /// Where its RPC listens.
    pub address: String,
    /// Whether it votes; while the membership changes, by the voters before and after the change alike.
    pub voter: bool,
    /// The last entry known to be on its disk; only the leader knows.
    pub matched: Option<LogIndex>,
    /// How long ago it last answered a heartbeat; only the leader knows.
    pub last_heard: Option<Duration>,
}

/// Who leads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The Raft term. No token: two leaders can exist in one term.
    pub term: u64,
    /// The leader with its address, as far as the node knows.
    pub leader: Option<(NodeId, String)>,
    /// Whether the node itself leads.
    pub leads: bool,
}

/// A node's own view.
#[derive(Debug, Clone)]
pub struct RaftStatus {
    /// The node.
    pub node: NodeId,
    /// What it is.
    pub role: Role,
    /// Who leads.
    pub leadership: Leadership,
    /// The last entry of its log.
    pub last_log: Option<LogIndex>,
    /// The last entry that it has applied.
    pub applied: Option<LogIndex>,
    /// The last entry in its newest snapshot.
    pub snapshot: Option<LogIndex>,
    /// The last entry that its log no longer has. `last_log` − `purged` is what its disk holds.
    pub purged: Option<LogIndex>,
    /// How long ago a quorum last confirmed it; only the leader knows.
    pub last_quorum_ack: Option<Duration>,
    /// How long the oldest unfinished fsync has been under way.
    pub oldest_fsync: Option<Duration>,
    /// Whether a change of the membership is under way.
    pub membership_changes: bool,
    /// All nodes, by id.
    pub members: Vec<Member>,
}

pub(crate) fn leadership(metrics: &RaftMetrics<Types>) -> Leadership {
    let address = |node| metrics.membership_config.get_node(&node).map(|peer| peer.address.clone());
    Leadership {
        term: metrics.current_term,
        leader: metrics.current_leader.and_then(|node| Some((NodeId(node), address(node)?))),
        leads: metrics.state == ServerState::Leader && metrics.current_leader == Some(metrics.id),
    }
}

pub(crate) fn status(metrics: &RaftMetrics<Types>, oldest_fsync: Option<Duration>) -> RaftStatus {
    let index = |id: &Option<LogId>| id.map(|id| LogIndex(id.index));
    RaftStatus {
        node: NodeId(metrics.id),
        role: match metrics.state {
            ServerState::Leader => Role::Leader,
            ServerState::Follower => Role::Follower,
            ServerState::Candidate => Role::Candidate,
            ServerState::Learner => Role::Learner,
            ServerState::Shutdown => Role::Stopped,
        },
        leadership: leadership(metrics),
        last_log: metrics.last_log_index.map(LogIndex),
        applied: index(&metrics.last_applied),
        snapshot: index(&metrics.snapshot),
        purged: index(&metrics.purged),
        last_quorum_ack: metrics.last_quorum_acked.map(|at| at.elapsed()),
        oldest_fsync,
        membership_changes: metrics.membership_config.get_joint_config().len() > 1,
        members: members(metrics),
    }
}

fn members(metrics: &RaftMetrics<Types>) -> Vec<Member> {
    // Between the two steps of a change both sets of voters decide: whoever is not in both cannot be counted on yet, or no
    // longer. A cluster that is said to have three voters survives the loss of any of them.
    let configs = metrics.membership_config.get_joint_config();
    let votes = |node: &u64| configs.iter().all(|voters| voters.contains(node));
    let member = |(node, peer): (&u64, &crate::types::Peer)| Member {
        node: NodeId(*node),
        address: peer.address.clone(),
        voter: votes(node),
        matched: matched(metrics, *node).map(LogIndex),
        last_heard: metrics.heartbeat.as_ref().and_then(|all| (*all.get(node)?)?.elapsed().into()),
    };
    metrics.membership_config.nodes().map(member).collect()
}

/// The last entry known to be on a node's disk, if this node leads.
pub(crate) fn matched(metrics: &RaftMetrics<Types>, node: u64) -> Option<u64> {
    let log_id = (*metrics.replication.as_ref()?.get(&node)?)?;
    Some(log_id.index)
}
