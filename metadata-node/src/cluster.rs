//! How this node tells others what it sees: the cluster's status and the feed of commits.

use std::collections::BTreeMap;

use carnax_core::id::{ClusterId, Incarnation, LogIndex, TopicPartition};
use carnax_core::metadata::{
    ClusterStatus, CommitNotice, NodeRole, NodeStatus, PartitionNotice, SegmentOutcome, UnitOutcome,
};
use carnax_core::offset::Offset;
use carnax_core::problem::Problem;
use carnax_metadata_raft::{AppliedEntry, Member, RaftNode};
use carnax_metadata_state::{Outcome, Reply};
use futures::stream::{Stream, StreamExt};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

/// The cluster as this node sees it.
pub(crate) fn status(raft: &RaftNode, cluster: ClusterId, incarnation: Incarnation) -> ClusterStatus {
    let (view, status) = (raft.state(), raft.status());
    let counts = view.state.counts();
    ClusterStatus {
        cluster: Some(cluster),
        incarnation: Some(incarnation),
        answered_by: Some(status.node),
        leader: status.leadership.leader.map(|(node, _)| node),
        term: status.leadership.term,
        applied: view.applied,
        log_time: view.state.log_time(),
        voters_wanted: view.state.voters_wanted(),
        nodes: status.members.iter().map(node_status).collect(),
        topics: counts.topics,
        partitions: counts.partitions,
        slices: counts.slices,
        segments: counts.segments,
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
    let rest =
        futures::stream::unfold((feed, begin, false), |(mut feed, mut applied, mut lagged)| async move {
            loop {
                match feed.recv().await {
                    Ok(entry) => {
                        applied = entry.index;
                        let partitions = grown(&entry.outcomes);
                        if lagged || !partitions.is_empty() {
                            return Some((
                                CommitNotice { applied, lagged, partitions },
                                (feed, applied, false),
                            ));
                        }
                    }
                    Err(RecvError::Lagged(_)) => lagged = true,
                    Err(RecvError::Closed) => return None,
                }
            }
        });
    futures::stream::once(std::future::ready(first)).chain(rest).map(Ok)
}

/// The partitions that an entry made grow, with their last high watermark.
fn grown(outcomes: &[Outcome]) -> Vec<PartitionNotice> {
    let mut ends: BTreeMap<TopicPartition, Offset> = BTreeMap::new();
    for committed in outcomes.iter().filter_map(|outcome| match outcome {
        Ok(Reply::SegmentsCommitted(committed)) => Some(committed),
        _ => None,
    }) {
        let units = committed.outcomes.iter().filter_map(|outcome| match outcome {
            SegmentOutcome::Decided(units) => Some(units),
            SegmentOutcome::Refused(_) => None,
        });
        for unit in units.flatten() {
            let UnitOutcome::Accepted { slices, .. } = unit else { continue };
            for slice in slices {
                let end = Offset(slice.base_offset.0 + u64::from(slice.records));
                ends.insert(TopicPartition { topic: slice.topic, partition: slice.partition }, end);
            }
        }
    }
    let notice = |(on, high_watermark): (TopicPartition, Offset)| PartitionNotice {
        topic: on.topic,
        partition: on.partition,
        high_watermark,
    };
    ends.into_iter().map(notice).collect()
}
