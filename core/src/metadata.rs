//! What frontends and metadata nodes say to each other.
//!
//! A [`Call`] is one request type, one reply type and a name; nothing is defined twice. Messages travel as MessagePack
//! with named fields, over gRPC framing; fields are only ever added, each with a default.
//!
//! Each call says who may make it ([`Callers`]): servers refuse everybody else.
//!
//! Failures are [`Problem`](crate::problem::Problem)s. A node that does not lead answers calls that only the leader can
//! serve with `not_leader`, naming the leader in the facts if it knows one.

mod admin;
mod append;
mod callers;
mod cluster;
mod compact;
mod fencing;
mod fetch;
mod group;
mod job;
mod manifest;
mod page;
mod producer;
mod replace;
mod settings;
mod token;
mod usage;
mod wakeup;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use admin::{
    AlterTopic, CreateTopic, DeleteTopic, DeletedTopic, DescribeTopic, ListTopics, PartitionOffsets,
    TopicDescription, TopicPage, TrimPartition, TrimmedPartition,
};
pub use append::{
    AppendedSlice, CommitSegments, Condition, ConditionKind, GroupOffset, GroupOffsets, IdempotencyStamp,
    OpenSession, ProducerStamp, Routing, SegmentCommit, SegmentOutcome, SegmentsCommitted, SequenceMode,
    SessionOpened, UnitCommit, UnitOutcome, UnitSlice,
};
pub use callers::Callers;
pub use cluster::{
    AddNode, ClusterStatus, ClusterUpgraded, DescribeCluster, MembershipChanged, NodeRole, NodeStatus,
    RemoveNode, TransferLeadership, UpgradeCluster,
};
pub use compact::{CompactionFinished, CompactionPlan, CompactionRound, FinishCompaction, PlanCompaction};
pub use fencing::{DescribeFencingToken, PartitionFence, SetFencingToken, TokenNow};
pub use fetch::{
    CommitNotice, FetchFrom, FetchPlan, PartitionNotice, PlanFetch, PlannedSlice, TopicRef, WatchCommits,
};
pub use group::{
    AssignedTopic, Assignor, CommitOffsets, CommittedNow, CommittedOffset, DeleteGroup, DeletedGroup,
    DescribeGroup, FetchOffsets, GroupDescription, GroupPage, GroupPhase, GroupSummary, Heartbeat, JoinGroup,
    LeaveGroup, LeftGroup, ListGroups, MemberAssignment, MemberDescription, OffsetCommit, OffsetPage,
    OffsetsCommitted,
};
pub use job::{
    AfterReport, CoveringPage, DescribeMaintenance, FindOrphans, JobAnnouncement, JobDescription, JobKind,
    JobLease, JobReported, JobTaken, JobTask, MaintenanceDescription, Orphans, ReportJob, TakeJob,
};
pub use manifest::{
    DeadList, ListDead, ListManifests, ListPages, ListedPage, Manifest, ManifestList, ManifestSlice, PageList,
};
pub use page::{DeadPage, PagePart, PagePlan, PageReplaced, PlanPage, PlannedPage, ReplaceByPage};
pub use producer::{DescribeProducer, FencedEpoch, KeptReply, ProducerDescription, RaiseProducerEpoch};
pub use replace::{
    DeadForgotten, DeadObject, DeadObjects, FindDead, ForgetDead, MergePart, MergePlan, PlanMerge,
    ReplaceSlices, ReplacedPart, SlicesReplaced, SourceSlice,
};
pub use settings::{AlterSettings, ClusterSettings, DescribeSettings, InvalidSetting, SettingsDescription};
pub use token::{
    AlterToken, CreateToken, FindToken, KnownToken, ListTokens, RevokeToken, RevokedToken, TokenDescription,
    TokenFound, TokenPage, TokenTouched, TouchToken, Validity,
};
pub use usage::{
    DescribeUsage, ReportUsage, TokenUsage, TopicUsage, UsageDescription, UsageMonth, UsageReported,
};
pub use wakeup::{
    CommitEvent, CommittedRange, DeleteWakeup, DeletedWakeup, ListWakeups, PutWakeup, WakeupDescription,
    WakeupList, check_wakeup,
};

/// A question with one answer.
pub trait Call: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The name under which servers know the call; never changes.
    const NAME: &'static str;
    /// Who may make it.
    const CALLERS: Callers;
    /// The answer.
    type Reply: Serialize + DeserializeOwned + Send + Sync + 'static;
}

/// A question with a stream of answers.
pub trait StreamCall: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The name under which servers know the call; never changes.
    const NAME: &'static str;
    /// Who may make it.
    const CALLERS: Callers;
    /// One of the answers.
    type Item: Serialize + DeserializeOwned + Send + Sync + 'static;
}

macro_rules! calls {
    (made by $callers:ident: $($request:ident => $reply:ty;)*) => {
        $(impl Call for $request {
            const NAME: &'static str = stringify!($request);
            const CALLERS: Callers = Callers::$callers;
            type Reply = $reply;
        })*
    };
}

calls! {
    made by Frontends:
    OpenSession => SessionOpened;
    CommitSegments => SegmentsCommitted;
    CreateTopic => TopicDescription;
    AlterTopic => TopicDescription;
    DeleteTopic => DeletedTopic;
    DescribeTopic => TopicDescription;
    ListTopics => TopicPage;
    TrimPartition => TrimmedPartition;
    PlanFetch => FetchPlan;
    RaiseProducerEpoch => ProducerDescription;
    DescribeProducer => ProducerDescription;
    SetFencingToken => PartitionFence;
    DescribeFencingToken => PartitionFence;
    JoinGroup => MemberAssignment;
    Heartbeat => MemberAssignment;
    LeaveGroup => LeftGroup;
    CommitOffsets => OffsetsCommitted;
    FetchOffsets => OffsetPage;
    DescribeGroup => GroupDescription;
    ListGroups => GroupPage;
    DeleteGroup => DeletedGroup;
    AlterSettings => SettingsDescription;
    DescribeSettings => SettingsDescription;
    PutWakeup => WakeupDescription;
    DeleteWakeup => DeletedWakeup;
    ListWakeups => WakeupList;
    TakeJob => JobTaken;
    ReportJob => JobReported;
    FindOrphans => Orphans;
    PlanMerge => MergePlan;
    ReplaceSlices => SlicesReplaced;
    PlanCompaction => CompactionPlan;
    FinishCompaction => CompactionFinished;
    PlanPage => PagePlan;
    ReplaceByPage => PageReplaced;
    FindDead => DeadObjects;
    ForgetDead => DeadForgotten;
    ListManifests => ManifestList;
    ListDead => DeadList;
    ListPages => PageList;
    DescribeMaintenance => MaintenanceDescription;
    CreateToken => TokenDescription;
    AlterToken => TokenDescription;
    RevokeToken => RevokedToken;
    TouchToken => TokenTouched;
    ListTokens => TokenPage;
    FindToken => TokenFound;
    DescribeUsage => UsageDescription;
    RemoveNode => MembershipChanged;
    TransferLeadership => MembershipChanged;
    UpgradeCluster => ClusterUpgraded;
}

calls! {
    made by All:
    ReportUsage => UsageReported;
    DescribeCluster => ClusterStatus;
    AddNode => MembershipChanged;
}

impl StreamCall for WatchCommits {
    const NAME: &'static str = "WatchCommits";
    const CALLERS: Callers = Callers::Frontends;
    type Item = CommitNotice;
}
