//! Who may commit what.

use carnax_core::id::LogIndex;
use carnax_core::limits;
use carnax_core::metadata::{GroupOffset, GroupOffsets, ListGroups, SegmentOutcome, UnitCommit, UnitOutcome};
use carnax_metadata_state::{Entry, FeatureLevel, due};

use super::*;
use crate::support::{commit, refusal, unit};

/// Two topics with records, and a group of two members with a partition each of the first.
fn example() -> (Cluster, [TopicId; 2]) {
    let mut cluster = Cluster::new();
    let topics = [cluster.create("flights", 1, 2), cluster.create("other", 2, 2)];
    for (topic, partition) in [(0, 0), (0, 1), (1, 0)] {
        cluster.fill(topics[topic], partition, 10);
    }
    let a = cluster.join(join("a", &["flights"], &[])).unwrap();
    cluster.join(join("b", &["flights"], &[])).unwrap();
    let told = cluster.beat("a", &a).unwrap();
    assert_eq!(names(&cluster.beat("a", &told).unwrap()), ["flights/0"]);
    (cluster, topics)
}

#[test]
fn who_owns_a_partition_commits_its_offsets_and_nobody_else() {
    let (mut cluster, [flights, other]) = example();
    let mut attempt = |member, offsets| cluster.commit_offsets(plain(member, offsets));
    assert_eq!(attempt(Some(("a", 1)), vec![to(on(flights, 0), 10)]), Ok(false));
    let strange = attempt(Some(("a", 1)), vec![to(on(flights, 0), 3), to(on(flights, 1), 3)]).unwrap_err();
    assert_eq!(
        (
            strange.code,
            strange.facts.topic.as_deref(),
            strange.facts.partition,
            strange.facts.actual.as_deref()
        ),
        (ErrorCode::NotOwner, Some("flights"), Some(PartitionIndex(1)), Some("b"))
    );
    assert_eq!(code(attempt(Some(("a", 1)), vec![to(on(other, 0), 3)])), ErrorCode::NotOwner);
    assert_eq!(code(attempt(Some(("c", 1)), vec![to(on(flights, 0), 3)])), ErrorCode::UnknownMember);
    assert_eq!(code(attempt(Some(("a", 2)), vec![to(on(flights, 0), 3)])), ErrorCode::Fenced);
    assert_eq!(code(attempt(None, vec![to(on(flights, 0), 3)])), ErrorCode::NotOwner);
    assert_eq!(attempt(None, vec![to(on(other, 0), 4)]), Ok(false), "nobody owns it");
    assert_eq!(
        code(
            cluster.commit_offsets(CommitOffsets {
                only_if_empty: true,
                ..plain(None, vec![to(on(other, 0), 3)])
            })
        ),
        ErrorCode::GroupNotEmpty
    );
    assert_eq!(cluster.committed("flights"), [Some(10), None], "all of a commit or nothing");
    assert_eq!(cluster.committed("other"), [Some(4), None]);

    // Who has to let go may still say how far it got, until it has let go.
    cluster.join(join("c", &["other"], &[])).unwrap();
    cluster.join(join("b", &["other"], &[])).unwrap();
    assert_eq!(cluster.commit_offsets(plain(Some(("b", 2)), vec![to(on(flights, 1), 7)])), Ok(false));
    let told = answer::member_assignment(
        &cluster.state,
        &Heartbeat {
            assignment_epoch: 0,
            epoch: 2,
            group: GROUP.parse().unwrap(),
            member: "b".parse().unwrap(),
        },
    )
    .unwrap();
    cluster.beat("b", &told).unwrap();
    assert_eq!(
        code(cluster.commit_offsets(plain(Some(("b", 2)), vec![to(on(flights, 1), 8)]))),
        ErrorCode::NotOwner
    );
    assert_eq!(cluster.committed("flights"), [Some(10), Some(7)]);
}

#[test]
fn later_commits_of_a_member_win_whatever_their_order_of_arrival() {
    let (mut cluster, [flights, _]) = example();
    let mut attempt = |epoch, number, offset| {
        let request = plain(Some(("a", epoch)), vec![to(on(flights, 0), offset)]);
        cluster.commit_offsets(CommitOffsets { number: Some(number), ..request })
    };
    assert_eq!((attempt(1, 5, 5), attempt(1, 4, 4), attempt(1, 5, 3)), (Ok(false), Ok(true), Ok(true)));
    assert_eq!(code(attempt(1, 6, 11)), ErrorCode::OffsetAboveHighWatermark);
    assert_eq!(attempt(1, 6, 6), Ok(false), "a refused commit uses up no number");
    assert_eq!(cluster.committed("flights"), [Some(6), None]);
    cluster.state = read_back(&bytes_of(&cluster.state)).unwrap();
    let stale = CommitOffsets { number: Some(6), ..plain(Some(("a", 1)), vec![to(on(flights, 1), 1)]) };
    assert_eq!(cluster.commit_offsets(stale), Ok(true), "an old one is ignored before it is looked at");
    assert_eq!(
        cluster.commit_offsets(plain(Some(("a", 1)), vec![to(on(flights, 0), 2)])),
        Ok(false),
        "numbers are a choice"
    );
}

#[test]
fn a_commit_says_from_where_and_may_take_an_offset_away() {
    let (mut cluster, [_, other]) = example();
    let from =
        |from, offset: Option<u64>| OffsetCommit { from, offset: offset.map(Offset), ..to(on(other, 0), 0) };
    let at = |offset| CommittedNow::Offset(Offset(offset));
    let mut attempt = |offset| cluster.commit_offsets(plain(None, vec![offset]));
    let failed = attempt(from(at(3), Some(4))).unwrap_err();
    assert_eq!(
        (
            failed.code,
            failed.facts.topic.as_deref(),
            failed.facts.expected.as_deref(),
            failed.facts.actual.as_deref()
        ),
        (ErrorCode::ConditionFailed, Some("other"), Some("3"), Some("none"))
    );
    assert_eq!(attempt(from(CommittedNow::Nothing, Some(4))), Ok(false));
    assert_eq!(code(attempt(from(CommittedNow::Nothing, Some(5)))), ErrorCode::ConditionFailed);
    assert_eq!(attempt(from(at(4), Some(2))), Ok(false), "also back");
    assert_eq!(code(attempt(from(at(4), None))), ErrorCode::ConditionFailed);
    assert_eq!(attempt(from(at(2), None)), Ok(false));
    assert_eq!(attempt(from(CommittedNow::Any, None)), Ok(false), "nothing is there to be taken away");
    assert_eq!((cluster.committed("other"), cluster.describe().offsets), (vec![None, None], 0));
}

#[test]
fn a_bad_commit_is_refused() {
    let (mut cluster, [flights, other]) = example();
    let many: Vec<OffsetCommit> = (0..1_001).map(|partition| to(on(other, partition), 0)).collect();
    let said = |bytes| OffsetCommit { metadata: "x".repeat(bytes), ..to(on(other, 1), 0) };
    for (offsets, expected) in [
        (vec![], ErrorCode::InvalidValue),
        (vec![to(on(other, 0), 1), to(on(other, 0), 1)], ErrorCode::InvalidValue),
        (many, ErrorCode::TooLarge),
        (vec![said(4_097)], ErrorCode::InvalidValue),
        (vec![to(on(other, 0), 11)], ErrorCode::OffsetAboveHighWatermark),
        (vec![to(on(other, 2), 0)], ErrorCode::PartitionNotFound),
        (vec![to(on(crate::support::topic_id(9), 0), 0)], ErrorCode::TopicNotFound),
    ] {
        assert_eq!(code(cluster.commit_offsets(plain(None, offsets))), expected);
    }
    assert_eq!(
        code(cluster.commit_offsets(CommitOffsets {
            group: "unknown".parse().unwrap(),
            ..plain(Some(("a", 1)), vec![to(on(flights, 0), 0)])
        })),
        ErrorCode::UnknownMember
    );
    cluster.commit_offsets(plain(None, vec![said(4_096)])).unwrap();
    let page = answer::fetch_offsets(&cluster.state, &fetch(&[], None, 10)).unwrap();
    assert_eq!((page.offsets.len(), page.offsets[0].metadata.len(), page.more), (1, 4_096, false));
    cluster.one(delete("other")).unwrap();
    assert_eq!(code(cluster.commit_offsets(plain(None, vec![said(1)]))), ErrorCode::TopicNotFound);
    cluster.create("other", 3, 2);
    assert_eq!(code(cluster.commit_offsets(plain(None, vec![said(1)]))), ErrorCode::TopicRecreated);
    let nothing = OffsetCommit { offset: None, ..to(on(flights, 0), 0) };
    cluster
        .commit_offsets(CommitOffsets { group: "unknown".parse().unwrap(), ..plain(None, vec![nothing]) })
        .unwrap();
    assert_eq!(
        answer::list_groups(&cluster.state, &ListGroups { prefix: String::new(), after: None, limit: 9 })
            .unwrap()
            .groups
            .len(),
        1,
        "to take nothing away makes no group"
    );
}

#[test]
fn outputs_and_consumed_offsets_are_accepted_together_or_not_at_all() {
    let (mut cluster, [flights, other]) = example();
    let session = cluster.open_session();
    let mut number = 0;
    let mut attempt = |cluster: &mut Cluster,
                       member: Option<(&str, u32)>,
                       moves: &[(TopicPartition, Option<u64>, u64)]| {
        number += 1;
        let member = member.map(|(member, epoch)| (member.parse().unwrap(), epoch));
        let moved = |(on, from, to): &(TopicPartition, Option<u64>, u64)| GroupOffset {
            on: *on,
            from: from.map(Offset),
            to: Offset(*to),
        };
        let group = GroupOffsets {
            group: GROUP.parse().unwrap(),
            member,
            offsets: moves.iter().map(moved).collect(),
        };
        let one = UnitCommit { group: Some(group), ..unit(vec![slice(other, 1, 0, 10, 1, 0)]) };
        let mut segment = segment(cluster.segment(1_000 + u128::from(number)), vec![]);
        segment.units.push(one);
        let Ok(Reply::SegmentsCommitted(reply)) = cluster.one(commit(session, number, vec![segment])) else {
            panic!("refused as a whole")
        };
        match &reply.outcomes[0] {
            SegmentOutcome::Decided(units) => units[0].clone(),
            SegmentOutcome::Refused(problem) => panic!("{problem}"),
        }
    };
    let [mine, others] = [on(flights, 0), on(flights, 1)];
    let accepted = |outcome: UnitOutcome| matches!(outcome, UnitOutcome::Accepted { .. });
    assert!(accepted(attempt(&mut cluster, Some(("a", 1)), &[(mine, None, 4)])));
    for (member, moves, expected) in [
        (Some(("a", 1)), vec![(mine, None, 8)], ErrorCode::ConditionFailed),
        (Some(("a", 1)), vec![(mine, Some(3), 8)], ErrorCode::ConditionFailed),
        (Some(("a", 1)), vec![(mine, Some(4), 8), (others, None, 8)], ErrorCode::NotOwner),
        (Some(("a", 2)), vec![(mine, Some(4), 8)], ErrorCode::Fenced),
        (Some(("z", 2)), vec![(mine, Some(4), 8)], ErrorCode::UnknownMember),
        (None, vec![(mine, Some(4), 8)], ErrorCode::NotOwner),
        (Some(("a", 1)), vec![(mine, Some(4), 11)], ErrorCode::OffsetAboveHighWatermark),
        (Some(("a", 1)), vec![(mine, Some(4), 8), (mine, Some(4), 8)], ErrorCode::InvalidValue),
        (Some(("a", 1)), vec![], ErrorCode::InvalidValue),
        (Some(("a", 1)), vec![(on(flights, 2), None, 0)], ErrorCode::PartitionNotFound),
    ] {
        assert_eq!(refusal(&attempt(&mut cluster, member, &moves)), expected, "{member:?} {moves:?}");
    }
    assert!(accepted(attempt(&mut cluster, Some(("a", 1)), &[(mine, Some(4), 8)])));
    assert!(accepted(attempt(&mut cluster, None, &[(on(other, 0), None, 10)])), "a caller that is no member");
    assert_eq!(
        (cluster.committed("flights"), cluster.committed("other")),
        (vec![Some(8), None], vec![Some(10), None])
    );
    let page = answer::fetch_offsets(&cluster.state, &fetch(&["other"], None, 10)).unwrap();
    assert_eq!(page.offsets[1].high_watermark, Offset(3), "an output for each accepted unit");

    // An id whose name means another topic now: the frontend is to resolve it again.
    cluster.one(delete("flights")).unwrap();
    assert_eq!(refusal(&attempt(&mut cluster, None, &[(mine, None, 0)])), ErrorCode::TopicNotFound);
    cluster.create("flights", 5, 1);
    assert_eq!(refusal(&attempt(&mut cluster, None, &[(mine, None, 0)])), ErrorCode::StaleRouting);
}

#[test]
fn a_group_without_members_is_forgotten_after_its_retention() {
    let (mut cluster, [flights, other]) = example();
    let days = |days: i64| days * 24 * 60 * 60 * 1_000;
    let exists = |cluster: &Cluster| {
        answer::describe_group(&cluster.state, &DescribeGroup { group: GROUP.parse().unwrap() }).is_ok()
    };
    let now = |cluster: &Cluster| carnax_core::time::Timestamp::from_millis(cluster.now);
    cluster.commit_offsets(plain(Some(("a", 1)), vec![to(on(flights, 0), 1)])).unwrap();
    cluster.now += days(30);
    cluster.one(Command::ExpireSessions).unwrap();
    assert!(exists(&cluster), "it has members");
    let delete = || Command::DeleteGroup(DeleteGroup { group: GROUP.parse().unwrap() });
    assert_eq!(code(cluster.one(delete())), ErrorCode::GroupNotEmpty);
    for member in ["a", "b"] {
        cluster.leave(member, None).unwrap();
    }
    assert_eq!(cluster.describe().phase, GroupPhase::Empty);
    cluster.now += days(6);
    let reset = CommitOffsets { only_if_empty: true, ..plain(None, vec![to(on(other, 0), 2)]) };
    cluster.commit_offsets(reset).unwrap();
    cluster.now += days(6);
    assert!(due(&cluster.state, now(&cluster)), "it is looked at as if there had been no commit");
    cluster.one(Command::ExpireSessions).unwrap();
    assert!(exists(&cluster) && !due(&cluster.state, now(&cluster)));
    let restored = read_back(&bytes_of(&cluster.state)).unwrap();
    cluster.now += days(1);
    assert!(due(&restored, now(&cluster)) && due(&cluster.state, now(&cluster)));
    cluster.one(Command::ExpireSessions).unwrap();
    assert!(!exists(&cluster));
    assert_eq!(cluster.committed("flights"), [None, None]);

    cluster.commit_offsets(plain(None, vec![to(on(flights, 0), 1)])).unwrap();
    let Ok(Reply::GroupDeleted(deleted)) = cluster.one(delete()) else { panic!("not deleted") };
    assert_eq!((deleted.offsets, exists(&cluster)), (1, false));
}

#[test]
fn offsets_and_groups_are_told_by_page() {
    let (mut cluster, [flights, other]) = example();
    cluster.commit_offsets(plain(Some(("b", 2)), vec![to(on(flights, 1), 9)])).unwrap();
    cluster.commit_offsets(plain(None, vec![to(on(other, 0), 1), to(on(other, 1), 0)])).unwrap();
    let tell = |topics: &[&str], after, limit| {
        let page = answer::fetch_offsets(&cluster.state, &fetch(topics, after, limit)).unwrap();
        let row = |row: &carnax_core::metadata::CommittedOffset| {
            (row.topic.to_string(), row.on.partition.0, row.offset.map(|offset| offset.0))
        };
        (page.offsets.iter().map(row).collect::<Vec<_>>(), page.more)
    };
    let row = |topic: &str, partition, offset| (topic.to_owned(), partition, offset);
    let all = vec![row("flights", 1, Some(9)), row("other", 0, Some(1)), row("other", 1, Some(0))];
    assert_eq!(tell(&[], None, 3), (all.clone(), false));
    assert_eq!(tell(&[], None, 2), (all[..2].to_vec(), true));
    assert_eq!(tell(&[], Some(on(other, 0)), 2), (all[2..].to_vec(), false));
    assert_eq!(tell(&["other", "flights"], None, 2), (vec![row("flights", 0, None), all[0].clone()], true));
    assert_eq!(tell(&["other", "flights"], Some(on(flights, 1)), 9), (all[1..].to_vec(), false));
    let page = answer::fetch_offsets(&cluster.state, &fetch(&["flights"], None, 9)).unwrap();
    let owners: Vec<_> = page.offsets.iter().map(|row| row.owner.as_ref().map(ToString::to_string)).collect();
    assert_eq!(owners, [Some("a".to_owned()), Some("b".to_owned())]);
    assert_eq!(
        (page.offsets[1].high_watermark, page.offsets[1].committed.map(|at| at.millis())),
        (Offset(10), Some(cluster.now))
    );
    assert_eq!(
        code(answer::fetch_offsets(&cluster.state, &fetch(&["none"], None, 9))),
        ErrorCode::TopicNotFound
    );
    for limit in [0, 10_001] {
        assert_eq!(
            code(answer::fetch_offsets(&cluster.state, &fetch(&[], None, limit))),
            ErrorCode::InvalidValue
        );
    }

    for name in ["reader", "readers-2", "sinks"] {
        cluster
            .commit_offsets(CommitOffsets {
                group: name.parse().unwrap(),
                ..plain(None, vec![to(on(other, 0), 1)])
            })
            .unwrap();
    }
    let list = |prefix: &str, after: Option<&str>, limit| {
        let request =
            ListGroups { prefix: prefix.to_owned(), after: after.map(|after| after.parse().unwrap()), limit };
        answer::list_groups(&cluster.state, &request).map(|page| {
            (
                page.groups
                    .iter()
                    .map(|group| (group.group.to_string(), group.members, group.offsets))
                    .collect::<Vec<_>>(),
                page.more,
            )
        })
    };
    let group = |name: &str, members, offsets| (name.to_owned(), members, offsets);
    assert_eq!(list("readers", None, 1), Ok((vec![group("readers", 2, 3)], true)));
    assert_eq!(list("readers", Some("readers"), 9), Ok((vec![group("readers-2", 0, 1)], false)));
    assert_eq!(list("", Some("readers-2"), 9), Ok((vec![group("sinks", 0, 1)], false)));
    assert_eq!(list("é", None, 9), Ok((vec![], false)));
    assert_eq!(code(list("", None, 1_001)), ErrorCode::InvalidValue);
}

#[test]
fn there_are_only_so_many_groups_and_those_that_are_there_go_on() {
    let mut cluster = Cluster::new();
    let topic = cluster.create("flights", 1, 1);
    let of = |number: usize| {
        let group = format!("g{number}").parse().unwrap();
        Command::CommitOffsets(CommitOffsets { group, ..plain(None, vec![to(on(topic, 0), 0)]) })
    };
    // Past the checks of every step, which take their time with so many.
    let commands = (0..limits::GROUPS_MAX).map(of).collect();
    let entry = Entry { level: FeatureLevel::CURRENT, log_time: cluster.state.log_time(), commands };
    let outcomes = cluster.state.apply(LogIndex(cluster.index + 1), &entry);
    cluster.index += 1;
    assert!(outcomes.iter().all(Result::is_ok));
    let refused = cluster.one(of(limits::GROUPS_MAX)).unwrap_err();
    assert_eq!(
        (refused.code, refused.facts.limit),
        (ErrorCode::TooManyRequests, Some(limits::GROUPS_MAX as u64))
    );
    let joining = JoinGroup { group: "one-more".parse().unwrap(), ..join("ada", &["flights"], &[]) };
    assert_eq!(code(cluster.one(Command::JoinGroup(joining))), ErrorCode::TooManyRequests);
    cluster.one(of(7)).unwrap();
    let gone = DeleteGroup { group: "g7".parse().unwrap() };
    cluster.one(Command::DeleteGroup(gone)).unwrap();
    cluster.one(of(limits::GROUPS_MAX)).unwrap();
}
