//! How this node tells others what it sees: the cluster's status and the feed of commits.

use carnax_core::id::{Incarnation, LogIndex};
use carnax_core::metadata::{ClusterStatus, CommitNotice, NodeRole, NodeStatus};
use carnax_core::problem::Problem;
use carnax_metadata_raft::{AppliedEntry, Member};
use carnax_metadata_state::answer;
use futures::stream::{Stream, StreamExt};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::handle::Handle;

/// The cluster as this node sees it.
pub(crate) fn status(handle: &Handle, incarnation: Incarnation) -> ClusterStatus {
    let (raft, cluster) = (handle.raft(), handle.cluster());
    let (view, status) = (raft.state(), raft.status());
    let state = answer::status(&view.state);
    ClusterStatus {
        cluster: Some(cluster),
        incarnation: Some(incarnation),
        answered_by: Some(status.node),
        leader: status.leadership.leader.map(|(node, _)| node),
        term: status.leadership.term,
        applied: view.applied,
        log_time: state.log_time,
        voters_wanted: state.voters_wanted,
        nodes: nodes(handle),
        topics: state.topics,
        partitions: state.partitions,
        slices: state.slices,
        segments: state.segments,
        disk_full: false,
        feature_level: view.state.feature_level().map(|level| level.0),
        feature_level_max: Some(handle.level_max().0),
    }
}

/// All nodes as clients are told of them.
pub(crate) fn nodes(handle: &Handle) -> Vec<NodeStatus> {
    let (status, peers) = (handle.raft().status(), handle.raft().peer_clocks());
    let level = |member: &Member| {
        let own = (member.node == status.node).then(|| handle.level_max());
        own.or_else(|| Some(peers.get(&member.node)?.level_max)).map(|level| level.0)
    };
    status.members.iter().map(|member| node_status(member, level(member))).collect()
}

fn node_status(member: &Member, feature_level_max: Option<u32>) -> NodeStatus {
    NodeStatus {
        feature_level_max,
        node: member.node,
        address: member.address.clone(),
        role: if member.voter { NodeRole::Voter } else { NodeRole::Learner },
        matched: member.matched,
        last_heard_millis: member.last_heard.map(|ago| u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)),
    }
}

/// Turns applied entries into notices. The first notice has no partitions and says where the stream begins.
pub(crate) fn notices(
    begin: LogIndex,
    feed: broadcast::Receiver<AppliedEntry>,
) -> impl Stream<Item = Result<CommitNotice, Problem>> + Send + 'static {
    let first = CommitNotice { applied: begin, lagged: false, partitions: Vec::new() };
    let rest = futures::stream::unfold(feed, |mut feed| async move {
        let mut lagged = false;
        loop {
            match feed.recv().await {
                Ok(entry) => {
                    let partitions = answer::grown_partitions(&entry.outcomes);
                    if lagged || !partitions.is_empty() {
                        return Some((CommitNotice { applied: entry.index, lagged, partitions }, feed));
                    }
                }
                Err(RecvError::Lagged(_)) => lagged = true,
                Err(RecvError::Closed) => return None,
            }
        }
    });
    futures::stream::once(std::future::ready(first)).chain(rest).map(Ok)
}
