//! What can be asked of the state machine, and what it answers.

use std::sync::Arc;

use carnax_core::id::{ClusterId, Incarnation, LogIndex, NodeId, PartitionIndex, TopicId, TopicPartition};
use carnax_core::metadata::{
    AlterSettings, AlterToken, AlterTopic, ClusterSettings, CommitOffsets, CommitSegments,
    CompactionFinished, CreateToken, CreateTopic, DeadForgotten, DeleteGroup, DeleteTopic, DeleteWakeup,
    DeletedGroup, DeletedTopic, DeletedWakeup, FinishCompaction, ForgetDead, Heartbeat, JobReported,
    JobTaken, JoinGroup, LeaveGroup, LeftGroup, MemberAssignment, OffsetsCommitted, OpenSession,
    PageReplaced, PartitionFence, ProducerDescription, PutWakeup, RaiseProducerEpoch, ReplaceByPage,
    ReplaceSlices, ReportJob, ReportUsage, RevokeToken, RevokedToken, SegmentsCommitted, SessionOpened,
    SetFencingToken, SettingsDescription, SlicesReplaced, TakeJob, TokenDescription, TokenTouched,
    TopicDescription, TouchToken, TrimPartition, TrimmedPartition, UsageReported, WakeupDescription,
};
use carnax_core::name::{GroupName, MemberId, WakeupName};
use carnax_core::offset::Offset;
use carnax_core::problem::Problem;
use carnax_core::topic::TopicConfig;
use serde::{Deserialize, Serialize};

use crate::entry::FeatureLevel;

/// One change, decided on its own: a refused command leaves no trace and does not disturb its neighbours in the entry.
///
/// Variants and fields are only ever added, each addition under a higher [`FeatureLevel`](crate::FeatureLevel).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Opens a session.
    OpenSession(OpenSession),
    /// Makes uploaded segments part of the log.
    CommitSegments(CommitSegments),
    /// Creates a topic.
    CreateTopic {
        /// The id that the topic gets if it is new; made by the proposer.
        id: TopicId,
        /// What was asked.
        request: CreateTopic,
    },
    /// Changes a topic.
    AlterTopic(AlterTopic),
    /// Deletes a topic.
    DeleteTopic(DeleteTopic),
    /// Moves the log start of a partition up.
    TrimPartition(TrimPartition),
    /// Begins the life of the cluster: the first command of its log, from the winner of the bootstrap.
    ///
    /// Idempotent for the same cluster and disk. The node gets id 1 and votes.
    Bootstrap {
        /// The new cluster.
        cluster: ClusterId,
        /// The incarnation under which objects are written.
        incarnation: Incarnation,
        /// How many voters the bootstrap list asks for, from 1: until so many were reached once, appends are refused.
        voters_wanted: u32,
        /// Where the RPC of the bootstrapping node listens.
        address: String,
        /// The random number beside its log.
        disk: u128,
    },
    /// Gives a disk its node id. Idempotent for the same disk (whose address may have changed); another disk is another
    /// node, whatever its address.
    RegisterNode {
        /// Where its RPC listens.
        address: String,
        /// The random number beside its log.
        disk: u128,
    },
    /// Takes a node off the list. Its id is never given out again.
    DeregisterNode {
        /// Which.
        node: NodeId,
    },
    /// Records which nodes vote now; proposed by the leader after each change of Raft's membership.
    SetVoters {
        /// All voters, in any order; every one must be registered.
        voters: Vec<NodeId>,
    },
    /// The tick: drops what log time has made old: sessions, producers, idempotency keys, groups without members.
    /// Proposed only when [`due`](crate::due) says so.
    ExpireSessions,
    /// Fences a producer's epoch. Level 2, as everything below.
    RaiseProducerEpoch(RaiseProducerEpoch),
    /// Sets or takes away the fencing token of a partition.
    SetFencingToken(SetFencingToken),
    /// Joins a group.
    JoinGroup(JoinGroup),
    /// A member has reached its assignment: what it had to let go of is free. Proposed by the leader from a heartbeat, only
    /// when there is something to let go of.
    ConfirmAssignment(Heartbeat),
    /// Leaves a group.
    LeaveGroup(LeaveGroup),
    /// Takes out members whose sessions have expired at the leader; one whose epoch is another by now stays.
    ExpireMembers {
        /// Group, member, epoch.
        members: Vec<(GroupName, MemberId, u32)>,
    },
    /// Commits offsets.
    CommitOffsets(CommitOffsets),
    /// Deletes a group without members.
    DeleteGroup(DeleteGroup),
    /// Changes the settings of the cluster.
    AlterSettings(AlterSettings),
    /// Adds or changes a wake-up. Level 3, as everything below.
    PutWakeup(PutWakeup),
    /// Ends a wake-up.
    DeleteWakeup(DeleteWakeup),
    /// A queue took events: what they told of is not told again. Proposed by the leader that sent them.
    ConfirmAnnouncement {
        /// Which topic.
        topic: TopicId,
        /// Which of its wake-ups.
        wakeup: WakeupName,
        /// The wake-up as it was when the events were sent.
        version: LogIndex,
        /// One past the last offset that was told, by partition.
        partitions: Vec<(PartitionIndex, Offset)>,
    },
    /// Gives a worker a job that is due. Level 4, as everything below.
    TakeJob(TakeJob),
    /// Says how far a worker is.
    ReportJob(ReportJob),
    /// Puts rewritten slices into the places of others. Level 5, as everything below.
    ReplaceSlices(ReplaceSlices),
    /// Puts a manifest page into the place of slices.
    ReplaceByPage(ReplaceByPage),
    /// Moves log starts up to where retention says. Proposed by the leader for partitions that seem due; whether they are is
    /// decided when it is applied.
    Retain {
        /// Which; at most [`RETAIN_PARTITIONS_MAX`](carnax_core::limits::RETAIN_PARTITIONS_MAX).
        partitions: Vec<TopicPartition>,
    },
    /// Dead objects are deleted.
    ForgetDead(ForgetDead),
    /// A round of key compaction is finished.
    FinishCompaction(FinishCompaction),
    /// Creates an access token. Level 6, as everything below.
    CreateToken(CreateToken),
    /// Changes an access token.
    AlterToken(AlterToken),
    /// Ends an access token.
    RevokeToken(RevokeToken),
    /// An access token was used.
    TouchToken(TouchToken),
    /// A process says what it used.
    ReportUsage(ReportUsage),
    /// Raises the feature level of the cluster: proposed by the leader when every node knows the new one. It came with level 6, and
    /// is understood from level 5 on, since it leads there.
    RaiseLevel {
        /// The new level; the one that the cluster has changes nothing.
        to: FeatureLevel,
    },
}

impl Command {
    /// The level at which the command came with all that it says: it is proposed only in a cluster of that level, and refused in
    /// an entry below it.
    pub fn level(&self) -> FeatureLevel {
        FeatureLevel(match self {
            Self::OpenSession(_)
            | Self::CommitSegments(_)
            | Self::DeleteTopic(_)
            | Self::TrimPartition(_)
            | Self::Bootstrap { .. }
            | Self::RegisterNode { .. }
            | Self::DeregisterNode { .. }
            | Self::SetVoters { .. }
            | Self::ExpireSessions => 1,
            Self::RaiseProducerEpoch(_)
            | Self::SetFencingToken(_)
            | Self::JoinGroup(_)
            | Self::ConfirmAssignment(_)
            | Self::LeaveGroup(_)
            | Self::ExpireMembers { .. }
            | Self::CommitOffsets(_)
            | Self::DeleteGroup(_) => 2,
            Self::CreateTopic { request, .. } => topic_level(request.config.keys()),
            Self::AlterTopic(request) => topic_level(request.config.keys()),
            Self::AlterSettings(request) => settings_level(request),
            Self::PutWakeup(_) | Self::DeleteWakeup(_) | Self::ConfirmAnnouncement { .. } => 3,
            Self::TakeJob(_) | Self::ReportJob(_) => 4,
            Self::ReplaceSlices(_)
            | Self::ReplaceByPage(_)
            | Self::Retain { .. }
            | Self::ForgetDead(_)
            | Self::FinishCompaction(_)
            | Self::RaiseLevel { .. } => 5,
            Self::CreateToken(_)
            | Self::AlterToken(_)
            | Self::RevokeToken(_)
            | Self::TouchToken(_)
            | Self::ReportUsage(_) => 6,
        })
    }
}

/// The level at which the newest of the named topic configuration entries came. What is no entry is refused for that, at any level.
fn topic_level<'a>(names: impl Iterator<Item = &'a String>) -> u32 {
    names.filter_map(|name| TopicConfig::level_of(name)).max().unwrap_or(1)
}

/// The level at which the newest of the named settings came. What is no setting is refused for that, at any level.
fn settings_level(request: &AlterSettings) -> u32 {
    let levels = request.entries.keys().filter_map(|name| ClusterSettings::level_of(name));
    levels.max().unwrap_or(2)
}

/// The answer to a command that was done: one variant for each command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To [`Command::OpenSession`].
    SessionOpened(SessionOpened),
    /// To [`Command::CommitSegments`]; shared with the session that keeps it for a repeat.
    SegmentsCommitted(Arc<SegmentsCommitted>),
    /// To [`Command::CreateTopic`].
    TopicCreated(TopicDescription),
    /// To [`Command::AlterTopic`].
    TopicAltered(TopicDescription),
    /// To [`Command::DeleteTopic`].
    TopicDeleted(DeletedTopic),
    /// To [`Command::TrimPartition`].
    PartitionTrimmed(TrimmedPartition),
    /// To [`Command::Bootstrap`].
    Bootstrapped {
        /// The id of the bootstrapping node: 1.
        node: NodeId,
    },
    /// To [`Command::RegisterNode`].
    NodeRegistered {
        /// The id of the disk.
        node: NodeId,
        /// The cluster that the node is in now.
        cluster: ClusterId,
    },
    /// To [`Command::DeregisterNode`].
    NodeDeregistered {
        /// The id that is gone.
        node: NodeId,
    },
    /// To [`Command::SetVoters`].
    VotersSet {
        /// Whether appends are taken: the wanted number of voters was reached, now or before.
        appends_open: bool,
    },
    /// To [`Command::ExpireSessions`].
    SessionsExpired {
        /// How many sessions were dropped.
        count: u64,
    },
    /// To [`Command::RaiseProducerEpoch`].
    ProducerEpochRaised(ProducerDescription),
    /// To [`Command::SetFencingToken`].
    FencingTokenSet(PartitionFence),
    /// To [`Command::JoinGroup`].
    GroupJoined(MemberAssignment),
    /// To [`Command::ConfirmAssignment`].
    AssignmentConfirmed(MemberAssignment),
    /// To [`Command::LeaveGroup`].
    GroupLeft(LeftGroup),
    /// To [`Command::ExpireMembers`].
    MembersExpired {
        /// How many were taken out.
        count: u64,
    },
    /// To [`Command::CommitOffsets`].
    OffsetsCommitted(OffsetsCommitted),
    /// To [`Command::DeleteGroup`].
    GroupDeleted(DeletedGroup),
    /// To [`Command::AlterSettings`].
    SettingsAltered(SettingsDescription),
    /// To [`Command::PutWakeup`].
    WakeupPut(WakeupDescription),
    /// To [`Command::DeleteWakeup`].
    WakeupDeleted(DeletedWakeup),
    /// To [`Command::ConfirmAnnouncement`].
    AnnouncementConfirmed,
    /// To [`Command::TakeJob`].
    JobTaken(JobTaken),
    /// To [`Command::ReportJob`].
    JobReported(JobReported),
    /// To [`Command::ReplaceSlices`].
    SlicesReplaced(SlicesReplaced),
    /// To [`Command::ReplaceByPage`].
    PageReplaced(PageReplaced),
    /// To [`Command::Retain`].
    Retained {
        /// Partitions whose log start moved.
        moved: u64,
    },
    /// To [`Command::ForgetDead`].
    DeadForgotten(DeadForgotten),
    /// To [`Command::FinishCompaction`].
    CompactionFinished(CompactionFinished),
    /// To [`Command::CreateToken`].
    TokenCreated(TokenDescription),
    /// To [`Command::AlterToken`].
    TokenAltered(TokenDescription),
    /// To [`Command::RevokeToken`].
    TokenRevoked(RevokedToken),
    /// To [`Command::TouchToken`].
    TokenTouched(TokenTouched),
    /// To [`Command::ReportUsage`].
    UsageReported(UsageReported),
    /// To [`Command::RaiseLevel`].
    LevelRaised {
        /// The level before.
        from: FeatureLevel,
        /// The level now.
        to: FeatureLevel,
    },
}

/// What became of a command: done, or refused without side effects.
pub type Outcome = Result<Reply, Problem>;
