//! What the state machine promises, told as stories: sessions, topics, segments, fetch plans, nodes. Every step also checks
//! all invariants.

use std::sync::Arc;

use carnax_core::error_code::ErrorCode;
use carnax_core::id::{CommitNumber, Incarnation, NodeId, PartitionIndex, SessionId};
use carnax_core::limits;
use carnax_core::metadata::{
    AlterTopic, CommitSegments, DescribeTopic, FetchFrom, ListTopics, Routing, SegmentCommit, SegmentOutcome,
    TopicRef, UnitCommit, UnitOutcome,
};
use carnax_core::offset::Offset;
use carnax_core::time::Timestamp;
use carnax_metadata_state::{Command, FeatureLevel, Reply, State, answer, due};

use crate::support::{
    Cluster, INCARNATION, START, bootstrap, code, commit, create, delete, named, open_session, plan, refusal,
    segment, slice, topic_id, trim, unit,
};

fn units(outcome: &SegmentOutcome) -> &[UnitOutcome] {
    match outcome {
        SegmentOutcome::Decided(units) => units,
        SegmentOutcome::Refused(problem) => panic!("{problem}"),
    }
}

fn base_offset(outcome: &UnitOutcome) -> u64 {
    match outcome {
        UnitOutcome::Accepted { slices, .. } => slices[0].base_offset.0,
        other => panic!("not accepted: {other:?}"),
    }
}

#[test]
fn a_repeated_commit_gets_the_first_reply_and_every_other_number_is_refused() {
    let mut cluster = Cluster::new();
    let topic = cluster.create("flights", 1, 1);
    let session = cluster.open_session();
    let first = vec![segment(cluster.segment(1), vec![slice(topic, 0, 0, 10, 3, 5)])];
    assert_eq!(code(cluster.commit(session, 0, first.clone())), ErrorCode::StaleCommitNumber);
    let reply = cluster.commit(session, 1, first.clone()).unwrap();
    assert_eq!(base_offset(&units(&reply.outcomes[0])[0]), 0);
    cluster.now += 1_000;
    let before = cluster.plan("flights", 0, FetchFrom::Earliest).unwrap();
    let repeat = cluster.commit(session, 1, first.clone()).unwrap();
    assert!(Arc::ptr_eq(&repeat, &reply), "the stored reply, with the log time of the first");
    let after = cluster.plan("flights", 0, FetchFrom::Earliest).unwrap();
    assert_eq!((after.high_watermark, after.slices), (before.high_watermark, before.slices));
    assert_eq!(code(cluster.commit(session, 3, first.clone())), ErrorCode::StaleCommitNumber, "a gap");

    // The same object under another number or session may be in the log: nobody may be told that it is not.
    let again = cluster.commit(session, 2, first.clone()).unwrap();
    let other = cluster.open_session();
    let elsewhere = cluster.commit(other, 1, first.clone()).unwrap();
    for reply in [again, elsewhere] {
        let SegmentOutcome::Refused(problem) = &reply.outcomes[0] else { panic!("{reply:?}") };
        assert_eq!(problem.code, ErrorCode::OutcomeUnknown);
    }
    assert_eq!(code(cluster.commit(session, 1, first)), ErrorCode::StaleCommitNumber, "older than the last");
    let second = vec![segment(cluster.segment(2), vec![slice(topic, 0, 0, 10, 2, 5)])];
    let reply = cluster.commit(session, 3, second).unwrap();
    assert_eq!(base_offset(&units(&reply.outcomes[0])[0]), 3);
}

#[test]
fn an_idle_session_expires_by_log_time_and_a_busy_one_does_not() {
    let expiry = i64::try_from(limits::SESSION_EXPIRY.as_millis()).unwrap();
    let mut cluster = Cluster::new();
    let (idle, busy) = (cluster.open_session(), cluster.open_session());
    assert!(!due(&cluster.state, Timestamp::from_millis(START + expiry - 1)));
    assert!(due(&cluster.state, Timestamp::from_millis(START + expiry)));
    cluster.now += expiry - 1;
    let nothing = |cluster: &Cluster, random| vec![segment(cluster.segment(random), vec![])];
    let some = nothing(&cluster, 1);
    cluster.commit(busy, 1, some).unwrap();
    cluster.now += 1;
    let some = nothing(&cluster, 2);
    assert_eq!(code(cluster.commit(idle, 1, some)), ErrorCode::SessionExpired, "also before a tick");
    assert_eq!(cluster.one(Command::ExpireSessions), Ok(Reply::SessionsExpired { count: 1 }));
    assert!(!due(&cluster.state, Timestamp::from_millis(cluster.now)), "nothing is due after a tick");
    let some = nothing(&cluster, 3);
    cluster.commit(busy, 2, some).unwrap();
    let some = nothing(&cluster, 4);
    assert_eq!(code(cluster.commit(SessionId(999), 1, some)), ErrorCode::SessionExpired);

    // Log time never goes back, so neither does an expiry.
    cluster.now = START;
    let some = nothing(&cluster, 5);
    assert_eq!(code(cluster.commit(idle, 1, some)), ErrorCode::SessionExpired);
    assert_eq!(cluster.state.log_time(), Timestamp::from_millis(START + expiry));
}

#[test]
fn sessions_opened_in_one_entry_have_different_ids() {
    let mut cluster = Cluster::new();
    let mut ids = Vec::new();
    for _ in 0..3 {
        for outcome in cluster.apply(vec![open_session(), open_session(), open_session()]) {
            let Ok(Reply::SessionOpened(opened)) = outcome else { panic!("{outcome:?}") };
            assert_eq!(opened.incarnation, INCARNATION);
            ids.push(opened.session);
        }
    }
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
}

#[test]
fn a_writer_with_the_id_of_a_recreated_topic_routes_again() {
    let mut cluster = Cluster::new();
    let old = cluster.create("flights", 1, 2);
    let session = cluster.open_session();
    let commit_to = |cluster: &mut Cluster, number: u64, topic| {
        let one = vec![segment(cluster.segment(number.into()), vec![slice(topic, 0, 0, 10, 1, 5)])];
        let reply = cluster.commit(session, number, one).unwrap();
        units(&reply.outcomes[0])[0].clone()
    };
    assert_eq!(base_offset(&commit_to(&mut cluster, 1, old)), 0);
    cluster.one(delete("flights")).unwrap();
    assert_eq!(refusal(&commit_to(&mut cluster, 2, old)), ErrorCode::TopicNotFound);
    assert_eq!(answer::status(&cluster.state).segments, 0, "the object of the deleted topic is dead");
    assert_eq!(answer::status(&cluster.state).dead_segments, 2);

    assert_eq!(code(cluster.one(create("flights", old, 2, &[]))), ErrorCode::Conflict, "no id lives twice");
    let new = cluster.create("flights", 2, 3);
    let UnitOutcome::Refused(problem) = commit_to(&mut cluster, 3, old) else { panic!("accepted") };
    assert_eq!((problem.code, problem.facts.topic_id), (ErrorCode::StaleRouting, Some(new)));
    assert!(problem.code.retryable());
    let stale = TopicRef { id: Some(old), ..named("flights") };
    let described =
        answer::describe_topic(&cluster.state, &DescribeTopic { topic: stale, with_offsets: false });
    assert_eq!(code(described), ErrorCode::TopicRecreated, "a client that pinned the id learns it here");
    assert_eq!(base_offset(&commit_to(&mut cluster, 4, new)), 0);
    assert_eq!(refusal(&commit_to(&mut cluster, 5, topic_id(99))), ErrorCode::TopicNotFound);
}

#[test]
fn creating_and_altering_topics_is_idempotent_and_bounded() {
    let mut cluster = Cluster::new();
    let create_flights =
        |id, partitions, config: &[(&str, &str)]| create("flights", topic_id(id), partitions, config);
    let Ok(Reply::TopicCreated(made)) = cluster.one(create_flights(1, 3, &[("retention.ms", "007")])) else {
        panic!("not created")
    };
    assert!(made.newly_created);
    assert_eq!(made.config["retention.ms"], "7", "kept in the one spelling");
    let Ok(Reply::TopicCreated(again)) = cluster.one(create_flights(2, 3, &[("retention.ms", "7")])) else {
        panic!("not there")
    };
    assert_eq!((again.newly_created, again.topic_id), (false, made.topic_id));
    for (partitions, config, expected) in [
        (4, ("retention.ms", "7"), ErrorCode::TopicExists),
        (3, ("retention.ms", "8"), ErrorCode::TopicExists),
        (3, ("retention.minutes", "8"), ErrorCode::InvalidValue),
        (0, ("retention.ms", "7"), ErrorCode::InvalidValue),
        (10_001, ("retention.ms", "7"), ErrorCode::InvalidValue),
    ] {
        assert_eq!(code(cluster.one(create_flights(3, partitions, &[config]))), expected);
    }
    let alter = |partitions, config: &[(&str, Option<&str>)]| {
        let config =
            config.iter().map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned))).collect();
        Command::AlterTopic(AlterTopic { topic: named("flights"), partitions, config })
    };
    assert_eq!(code(cluster.one(alter(Some(2), &[]))), ErrorCode::InvalidValue);
    assert_eq!(code(cluster.one(alter(Some(5), &[("nonsense", None)]))), ErrorCode::InvalidValue);
    let set = [("retention.ms", None), ("message.timestamp.type", Some("LogAppendTime"))];
    let Ok(Reply::TopicAltered(altered)) = cluster.one(alter(Some(5), &set)) else { panic!("not altered") };
    assert_eq!((altered.partition_count, altered.config.len()), (5, 1));
    assert_eq!(answer::status(&cluster.state).partitions, 5);

    // Records of a topic with LogAppendTime are found by the time of their commit, whatever they say themselves.
    let session = cluster.open_session();
    let one = vec![segment(cluster.segment(1), vec![slice(made.topic_id, 4, 0, 10, 1, 5)])];
    cluster.commit(session, 1, one).unwrap();
    let found = cluster.plan("flights", 4, FetchFrom::Timestamp(Timestamp::from_millis(START))).unwrap();
    assert_eq!((found.start, found.slices[0].max_timestamp.millis()), (Offset(0), START));
}

#[test]
fn a_segment_is_refused_as_a_whole_when_its_time_is_stale_and_the_session_goes_on() {
    let deadline = i64::try_from(limits::COMMIT_DEADLINE.as_millis()).unwrap();
    let ahead = i64::try_from(limits::CLOCK_AHEAD_MAX.as_millis()).unwrap();
    let mut cluster = Cluster::new();
    let topic = cluster.create("flights", 1, 1);
    let session = cluster.open_session();
    let at = |time: i64, random| {
        let id = carnax_core::id::SegmentId::from_parts(Timestamp::from_millis(START + time), random);
        segment(id, vec![slice(topic, 0, 0, 10, 1, 5)])
    };
    let mut number = 0;
    let mut decided = |cluster: &mut Cluster, times: &[i64]| -> Vec<bool> {
        let segments = times.iter().zip(number * 10..).map(|(time, random)| at(*time, random)).collect();
        number += 1;
        let reply = cluster.commit(session, u64::try_from(number).unwrap(), segments).unwrap();
        let stale = |outcome: &SegmentOutcome| match outcome {
            SegmentOutcome::Refused(problem) => problem.code == ErrorCode::StaleSegment,
            SegmentOutcome::Decided(_) => false,
        };
        reply.outcomes.iter().map(|outcome| !stale(outcome)).collect()
    };
    assert_eq!(decided(&mut cluster, &[-deadline, 0, ahead, ahead + 1]), [true, true, true, false]);
    assert_eq!(decided(&mut cluster, &[-deadline - 1]), [false]);
    assert_eq!(
        decided(&mut cluster, &[0, -deadline - 1, 0, 0]),
        [true, false, false, false],
        "none overtakes"
    );
    assert_eq!(cluster.plan("flights", 0, FetchFrom::Latest).unwrap().high_watermark, Offset(4));
    let large = SegmentCommit { size: limits::SEGMENT_BYTES_MAX + 1, ..at(0, 99) };
    let reply = cluster.commit(session, 4, vec![large]).unwrap();
    assert!(
        matches!(&reply.outcomes[0], SegmentOutcome::Refused(problem) if problem.code == ErrorCode::TooLarge)
    );
}

#[test]
fn each_unit_is_decided_alone_and_a_refused_one_takes_no_offset() {
    let mut cluster = Cluster::new();
    let topic = cluster.create("flights", 1, 2);
    let session = cluster.open_session();
    let good = |start| unit(vec![slice(topic, 0, start, 10, 2, 5)]);
    let routed =
        |partition_count| UnitCommit { routing: vec![Routing { topic, partition_count }], ..good(20) };
    let cases = vec![
        (good(0), None),
        (good(5), Some(ErrorCode::InvalidValue)),
        (unit(vec![slice(topic, 2, 10, 10, 2, 5)]), Some(ErrorCode::PartitionNotFound)),
        (
            unit(vec![slice(topic, 0, 10, 10, 2, 5), slice(topic, 7, 20, 10, 2, 5)]),
            Some(ErrorCode::PartitionNotFound),
        ),
        (
            unit(vec![slice(topic, 1, 10, 10, 1, 5), slice(topic, 0, 20, 10, 1, 5)]),
            Some(ErrorCode::InvalidValue),
        ),
        (
            unit(vec![slice(topic, 0, 10, 10, 1, 5), slice(topic, 0, 20, 10, 1, 5)]),
            Some(ErrorCode::InvalidValue),
        ),
        (
            unit(vec![slice(topic, 0, 10, 10, 1, 5), slice(topic, 1, 15, 10, 1, 5)]),
            Some(ErrorCode::InvalidValue),
        ),
        (unit(vec![slice(topic, 0, 10, 10, 0, 5)]), Some(ErrorCode::InvalidValue)),
        (unit(vec![slice(topic, 0, 10, 0, 1, 5)]), Some(ErrorCode::InvalidValue)),
        (unit(vec![slice(topic, 0, 999_999, 2, 1, 5)]), Some(ErrorCode::InvalidValue)),
        (unit(vec![slice(topic, 0, u64::MAX, 2, 1, 5)]), Some(ErrorCode::InvalidValue)),
        (unit(vec![]), Some(ErrorCode::InvalidValue)),
        (routed(1), Some(ErrorCode::StaleRouting)),
        (good(10), None),
        (routed(2), None),
        (good(40), None),
    ];
    let (given, expected): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
    let whole = SegmentCommit { segment: cluster.segment(1), size: 1_000_000, units: given };
    let reply = cluster.commit(session, 1, vec![whole]).unwrap();
    let mut next = 0;
    for (number, (outcome, expected)) in units(&reply.outcomes[0]).iter().zip(expected).enumerate() {
        match expected {
            Some(expected) => assert_eq!(refusal(outcome), expected, "unit {number}"),
            None => {
                assert_eq!(base_offset(outcome), next, "unit {number}");
                next += 2;
            }
        }
    }
    // Bytes 0..30 lie one behind the other and became one slice; 40..50 could not join them.
    let plan = cluster.plan("flights", 0, FetchFrom::Earliest).unwrap();
    let seen: Vec<_> = plan
        .slices
        .iter()
        .map(|s| (s.bytes.start, s.bytes.length, s.base_offset.0, s.end_offset.0))
        .collect();
    assert_eq!(seen, [(0, 30, 0, 6), (40, 10, 6, 8)]);
}

#[test]
fn a_fetch_plan_starts_where_it_is_asked_and_ends_where_it_is_full() {
    let mut cluster = Cluster::new();
    let topic = cluster.create("flights", 1, 1);
    let session = cluster.open_session();
    // Ten slices of 100 bytes and 10 records; the times go up and down, the highest is in the sixth slice.
    for (number, time) in (1..).zip([10, 30, 20, 5, 0, 90, 40, 50, 60, 45]) {
        let one = vec![segment(cluster.segment(number), vec![slice(topic, 0, 7, 100, 10, time)])];
        cluster.commit(session, u64::try_from(number).unwrap(), one).unwrap();
    }
    let start = |from| cluster.plan("flights", 0, from).map(|plan| (plan.start.0, plan.slices.len()));
    let at_time = |time| start(FetchFrom::Timestamp(Timestamp::from_millis(time))).unwrap();
    assert_eq!(start(FetchFrom::Offset(Offset(25))).unwrap(), (25, 8));
    assert_eq!(start(FetchFrom::Offset(Offset(100))).unwrap(), (100, 0));
    assert_eq!(start(FetchFrom::Earliest).unwrap(), (0, 10));
    assert_eq!(start(FetchFrom::Latest).unwrap(), (100, 0));
    assert_eq!(start(FetchFrom::Last(15)).unwrap(), (85, 2));
    assert_eq!(start(FetchFrom::Last(u64::MAX)).unwrap(), (0, 10));
    assert_eq!((at_time(-1), at_time(11), at_time(31), at_time(91)), ((0, 10), (10, 9), (50, 5), (100, 0)));
    let limited = |max_bytes, max_slices| {
        let request = plan("flights", 0, FetchFrom::Earliest, max_bytes, max_slices);
        answer::plan_fetch(&cluster.state, &request).map(|plan| plan.slices.len())
    };
    assert_eq!(limited(0, 1_000), Ok(1), "at least one slice");
    assert_eq!((limited(100, 1_000), limited(101, 1_000), limited(u64::MAX, 3)), (Ok(1), Ok(2), Ok(3)));
    assert_eq!(code(limited(1, 0)), ErrorCode::InvalidValue);

    let Ok(Reply::PartitionTrimmed(trimmed)) = cluster.one(trim("flights", 0, 35)) else {
        panic!("not trimmed")
    };
    assert_eq!(trimmed.log_start, Offset(35));
    assert_eq!(answer::status(&cluster.state).slices, 7, "the slice with offset 35 stays whole");
    let Ok(Reply::PartitionTrimmed(trimmed)) = cluster.one(trim("flights", 0, 20)) else {
        panic!("not trimmed")
    };
    assert_eq!(trimmed.log_start, Offset(35), "never back");
    assert_eq!(code(cluster.one(trim("flights", 0, 101))), ErrorCode::OffsetAboveHighWatermark);
    let below = cluster.plan("flights", 0, FetchFrom::Offset(Offset(34))).unwrap_err();
    assert_eq!(below.code, ErrorCode::OffsetBelowLogStart);
    assert_eq!(
        (below.facts.log_start_offset, below.facts.high_watermark),
        (Some(Offset(35)), Some(Offset(100)))
    );
    let above = cluster.plan("flights", 0, FetchFrom::Offset(Offset(101))).unwrap_err();
    assert_eq!(above.code, ErrorCode::OffsetAboveHighWatermark);
    let earliest = cluster.plan("flights", 0, FetchFrom::Earliest).unwrap();
    assert_eq!((earliest.start, earliest.slices[0].base_offset), (Offset(35), Offset(30)));
    cluster.one(trim("flights", 0, 100)).unwrap();
    assert_eq!(answer::status(&cluster.state).dead_segments, 10);
    assert_eq!(cluster.plan("flights", 0, FetchFrom::Earliest).unwrap().start, Offset(100));
}

#[test]
fn appends_begin_when_the_wanted_voters_are_there_and_nodes_are_known_by_their_disks() {
    let mut cluster = Cluster { state: State::default(), index: 0, now: START, level: FeatureLevel::CURRENT };
    assert_eq!(code(cluster.one(open_session())), ErrorCode::Unavailable, "before the bootstrap");
    assert_eq!(cluster.one(bootstrap(2)), Ok(Reply::Bootstrapped { node: NodeId(1) }));
    assert_eq!(cluster.one(bootstrap(2)), Ok(Reply::Bootstrapped { node: NodeId(1) }), "a repeat");
    let register = |address: &str, disk| Command::RegisterNode { address: address.to_owned(), disk };
    let commands = vec![register("b:1", 2), register("b:1", 3), register("c:1", 2)];
    let ids: Vec<NodeId> = cluster
        .apply(commands)
        .into_iter()
        .map(|outcome| match outcome {
            Ok(Reply::NodeRegistered { node, .. }) => node,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(ids[0] != ids[1] && ids[0] == ids[2] && !ids.contains(&NodeId(1)), "{ids:?}");
    assert_eq!(cluster.state.node_of_disk(2), Some(ids[0]));

    let session = cluster.open_session();
    let nothing = vec![segment(cluster.segment(1), vec![])];
    assert_eq!(code(cluster.commit(session, 1, nothing.clone())), ErrorCode::Unavailable);
    assert_eq!(code(cluster.one(Command::SetVoters { voters: vec![NodeId(77)] })), ErrorCode::NodeNotFound);
    let voters = vec![NodeId(1), ids[1]];
    assert_eq!(cluster.one(Command::SetVoters { voters }), Ok(Reply::VotersSet { appends_open: true }));
    cluster.commit(session, 1, nothing).unwrap();
    assert_eq!(
        cluster.one(Command::SetVoters { voters: vec![ids[1]] }),
        Ok(Reply::VotersSet { appends_open: true }),
        "a node that leaves on purpose stops nothing"
    );
    cluster.one(Command::DeregisterNode { node: ids[0] }).unwrap();
    assert_eq!(code(cluster.one(Command::DeregisterNode { node: ids[0] })), ErrorCode::NodeNotFound);
    let Ok(Reply::NodeRegistered { node, .. }) = cluster.one(register("c:1", 2)) else {
        panic!("not registered")
    };
    assert!(!ids.contains(&node), "an id is never given out again");

    let stranger = CommitSegments {
        incarnation: Incarnation(2),
        session,
        number: CommitNumber(2),
        segments: vec![segment(cluster.segment(9), vec![])],
    };
    assert_eq!(code(cluster.one(Command::CommitSegments(stranger))), ErrorCode::StaleIncarnation);
    let none = commit(session, 2, vec![]);
    assert_eq!(code(cluster.one(none)), ErrorCode::InvalidValue);
}

#[test]
fn topics_are_listed_by_page_and_prefix() {
    let mut cluster = Cluster::new();
    for (name, id) in ["a", "b-1", "b-2", "b-3", "c", ".x", "..y", "-z"].into_iter().zip(1..) {
        cluster.create(name, id, 1);
    }
    let list = |prefix: &str, after: Option<&str>, limit| {
        let after = after.map(|after| after.parse().unwrap());
        let page =
            answer::list_topics(&cluster.state, &ListTopics { prefix: prefix.to_owned(), after, limit });
        page.map(|page| {
            (page.topics.iter().map(|topic| topic.name.to_string()).collect::<Vec<_>>(), page.more)
        })
    };
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        list("", None, 1_000).unwrap(),
        (names(&["-z", "..y", ".x", "a", "b-1", "b-2", "b-3", "c"]), false)
    );
    assert_eq!(list("b-", None, 2).unwrap(), (names(&["b-1", "b-2"]), true));
    assert_eq!(list("b-", Some("b-2"), 2).unwrap(), (names(&["b-3"]), false));
    assert_eq!(list("b-", Some("a"), 1).unwrap(), (names(&["b-1"]), true));
    assert_eq!(list(".", None, 9).unwrap(), (names(&["..y", ".x"]), false));
    assert_eq!(list("..", None, 9).unwrap(), (names(&["..y"]), false));
    assert_eq!(list("b/", None, 9).unwrap(), (names(&[]), false));
    assert_eq!(code(list("", None, 0)), ErrorCode::InvalidValue);
    let request = DescribeTopic { topic: named("c"), with_offsets: true };
    assert_eq!(answer::describe_topic(&cluster.state, &request).unwrap().offsets.len(), 1);
    let beyond = cluster.plan("c", 1, FetchFrom::Earliest).unwrap_err();
    assert_eq!(
        (beyond.code, beyond.facts.partition),
        (ErrorCode::PartitionNotFound, Some(PartitionIndex(1)))
    );
}
