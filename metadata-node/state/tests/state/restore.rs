//! A restored state: it gives out nothing that a lost tail may have given out, and is as sound as any other.

use carnax_core::error_code::ErrorCode;
use carnax_core::id::{ClusterId, Incarnation, LogIndex, NodeId, PartitionIndex, SegmentId, TopicPartition};
use carnax_core::metadata::FetchFrom;
use carnax_core::offset::Offset;
use carnax_core::time::Timestamp;
use carnax_metadata_state::restore::{self, GapSegment, NewCluster};
use carnax_metadata_state::{Command, Reply, answer, invariant};

use crate::bytes::example_with_jobs;
use crate::support::{
    Cluster, START, bytes_of, code, commit, open_session, read_back, segment, slice, topic_id,
};

fn new_cluster() -> NewCluster {
    NewCluster {
        cluster: ClusterId::from_parts(Timestamp::from_millis(START), 2),
        incarnation: Incarnation(2),
        voters_wanted: 1,
        address: "new:1".to_owned(),
        disk: 99,
    }
}

#[test]
fn a_restored_state_is_sound_keeps_the_log_and_forgets_who_was_there() {
    let mut cluster = example_with_jobs();
    let before = cluster.state.clone();
    let ends: Vec<_> = restore::partition_ends(&before).collect();
    let node = restore::begin(&mut cluster.state, &new_cluster()).unwrap();
    assert_eq!(invariant::check(&cluster.state), Vec::<String>::new());
    assert_eq!(invariant::check_step(&before, &cluster.state), Vec::<String>::new());
    assert_eq!(restore::partition_ends(&cluster.state).collect::<Vec<_>>(), ends);
    assert_eq!(cluster.state.log_time(), before.log_time());
    assert_eq!((cluster.state.applied(), node), (LogIndex(1 << 32), NodeId(1 << 32)));
    let status = answer::status(&cluster.state);
    assert_eq!((status.sessions, status.group_members, status.nodes.len()), (0, 0, 1));
    assert_eq!(status.groups, answer::status(&before).groups);
    assert!(status.appends_open);
    let state = read_back(&bytes_of(&cluster.state)).unwrap();
    assert!(bytes_of(&state) == bytes_of(&cluster.state));

    let stale = restore::begin(&mut cluster.state, &new_cluster());
    assert_eq!(code(stale), ErrorCode::StaleIncarnation);
}

#[test]
fn skipped_offsets_are_a_part_of_the_log_and_appends_go_on_behind_them() {
    let mut cluster = Cluster::new();
    let topic = cluster.create("flights", 1, 2);
    let session = cluster.open_session();
    let old = segment(cluster.segment(1), vec![slice(topic, 0, 0, 100, 10, 5)]);
    cluster.commit(session, 1, vec![old]).unwrap();
    let known = restore::known_segments(&cluster.state);
    assert_eq!(known, [cluster.segment(1)].into());
    assert!(restore::oldest_uncommitted(&cluster.state) < Timestamp::from_millis(START));

    restore::begin(&mut cluster.state, &new_cluster()).unwrap();
    let last = TopicPartition { topic, partition: PartitionIndex(2) };
    assert_eq!(restore::grow_topic(&mut cluster.state, last), Some(3));
    assert_eq!(restore::grow_topic(&mut cluster.state, TopicPartition { topic: topic_id(7), ..last }), None);
    let gap = |slices| GapSegment { segment: cluster.segment(2), size: 500, slices };
    let nowhere = gap(vec![slice(topic, 3, 8, 61, 5, -1)]);
    let both = gap(vec![slice(topic, 0, 8, 61, 1_000, -1), slice(topic, 2, 69, 61, 7, -1)]);
    let before = bytes_of(&cluster.state);
    assert_eq!(code(restore::skip(&mut cluster.state, &nowhere)), ErrorCode::InvalidValue);
    assert!(bytes_of(&cluster.state) == before);
    restore::skip(&mut cluster.state, &both).unwrap();
    assert_eq!(invariant::check(&cluster.state), Vec::<String>::new());

    cluster.index = cluster.state.applied().0;
    let opened = cluster.one(open_session()).unwrap();
    let Reply::SessionOpened(opened) = opened else { panic!("{opened:?}") };
    assert_eq!(opened.incarnation, Incarnation(2));
    let new = segment(cluster.segment(3), vec![slice(topic, 0, 0, 100, 10, 5)]);
    let mut committed = commit(opened.session, 1, vec![new]);
    assert_eq!(code(cluster.one(committed.clone())), ErrorCode::StaleIncarnation, "a former frontend");
    let Command::CommitSegments(request) = &mut committed else { unreachable!("it is a commit") };
    request.incarnation = Incarnation(2);
    cluster.one(committed).unwrap();
    let plan = cluster.plan("flights", 0, FetchFrom::Earliest).unwrap();
    let slices: Vec<_> =
        plan.slices.iter().map(|s| (s.base_offset.0, s.end_offset.0, s.segment.incarnation.0)).collect();
    assert_eq!(slices, [(0, 10, 1), (10, 1_010, 2), (1_010, 1_020, 2)]);
    assert_eq!(cluster.plan("flights", 2, FetchFrom::Earliest).unwrap().high_watermark, Offset(7));
    let again: SegmentId = cluster.segment(2);
    assert!(restore::known_segments(&cluster.state).contains(&again));
}
