//! Groups: who reads which partitions, and how far they are.
//!
//! A member holds a partition from the command that gives it until it says that it let go, leaves or expires; only then does
//! another get it. Each change of what a member may hold raises its *assignment epoch*; a heartbeat says which one the
//! member has reached, that is: it holds nothing that this assignment does not name.

use serde::{Deserialize, Serialize};

use super::append::GroupOffset;
use super::fetch::TopicRef;
use crate::id::{PartitionIndex, TopicId, TopicPartition};
use crate::name::{GroupName, MemberId, TopicPattern};
use crate::offset::Offset;
use crate::time::Timestamp;
use crate::topic::TopicName;

/// How the partitions of a group are shared out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Assignor {
    /// Balanced, and moving as little as that allows (KIP-54's aim).
    #[default]
    Sticky,
    /// Per topic, neighbouring partitions to members in order of their ids: the same partitions of topics that are
    /// partitioned alike go to the same member.
    Range,
}

/// Joins a group, which the first member makes. Idempotent: a member that is in the group gets its assignment, with its
/// subscription changed if it is another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinGroup {
    /// The group.
    pub group: GroupName,
    /// Chosen by the client. A member that left or expired may come again under a higher epoch.
    pub member: MemberId,
    /// Who that is, for operators.
    #[serde(default)]
    pub client: String,
    /// Topics by name; those that do not exist yet are waited for.
    #[serde(default)]
    pub topics: Vec<TopicName>,
    /// Topics by pattern.
    #[serde(default)]
    pub patterns: Vec<TopicPattern>,
    /// Another one than that of the members that are there is `conflict`. None: theirs, or sticky.
    #[serde(default)]
    pub assignor: Option<Assignor>,
    /// Milliseconds without a heartbeat after which the member is expelled.
    pub session_timeout_millis: u64,
}

/// Says that a member lives and which assignment it has reached. Only the leader answers; `unavailable` or `no_quorum` from
/// it do not mean that the member is expelled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The group.
    pub group: GroupName,
    /// The member; `unknown_member` if it is none any more.
    pub member: MemberId,
    /// Its epoch; a lower one than the member's is `fenced`.
    pub epoch: u32,
    /// The assignment that the member has reached: it holds nothing else. One that is not the last is ignored.
    pub assignment_epoch: u64,
}

/// Leaves a group; its partitions are free at once. A member that is not there is well, too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaveGroup {
    /// The group.
    pub group: GroupName,
    /// The member.
    pub member: MemberId,
    /// Its epoch; a lower one than the member's is `fenced`. None: whichever it has (by an operator).
    #[serde(default)]
    pub epoch: Option<u32>,
}

/// A member is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftGroup {
    /// Whether it was there.
    pub was_member: bool,
}

/// What a member has to do now. Answers joins and heartbeats.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberAssignment {
    /// The member's epoch, to be sent with everything that it does. Goes up with each joining.
    pub epoch: u32,
    /// Which assignment this is; goes up with each change.
    pub assignment_epoch: u64,
    /// What the member may hold, sorted by topic name. It lets go of everything else and then says this epoch.
    pub partitions: Vec<AssignedTopic>,
    /// Milliseconds until the next heartbeat at the latest.
    pub heartbeat_interval_millis: u64,
    /// Milliseconds after which the member must stop by its own clock, counted from when it *sent* the last heartbeat (or join)
    /// that was answered.
    pub session_timeout_millis: u64,
}

/// Partitions of one topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AssignedTopic {
    /// The topic's name.
    pub topic: TopicName,
    /// The topic's id.
    pub topic_id: TopicId,
    /// Ascending.
    pub partitions: Vec<PartitionIndex>,
}

/// Commits offsets, all or none. Groups are made by their first commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitOffsets {
    /// The group.
    pub group: GroupName,
    /// The member that must own the partitions, with its epoch. None: a caller that is no member; the partitions must
    /// have no owner.
    #[serde(default)]
    pub member: Option<(MemberId, u32)>,
    /// Counts the plain commits of a member's epoch: one that is not higher than the last is answered `ignored`.
    #[serde(default)]
    pub number: Option<u64>,
    /// Refused with `group_not_empty` if the group has members (for resets).
    #[serde(default)]
    pub only_if_empty: bool,
    /// Each partition once.
    pub offsets: Vec<OffsetCommit>,
}

/// One offset to commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffsetCommit {
    /// Of which partition.
    pub on: TopicPartition,
    /// The next offset to read; none takes the committed one away.
    pub offset: Option<Offset>,
    /// What must be committed now.
    #[serde(default)]
    pub from: CommittedNow,
    /// What the client wants to remember with it.
    #[serde(default)]
    pub metadata: String,
}

/// What must be committed for an offset to move.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommittedNow {
    /// Anything.
    #[default]
    Any,
    /// Nothing.
    Nothing,
    /// This offset.
    Offset(Offset),
}

/// What became of an offset commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffsetsCommitted {
    /// A later commit of the member was there first: nothing was changed.
    pub ignored: bool,
}

/// Asks for the committed offsets of a group, by a linearizable read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchOffsets {
    /// The group; one that does not exist has no offsets.
    pub group: GroupName,
    /// Only these topics; empty: all.
    #[serde(default)]
    pub topics: Vec<TopicRef>,
    /// Only partitions after this one, in order of topic id and partition.
    #[serde(default)]
    pub after: Option<TopicPartition>,
    /// At most so many, 1 to 10,000.
    pub limit: u32,
}

/// A page of committed offsets. With topics named in the question: all their partitions, whether or not something is committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffsetPage {
    /// In order of topic id and partition.
    pub offsets: Vec<CommittedOffset>,
    /// Whether there are more behind the last one.
    pub more: bool,
}

/// How far a group is in a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommittedOffset {
    /// The topic's name.
    pub topic: TopicName,
    /// Which partition.
    pub on: TopicPartition,
    /// The next offset to read; none if nothing is committed.
    pub offset: Option<Offset>,
    /// What the client said with it.
    pub metadata: String,
    /// Log time of the commit; none if nothing is committed.
    pub committed: Option<Timestamp>,
    /// The first readable offset of the partition.
    pub log_start: Offset,
    /// One past the last committed record of the partition.
    pub high_watermark: Offset,
    /// The member that owns the partition.
    pub owner: Option<MemberId>,
}

/// Describes a group, by a linearizable read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeGroup {
    /// Which; `group_not_found` if there is none.
    pub group: GroupName,
}

/// A group as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupDescription {
    /// The name.
    pub group: GroupName,
    /// How its partitions are shared out.
    pub assignor: Assignor,
    /// Goes up with each member that joins; the next one gets one more.
    pub epoch: u32,
    /// What it is doing.
    pub phase: GroupPhase,
    /// Its members, by id.
    pub members: Vec<MemberDescription>,
    /// How many offsets are committed.
    pub offsets: u64,
    /// Log time of its last change or commit: from here the retention of an empty group counts.
    pub last_active: Timestamp,
}

/// What a group is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum GroupPhase {
    /// It has no members.
    Empty,
    /// Partitions wait for the members that have to let go of them.
    Rebalancing,
    /// Every partition is where it belongs.
    Stable,
}

/// A member as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberDescription {
    /// Its id.
    pub member: MemberId,
    /// Its epoch.
    pub epoch: u32,
    /// Its assignment epoch.
    pub assignment_epoch: u64,
    /// Who that is, for operators.
    pub client: String,
    /// Topics it asked for by name.
    pub topics: Vec<TopicName>,
    /// Topics it asked for by pattern.
    pub patterns: Vec<TopicPattern>,
    /// Milliseconds without a heartbeat after which it is expelled.
    pub session_timeout_millis: u64,
    /// What it may hold.
    pub assigned: Vec<AssignedTopic>,
    /// What it has to let go of and may still hold.
    pub releasing: Vec<AssignedTopic>,
    /// What it will get when others have let go.
    pub awaiting: Vec<AssignedTopic>,
}

/// Lists groups in order of their names, by a linearizable read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListGroups {
    /// Only names that start with this.
    #[serde(default)]
    pub prefix: String,
    /// Only names after this one.
    #[serde(default)]
    pub after: Option<GroupName>,
    /// At most so many, 1 to 1,000.
    pub limit: u32,
}

/// A page of groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupPage {
    /// In order of their names.
    pub groups: Vec<GroupSummary>,
    /// Whether there are more behind the last one.
    pub more: bool,
}

/// A group in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GroupSummary {
    /// The name.
    pub group: GroupName,
    /// What it is doing.
    pub phase: GroupPhase,
    /// How many members it has.
    pub members: u64,
    /// How many offsets are committed.
    pub offsets: u64,
}

/// Deletes a group without members, with its offsets; `group_not_empty` otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteGroup {
    /// Which; `group_not_found` if there is none.
    pub group: GroupName,
}

/// A group is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletedGroup {
    /// How many offsets it had.
    pub offsets: u64,
}

impl GroupOffset {
    /// What must be committed now, as a plain commit says it.
    pub fn must_be(&self) -> CommittedNow {
        self.from.map_or(CommittedNow::Nothing, CommittedNow::Offset)
    }
}
