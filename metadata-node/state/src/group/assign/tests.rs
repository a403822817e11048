//! Properties of the assignors, over random groups and everything that happens to one.

use std::collections::{BTreeMap, BTreeSet};

use carnax_core::time::Timestamp;
use proptest::prelude::*;

use super::*;

fn topic(number: u32) -> TopicId {
    TopicId::from_parts(Timestamp::EPOCH, u128::from(number))
}

/// A group of members that are known by numbers, so that they keep what they have when others come and go.
#[derive(Debug, Clone)]
struct Group {
    /// Partitions of each topic.
    topics: BTreeMap<u32, u32>,
    /// The topics that each member asks for.
    members: BTreeMap<u32, BTreeSet<u32>>,
    has: BTreeMap<u32, Vec<TopicPartition>>,
}

impl Group {
    fn new(partitions: &[u32], members: &[BTreeSet<u32>]) -> Self {
        let topics = (0..).zip(partitions.iter().copied()).collect();
        let members = (0..).zip(members.iter().cloned()).collect();
        Self { topics, members, has: BTreeMap::new() }
    }

    fn equal(partitions: &[u32], members: u32) -> Self {
        let all: BTreeSet<u32> = (0..).zip(partitions).map(|(topic, _)| topic).collect();
        Self::new(partitions, &vec![all; members as usize])
    }

    fn input(&self) -> Input {
        let topics: Vec<_> = self.topics.iter().map(|(number, count)| (topic(*number), *count)).collect();
        let different: BTreeSet<&BTreeSet<u32>> = self.members.values().collect();
        let places = |asked: &&BTreeSet<u32>| {
            let numbers = self.topics.keys().enumerate();
            numbers.filter(|(_, number)| asked.contains(number)).map(|(place, _)| place).collect()
        };
        let candidate = |(number, asked): (&u32, &BTreeSet<u32>)| Candidate {
            subscription: different.iter().position(|one| *one == asked).unwrap(),
            current: self.has.get(number).cloned().unwrap_or_default(),
        };
        Input {
            topics,
            subscriptions: different.iter().map(places).collect(),
            members: self.members.iter().map(candidate).collect(),
        }
    }

    /// Assigns, checks what both assignors promise, and says how many partitions went from one living member to another.
    fn assign(&mut self, assignor: Assignor) -> usize {
        let input = self.input();
        let assigned = assign(assignor, &input);
        assert_eq!(assigned, assign(assignor, &input), "deterministic");
        assert_eq!(assigned.len(), self.members.len());
        let now: BTreeMap<u32, Vec<TopicPartition>> = self.members.keys().copied().zip(assigned).collect();
        let mut owners = BTreeMap::new();
        for (member, partitions) in &now {
            assert!(partitions.is_sorted());
            for on in partitions {
                assert_eq!(owners.insert(*on, *member), None, "one owner for {on}");
                let number = self.topics.keys().find(|number| topic(**number) == on.topic).unwrap();
                assert!(self.members[member].contains(number) && on.partition.0 < self.topics[number]);
            }
        }
        let asked: BTreeSet<u32> = self.members.values().flatten().copied().collect();
        let wanted: u32 = self.topics.iter().filter(|(topic, _)| asked.contains(topic)).map(|(_, n)| n).sum();
        assert_eq!(owners.len(), wanted as usize, "complete");
        let living = self.has.iter().filter(|(member, _)| self.members.contains_key(member));
        let held = living.flat_map(|(member, partitions)| partitions.iter().map(move |on| (*on, *member)));
        let moved = held.filter(|(on, member)| owners.get(on).is_some_and(|owner| owner != member)).count();
        self.has = now;
        moved
    }

    fn loads(&self) -> Vec<usize> {
        self.has.values().map(Vec::len).collect()
    }

    fn spread(&self) -> usize {
        let loads = self.loads();
        loads.iter().max().unwrap_or(&0) - loads.iter().min().unwrap_or(&0)
    }

    /// Whether giving one partition to another member that asked for it would make two members more alike.
    fn could_be_better(&self) -> bool {
        self.has.values().any(|from| {
            from.iter().any(|on| {
                let number = self.topics.keys().find(|number| topic(**number) == on.topic).unwrap();
                let takers = self.members.iter().filter(|(_, asked)| asked.contains(number));
                takers.into_iter().any(|(taker, _)| self.has[taker].len() + 2 <= from.len())
            })
        })
    }
}

#[derive(Debug, Clone)]
enum Event {
    Join(u32, BTreeSet<u32>),
    Leave(usize),
    Topic(u32, u32),
    Delete(u32),
}

fn event(topics: u32) -> impl Strategy<Value = Event> {
    let asked = prop::collection::btree_set(0..topics, 1..=topics as usize);
    prop_oneof![
        4 => (0..60_u32, asked).prop_map(|(member, asked)| Event::Join(member, asked)),
        3 => any::<usize>().prop_map(Event::Leave),
        2 => (0..topics, 1..40_u32).prop_map(|(topic, more)| Event::Topic(topic, more)),
        1 => (0..topics).prop_map(Event::Delete),
    ]
}

impl Group {
    /// Whether something happened.
    fn happen(&mut self, event: &Event, equal: bool) -> bool {
        match event {
            Event::Join(member, asked) => {
                let all: BTreeSet<u32> = (0..10).collect();
                self.members.insert(*member, if equal { all } else { asked.clone() }).is_none()
            }
            Event::Leave(member) => {
                let count = self.members.len();
                let member = self.members.keys().nth(member % count.max(1)).copied();
                member.is_some_and(|member| {
                    self.has.remove(&member);
                    self.members.remove(&member).is_some()
                })
            }
            Event::Topic(topic, more) => {
                *self.topics.entry(*topic).or_insert(0) += more;
                true
            }
            Event::Delete(topic) => self.topics.remove(topic).is_some(),
        }
    }
}

/// The fewest partitions that must change their member when all ask for the same: those above their quota, or those that
/// are missing below it beyond what is free.
fn fewest_moves(group: &Group) -> usize {
    let total: usize = group.topics.values().map(|count| *count as usize).sum();
    let exists = |on: &&TopicPartition| {
        group.topics.iter().any(|(number, count)| topic(*number) == on.topic && on.partition.0 < *count)
    };
    let has = |member| {
        group.has.get(member).map_or(0, |list: &Vec<TopicPartition>| list.iter().filter(exists).count())
    };
    let mut sorted: Vec<usize> = group.members.keys().map(has).collect();
    let (low, extra) = (total / sorted.len(), total % sorted.len());
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    let quota = |place: usize| low + usize::from(place < extra);
    sorted.iter().enumerate().map(|(place, load)| load.saturating_sub(quota(place))).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn sticky_is_balanced_and_moves_no_more_than_it_must_when_all_ask_for_the_same(
        events in prop::collection::vec(event(6), 1..25),
    ) {
        let mut group = Group::equal(&[], 0);
        for event in &events {
            if !group.happen(event, true) || group.members.is_empty() {
                continue;
            }
            let fewest = fewest_moves(&group);
            let moved = group.assign(Assignor::Sticky);
            prop_assert!(group.spread() <= 1, "{:?}", group.loads());
            prop_assert_eq!(moved, fewest);
            prop_assert_eq!(group.assign(Assignor::Sticky), 0, "nothing moves when nothing happens");
            if matches!(event, Event::Leave(_)) {
                prop_assert_eq!(moved, 0, "only the leaver's partitions move");
            }
        }
    }

    #[test]
    fn no_single_move_improves_what_sticky_gives_to_members_that_ask_for_different_topics(
        events in prop::collection::vec(event(6), 1..25),
    ) {
        let mut group = Group::equal(&[], 0);
        for event in &events {
            if !group.happen(event, false) {
                continue;
            }
            group.assign(Assignor::Sticky);
            prop_assert!(!group.could_be_better(), "{:?}", group);
            prop_assert_eq!(group.assign(Assignor::Sticky), 0, "nothing moves when nothing happens");
        }
    }

    #[test]
    fn range_gives_neighbours_to_neighbours(events in prop::collection::vec(event(6), 1..25)) {
        let mut group = Group::equal(&[], 0);
        for event in &events {
            group.happen(event, false);
            group.assign(Assignor::Range);
            for (number, count) in &group.topics {
                let asking: Vec<u32> = group.members.iter().filter(|(_, asked)| asked.contains(number)).map(|(member, _)| *member).collect();
                // Kafka's formula for the first partition of the member at a place.
                let members = u32::try_from(asking.len()).unwrap();
                for (place, member) in (0..).zip(&asking) {
                    let (each, extra) = (count / members, count % members);
                    let first = each * place + extra.min(place);
                    let length = each + u32::from(place < extra);
                    let got = group.has[member].iter().filter(|on| on.topic == topic(*number)).map(|on| on.partition.0);
                    prop_assert!(got.eq(first..first + length));
                }
            }
        }
    }
}

#[test]
fn on_a_join_only_the_newcomers_share_moves_and_on_a_leave_only_the_leavers() {
    let mut group = Group::equal(&[50, 50], 4);
    assert_eq!(group.assign(Assignor::Sticky), 0);
    assert_eq!(group.loads(), [25; 4]);
    let all = group.members[&0].clone();
    group.members.insert(4, all);
    assert_eq!(group.assign(Assignor::Sticky), 20);
    assert_eq!(group.loads(), [20; 5]);
    group.members.remove(&1);
    group.has.remove(&1);
    assert_eq!(group.assign(Assignor::Sticky), 0);
    assert_eq!(group.loads(), [25; 4]);
}

#[test]
fn more_members_than_partitions_leave_some_with_nothing() {
    for assignor in [Assignor::Sticky, Assignor::Range] {
        let mut group = Group::equal(&[3, 2], 9);
        group.assign(assignor);
        let loads = group.loads();
        assert_eq!(loads.iter().sum::<usize>(), 5);
        assert_eq!(group.assign(assignor), 0);
        if assignor == Assignor::Sticky {
            assert_eq!(loads.iter().filter(|load| **load == 1).count(), 5);
        }
    }
    assert!(assign(Assignor::Sticky, &Input::default()).is_empty());
}

/// What members ask for makes a chain, each link sharing a topic with the next; all weight begins at one end.
#[test]
fn a_chain_of_subscriptions_is_evened_out_link_by_link() {
    let members: Vec<BTreeSet<u32>> = (0..100).map(|number| [number, number + 1].into()).collect();
    let mut group = Group::new(&[10; 101], &members);
    group.assign(Assignor::Sticky);
    for member in 0..100 {
        // As if each had held all it may before its neighbour on the right came.
        group.has.insert(member, (0..10).map(|partition| partition_of(topic(member), partition)).collect());
    }
    group.topics.insert(0, 500);
    group.assign(Assignor::Sticky);
    assert!(!group.could_be_better());
}

#[test]
fn a_thousand_members_share_a_hundred_thousand_partitions() {
    for assignor in [Assignor::Sticky, Assignor::Range] {
        let mut group = Group::equal(&[10_000; 10], 1_000);
        group.assign(assignor);
        assert_eq!(group.loads(), [100; 1_000]);
        group.members.remove(&500);
        group.has.remove(&500);
        let moved = group.assign(assignor);
        assert!(assignor == Assignor::Range || moved == 0);
        assert!(assignor == Assignor::Range || group.spread() <= 1);
    }
}
