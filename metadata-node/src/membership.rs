//! Who is in the cluster: nodes join, are promoted, leave, and hand leadership over. Served by the leader.
//!
//! A disk is registered first: the state machine gives it an id that no other disk ever has. Then Raft adds the id as a
//! learner; whether and when it votes is decided by [`promotions`] or by an operator.

use std::time::Duration;

use carnax_core::error_code::ErrorCode;
use carnax_core::id::NodeId;
use carnax_core::metadata::{AddNode, MembershipChanged};
use carnax_core::problem::Problem;
use carnax_metadata_raft::Member;
use carnax_metadata_state::{Command, FeatureLevel, Reply, answer};

use crate::cluster;
use crate::handle::{Handle, no_such_node};

/// How long one change of Raft's membership may take.
pub(crate) const CHANGE: Duration = Duration::from_secs(7);
/// A node that was heard within this time lives: some ten heartbeats.
const ANSWERS: Duration = Duration::from_secs(2);

/// Lets a disk in as a learner, or gives a learner its vote.
pub(crate) async fn add(handle: &Handle, request: AddNode) -> Result<MembershipChanged, Problem> {
    leads(handle)?;
    check_level(handle, &request)?;
    let node = match request.disk {
        Some(disk) => register(handle, &request.address, disk).await?,
        None => at_address(handle, &request.address)?,
    };
    if request.disk.is_some() {
        handle.raft().add_learner(node, &request.address, CHANGE).await?;
    }
    if request.promote {
        handle.raft().promote(node, CHANGE).await?;
    }
    Ok(changed(handle, node))
}

/// Takes a node out for good.
pub(crate) async fn remove(handle: &Handle, node: NodeId) -> Result<MembershipChanged, Problem> {
    leads(handle)?;
    let members = handle.raft().status().members;
    if !members.iter().any(|member| member.node == node) {
        return Err(no_such_node(node));
    }
    if handle.raft().id() == node {
        let detail = "a leader does not remove itself: transfer leadership first, then remove it";
        return Err(Problem::new(ErrorCode::Conflict, detail));
    }
    handle.raft().remove(node, CHANGE).await?;
    record_voters(handle).await?;
    handle.propose(Command::DeregisterNode { node }).await?;
    Ok(changed(handle, node))
}

/// Hands leadership over.
pub(crate) async fn transfer(handle: &Handle, to: Option<NodeId>) -> Result<MembershipChanged, Problem> {
    leads(handle)?;
    let node = handle.raft().transfer_leadership(to, CHANGE).await?;
    Ok(changed(handle, node))
}

/// Tells the state machine who votes now, if it does not know.
pub(crate) async fn record_voters(handle: &Handle) -> Result<(), Problem> {
    let mut voters: Vec<NodeId> = handle
        .raft()
        .status()
        .members
        .iter()
        .filter(|member| member.voter)
        .map(|member| member.node)
        .collect();
    voters.sort_unstable();
    let known = answer::status(&handle.raft().state().state).nodes;
    let known: Vec<NodeId> = known.iter().filter(|(_, node)| node.voter).map(|(id, _)| *id).collect();
    if known == voters {
        return Ok(());
    }
    handle.propose(Command::SetVoters { voters }).await.map(drop)
}

/// A learner that is to vote, and the voter whose place it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Promotion {
    pub(crate) learner: NodeId,
    pub(crate) instead_of: Option<NodeId>,
}

/// The next learner that votes without an operator's word, if there is one: while fewer nodes vote than the bootstrap
/// list asked for, or when a voter's address came back with another disk. That voter's old disk is gone for good, since
/// its folder was emptied: it is removed as soon as its successor votes.
///
/// Only a node that answers may vote: of two voters of which one is dead, none can do anything. A learner that has died
/// does not keep the others waiting either; the one that is nearest to the end of the log comes first.
pub(crate) fn promotions(members: &[Member], voters_wanted: u32) -> Option<Promotion> {
    let answers = |member: &Member| member.last_heard.is_some_and(|ago| ago <= ANSWERS);
    let voters = || members.iter().filter(|member| member.voter);
    let few = voters().count() < usize::try_from(voters_wanted).unwrap_or(usize::MAX);
    let learners = members.iter().filter(|member| !member.voter && answers(member));
    let candidates = learners.filter_map(|learner| {
        let lost = |voter: &&Member| voter.address == learner.address && !answers(voter);
        let instead_of = voters().find(lost).map(|voter| voter.node);
        let promotion = Promotion { learner: learner.node, instead_of };
        (few || instead_of.is_some()).then_some((learner.matched, promotion))
    });
    candidates.max_by_key(|(matched, _)| *matched).map(|(_, promotion)| promotion)
}

/// A node that does not know the level of the cluster could not read its log.
fn check_level(handle: &Handle, request: &AddNode) -> Result<(), Problem> {
    let Some(level) = handle.raft().state().state.feature_level() else { return Ok(()) };
    let known = request.level_max.map_or(FeatureLevel::UNRECORDED, FeatureLevel);
    if request.disk.is_none() || known >= level {
        return Ok(());
    }
    let detail = format!(
        "the cluster is at feature level {level}, and the node at {} knows levels up to {known}: start it with the version that the others run",
        request.address
    );
    Err(Problem::new(ErrorCode::Conflict, detail))
}

async fn register(handle: &Handle, address: &str, disk: u128) -> Result<NodeId, Problem> {
    let command = Command::RegisterNode { address: address.to_owned(), disk };
    match handle.propose(command).await? {
        Reply::NodeRegistered { node, .. } => Ok(node),
        other => {
            Err(Problem::new(ErrorCode::Internal, format!("not the reply to a registration: {other:?}")))
        }
    }
}

/// The newest node at an address: an older one there has lost its disk.
fn at_address(handle: &Handle, address: &str) -> Result<NodeId, Problem> {
    let members = handle.raft().status().members;
    let newest = members.iter().filter(|member| member.address == address).map(|member| member.node).max();
    newest.ok_or_else(|| {
        let detail = format!(
            "no node has joined from {address}; start one there with an empty folder and the cluster's object store, \
             and it joins by itself"
        );
        Problem::new(ErrorCode::NodeNotFound, detail)
    })
}

fn changed(handle: &Handle, node: NodeId) -> MembershipChanged {
    MembershipChanged { node, cluster: handle.cluster(), nodes: cluster::nodes(handle) }
}

fn leads(handle: &Handle) -> Result<(), Problem> {
    let leadership = handle.raft().leadership();
    if leadership.leads {
        return Ok(());
    }
    let problem = match &leadership.leader {
        Some((leader, address)) => {
            Problem::new(ErrorCode::NotLeader, format!("node {leader} at {address} leads"))
        }
        None => Problem::new(ErrorCode::NoQuorum, "no node leads at the moment"),
    };
    Err(problem.with(|facts| {
        facts.leader = leadership.leader.as_ref().map(|(leader, _)| *leader);
        facts.leader_address = leadership.leader.map(|(_, address)| address);
    }))
}

#[cfg(test)]
mod tests {
    use carnax_core::id::LogIndex;

    use super::*;

    fn member(node: u64, address: &str, voter: bool) -> Member {
        let (matched, last_heard) = (Some(LogIndex(100)), Some(Duration::from_millis(100)));
        Member { node: NodeId(node), address: address.to_owned(), voter, matched, last_heard }
    }

    fn dead(node: u64, address: &str, voter: bool) -> Member {
        Member { last_heard: Some(ANSWERS * 2), ..member(node, address, voter) }
    }

    fn promoted(members: &[Member], wanted: u32) -> Option<(u64, Option<u64>)> {
        promotions(members, wanted).map(|found| (found.learner.0, found.instead_of.map(|node| node.0)))
    }

    #[test]
    fn learners_vote_by_themselves_only_in_place_of_a_wanted_or_lost_voter() {
        let founding = [member(1, "a", true), member(5, "b", false)];
        assert_eq!(promoted(&founding, 3), Some((5, None)));
        assert_eq!(promoted(&founding, 1), None, "more than were asked for wait for an operator");
        let (a, b, c) = (member(1, "a", true), member(5, "b", true), member(9, "c", true));
        let wiped = [a.clone(), dead(5, "b", true), c.clone(), member(12, "b", false)];
        assert_eq!(promoted(&wiped, 3), Some((12, Some(5))));
        let twice = [a.clone(), b.clone(), c.clone(), member(12, "b", false)];
        assert_eq!(promoted(&twice, 3), None, "a voter that answers has not lost its disk");
        assert_eq!(promoted(&[a, b, c, member(12, "d", false)], 3), None);
    }

    #[test]
    fn a_learner_that_died_neither_votes_nor_keeps_others_waiting() {
        let unheard = Member { last_heard: None, ..member(7, "c", false) };
        let slow = Member { matched: Some(LogIndex(3)), ..member(8, "d", false) };
        let founding = [member(1, "a", true), dead(5, "b", false), unheard, slow, member(9, "b", false)];
        assert_eq!(promoted(&founding, 3), Some((9, None)));
        assert_eq!(promoted(&founding[..4], 3), Some((8, None)));
        assert_eq!(promoted(&founding[..3], 3), None);
    }
}
