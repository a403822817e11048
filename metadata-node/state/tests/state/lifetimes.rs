//! What becomes of records after they were appended: any interleaving of appends, fetches, retention, trims, merges, key compaction,
//! paging, collection and restarts, on a bucket that is a map, against a naive model that knows what each offset holds.
//!
//! Promised: a fetch gives what the model says, also one that was planned before the grace period began to run out; nothing that is
//! referred to is ever deleted; what is dead is deleted in the end.

mod seen;
mod world;

use std::cell::RefCell;

use carnax_core::id::{LogIndex, PartitionIndex, TopicPartition};
use carnax_core::metadata::{AlterTopic, FetchFrom, FindDead};
use carnax_core::offset::Offset;
use carnax_core::time::Timestamp;
use carnax_metadata_state::{Command, answer};
use proptest::prelude::ProptestConfig;
use proptest::test_runner::TestRunner;

use self::seen::Seen;
use self::world::{RETENTION, Step, World, steps};
use crate::bucket::GRACE;
use crate::support::named;
use crate::writer::set;

/// Worlds of their own. What is rare in one of them has to happen in some.
const WORLDS: u32 = 150;

#[test]
fn records_are_what_they_were_until_their_time_is_over() {
    let config = ProptestConfig { cases: WORLDS, failure_persistence: None, ..ProptestConfig::default() };
    let seen = RefCell::new(Seen::default());
    let lived = TestRunner::new(config).run(&steps(), |steps| {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            world.check();
        }
        world.settle();
        seen.borrow_mut().add(&world);
        Ok(())
    });
    if let Err(error) = lived {
        panic!("after {} worlds: {error}", seen.borrow().worlds);
    }
    seen.borrow().assert_all();
}

#[test]
fn a_replacement_is_refused_where_its_sources_are_not_what_they_were() {
    let mut world = World::new();
    world.cluster.one(set(&[("merge.slices", Some("5"))])).unwrap();
    for _ in 0..5 {
        world.step(&Step::Append(vec![(0, 3), (1, 2)]));
    }
    world.step(&Step::PlanMerge);
    world.step(&Step::PlanMerge);
    assert_eq!(world.merges[0].0.parts.len(), 2, "one object for both partitions");
    world.step(&Step::Trim { partition: 1, percent: 50 });
    let slices =
        |world: &World, partition| world.cluster.plan("t", partition, FetchFrom::Earliest).unwrap().slices;
    world.step(&Step::Merge { all: true });
    assert_eq!((slices(&world, 0).len(), slices(&world, 1).len()), (1, 3), "the second part lost the race");
    assert!(slices(&world, 0)[0].rewritten && slices(&world, 0)[0].segment.merged.is_none());
    world.step(&Step::Merge { all: true });
    assert_eq!((slices(&world, 0).len(), slices(&world, 1).len()), (1, 3), "the second plan comes too late");
    world.check();
    world.settle();

    for _ in 0..5 {
        world.step(&Step::Append(vec![(2, 3)]));
    }
    world.step(&Step::PlanMerge);
    let (plan, _) = world.merges[0].clone();
    let on = TopicPartition { topic: world.topic, partition: PartitionIndex(2) };
    assert_eq!(plan.parts.iter().map(|part| part.on).collect::<Vec<_>>(), [on]);
    world.step(&Step::Merge { all: true });
    assert_eq!(slices(&world, 2)[0].segment.merged, Some(on));
    world.check();
}

#[test]
fn dead_objects_wait_for_the_grace_period_and_for_the_archive() {
    let mut world = World::new();
    world.step(&Step::Append(vec![(0, 3)]));
    world.step(&Step::Trim { partition: 0, percent: 100 });
    let died_at = world.cluster.index;
    let find = |world: &World, archived| {
        let now = Timestamp::from_millis(world.cluster.now);
        let found = answer::find_dead(&world.cluster.state, &FindDead { limit: 1 }, now, LogIndex(archived));
        found.unwrap().objects.len()
    };
    world.cluster.now += GRACE - 1;
    assert_eq!(find(&world, died_at), 0);
    world.cluster.now += 1;
    assert_eq!((find(&world, died_at - 1), find(&world, died_at)), (0, 1));
    world.collect();
    assert!(world.bucket.objects.is_empty());
    assert_eq!(find(&world, died_at), 0);
}

#[test]
fn old_slices_leave_the_state_and_are_found_in_their_page() {
    let mut world = World::new();
    // Four merged slices of one partition, too far apart in time to be merged once more while there is retention.
    for _ in 0..4 {
        for _ in 0..12 {
            world.step(&Step::Append(vec![(0, 2)]));
        }
        world.step(&Step::PlanMerge);
        world.step(&Step::Merge { all: true });
        world.cluster.now += RETENTION / 7;
    }
    let slices = |world: &World| answer::status(&world.cluster.state).slices;
    assert_eq!(slices(&world), 4);
    world.step(&Step::PlanPage);
    assert_eq!(world.paging.len(), 0, "a page would keep its first slice for too long");
    world.cluster.one(keep_for_ever()).unwrap();
    // The first two only: what is newer may still be merged.
    world.step(&Step::PlanPage);
    world.step(&Step::PlanPage);
    world.step(&Step::Page);
    world.check();
    assert_eq!((world.paged, slices(&world)), (1, 2));
    world.step(&Step::Page);
    assert_eq!((world.paged, slices(&world), world.pages.len()), (1, 2, 2), "the second page comes too late");
    world.check();
    world.step(&Step::Restart);
    world.check();

    let at = |world: &World, from| world.cluster.plan("t", 0, from).unwrap();
    let page = at(&world, FetchFrom::Earliest).page.unwrap();
    assert_eq!(at(&world, FetchFrom::Offset(Offset(47))).page, Some(page));
    assert_eq!(at(&world, FetchFrom::Offset(Offset(48))).page, None);
    let first = world.model[0][0].timestamp;
    assert_eq!(at(&world, FetchFrom::Timestamp(Timestamp::from_millis(first))).page, Some(page));
    let last = world.model[0][95].timestamp;
    assert_eq!(at(&world, FetchFrom::Timestamp(Timestamp::from_millis(last))).page, None);

    world.step(&Step::Trim { partition: 0, percent: 49 });
    world.settle();
    assert_eq!(world.pages.len(), 1, "one of its records is live still");
    world.step(&Step::Trim { partition: 0, percent: 50 });
    world.settle();
    assert_eq!((world.pages.len(), world.bucket.objects.len()), (0, 2));
    world.check();
}

#[test]
fn a_slice_that_no_merge_takes_does_not_keep_others_from_their_page() {
    let mut world = World::new();
    world.cluster.one(keep_for_ever()).unwrap();
    let merge = |world: &mut World| {
        world.step(&Step::PlanMerge);
        let parts = world.merges[0].0.parts.len();
        world.step(&Step::Merge { all: true });
        parts
    };
    for partitions in [[0, 1], [0, 0], [0, 0], [0, 0]] {
        for _ in 0..12 {
            let parts = [(partitions[0], 2), (partitions[1], 2)];
            world.append(&parts[..if partitions[0] == partitions[1] { 1 } else { 2 }]);
        }
        let parts = merge(&mut world);
        assert_eq!(parts, if partitions[1] == 1 { 2 } else { 1 });
    }
    // Four large slices, as it seems, the first of which lies in an object with another partition's.
    world.step(&Step::PlanPage);
    assert_eq!(world.paging.len(), 0);
    assert_eq!(merge(&mut world), 1, "it gets an object of its own");
    world.step(&Step::PlanMerge);
    assert!(world.merges.is_empty(), "once");
    world.step(&Step::PlanPage);
    world.step(&Step::Page);
    assert_eq!(world.paged, 1);
    world.check();
    world.settle();
}

fn keep_for_ever() -> Command {
    let config = [("retention.ms".to_owned(), Some("-1".to_owned()))].into();
    Command::AlterTopic(AlterTopic { topic: named("t"), partitions: None, config })
}
