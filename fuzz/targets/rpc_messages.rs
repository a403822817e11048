//! Every message of the metadata RPC in MessagePack: what is understood can be written and understood again.
#![no_main]

use std::fmt::Debug;

use carnax_core::metadata::{
    AddNode, AlterSettings, AlterTopic, ClusterStatus, CommitNotice, CommitOffsets, CommitSegments,
    CompactionFinished, CompactionPlan, CreateTopic, DeadForgotten, DeadList, DeadObjects, DeleteGroup,
    DeleteTopic, DeleteWakeup, DeletedGroup, DeletedTopic, DeletedWakeup, DescribeCluster,
    DescribeFencingToken, DescribeGroup, DescribeMaintenance, DescribeProducer, DescribeSettings,
    DescribeTopic, FetchOffsets, FetchPlan, FindDead, FindOrphans, FinishCompaction, ForgetDead,
    GroupDescription, GroupPage, Heartbeat, JobReported, JobTaken, JoinGroup, LeaveGroup, LeftGroup,
    ListDead, ListGroups, ListManifests, ListPages, ListTopics, ListWakeups, MaintenanceDescription,
    ManifestList, MemberAssignment, MembershipChanged, MergePlan, OffsetPage, OffsetsCommitted, OpenSession,
    Orphans, PageList, PagePlan, PageReplaced, PartitionFence, PlanCompaction, PlanFetch, PlanMerge,
    PlanPage, ProducerDescription, PutWakeup, RaiseProducerEpoch, RemoveNode, ReplaceByPage, ReplaceSlices,
    ReportJob, SegmentsCommitted, SessionOpened, SetFencingToken, SettingsDescription, SlicesReplaced,
    TakeJob, TopicDescription, TopicPage, TransferLeadership, TrimPartition, TrimmedPartition,
    WakeupDescription, WakeupList, WatchCommits,
};
use carnax_core::problem::Problem;
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;

fuzz_target!(|data: &[u8]| {
    decode::<OpenSession>(data);
    decode::<SessionOpened>(data);
    decode::<CommitSegments>(data);
    decode::<SegmentsCommitted>(data);
    decode::<CreateTopic>(data);
    decode::<AlterTopic>(data);
    decode::<DeleteTopic>(data);
    decode::<DeletedTopic>(data);
    decode::<DescribeTopic>(data);
    decode::<TopicDescription>(data);
    decode::<ListTopics>(data);
    decode::<TopicPage>(data);
    decode::<TrimPartition>(data);
    decode::<TrimmedPartition>(data);
    decode::<PlanFetch>(data);
    decode::<FetchPlan>(data);
    decode::<WatchCommits>(data);
    decode::<CommitNotice>(data);
    decode::<RaiseProducerEpoch>(data);
    decode::<ProducerDescription>(data);
    decode::<DescribeProducer>(data);
    decode::<SetFencingToken>(data);
    decode::<PartitionFence>(data);
    decode::<DescribeFencingToken>(data);
    decode::<JoinGroup>(data);
    decode::<MemberAssignment>(data);
    decode::<Heartbeat>(data);
    decode::<LeaveGroup>(data);
    decode::<LeftGroup>(data);
    decode::<CommitOffsets>(data);
    decode::<OffsetsCommitted>(data);
    decode::<FetchOffsets>(data);
    decode::<OffsetPage>(data);
    decode::<DescribeGroup>(data);
    decode::<GroupDescription>(data);
    decode::<ListGroups>(data);
    decode::<GroupPage>(data);
    decode::<DeleteGroup>(data);
    decode::<DeletedGroup>(data);
    decode::<AlterSettings>(data);
    decode::<DescribeSettings>(data);
    decode::<SettingsDescription>(data);
    decode::<DescribeCluster>(data);
    decode::<ClusterStatus>(data);
    decode::<AddNode>(data);
    decode::<RemoveNode>(data);
    decode::<TransferLeadership>(data);
    decode::<MembershipChanged>(data);
    decode::<TakeJob>(data);
    decode::<JobTaken>(data);
    decode::<ReportJob>(data);
    decode::<JobReported>(data);
    decode::<FindOrphans>(data);
    decode::<Orphans>(data);
    decode::<PlanMerge>(data);
    decode::<MergePlan>(data);
    decode::<ReplaceSlices>(data);
    decode::<SlicesReplaced>(data);
    decode::<PlanCompaction>(data);
    decode::<CompactionPlan>(data);
    decode::<FinishCompaction>(data);
    decode::<CompactionFinished>(data);
    decode::<PlanPage>(data);
    decode::<PagePlan>(data);
    decode::<ReplaceByPage>(data);
    decode::<PageReplaced>(data);
    decode::<FindDead>(data);
    decode::<DeadObjects>(data);
    decode::<ForgetDead>(data);
    decode::<DeadForgotten>(data);
    decode::<ListManifests>(data);
    decode::<ManifestList>(data);
    decode::<ListDead>(data);
    decode::<DeadList>(data);
    decode::<ListPages>(data);
    decode::<PageList>(data);
    decode::<DescribeMaintenance>(data);
    decode::<MaintenanceDescription>(data);
    decode::<PutWakeup>(data);
    decode::<DeleteWakeup>(data);
    decode::<DeletedWakeup>(data);
    decode::<ListWakeups>(data);
    decode::<WakeupList>(data);
    decode::<WakeupDescription>(data);
    decode::<Problem>(data);
});

fn decode<T: Serialize + DeserializeOwned + PartialEq + Debug>(data: &[u8]) {
    if let Ok(message) = rmp_serde::from_slice::<T>(data) {
        let bytes = rmp_serde::to_vec_named(&message).expect("a message that was read can be written");
        assert_eq!(rmp_serde::from_slice::<T>(&bytes).expect("and read again"), message);
    }
}
