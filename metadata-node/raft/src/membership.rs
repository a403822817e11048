//! Changes of the membership: one at a time, from a known state, verified afterwards.
//!
//! A change of the voters is two entries: the old and the new voters together, then the new ones alone. openraft writes the
//! second one only for a caller that waits, so a caller that goes away in between, or a leader that dies, leaves a cluster that
//! needs both majorities and takes no other change. [`finish`] ends that.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use carnax_core::error_code::ErrorCode;
use carnax_core::id::NodeId;
use carnax_core::problem::Problem;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::raft::ClientWriteResponse;
use openraft::{ChangeMembers, Precondition, RaftMetrics};
use tokio::sync::Semaphore;

use crate::read::{no_leader, not_leader};
use crate::status::matched;
use crate::types::{Peer, Raft, StoredMembership, Types};

/// Entries by which a learner may be behind when it gets its vote.
const LAG_MAX: u64 = 1_000;

type Change = ChangeMembers<u64, Peer>;

/// Whose turn it is to change the membership: one caller's on this node. Given up by a caller that goes away.
#[derive(Debug)]
pub(crate) struct Turn(Semaphore);

impl Default for Turn {
    fn default() -> Self {
        Self(Semaphore::new(1))
    }
}

/// Lets a node in without a vote. Idempotent.
pub(crate) async fn add_learner(
    raft: &Raft,
    turn: &Turn,
    node: NodeId,
    address: &str,
    deadline: Duration,
) -> Result<(), Problem> {
    let peer = Peer { address: address.to_owned() };
    let known = |members: &StoredMembership| members.get_node(&node.0) == Some(&peer);
    let change = if current(raft).get_node(&node.0).is_some() {
        // Only its address changes.
        Change::SetNodes(BTreeMap::from([(node.0, peer.clone())]))
    } else {
        Change::AddNodes(BTreeMap::from([(node.0, peer.clone())]))
    };
    apply(raft, turn, change, known, deadline).await
}

/// Gives a learner its vote, once it has nearly the whole log. Idempotent.
pub(crate) async fn promote(
    raft: &Raft,
    turn: &Turn,
    node: NodeId,
    deadline: Duration,
) -> Result<(), Problem> {
    if current(raft).get_node(&node.0).is_none() {
        return Err(Problem::new(ErrorCode::NodeNotFound, format!("node {node} is not in the cluster")));
    }
    let caught_up = |metrics: &RaftMetrics<Types>| {
        matched(metrics, node.0).is_some_and(|at| at + LAG_MAX >= metrics.last_log_index.unwrap_or(0))
            || metrics.current_leader != Some(metrics.id)
    };
    let waited = raft.wait(Some(deadline)).metrics(caught_up, "learner catches up").await;
    waited.map_err(|_| {
        Problem::new(ErrorCode::Unavailable, format!("node {node} did not catch up within {deadline:?}"))
    })?;
    let votes = |members: &StoredMembership| members.voter_ids().any(|voter| voter == node.0);
    apply(raft, turn, Change::AddVoterIds(BTreeSet::from([node.0])), votes, deadline).await
}

/// Takes a node out. Idempotent.
pub(crate) async fn remove(
    raft: &Raft,
    turn: &Turn,
    node: NodeId,
    deadline: Duration,
) -> Result<(), Problem> {
    let gone = |members: &StoredMembership| members.get_node(&node.0).is_none();
    let members = current(raft);
    let votes = members.voter_ids().any(|voter| voter == node.0);
    if votes && members.voter_ids().count() == 1 {
        return Err(Problem::new(ErrorCode::Conflict, format!("node {node} is the last voter")));
    }
    let id = BTreeSet::from([node.0]);
    let change = if votes { Change::RemoveVoters(id) } else { Change::RemoveNodes(id) };
    apply(raft, turn, change, gone, deadline).await
}

/// Hands leadership to a voter: to `to`, or to the one with the longest log.
pub(crate) async fn transfer(raft: &Raft, to: Option<NodeId>, deadline: Duration) -> Result<NodeId, Problem> {
    let (this, target) = {
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        if metrics.current_leader != Some(metrics.id) {
            return Err(raft.as_leader().err().map_or_else(no_leader, |forward| not_leader(&forward)));
        }
        let voters = metrics.membership_config.voter_ids();
        let best = voters.filter(|id| *id != metrics.id).max_by_key(|id| matched(&metrics, *id));
        let votes = |id: &u64| metrics.membership_config.voter_ids().any(|voter| voter == *id);
        (metrics.id, to.map_or(best, |to| Some(to.0).filter(votes)))
    };
    let Some(target) = target else {
        return Err(Problem::new(ErrorCode::NodeNotFound, "no such voter to lead"));
    };
    if target == this {
        return Ok(NodeId(this));
    }
    raft.trigger()
        .transfer_leader(target)
        .await
        .map_err(|fatal| Problem::new(ErrorCode::Unavailable, fatal))?;
    let handed_over = |metrics: &RaftMetrics<Types>| metrics.current_leader == Some(target);
    let waited = raft.wait(Some(deadline)).metrics(handed_over, "leadership is handed over").await;
    waited.map(|_| NodeId(target)).map_err(|_| {
        Problem::new(ErrorCode::Unavailable, format!("node {target} did not take over within {deadline:?}"))
    })
}

fn current(raft: &Raft) -> StoredMembership {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    (*metrics.membership_config).clone()
}

/// Ends a change that was left between its two steps, if there is one and nobody works on it. Leader only.
pub(crate) async fn finish(raft: &Raft, turn: &Turn, deadline: Duration) -> Result<(), Problem> {
    let Ok(_turn) = turn.0.try_acquire() else { return Ok(()) };
    let before = current(raft);
    if !is_joint(&before) {
        return Ok(());
    }
    tracing::warn!(membership = %before, "a change of the membership was left half-way: finishing it");
    // A change to the voters that it already leads to.
    let alone = |members: &StoredMembership| !is_joint(members);
    commit(raft, &before, Change::AddVoterIds(BTreeSet::new()), alone, deadline).await
}

/// Makes a change, unless what is wanted is so already; refused if the membership changes in between.
async fn apply(
    raft: &Raft,
    turn: &Turn,
    change: Change,
    wanted: impl Fn(&StoredMembership) -> bool,
    deadline: Duration,
) -> Result<(), Problem> {
    let under_way = || Problem::new(ErrorCode::Conflict, "another change of the membership is under way");
    let _turn = turn.0.try_acquire().map_err(|_| under_way())?;
    let before = current(raft);
    if is_joint(&before) {
        return Err(under_way());
    }
    if wanted(&before) {
        return raft.as_leader().map(drop).map_err(|forward| not_leader(&forward));
    }
    commit(raft, &before, change, wanted, deadline).await
}

async fn commit(
    raft: &Raft,
    before: &StoredMembership,
    change: Change,
    wanted: impl Fn(&StoredMembership) -> bool,
    deadline: Duration,
) -> Result<(), Problem> {
    let leader = raft.as_leader().map_err(|forward| not_leader(&forward))?;
    let preconditions = [
        Precondition::CommittedLeaderId { committed_leader_id: leader.to_committed_leader_id() },
        Precondition::LastMembershipLogId { last_membership_log_id: *before.log_id() },
    ];
    let changed =
        tokio::time::timeout(deadline, raft.change_membership_if(change, false, preconditions)).await;
    match changed {
        Ok(Ok(response)) => verify(&response, wanted),
        // The first step may have been taken, and then the second one will be.
        Ok(Err(error)) if current(raft).log_id() != before.log_id() => {
            Err(Problem::new(ErrorCode::OutcomeUnknown, error))
        }
        Ok(Err(error)) => Err(refused(error)),
        Err(_) => Err(Problem::new(
            ErrorCode::OutcomeUnknown,
            format!("the membership did not change within {deadline:?}; it may still"),
        )),
    }
}

fn is_joint(members: &StoredMembership) -> bool {
    members.get_joint_config().len() > 1
}

fn verify(
    response: &ClientWriteResponse<Types>,
    wanted: impl Fn(&StoredMembership) -> bool,
) -> Result<(), Problem> {
    let after =
        response.membership.clone().map(|members| StoredMembership::new(Some(response.log_id), members));
    if after.as_ref().is_some_and(wanted) {
        return Ok(());
    }
    Err(Problem::new(ErrorCode::Internal, format!("the membership is not what was asked for: {after:?}")))
}

fn refused(error: RaftError<Types, ClientWriteError<Types>>) -> Problem {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => not_leader(&forward),
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => {
            Problem::new(ErrorCode::Conflict, error)
        }
        RaftError::APIError(ClientWriteError::PreconditionFailed(error)) => {
            Problem::new(ErrorCode::Conflict, error)
        }
        RaftError::APIError(error @ ClientWriteError::LogEntryDiscarded(_)) => {
            Problem::new(ErrorCode::OutcomeUnknown, error)
        }
        RaftError::Fatal(fatal) => Problem::new(ErrorCode::OutcomeUnknown, fatal),
    }
}

/// Takes the first step towards removing a voter, and no second one.
#[cfg(test)]
pub(crate) async fn half_remove(raft: &Raft, node: NodeId) {
    use openraft::entry::RaftPayload as _;

    let before = current(raft);
    let old: BTreeSet<u64> = before.voter_ids().collect();
    let new = old.iter().copied().filter(|voter| *voter != node.0).collect();
    let nodes: BTreeMap<u64, Peer> = before.nodes().map(|(id, peer)| (*id, peer.clone())).collect();
    let joint = openraft::Membership::new(vec![old, new], nodes).unwrap();
    raft.append_membership(joint, crate::types::RaftPayload::blank(), []).await.unwrap();
}
