//! What the state says of groups.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::time::Duration;

use carnax_core::error_code::ErrorCode;
use carnax_core::id::{PartitionIndex, TopicId, TopicPartition};
use carnax_core::metadata::{
    CommittedOffset, DescribeGroup, FetchOffsets, GroupDescription, GroupPage, GroupSummary, Heartbeat,
    ListGroups, MemberAssignment, MemberDescription, OffsetPage,
};
use carnax_core::name::{GroupName, MemberId};
use carnax_core::problem::Problem;

use crate::State;
use crate::group::{Committed, Group, Member, by_topic, must_confirm as frees_something};

/// Offsets on one page of [`fetch_offsets`].
const PAGE_OFFSETS_MAX: u32 = 10_000;
/// Bytes of metadata beyond which a page gets no further offset, so that it fits into a message.
const PAGE_METADATA_BYTES: usize = 8 * 1024 * 1024;
/// Groups on one page of [`list_groups`].
const PAGE_GROUPS_MAX: u32 = 1_000;

/// A member whose session the leader watches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The group.
    pub group: GroupName,
    /// The member.
    pub member: MemberId,
    /// The member's epoch.
    pub epoch: u32,
    /// How long it may be silent.
    pub timeout: Duration,
}

/// What a member has to do now; takes time for what the member has only.
///
/// # Errors
/// `group_not_found`, `unknown_member`, `fenced` with both epochs in the facts.
pub fn member_assignment(state: &State, heartbeat: &Heartbeat) -> Result<MemberAssignment, Problem> {
    let group = state.groups.get(&heartbeat.group)?;
    Ok(group.member(&heartbeat.member, heartbeat.epoch)?.assignment(&state.topics))
}

/// Whether a heartbeat frees something, so that [`Command::ConfirmAssignment`](crate::Command::ConfirmAssignment) is worth
/// proposing.
pub fn must_confirm(state: &State, heartbeat: &Heartbeat) -> bool {
    let group = state.groups.by_name.get(&heartbeat.group);
    let member = group.and_then(|group| group.members.get(&heartbeat.member));
    member.is_some_and(|member| frees_something(member, heartbeat))
}

/// All members of all groups, in order of group and member.
pub fn sessions(state: &State) -> impl Iterator<Item = Session> {
    state.groups.by_name.iter().flat_map(|(name, group)| {
        group.members.iter().map(|(id, member)| Session {
            group: name.clone(),
            member: id.clone(),
            epoch: member.epoch,
            timeout: Duration::from_millis(member.session_timeout_millis),
        })
    })
}

/// Tells the committed offsets of a group; takes time for the page only.
///
/// # Errors
/// `topic_not_found`, `topic_recreated` for a named topic; `invalid_value` for a limit outside 1 to 10,000.
pub fn fetch_offsets(state: &State, request: &FetchOffsets) -> Result<OffsetPage, Problem> {
    let limit = page("offsets", request.limit, PAGE_OFFSETS_MAX)?;
    let mut named = BTreeSet::new();
    for topic in &request.topics {
        named.insert(state.topics.resolve(topic)?.0);
    }
    let group = state.groups.by_name.get(&request.group).map(|group| &**group);
    let row = |on: TopicPartition, committed: Option<&Committed>| offset_row(state, group, on, committed);
    if named.is_empty() {
        let committed = group.into_iter().flat_map(|group| group.offsets.after(request.after));
        return Ok(filled(committed.filter_map(|(on, committed)| row(on, Some(committed))), limit));
    }
    let partitions = named.into_iter().flat_map(|topic| partitions_after(state, topic, request.after));
    let committed = |on| group.and_then(|group| group.offsets.get(on));
    Ok(filled(partitions.filter_map(|on| row(on, committed(on))), limit))
}

/// Takes rows until the page is full, by number or by what clients have said with their commits.
fn filled(mut rows: impl Iterator<Item = CommittedOffset>, limit: usize) -> OffsetPage {
    let mut offsets = Vec::new();
    let mut bytes = 0;
    while offsets.len() < limit && bytes < PAGE_METADATA_BYTES {
        let Some(row) = rows.next() else { return OffsetPage { offsets, more: false } };
        bytes += row.metadata.len();
        offsets.push(row);
    }
    OffsetPage { offsets, more: rows.next().is_some() }
}

/// Describes a group.
///
/// # Errors
/// `group_not_found`.
pub fn describe_group(state: &State, request: &DescribeGroup) -> Result<GroupDescription, Problem> {
    let group = state.groups.get(&request.group)?;
    let partitions = |some: &[TopicPartition]| by_topic(&state.topics, some);
    let describe = |id: &MemberId, member: &Member| MemberDescription {
        member: id.clone(),
        epoch: member.epoch,
        assignment_epoch: member.assignment_epoch,
        client: member.client.to_string(),
        topics: member.subscription.topics.clone(),
        patterns: member.subscription.patterns.clone(),
        session_timeout_millis: member.session_timeout_millis,
        assigned: partitions(&member.kept),
        releasing: partitions(&member.releasing),
        awaiting: partitions(&member.promised),
    };
    Ok(GroupDescription {
        group: request.group.clone(),
        assignor: group.assignor,
        epoch: group.epoch,
        phase: group.phase(),
        members: group.members.iter().map(|(id, member)| describe(id, member)).collect(),
        offsets: group.offsets.len(),
        last_active: group.last_active,
    })
}

/// Lists groups in order of their names; takes time for the page only.
///
/// # Errors
/// `invalid_value` for a limit outside 1 to 1,000.
pub fn list_groups(state: &State, request: &ListGroups) -> Result<GroupPage, Problem> {
    let limit = page("groups", request.limit, PAGE_GROUPS_MAX)?;
    let prefix = request.prefix.as_str();
    let from = match &request.after {
        Some(after) if after.as_str() >= prefix => Bound::Excluded(after.as_str()),
        _ => Bound::Included(prefix),
    };
    let groups = state.groups.by_name.range::<_, str>((from, Bound::Unbounded));
    let mut groups = groups.take_while(|(name, _)| name.as_str().starts_with(prefix));
    let summary = |(name, group): (&GroupName, &std::sync::Arc<Group>)| GroupSummary {
        group: name.clone(),
        phase: group.phase(),
        members: group.members.len() as u64,
        offsets: group.offsets.len(),
    };
    let listed = groups.by_ref().take(limit).map(summary).collect();
    Ok(GroupPage { groups: listed, more: groups.next().is_some() })
}

fn page(what: &str, limit: u32, max: u32) -> Result<usize, Problem> {
    if (1..=max).contains(&limit) {
        return Ok(usize::try_from(limit).unwrap_or(usize::MAX));
    }
    let problem =
        Problem::new(ErrorCode::InvalidValue, format_args!("a page has 1 to {max} {what}, not {limit}"));
    Err(problem.with(|facts| facts.limit = Some(u64::from(max))))
}

fn partitions_after(
    state: &State,
    topic: TopicId,
    after: Option<TopicPartition>,
) -> impl Iterator<Item = TopicPartition> {
    let count = state.topics.get(topic).map_or(0, |topic| topic.partition_count());
    let first = match after {
        Some(after) if after.topic > topic => count,
        Some(after) if after.topic == topic => after.partition.0.saturating_add(1),
        _ => 0,
    };
    (first..count).map(move |partition| TopicPartition { topic, partition: PartitionIndex(partition) })
}

fn offset_row(
    state: &State,
    group: Option<&Group>,
    on: TopicPartition,
    committed: Option<&Committed>,
) -> Option<CommittedOffset> {
    let topic = state.topics.get(on.topic)?;
    let partition = topic.partition(on.partition).ok()?;
    let metadata = committed.and_then(|committed| committed.metadata.as_deref());
    Some(CommittedOffset {
        topic: topic.name.clone(),
        on,
        offset: committed.map(|committed| committed.offset),
        metadata: metadata.unwrap_or_default().to_owned(),
        committed: committed.map(|committed| committed.at),
        log_start: partition.log_start,
        high_watermark: partition.high_watermark,
        owner: group.and_then(|group| group.owners.get(&on)).cloned(),
    })
}
