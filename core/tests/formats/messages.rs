//! The messages of the metadata RPC: what was sent once is understood for ever, and so is what a newer sender adds.

use std::fmt::Debug;

use carnax_core::error_code::ErrorCode;
use carnax_core::id::{
    ClusterId, CommitNumber, Incarnation, LogIndex, NodeId, PartitionIndex, SegmentId, SessionId, TopicId,
    TopicPartition,
};
use carnax_core::metadata::*;
use carnax_core::object_key::SegmentKey;
use carnax_core::offset::{ByteRange, Offset};
use carnax_core::problem::Problem;
use carnax_core::time::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::golden;

/// Reads a message from its golden bytes, from today's, and with a field that nobody knows yet. Today's need not be the
/// golden ones: fields are added.
pub(crate) fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, message: &T) {
    let today = rmp_serde::to_vec_named(message).unwrap();
    let stored = golden(&format!("rpc-v1/{name}.msgpack"), &today);
    assert_eq!(&rmp_serde::from_slice::<T>(&stored).unwrap(), message, "{name}");
    assert_eq!(&rmp_serde::from_slice::<T>(&today).unwrap(), message, "{name} as it is written today");

    // One more entry in the outermost map, which MessagePack counts in the low bits of its first byte.
    assert!((0x80..0x8f).contains(&stored[0]), "{name} is a map of fewer than 15 fields");
    let mut newer = stored.to_vec();
    newer[0] += 1;
    newer.extend_from_slice(&rmp_serde::to_vec("added_later").unwrap());
    newer.extend_from_slice(&rmp_serde::to_vec(&["any", "thing"]).unwrap());
    assert_eq!(
        &rmp_serde::from_slice::<T>(&newer).unwrap(),
        message,
        "{name} with a field of a later version"
    );

    for end in 0..stored.len() {
        assert!(rmp_serde::from_slice::<T>(&stored[..end]).is_err(), "{name} cut at {end}");
    }
}

pub(crate) fn time(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

pub(crate) fn topic() -> TopicId {
    TopicId::from_parts(time(1_600_000_000_000), 7)
}

pub(crate) fn segment() -> SegmentId {
    SegmentId::from_parts(time(1_700_000_000_000), 42)
}

pub(crate) fn topic_ref() -> TopicRef {
    TopicRef { name: "flights".parse().unwrap(), id: Some(topic()) }
}

pub(crate) fn on() -> TopicPartition {
    TopicPartition { topic: topic(), partition: PartitionIndex(3) }
}

fn refused() -> Problem {
    Problem::new(ErrorCode::StaleRouting, "topic has more partitions now").with(|facts| {
        facts.topic = Some("flights".to_owned());
        facts.partition_count = Some(12);
    })
}

#[test]
fn sessions_and_commits_are_understood_as_ever() {
    check("OpenSession", &OpenSession { frontend: "frontend-1".to_owned() });
    let (session, incarnation) = (SessionId(77), Incarnation(1));
    check("SessionOpened", &SessionOpened { session, incarnation, log_time: time(1_700_000_000_000) });
    let slice = UnitSlice {
        topic: topic(),
        partition: PartitionIndex(3),
        bytes: ByteRange { start: 8, length: 661 },
        records: 3,
        max_timestamp: time(-1),
    };
    let full = UnitCommit {
        slices: vec![slice.clone()],
        routing: vec![Routing { topic: topic(), partition_count: 12 }],
        producer: Some(ProducerStamp {
            producer: "p".parse().unwrap(),
            epoch: 1,
            sequence: u128::MAX,
            mode: SequenceMode::Increasing,
            body_hash: [7; 16],
        }),
        idempotency: Some(IdempotencyStamp {
            principal: String::new(),
            key: "k".parse().unwrap(),
            body_hash: [8; 16],
        }),
        conditions: vec![
            Condition { on: on(), kind: ConditionKind::ExpectedNextOffset(Offset(41)) },
            Condition { on: on(), kind: ConditionKind::FencingToken("t".parse().unwrap()) },
        ],
        group: Some(GroupOffsets {
            group: "g".parse().unwrap(),
            member: Some(("m".parse().unwrap(), 5)),
            offsets: vec![GroupOffset { on: on(), from: None, to: Offset(9) }],
        }),
    };
    let plain = UnitCommit { slices: vec![slice], ..UnitCommit::default() };
    let segments = vec![SegmentCommit { segment: segment(), size: 1_000, units: vec![full, plain] }];
    check("CommitSegments", &CommitSegments { incarnation, session, number: CommitNumber::FIRST, segments });
}

#[test]
fn outcomes_of_commits_are_understood_as_ever() {
    let appended =
        AppendedSlice { topic: topic(), partition: PartitionIndex(3), base_offset: Offset(41), records: 3 };
    let units = vec![
        UnitOutcome::Accepted { slices: vec![appended], append_time: time(1_700_000_000_001) },
        UnitOutcome::Duplicate { slices: vec![], append_time: time(1_700_000_000_000) },
        UnitOutcome::Refused(refused()),
    ];
    let stale = Problem::new(ErrorCode::StaleSegment, "segment is too old");
    check(
        "SegmentsCommitted",
        &SegmentsCommitted {
            log_time: time(1_700_000_000_001),
            applied: LogIndex(99),
            outcomes: vec![SegmentOutcome::Decided(units), SegmentOutcome::Refused(stale)],
        },
    );
    check("Problem", &refused());
}

#[test]
fn topic_calls_are_understood_as_ever() {
    let config = [("retention.ms".to_owned(), "604800000".to_owned())];
    let name = || topic_ref().name;
    check("CreateTopic", &CreateTopic { name: name(), partitions: 12, config: config.clone().into() });
    let change = [("retention.ms".to_owned(), Some("1".to_owned())), ("max.message.bytes".to_owned(), None)];
    check("AlterTopic", &AlterTopic { topic: topic_ref(), partitions: Some(24), config: change.into() });
    check("DeleteTopic", &DeleteTopic { topic: topic_ref() });
    check("DeletedTopic", &DeletedTopic { topic_id: topic() });
    check("DescribeTopic", &DescribeTopic { topic: topic_ref(), with_offsets: true });
    check("ListTopics", &ListTopics { prefix: "f".to_owned(), after: Some(name()), limit: 100 });
    let description = TopicDescription {
        topic_id: topic(),
        name: name(),
        partition_count: 1,
        config: config.into(),
        created: time(1_600_000_000_000),
        offsets: vec![PartitionOffsets {
            log_start: Offset(1),
            high_watermark: Offset(9),
            bytes: 661,
            slices: 2,
        }],
        newly_created: true,
    };
    check("TopicDescription", &description);
    check("TopicPage", &TopicPage { topics: vec![description], more: true });
    let partition = PartitionIndex(3);
    check("TrimPartition", &TrimPartition { topic: topic_ref(), partition, before: Offset(5) });
    check("TrimmedPartition", &TrimmedPartition { log_start: Offset(5) });
}

#[test]
fn fetch_plans_and_notices_are_understood_as_ever() {
    for (name, from) in [
        ("offset", FetchFrom::Offset(Offset(41))),
        ("earliest", FetchFrom::Earliest),
        ("latest", FetchFrom::Latest),
        ("timestamp", FetchFrom::Timestamp(time(1_700_000_000_000))),
        ("last", FetchFrom::Last(10)),
    ] {
        let (topic, partition) = (topic_ref(), PartitionIndex(3));
        let request = PlanFetch { topic, partition, from, max_bytes: 1 << 20, max_slices: 100 };
        check(&format!("PlanFetch-{name}"), &request);
    }
    let appended = SegmentKey::appended(Incarnation(1), segment());
    let slice = PlannedSlice {
        segment: appended,
        segment_size: 1_000,
        bytes: ByteRange { start: 8, length: 661 },
        base_offset: Offset(41),
        end_offset: Offset(44),
        max_timestamp: time(1_700_000_000_000),
        append_time: time(1_700_000_000_001),
        rewritten: false,
    };
    let merged = PlannedSlice { segment: SegmentKey { merged: Some(on()), ..appended }, ..slice };
    check(
        "FetchPlan",
        &FetchPlan {
            topic_id: topic(),
            log_start: Offset(0),
            high_watermark: Offset(44),
            start: Offset(42),
            slices: vec![merged, slice],
            page: None,
            applied: LogIndex(99),
        },
    );
    check("WatchCommits", &WatchCommits {});
    let partition =
        PartitionNotice { topic: topic(), partition: PartitionIndex(3), high_watermark: Offset(44) };
    check("CommitNotice", &CommitNotice { applied: LogIndex(99), lagged: true, partitions: vec![partition] });
}

#[test]
fn cluster_calls_are_understood_as_ever() {
    let node = NodeStatus {
        node: NodeId(1),
        address: "127.0.0.1:7001".to_owned(),
        role: NodeRole::Voter,
        matched: Some(LogIndex(99)),
        last_heard_millis: Some(12),
        feature_level_max: None,
    };
    let learner =
        NodeStatus { role: NodeRole::Learner, matched: None, last_heard_millis: None, ..node.clone() };
    let cluster = ClusterId::from_parts(time(1_600_000_000_000), 1);
    check("DescribeCluster", &DescribeCluster {});
    check(
        "ClusterStatus",
        &ClusterStatus {
            cluster: Some(cluster),
            incarnation: Some(Incarnation(1)),
            answered_by: Some(NodeId(1)),
            leader: None,
            term: 3,
            applied: LogIndex(99),
            log_time: time(1_700_000_000_000),
            voters_wanted: 3,
            nodes: vec![node.clone(), learner],
            topics: 1,
            partitions: 12,
            slices: 1_000_000,
            segments: 500_000,
            disk_full: false,
            feature_level: None,
            feature_level_max: None,
        },
    );
    let address = "127.0.0.1:7002".to_owned();
    let add = AddNode { address, disk: Some(1 << 100), promote: true, level_max: None };
    check("AddNode", &add);
    check("AddNode-level", &AddNode { level_max: Some(6), ..add });
    let known = NodeStatus { feature_level_max: Some(6), ..node.clone() };
    check("UpgradeCluster", &UpgradeCluster { to: Some(6), dry_run: true });
    let lacking = vec!["node 2 is old".to_owned()];
    check("ClusterUpgraded", &ClusterUpgraded { from: 5, to: 6, lacking, raised: true, nodes: vec![known] });
    check("RemoveNode", &RemoveNode { node: NodeId(1) });
    check("TransferLeadership", &TransferLeadership { to: Some(NodeId(1)) });
    check("MembershipChanged", &MembershipChanged { node: NodeId(1), cluster, nodes: vec![node] });
}
