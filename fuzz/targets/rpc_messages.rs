//! Every message of the metadata RPC in MessagePack: what is understood can be written and understood again.
#![no_main]

use std::fmt::Debug;

use carnax_core::metadata::{
    AddNode, AlterSettings, AlterTopic, ClusterStatus, CommitNotice, CommitOffsets, CommitSegments,
    CreateTopic, DeleteGroup, DeleteTopic, DeletedGroup, DeletedTopic, DescribeCluster, DescribeFencingToken,
    DescribeGroup, DescribeProducer, DescribeSettings, DescribeTopic, FetchOffsets, FetchPlan,
    GroupDescription, GroupPage, Heartbeat, JoinGroup, LeaveGroup, LeftGroup, ListGroups, ListTopics,
    MemberAssignment, MembershipChanged, OffsetPage, OffsetsCommitted, OpenSession, PartitionFence,
    PlanFetch, ProducerDescription, RaiseProducerEpoch, RemoveNode, SegmentsCommitted, SessionOpened,
    SetFencingToken, SettingsDescription, TopicDescription, TopicPage, TransferLeadership, TrimPartition,
    TrimmedPartition, WatchCommits,
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
    decode::<Problem>(data);
});

fn decode<T: Serialize + DeserializeOwned + PartialEq + Debug>(data: &[u8]) {
    if let Ok(message) = rmp_serde::from_slice::<T>(data) {
        let bytes = rmp_serde::to_vec_named(&message).expect("a message that was read can be written");
        assert_eq!(rmp_serde::from_slice::<T>(&bytes).expect("and read again"), message);
    }
}
