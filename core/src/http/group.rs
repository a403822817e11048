//! Groups.

use serde::{Deserialize, Serialize};

use super::atomic::some;
use crate::id::{PartitionIndex, TopicId};
use crate::metadata::{AssignedTopic, Assignor, GroupPhase, GroupSummary};
use crate::name::{GroupName, MemberId, TopicPattern};
use crate::offset::Offset;
use crate::time::Timestamp;
use crate::topic::TopicName;

/// `POST /v1/groups/{group}/members`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct JoinGroupRequest {
    /// Chosen by the client, so that joining can be repeated. Absent: the frontend makes one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub member: Option<MemberId>,
    /// Who that is, for operators.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client: String,
    /// Topics by name; those that do not exist yet are waited for.
    pub topics: Vec<TopicName>,
    /// Topics by pattern (`*` and `?`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub patterns: Vec<TopicPattern>,
    /// How partitions are shared out; absent: as the group does, or sticky.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assignor: Option<Assignor>,
    /// Milliseconds without a heartbeat after which the member is expelled; absent: 45,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_timeout_ms: Option<u64>,
}

/// `POST /v1/groups/{group}/members/{member}/heartbeat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct HeartbeatRequest {
    /// The member's epoch.
    pub epoch: u32,
    /// The assignment that the member has reached: it holds nothing else any more.
    pub assignment_epoch: u64,
}

/// What a member has to do now: answers joins and heartbeats.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AssignmentResponse {
    /// The member.
    pub member: MemberId,
    /// The member's epoch, to be sent with everything that it does.
    pub epoch: u32,
    /// Which assignment this is; goes up with each change.
    pub assignment_epoch: u64,
    /// What the member may hold, by topic name. It lets go of everything else, and then sends a heartbeat with this
    /// `assignment_epoch`.
    pub assignment: Vec<AssignedTopic>,
    /// Milliseconds until the next heartbeat at the latest.
    pub heartbeat_interval_ms: u64,
    /// Milliseconds without an answered heartbeat after which the member must stop by its own clock.
    pub session_timeout_ms: u64,
}

/// `DELETE /v1/groups/{group}/members/{member}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LeftGroupResponse {
    /// Whether it was there.
    pub was_member: bool,
}

/// `POST /v1/groups/{group}/offsets`: all or none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CommitOffsetsRequest {
    /// The member that must own the partitions; absent: the partitions must have no owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<MemberId>,
    /// The member's epoch; present if the member is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u32>,
    /// Counts the commits of the member's epoch, so that a late one does not undo a later one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// Each partition once.
    pub offsets: Vec<OffsetEntry>,
}

/// One offset to commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct OffsetEntry {
    /// Of which topic.
    pub topic: TopicName,
    /// The id that the client knows the topic by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<TopicId>,
    /// Of which partition.
    pub partition: PartitionIndex,
    /// The next offset to read; `null` takes the committed one away.
    #[serde(deserialize_with = "super::atomic::present")]
    pub offset: Option<Offset>,
    /// What must be committed now; `null`: nothing. Absent: anything.
    #[serde(default, deserialize_with = "some", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<u64>))]
    pub from: Option<Option<Offset>>,
    /// What the client wants to remember with it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub metadata: String,
}

/// What became of an offset commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CommitOffsetsResponse {
    /// A later commit of the member was there first: nothing was changed.
    pub ignored: bool,
}

/// `GET /v1/groups/{group}/offsets`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GroupOffsetsResponse {
    /// In order of topic id and partition.
    pub offsets: Vec<GroupOffsetResponse>,
    /// What to send as `after` for the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_after: Option<String>,
    /// Records between what is committed and the high watermarks, over this page.
    pub lag: u64,
}

/// How far a group is in a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GroupOffsetResponse {
    /// The topic.
    pub topic: TopicName,
    /// The topic's id.
    pub topic_id: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
    /// The next offset to read; `null` if nothing is committed.
    pub offset: Option<Offset>,
    /// What the client said with it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub metadata: String,
    /// Log time of the commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed: Option<Timestamp>,
    /// The first readable offset.
    pub log_start_offset: Offset,
    /// One past the last committed record.
    pub high_watermark: Offset,
    /// Records from the committed offset (or, without one, from the log start) to the high watermark.
    pub lag: u64,
    /// The member that owns the partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<MemberId>,
}

/// `GET /v1/groups/{group}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GroupResponse {
    /// The name.
    pub group: GroupName,
    /// What it is doing.
    pub phase: GroupPhase,
    /// How its partitions are shared out.
    pub assignor: Assignor,
    /// Goes up with each member that joins.
    pub epoch: u32,
    /// Its members, by id.
    pub members: Vec<MemberResponse>,
    /// How many offsets are committed.
    pub offsets: u64,
    /// Log time of its last change or commit.
    pub last_active: Timestamp,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MemberResponse {
    /// Its id.
    pub member: MemberId,
    /// Its epoch.
    pub epoch: u32,
    /// Its assignment epoch.
    pub assignment_epoch: u64,
    /// Who that is.
    pub client: String,
    /// Topics it asked for by name.
    pub topics: Vec<TopicName>,
    /// Topics it asked for by pattern.
    pub patterns: Vec<TopicPattern>,
    /// Milliseconds without a heartbeat after which it is expelled.
    pub session_timeout_ms: u64,
    /// What it may hold.
    pub assignment: Vec<AssignedTopic>,
    /// What it has to let go of and may still hold.
    pub releasing: Vec<AssignedTopic>,
    /// What it will get when others have let go.
    pub awaiting: Vec<AssignedTopic>,
}

/// `GET /v1/groups`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GroupsResponse {
    /// In order of their names.
    pub groups: Vec<GroupSummary>,
    /// What to send as `after` for the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_after: Option<GroupName>,
}

/// `DELETE /v1/groups/{group}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeletedGroupResponse {
    /// How many offsets it had.
    pub offsets: u64,
}

/// `POST /v1/groups/{group}/offsets/reset`: of a group without members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ResetOffsetsRequest {
    /// Of which topics; empty: all that something is committed of.
    #[serde(default)]
    pub topics: Vec<TopicName>,
    /// Of which partitions of them; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<Vec<PartitionIndex>>,
    /// Where to.
    pub to: ResetTo,
    /// Only say what would happen.
    #[serde(default)]
    pub dry_run: bool,
}

/// Where offsets are reset to. What lies outside a partition is moved to its nearest end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ResetTo {
    /// The first readable offset.
    Earliest,
    /// One past the last committed record.
    Latest,
    /// This offset.
    Offset(Offset),
    /// The first record with this timestamp or a later one.
    Timestamp(Timestamp),
    /// So many milliseconds before now.
    DurationMs(u64),
    /// So many records further (or, below 0, back).
    ShiftBy(i64),
}

/// What a reset did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ResetOffsetsResponse {
    /// One for each partition, in order of topic name and partition.
    pub offsets: Vec<ResetOffset>,
    /// Whether nothing was changed.
    pub dry_run: bool,
}

/// One offset that is reset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ResetOffset {
    /// The topic.
    pub topic: TopicName,
    /// The partition.
    pub partition: PartitionIndex,
    /// What was committed; `null` if nothing was.
    pub from: Option<Offset>,
    /// What is committed now.
    pub to: Offset,
}

/// `GET` and `PATCH /v1/cluster/settings`: all settings with their values now, defaults included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SettingsResponse {
    /// By name, as text.
    pub settings: crate::topic::ConfigEntries,
}

/// `PATCH /v1/cluster/settings`; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct AlterSettingsRequest {
    /// Entries to set, or (`null`) to bring back to their default.
    #[cfg_attr(feature = "openapi", schema(value_type = std::collections::BTreeMap<String, super::ConfigValue>))]
    pub settings: std::collections::BTreeMap<String, Option<super::ConfigValue>>,
}
