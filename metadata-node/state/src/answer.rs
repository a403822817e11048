//! What the state says when asked: plain functions on a state that does not change.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use carnax_core::error_code::ErrorCode;
use carnax_core::id::{ClusterId, Incarnation, LogIndex, NodeId, TopicPartition};
use carnax_core::limits;
use carnax_core::metadata::{
    DescribeTopic, FetchFrom, FetchPlan, ListTopics, PartitionNotice, PlanFetch, PlannedSlice,
    SegmentOutcome, TopicDescription, TopicPage, UnitOutcome,
};
use carnax_core::offset::Offset;
use carnax_core::problem::Problem;
use carnax_core::time::Timestamp;
use carnax_core::topic::TopicName;

mod compact;
mod group;
mod job;
mod manifest;
mod merge;
mod page;
mod producer;
mod token;
mod usage;
mod wakeup;

pub use crate::node::Node;
pub use compact::plan_compaction;
pub use group::{
    Session, describe_group, fetch_offsets, list_groups, member_assignment, must_confirm, sessions,
};
pub use job::{
    DueJob, NextJob, describe_job, describe_maintenance, due_jobs, find_dead, find_orphans, next_job,
};
pub use manifest::{list_dead, list_manifests, list_pages};
pub use merge::{due_retention, plan_merge};
pub use page::plan_page;
pub use producer::{describe_fencing_token, describe_producer, describe_settings};
pub use token::{find_token, has_admin, list_tokens};
pub use usage::{describe_usage, has_usage_report};
pub use wakeup::{Announcement, announcement, list_wakeups, wakeups};

use crate::State;
use crate::command::{Outcome, Reply};
use crate::partition::{Partition, Slice};

/// Topics on one page of [`list_topics`].
pub const PAGE_TOPICS_MAX: u32 = 1_000;

/// Says which bytes hold the records of a partition from a position on; takes the same time whatever the backlog.
///
/// # Errors
/// `topic_not_found`, `topic_recreated`, `partition_not_found`; `offset_below_log_start` and
/// `offset_above_high_watermark` with both bounds in the facts; `invalid_value` for a plan of no slices or too many.
pub fn plan_fetch(state: &State, request: &PlanFetch) -> Result<FetchPlan, Problem> {
    let (topic_id, topic) = state.topics.resolve(&request.topic)?;
    let partition = topic.partition(request.partition)?;
    let slices_max = usize::try_from(request.max_slices).unwrap_or(usize::MAX);
    if !(1..=limits::PLAN_SLICES_MAX).contains(&slices_max) {
        let detail = format_args!("a plan has 1 to {} slices", limits::PLAN_SLICES_MAX);
        return Err(Problem::new(ErrorCode::InvalidValue, detail));
    }
    let start = start_of(partition, request.from)?;
    let on = TopicPartition { topic: topic_id, partition: request.partition };
    let page = partition.pages.reaching(start).map(|page| page.planned(on));
    let mut slices = Vec::new();
    let mut bytes = 0_u64;
    let from_memory = if page.is_some() { Offset::MAX } else { start };
    partition.slices.visit_from(from_memory, &mut |slice| {
        let Some(planned) = planned(state, slice) else { return ControlFlow::Continue(()) };
        bytes = bytes.saturating_add(planned.bytes.length);
        slices.push(planned);
        if bytes >= request.max_bytes || slices.len() >= slices_max {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    Ok(FetchPlan {
        topic_id,
        log_start: partition.log_start,
        high_watermark: partition.high_watermark,
        start,
        slices,
        page,
        applied: state.applied,
    })
}

/// Describes one topic.
///
/// # Errors
/// `topic_not_found`, `topic_recreated`.
pub fn describe_topic(state: &State, request: &DescribeTopic) -> Result<TopicDescription, Problem> {
    let (id, topic) = state.topics.resolve(&request.topic)?;
    let offsets = if request.with_offsets { topic.offsets() } else { Vec::new() };
    Ok(TopicDescription { offsets, ..topic.describe(id) })
}

/// Lists topics in order of their names; takes time for the page only, not for the topics outside it.
///
/// # Errors
/// `invalid_value` for a limit outside `1..=PAGE_TOPICS_MAX`.
pub fn list_topics(state: &State, request: &ListTopics) -> Result<TopicPage, Problem> {
    if !(1..=PAGE_TOPICS_MAX).contains(&request.limit) {
        let detail = format_args!("a page has 1 to {PAGE_TOPICS_MAX} topics, not {}", request.limit);
        return Err(Problem::new(ErrorCode::InvalidValue, detail));
    }
    let prefix = request.prefix.as_str();
    let Some(first) = first_name(prefix) else {
        return Ok(TopicPage { topics: Vec::new(), more: false });
    };
    let from = match (&request.after, &first) {
        (Some(after), _) if after.as_str() >= prefix => Bound::Excluded(after),
        (_, Bound::Included(first)) => Bound::Included(first),
        _ => Bound::Unbounded,
    };
    let named = state.topics.by_name.range::<_, TopicName>((from, Bound::Unbounded));
    let mut named = named.take_while(|(name, _)| name.as_str().starts_with(prefix));
    let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
    let page = named.by_ref().take(limit);
    let topics = page.filter_map(|(_, id)| Some(state.topics.get(*id)?.describe(*id))).collect();
    Ok(TopicPage { topics, more: named.next().is_some() })
}

/// The partitions that grew by the outcomes of an entry, for the feed of commits. A repeated commit names its partitions
/// once more.
pub fn grown_partitions(outcomes: &[Outcome]) -> Vec<PartitionNotice> {
    let mut grown = BTreeMap::new();
    for outcome in outcomes {
        let Ok(Reply::SegmentsCommitted(reply)) = outcome else { continue };
        for segment in &reply.outcomes {
            let SegmentOutcome::Decided(units) = segment else { continue };
            for unit in units {
                let UnitOutcome::Accepted { slices, .. } = unit else { continue };
                for slice in slices {
                    let end = Offset(slice.base_offset.0.saturating_add(u64::from(slice.records)));
                    let known = grown.entry((slice.topic, slice.partition)).or_insert(end);
                    *known = end.max(*known);
                }
            }
        }
    }
    let notice = |((topic, partition), high_watermark)| PartitionNotice { topic, partition, high_watermark };
    grown.into_iter().map(notice).collect()
}

/// The state in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The cluster, once it is bootstrapped.
    pub cluster: Option<ClusterId>,
    /// The incarnation, once the cluster is bootstrapped.
    pub incarnation: Option<Incarnation>,
    /// How many voters the bootstrap list asks for; 0 before the bootstrap.
    pub voters_wanted: u32,
    /// Whether so many were reached once: below that, appends are refused.
    pub appends_open: bool,
    /// The registered nodes, by id.
    pub nodes: Vec<(NodeId, Node)>,
    /// The highest entry that was applied.
    pub applied: LogIndex,
    /// Log time.
    pub log_time: Timestamp,
    /// Topics.
    pub topics: u64,
    /// Partitions.
    pub partitions: u64,
    /// Slices in memory.
    pub slices: u64,
    /// Manifest pages.
    pub pages: u64,
    /// Segments with live slices.
    pub segments: u64,
    /// Segments without, and dead manifest pages, not collected yet.
    pub dead_segments: u64,
    /// Open sessions, and those that no tick has dropped yet.
    pub sessions: u64,
    /// Producers that are remembered.
    pub producers: u64,
    /// Idempotency keys that are remembered.
    pub idempotency_keys: u64,
    /// Slices in the answers that producers and keys keep; at most
    /// [`REMEMBERED_SLICES_MAX`](carnax_core::limits::REMEMBERED_SLICES_MAX).
    pub remembered_slices: u64,
    /// Consumer groups.
    pub groups: u64,
    /// Members of all groups.
    pub group_members: u64,
}

/// Counts what there is; takes the same time however much that is.
pub fn status(state: &State) -> Status {
    let cluster = state.cluster.as_ref();
    let nodes = cluster.into_iter().flat_map(|cluster| &cluster.nodes);
    Status {
        cluster: cluster.map(|cluster| cluster.id),
        incarnation: cluster.map(|cluster| cluster.incarnation),
        voters_wanted: cluster.map_or(0, |cluster| cluster.voters_wanted),
        appends_open: cluster.is_some_and(|cluster| cluster.appends_open),
        nodes: nodes.map(|(id, node)| (*id, node.clone())).collect(),
        applied: state.applied,
        log_time: state.log_time,
        topics: state.topics.by_id.len() as u64,
        partitions: state.topics.partition_count,
        slices: state.topics.slice_count,
        pages: state.topics.page_count,
        segments: state.segments.live_count(),
        dead_segments: state.segments.dead().len() as u64 + state.dead_pages.len() as u64,
        sessions: state.sessions.len() as u64,
        producers: state.producers.len() as u64,
        idempotency_keys: state.keys.len() as u64,
        remembered_slices: state.producers.slices().saturating_add(state.keys.slices()),
        groups: state.groups.by_name.len() as u64,
        group_members: state.groups.member_count,
    }
}

/// Where names that begin with a prefix begin; none if no name does.
fn first_name(prefix: &str) -> Option<Bound<TopicName>> {
    if prefix.is_empty() {
        return Some(Bound::Unbounded);
    }
    // `.` and `..` begin names and are none themselves; `-` is the lowest character that may follow.
    let name = prefix.parse().or_else(|_| format!("{prefix}-").parse());
    name.ok().map(Bound::Included)
}

fn start_of(partition: &Partition, from: FetchFrom) -> Result<Offset, Problem> {
    let Partition { log_start, high_watermark, .. } = *partition;
    let refuse = |code, detail| {
        Problem::new(code, detail).with(|facts| {
            facts.log_start_offset = Some(log_start);
            facts.high_watermark = Some(high_watermark);
        })
    };
    match from {
        FetchFrom::Offset(offset) if offset < log_start => {
            let detail = format_args!("offset {offset} lies below the log start {log_start}");
            Err(refuse(ErrorCode::OffsetBelowLogStart, detail))
        }
        FetchFrom::Offset(offset) if offset > high_watermark => {
            let detail = format_args!("offset {offset} lies above the high watermark {high_watermark}");
            Err(refuse(ErrorCode::OffsetAboveHighWatermark, detail))
        }
        FetchFrom::Offset(offset) => Ok(offset),
        FetchFrom::Earliest => Ok(log_start),
        FetchFrom::Latest => Ok(high_watermark),
        FetchFrom::Timestamp(timestamp) => {
            let page = partition.pages.first_reaching(timestamp).map(|page| page.base);
            let found = page.or_else(|| Some(partition.slices.first_reaching(timestamp)?.base));
            Ok(found.map_or(high_watermark, |base| base.max(log_start)))
        }
        FetchFrom::Last(records) => Ok(Offset(high_watermark.0.saturating_sub(records)).max(log_start)),
    }
}

fn planned(state: &State, slice: &Slice) -> Option<PlannedSlice> {
    let (key, segment) = state.segments.object(slice.segment)?;
    Some(PlannedSlice {
        segment: key,
        segment_size: u64::from(segment.size),
        bytes: slice.bytes(),
        base_offset: slice.base,
        end_offset: slice.end(),
        max_timestamp: slice.max_timestamp,
        append_time: segment.append_time,
        rewritten: state.segments.rewritten().contains_key(&slice.segment),
    })
}
