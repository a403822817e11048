//! What is true of groups.

use std::collections::{BTreeMap, BTreeSet};

use carnax_core::id::TopicPartition;
use carnax_core::limits;
use carnax_core::metadata::GroupPhase;
use carnax_core::name::MemberId;

use super::Predicate;
use crate::State;
use crate::group::{Group, Interest, Member};
use crate::topic::Topics;

/// Says which invariants of its groups a state breaks; empty is well.
pub(super) fn check(state: &State) -> Vec<String> {
    let mut broken = Vec::new();
    for (name, group) in &state.groups.by_name {
        let checks: [Predicate<Group>; 5] = [
            ("no partition has two owners", no_partition_has_two_owners),
            ("nobody waits for what nobody has", nobody_waits_for_what_nobody_has),
            ("no partition should be with two members", no_partition_should_be_with_two_members),
            ("lists of partitions are in order", lists_of_partitions_are_in_order),
            ("epochs were given out", epochs_were_given_out),
        ];
        let failed = checks.iter().filter(|(_, holds)| !holds(group));
        broken.extend(failed.map(|(what, _)| format!("group {name}: {what}")));
        if !everything_exists(group, state) {
            broken.push(format!("group {name}: everything that it names exists"));
        }
        if !what_is_asked_for_is_shared_out(group, &state.topics) {
            broken.push(format!("group {name}: what is asked for is shared out"));
        }
    }
    let checks: [Predicate<State>; 3] = [
        ("groups are counted", groups_are_counted),
        ("groups are found by their topics", groups_are_found_by_their_topics),
        ("groups without members are watched", groups_without_members_are_watched),
    ];
    broken.extend(checks.iter().filter(|(_, holds)| !holds(state)).map(|(what, _)| (*what).to_owned()));
    broken
}

/// Says which invariants of its groups a step breaks; empty is well.
pub(super) fn check_step(before: &State, after: &State) -> Vec<String> {
    let mut broken = Vec::new();
    for (name, was) in &before.groups.by_name {
        let Some(now) = after.groups.by_name.get(name) else {
            // A group goes on from the highest epoch of those that are gone.
            if after.groups.retired_epoch < was.epoch {
                broken.push(format!("group {name}: its epochs are never given out again"));
            }
            continue;
        };
        if now.epoch < was.epoch {
            broken.push(format!("group {name}: epochs never go back"));
        }
        for (id, member) in &was.members {
            // An epoch is one membership: its assignments are numbered upwards, and each number means one thing.
            let same = now.members.get(id).filter(|now| now.epoch == member.epoch);
            let well = same.is_none_or(|now| {
                now.assignment_epoch > member.assignment_epoch
                    || (now.assignment_epoch == member.assignment_epoch && now.kept == member.kept)
            });
            if !well {
                broken.push(format!("group {name}: an assignment epoch of {id} means two things"));
            }
        }
    }
    broken
}

/// A partition is granted only while it is not in `owners`, where every grant is noted; it leaves `owners` only with the
/// list of its member: by a confirmation, with the member, or with its topic.
fn no_partition_has_two_owners(group: &Group) -> bool {
    let mut owners: BTreeMap<TopicPartition, &MemberId> = BTreeMap::new();
    for (id, member) in &group.members {
        for on in member.kept.iter().chain(&member.releasing) {
            if owners.insert(*on, id).is_some() {
                return false;
            }
        }
    }
    owners.iter().map(|(on, id)| (on, *id)).eq(&group.owners)
}

/// Every change that frees a partition, or makes somebody wait for one, ends with granting all that is free.
fn nobody_waits_for_what_nobody_has(group: &Group) -> bool {
    group.members.values().flat_map(|member| &member.promised).all(|on| group.owners.contains_key(on))
}

/// The assignors give each partition to one member.
fn no_partition_should_be_with_two_members(group: &Group) -> bool {
    let targets = group.members.values().flat_map(|member| member.kept.iter().chain(&member.promised));
    let mut seen = BTreeSet::new();
    targets.into_iter().all(|on| seen.insert(*on))
}

/// The lists are merged from and cut out of lists in order.
fn lists_of_partitions_are_in_order(group: &Group) -> bool {
    group.members.values().all(|member| {
        [&member.kept, &member.releasing, &member.promised]
            .iter()
            .all(|list| list.is_sorted_by(|one, other| one < other))
    })
}

/// A member gets its epoch from the group's counter, which it moves; its first assignment has the number 1.
fn epochs_were_given_out(group: &Group) -> bool {
    let epochs: BTreeSet<u32> = group.members.values().map(|member| member.epoch).collect();
    epochs.len() == group.members.len()
        && epochs.last().is_none_or(|last| *last <= group.epoch)
        && group.members.values().all(|member| member.assignment_epoch > 0)
}

/// Deleting a topic takes its partitions from all groups; partitions and high watermarks only grow.
fn everything_exists(group: &Group, state: &State) -> bool {
    let exists =
        |on: &TopicPartition| state.topics.get(on.topic).and_then(|topic| topic.partition(on.partition).ok());
    let lists = |member: &Member| {
        [&member.kept, &member.releasing, &member.promised]
            .into_iter()
            .flatten()
            .all(|on| exists(on).is_some())
    };
    group.members.values().all(|member| lists(member))
        && group.offsets.after(None).all(|(on, committed)| {
            committed.at <= state.log_time
                && exists(&on).is_some_and(|partition| committed.offset <= partition.high_watermark)
        })
}

/// Every change of members, subscriptions and topics rebalances the groups that it concerns, and the assignors are complete.
fn what_is_asked_for_is_shared_out(group: &Group, topics: &Topics) -> bool {
    let mut asked = BTreeSet::new();
    for (name, id) in &topics.by_name {
        let asks = |member: &Member| {
            let subscription = &member.subscription;
            subscription.topics.contains(name)
                || subscription.patterns.iter().any(|pattern| pattern.matches(name.as_str()))
        };
        if group.members.values().any(|member| asks(member)) {
            asked.insert(*id);
        }
    }
    let count = |id| topics.get(id).map_or(0, |topic| u64::from(topic.partition_count()));
    let wanted: u64 = asked.iter().map(|id| count(*id)).sum();
    let targets = group.members.values().map(|member| member.kept.len() + member.promised.len());
    let targets = targets.sum::<usize>() as u64;
    targets == wanted || (wanted > limits::GROUP_PARTITIONS_MAX as u64 && targets < wanted)
}

/// A group is put back through one function, which counts; offsets that move in place are counted there.
fn groups_are_counted(state: &State) -> bool {
    let groups = &state.groups;
    let members: usize = groups.by_name.values().map(|group| group.members.len()).sum();
    let offsets: usize = groups.by_name.values().map(|group| group.offsets.after(None).count()).sum();
    let counted = groups.by_name.values().map(|group| group.offsets.len()).sum::<u64>();
    members as u64 == groups.member_count
        && offsets as u64 == groups.offset_count
        && counted == groups.offset_count
        && groups.by_name.len() <= limits::GROUPS_MAX
        && members <= limits::MEMBERS_MAX
        && groups.offset_count <= limits::GROUP_OFFSETS_MAX
}

/// All indexes change with what they index.
fn groups_are_found_by_their_topics(state: &State) -> bool {
    let mut interest = Interest::default();
    let mut with_offsets = BTreeSet::new();
    for (name, group) in &state.groups.by_name {
        group.members.values().for_each(|member| interest.add(name, &member.subscription));
        with_offsets.extend(group.offsets.topics().map(|topic| (topic, name.clone())));
    }
    let moving = state.groups.by_name.iter().filter(|(_, group)| group.phase() == GroupPhase::Rebalancing);
    moving.map(|(name, _)| name).eq(&state.groups.moving)
        && interest == state.groups.interest
        && with_offsets.iter().eq(&state.groups.with_offsets)
}

/// A group is watched from when it has no members until it has some; the entry moves only up to `last_active`.
fn groups_without_members_are_watched(state: &State) -> bool {
    let groups = &state.groups;
    let empty = groups.by_name.iter().filter(|(_, group)| group.members.is_empty());
    let ordered: BTreeMap<_, _> = groups.watch_order.iter().map(|(at, name)| (name, at)).collect();
    empty.map(|(name, _)| name).eq(groups.watch.keys())
        && ordered.len() == groups.watch_order.len()
        && groups.watch.iter().eq(ordered)
        && groups
            .watch
            .iter()
            .all(|(name, at)| groups.by_name.get(name).is_some_and(|group| *at <= group.last_active))
        && groups.by_name.values().all(|group| group.last_active <= state.log_time)
}
