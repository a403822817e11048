//! How this node tells others what it sees: the cluster's status and the feed of commits.

use carnax_core::id::{ClusterId, Incarnation, LogIndex};
use carnax_core::metadata::{ClusterStatus, CommitNotice, NodeRole, NodeStatus};
use carnax_core::problem::Problem;
use carnax_metadata_raft::{AppliedEntry, Member, RaftNode};
use carnax_metadata_state::answer;
use futures::stream::{Stream, StreamExt};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

/// The cluster as this node sees it.
pub(crate) fn status(raft: &RaftNode, cluster: ClusterId, incarnation: Incarnation) -> ClusterStatus {
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
        nodes: status.members.iter().map(node_status).collect(),
        topics: state.topics,
        partitions: state.partitions,
        slices: state.slices,
        segments: state.segments,
        disk_full: false,
    }
}

/// One node as clients are told of it.
pub(crate) fn node_status(member: &Member) -> NodeStatus {
    NodeStatus {
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
