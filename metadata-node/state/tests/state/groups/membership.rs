//! Who gets which partition when.

use super::*;

#[test]
fn a_partition_reaches_its_new_owner_only_after_the_old_one_let_go() {
    let mut cluster = Cluster::new();
    cluster.create("flights", 1, 4);
    let a = cluster.join(join("a", &["flights"], &[])).unwrap();
    assert_eq!((a.epoch, a.assignment_epoch), (1, 1));
    assert_eq!((a.heartbeat_interval_millis, a.session_timeout_millis), (3_000, 45_000));
    assert_eq!(names(&a), ["flights/0", "flights/1", "flights/2", "flights/3"]);
    assert_eq!(cluster.join(join("a", &["flights"], &[])), Ok(a.clone()), "a repeat changes nothing");

    let b = cluster.join(join("b", &["flights"], &[])).unwrap();
    assert_eq!((b.epoch, b.assignment_epoch, names(&b).len()), (2, 1, 0), "it has to wait");
    assert_eq!(cluster.describe().phase, GroupPhase::Rebalancing);
    let told = cluster.beat("a", &a).unwrap();
    assert_eq!((told.assignment_epoch, names(&told).len()), (2, 2), "an older assignment frees nothing");
    assert_eq!(names(&cluster.beat("b", &b).unwrap()).len(), 0);
    let describe = cluster.describe();
    assert_eq!(
        (&describe.members[0].releasing, &describe.members[0].assigned),
        (&describe.members[1].awaiting, &told.partitions)
    );

    let confirmed = cluster.beat("a", &told).unwrap();
    assert_eq!(confirmed, told, "what it keeps is what it was told");
    let got = cluster.beat("b", &b).unwrap();
    assert_eq!((got.assignment_epoch, names(&got).len()), (2, 2));
    assert!(names(&got).iter().all(|name| !names(&told).contains(name)));
    assert_eq!(cluster.describe().phase, GroupPhase::Stable);
    assert!(!answer::must_confirm(&cluster.state, &heartbeat("a", &told)), "there is nothing more to free");

    assert_eq!(cluster.leave("a", Some(1)), Ok(true));
    assert_eq!(cluster.leave("a", Some(1)), Ok(false), "who is gone is gone");
    assert_eq!(names(&cluster.beat("b", &got).unwrap()).len(), 4, "who leaves has let go");
    assert_eq!(code(cluster.beat("a", &told)), ErrorCode::UnknownMember);
    let sessions: Vec<_> =
        answer::sessions(&cluster.state).map(|session| (session.member.to_string(), session.epoch)).collect();
    assert_eq!(sessions, [("b".to_owned(), 2)]);
}

#[test]
fn a_partition_that_was_to_move_stays_if_its_taker_goes_before() {
    let mut cluster = Cluster::new();
    cluster.create("flights", 1, 4);
    let a = cluster.join(join("a", &["flights"], &[])).unwrap();
    cluster.join(join("b", &["flights"], &[])).unwrap();
    let told = cluster.beat("a", &a).unwrap();
    assert_eq!(names(&told).len(), 2);
    cluster.leave("b", None).unwrap();
    // The heartbeat that says it let go of what it was to keep after all comes too late to be believed.
    let late = cluster.beat("a", &told).unwrap();
    assert_eq!((late.assignment_epoch, names(&late)), (3, names(&a)));
    assert_eq!(cluster.describe().phase, GroupPhase::Stable);

    // And if it is to go to another by then, the confirmation of the first plan does not free it for the second one.
    cluster.join(join("c", &["flights"], &[])).unwrap();
    let told = cluster.beat("a", &late).unwrap();
    cluster.leave("c", None).unwrap();
    cluster.join(join("d", &["flights"], &[])).unwrap();
    assert_eq!((told.assignment_epoch, cluster.beat("a", &told).unwrap().assignment_epoch), (4, 6));
    assert!(cluster.describe().members[1].assigned.is_empty());
}

#[test]
fn a_member_that_comes_back_has_a_higher_epoch_and_its_former_self_is_fenced() {
    let mut cluster = Cluster::new();
    let topic = cluster.create("flights", 1, 2);
    let a = cluster.join(join("a", &["flights"], &[])).unwrap();
    cluster.join(join("b", &["flights"], &[])).unwrap();
    assert_eq!(cluster.expire("a", 7), 0, "another epoch is another membership");
    assert_eq!(cluster.expire("a", 1), 1);
    assert_eq!(cluster.expire("a", 1), 0);
    let b = cluster.describe().members[0].clone();
    assert_eq!(b.assigned[0].partitions.len(), 2, "its partitions are free at once");
    let again = cluster.join(join("a", &["flights"], &[])).unwrap();
    assert_eq!((again.epoch, names(&again).len()), (3, 0));
    assert_eq!(cluster.expire("a", 1), 0, "it has come back since");

    let fenced = cluster.beat("a", &a).unwrap_err();
    assert_eq!(
        (fenced.code, fenced.facts.expected.as_deref(), fenced.facts.actual.as_deref()),
        (ErrorCode::Fenced, Some("3"), Some("1"))
    );
    assert_eq!(code(cluster.one(Command::ConfirmAssignment(heartbeat("a", &a)))), ErrorCode::Fenced);
    assert_eq!(
        code(cluster.commit_offsets(plain(Some(("a", 1)), vec![to(on(topic, 0), 0)]))),
        ErrorCode::Fenced
    );
    assert_eq!(code(cluster.leave("a", Some(1))), ErrorCode::Fenced);
    assert_eq!(cluster.leave("a", None), Ok(true), "an operator may");

    // Also after the group is deleted and made again, nothing of the former one passes.
    cluster.leave("b", None).unwrap();
    cluster.one(Command::DeleteGroup(DeleteGroup { group: GROUP.parse().unwrap() })).unwrap();
    assert_eq!(cluster.join(join("a", &["flights"], &[])).unwrap().epoch, 4);
    cluster.state = read_back(&bytes_of(&cluster.state)).unwrap();
    assert_eq!(code(cluster.beat("a", &again)), ErrorCode::Fenced);
}

#[test]
fn members_follow_the_topics_that_they_ask_for() {
    let mut cluster = Cluster::new();
    let a = cluster.join(join("a", &["later", "later"], &["orders-*"])).unwrap();
    assert_eq!((a.assignment_epoch, names(&a).len()), (1, 0));
    cluster.create("other", 1, 5);
    assert_eq!(cluster.beat("a", &a), Ok(a.clone()), "not its topic");
    cluster.create("later", 2, 1);
    cluster.create("orders-eu", 3, 2);
    let a = cluster.beat("a", &a).unwrap();
    assert_eq!(
        (a.assignment_epoch, names(&a)),
        (3, vec!["later/0".into(), "orders-eu/0".into(), "orders-eu/1".into()])
    );
    cluster.grow("orders-eu", 3);
    assert_eq!(names(&cluster.beat("a", &a).unwrap()).len(), 4);

    // The same name again is another topic.
    cluster.fill(crate::support::topic_id(3), 0, 5);
    cluster.commit_offsets(plain(Some(("a", 1)), vec![to(on(crate::support::topic_id(3), 0), 5)])).unwrap();
    cluster.one(delete("orders-eu")).unwrap();
    let a = cluster.beat("a", &a).unwrap();
    assert_eq!(names(&a), ["later/0"]);
    cluster.create("orders-eu", 4, 1);
    let a = cluster.beat("a", &a).unwrap();
    assert_eq!(
        (names(&a), a.partitions[1].topic_id),
        (vec!["later/0".to_owned(), "orders-eu/0".to_owned()], crate::support::topic_id(4))
    );
    assert_eq!(
        cluster.committed("orders-eu"),
        [None],
        "positions in the old topic mean nothing in the new one"
    );
    assert_eq!(cluster.describe().offsets, 0);

    // Another subscription: the same member, the same epoch.
    let changed = cluster.join(join("a", &["other"], &[])).unwrap();
    assert_eq!((changed.epoch, names(&changed).len()), (1, 5));
    let describe = cluster.describe();
    assert_eq!(
        describe.members[0].releasing.len(),
        2,
        "what it does not ask for any more it still has to let go of"
    );
    cluster.join(join("b", &["later"], &[])).unwrap();
    assert!(cluster.describe().members[1].assigned.is_empty());
    cluster.beat("a", &changed).unwrap();
    assert_eq!(cluster.describe().members[1].assigned.len(), 1);

    // A topic may go while a member still has to let go of it that does not ask for it any more.
    cluster.join(join("a", &["later"], &[])).unwrap();
    assert_eq!(cluster.describe().members[0].releasing.len(), 1);
    cluster.one(delete("other")).unwrap();
    assert_eq!(cluster.describe().phase, GroupPhase::Stable);
}

#[test]
fn the_members_of_a_group_agree_on_the_assignor() {
    let mut cluster = Cluster::new();
    cluster.create("one", 1, 3);
    cluster.create("two", 2, 3);
    let with = |member, assignor| JoinGroup { assignor, ..join(member, &["one", "two"], &[]) };
    let a = cluster.join(with("a", Some(Assignor::Range))).unwrap();
    let conflict = cluster.join(with("b", Some(Assignor::Sticky))).unwrap_err();
    assert_eq!((conflict.code, conflict.facts.actual.as_deref()), (ErrorCode::Conflict, Some("range")));
    assert_eq!(cluster.describe().members.len(), 1);
    let b = cluster.join(with("b", None)).unwrap();
    let told = cluster.beat("a", &a).unwrap();
    assert_eq!(names(&told), ["one/0", "one/1", "two/0", "two/1"]);
    cluster.beat("a", &told).unwrap();
    assert_eq!(names(&cluster.beat("b", &b).unwrap()), ["one/2", "two/2"]);
    cluster.leave("a", None).unwrap();
    cluster.join(with("b", Some(Assignor::Sticky))).unwrap();
    assert_eq!(cluster.describe().assignor, Assignor::Sticky, "the only member may change its mind");
}

#[test]
fn a_bad_join_is_refused_and_leaves_no_trace() {
    let mut cluster = Cluster::new();
    let before = bytes_of(&cluster.state);
    let good = || join("a", &["flights"], &[]);
    let many: Vec<String> = (0..101).map(|number| format!("t{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for wrong in [
        join("a", &[], &[]),
        join("a", &many, &[]),
        JoinGroup { session_timeout_millis: 999, ..good() },
        JoinGroup { session_timeout_millis: 1_800_001, ..good() },
        JoinGroup { client: "x".repeat(513), ..good() },
    ] {
        let problem = cluster.join(wrong).unwrap_err();
        assert!(problem.code == ErrorCode::InvalidValue && problem.facts.limit.is_some(), "{problem}");
    }
    for unknown in [
        Command::ConfirmAssignment(Heartbeat {
            group: GROUP.parse().unwrap(),
            member: "a".parse().unwrap(),
            epoch: 1,
            assignment_epoch: 1,
        }),
        Command::DeleteGroup(DeleteGroup { group: GROUP.parse().unwrap() }),
    ] {
        assert_eq!(code(cluster.one(unknown)), ErrorCode::GroupNotFound);
    }
    assert_eq!(cluster.leave("a", Some(1)), Ok(false));
    cluster.index -= 8;
    let after = bytes_of(&cluster.state);
    assert_eq!(before.len(), after.len());
    assert!(answer::sessions(&cluster.state).next().is_none());
}

#[test]
fn a_group_has_at_most_so_many_members_patterns_and_partitions() {
    let mut cluster = Cluster::new();
    for id in 0..10 {
        cluster.create(&format!("large-{id}"), id, 10_000);
    }
    cluster.create("one-more", 10, 1);
    cluster.join(join("a", &[], &["large-*"])).unwrap();
    let refused = cluster.join(join("b", &["one-more"], &[])).unwrap_err();
    assert_eq!((refused.code, refused.facts.limit), (ErrorCode::TooManyRequests, Some(100_000)));
    assert!(refused.facts.retry_after_seconds.is_some());
    assert_eq!(cluster.describe().members.len(), 1);
    let patterns: Vec<String> = (0..100).map(|number| format!("none-{number}")).collect();
    let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
    assert_eq!(code(cluster.join(join("b", &[], &patterns))), ErrorCode::TooManyRequests);
    cluster.join(join("b", &[], &patterns[1..])).unwrap();
    // A topic that comes later cannot be refused for a group; what passes the limit is left out.
    cluster.create("large-11", 11, 1);
    assert_eq!(cluster.describe().members[0].assigned.len(), 10);
}
