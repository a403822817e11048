//! The messages about groups: what was sent once is understood for ever.

use carnax_core::metadata::*;
use carnax_core::name::{GroupName, MemberId};
use carnax_core::offset::Offset;

use crate::messages::{check, on, time, topic, topic_ref};

fn group() -> GroupName {
    "readers".parse().unwrap()
}

fn member() -> MemberId {
    "host-1:7".parse().unwrap()
}

fn assigned() -> Vec<AssignedTopic> {
    vec![AssignedTopic { topic: topic_ref().name, topic_id: topic(), partitions: vec![on().partition] }]
}

#[test]
fn membership_calls_are_understood_as_ever() {
    for (name, assignor) in
        [("sticky", Some(Assignor::Sticky)), ("range", Some(Assignor::Range)), ("any", None)]
    {
        let request = JoinGroup {
            group: group(),
            member: member(),
            client: "a test".to_owned(),
            topics: vec![topic_ref().name],
            patterns: vec!["orders-*".parse().unwrap()],
            assignor,
            session_timeout_millis: 45_000,
        };
        check(&format!("JoinGroup-{name}"), &request);
    }
    check("Heartbeat", &Heartbeat { group: group(), member: member(), epoch: 7, assignment_epoch: 1 << 40 });
    check("LeaveGroup", &LeaveGroup { group: group(), member: member(), epoch: Some(7) });
    check("LeftGroup", &LeftGroup { was_member: true });
    let assignment = MemberAssignment {
        epoch: 7,
        assignment_epoch: 1 << 40,
        partitions: assigned(),
        heartbeat_interval_millis: 3_000,
        session_timeout_millis: 45_000,
    };
    check("MemberAssignment", &assignment);
}

#[test]
fn offset_calls_are_understood_as_ever() {
    for (name, offset, from) in [
        ("any", Some(Offset(41)), CommittedNow::Any),
        ("nothing", Some(Offset(41)), CommittedNow::Nothing),
        ("offset", None, CommittedNow::Offset(Offset(40))),
    ] {
        let commit = CommitOffsets {
            group: group(),
            member: Some((member(), 7)),
            number: Some(9),
            only_if_empty: true,
            offsets: vec![OffsetCommit { on: on(), offset, from, metadata: "said".to_owned() }],
        };
        check(&format!("CommitOffsets-{name}"), &commit);
    }
    check("OffsetsCommitted", &OffsetsCommitted { ignored: true });
    check(
        "FetchOffsets",
        &FetchOffsets { group: group(), topics: vec![topic_ref()], after: Some(on()), limit: 100 },
    );
    let row = CommittedOffset {
        topic: topic_ref().name,
        on: on(),
        offset: Some(Offset(41)),
        metadata: "said".to_owned(),
        committed: Some(time(1_700_000_000_000)),
        log_start: Offset(1),
        high_watermark: Offset(44),
        owner: Some(member()),
    };
    check("OffsetPage", &OffsetPage { offsets: vec![row], more: true });
}

#[test]
fn descriptions_of_groups_are_understood_as_ever() {
    check("DescribeGroup", &DescribeGroup { group: group() });
    let described = MemberDescription {
        member: member(),
        epoch: 7,
        assignment_epoch: 1 << 40,
        client: "a test".to_owned(),
        topics: vec![topic_ref().name],
        patterns: vec!["orders-*".parse().unwrap()],
        session_timeout_millis: 45_000,
        assigned: assigned(),
        releasing: assigned(),
        awaiting: assigned(),
    };
    for (name, phase) in [
        ("empty", GroupPhase::Empty),
        ("rebalancing", GroupPhase::Rebalancing),
        ("stable", GroupPhase::Stable),
    ] {
        let description = GroupDescription {
            group: group(),
            assignor: Assignor::Range,
            epoch: 9,
            phase,
            members: vec![described.clone()],
            offsets: 12,
            last_active: time(1_700_000_000_000),
        };
        check(&format!("GroupDescription-{name}"), &description);
    }
    check("ListGroups", &ListGroups { prefix: "read".to_owned(), after: Some(group()), limit: 100 });
    let summary = GroupSummary { group: group(), phase: GroupPhase::Stable, members: 3, offsets: 12 };
    check("GroupPage", &GroupPage { groups: vec![summary], more: true });
    check("DeleteGroup", &DeleteGroup { group: group() });
    check("DeletedGroup", &DeletedGroup { offsets: 12 });
}
