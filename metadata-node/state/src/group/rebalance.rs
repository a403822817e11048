//! Rebalancing: who should have what after a change, and who may have it already.
//!
//! A rebalance is a function of the members, what they have and the topics; one that changes nothing that matters changes
//! nothing at all, so it may be done once too often.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use carnax_core::id::{TopicId, TopicPartition};
use carnax_core::limits;
use carnax_core::name::{MemberId, TopicPattern};

use super::assign::{self, Candidate, Input};
use super::{Group, Member, Subscription};
use crate::deliberate_bugs::{self, DeliberateBug};
use crate::topic::Topics;

impl Group {
    /// Decides anew who should have what, takes away what others should have, and gives what is free.
    pub(super) fn rebalance(&mut self, topics: &Topics) {
        let asked = Asked::by(self, topics);
        let input = self.problem(topics, &asked);
        let targets = assign::assign(self.assignor, &input);
        let ids: Vec<MemberId> = self.members.keys().cloned().collect();
        for (id, target) in ids.iter().zip(targets) {
            let Some(member) = self.members.get(id) else { continue };
            let mut owned = merge(&member.kept, &member.releasing);
            owned.retain(|on| {
                let exists = exists(topics, *on);
                if !exists {
                    self.owners.remove(on);
                }
                exists
            });
            let kept = both(&owned, &target);
            let (releasing, promised) = (without(&owned, &kept), without(&target, &kept));
            if kept != member.kept || releasing != member.releasing || promised != member.promised {
                let changed = kept != member.kept;
                let mut member = Member { kept, releasing, promised, ..(**member).clone() };
                member.assignment_epoch = member.assignment_epoch.saturating_add(u64::from(changed));
                self.members.insert(id.clone(), Arc::new(member));
            }
        }
        self.grant();
        for id in ids {
            // The first assignment of a member is one, though it may name nothing.
            if let Some(member) = self.members.get_mut(&id).filter(|member| member.assignment_epoch == 0) {
                Arc::make_mut(member).assignment_epoch = 1;
            }
        }
    }

    /// Gives every partition that nobody has to the member that should have it.
    pub(super) fn grant(&mut self) {
        let greedy = deliberate_bugs::makes(DeliberateBug::GiveBeforeRelease);
        let waiting = self.members.iter().filter(|(_, member)| !member.promised.is_empty());
        let ids: Vec<MemberId> = waiting.map(|(id, _)| id.clone()).collect();
        for id in ids {
            let Some(member) = self.members.get(&id) else { continue };
            let is_free = |on: &&TopicPartition| greedy || !self.owners.contains_key(*on);
            let granted: Vec<TopicPartition> = member.promised.iter().filter(is_free).copied().collect();
            if granted.is_empty() {
                continue;
            }
            let mut member = (**member).clone();
            member.promised = without(&member.promised, &granted);
            member.kept = merge(&member.kept, &granted);
            member.assignment_epoch = member.assignment_epoch.saturating_add(1);
            for on in granted {
                self.owners.insert(on, id.clone());
            }
            self.members.insert(id, Arc::new(member));
        }
    }

    /// How many partitions the members ask for together.
    pub(super) fn partitions_asked(&self, topics: &Topics) -> u64 {
        let asked = Asked::by(self, topics);
        let ids: BTreeSet<TopicId> = asked.topics.iter().flatten().copied().collect();
        let counts = ids.iter().filter_map(|id| topics.get(*id)).map(|topic| topic.partition_count());
        counts.map(u64::from).sum()
    }

    /// What the assignors are to solve. Beyond the limit of partitions, which only topics that came or grew later can
    /// pass, the newest topics are left out.
    fn problem(&self, topics: &Topics, asked: &Asked<'_>) -> Input {
        let ids: BTreeSet<TopicId> = asked.topics.iter().flatten().copied().collect();
        let mut left = limits::GROUP_PARTITIONS_MAX as u64;
        let mut shared = Vec::new();
        for id in ids {
            let count = topics.get(id).map_or(0, |topic| topic.partition_count());
            if u64::from(count) <= left {
                left -= u64::from(count);
                shared.push((id, count));
            }
        }
        let place = |id: &TopicId| shared.binary_search_by_key(id, |(id, _)| *id).ok();
        let places = |ids: &BTreeSet<TopicId>| ids.iter().filter_map(place).collect();
        let subscriptions = asked.topics.iter().map(places).collect();
        let held = self.orphans();
        let candidate = |(id, member): (&MemberId, &Arc<Member>)| {
            let mut current = [&member.kept[..], &member.promised[..]].concat();
            current.extend(held.get(id).into_iter().flatten());
            Candidate { subscription: asked.of(&member.subscription), current }
        };
        let members = self.members.iter().map(candidate).collect();
        Input { topics: shared, subscriptions, members }
    }

    /// What members still have though they should not, and nobody else should (any more): it had better stay.
    fn orphans(&self) -> BTreeMap<&MemberId, Vec<TopicPartition>> {
        let mut releasing: BTreeMap<TopicPartition, &MemberId> = BTreeMap::new();
        for (id, member) in &self.members {
            releasing.extend(member.releasing.iter().map(|on| (*on, id)));
        }
        if !releasing.is_empty() {
            for member in self.members.values() {
                for on in &member.promised {
                    releasing.remove(on);
                }
            }
        }
        let mut orphans: BTreeMap<&MemberId, Vec<TopicPartition>> = BTreeMap::new();
        for (on, id) in releasing {
            orphans.entry(id).or_default().push(on);
        }
        orphans
    }
}

/// The different subscriptions of a group with the topics that they mean now.
struct Asked<'a> {
    places: BTreeMap<&'a Subscription, usize>,
    topics: Vec<BTreeSet<TopicId>>,
}

impl<'a> Asked<'a> {
    fn by(group: &'a Group, topics: &Topics) -> Self {
        let mut asked = Self { places: BTreeMap::new(), topics: Vec::new() };
        let mut matching: BTreeMap<&TopicPattern, Vec<TopicId>> = BTreeMap::new();
        for member in group.members.values() {
            let subscription = &*member.subscription;
            if asked.places.contains_key(subscription) {
                continue;
            }
            let named = subscription.topics.iter().filter_map(|name| topics.by_name.get(name));
            let mut ids: BTreeSet<TopicId> = named.copied().collect();
            for pattern in &subscription.patterns {
                ids.extend(matching.entry(pattern).or_insert_with(|| matches(topics, pattern)).iter());
            }
            asked.places.insert(subscription, asked.topics.len());
            asked.topics.push(ids);
        }
        asked
    }

    fn of(&self, subscription: &Subscription) -> usize {
        *self.places.get(subscription).expect("the subscription of every member was noted")
    }
}

fn matches(topics: &Topics, pattern: &TopicPattern) -> Vec<TopicId> {
    let named = topics.by_name.iter().filter(|(name, _)| pattern.matches(name.as_str()));
    named.map(|(_, id)| *id).collect()
}

fn exists(topics: &Topics, on: TopicPartition) -> bool {
    topics.get(on.topic).is_some_and(|topic| on.partition.0 < topic.partition_count())
}

/// All of two ascending lists that share nothing, ascending.
fn merge(one: &[TopicPartition], other: &[TopicPartition]) -> Vec<TopicPartition> {
    let mut all = [one, other].concat();
    // Two runs that are in order: this takes no longer than to merge them.
    all.sort();
    all
}

/// What is in both of two ascending lists.
fn both(one: &[TopicPartition], other: &[TopicPartition]) -> Vec<TopicPartition> {
    select(one, other, true)
}

/// What is in the first of two ascending lists only.
fn without(one: &[TopicPartition], other: &[TopicPartition]) -> Vec<TopicPartition> {
    select(one, other, false)
}

fn select(one: &[TopicPartition], other: &[TopicPartition], present: bool) -> Vec<TopicPartition> {
    let mut other = other.iter().peekable();
    let chosen = one.iter().filter(|on| {
        while other.next_if(|next| next < on).is_some() {}
        (other.peek() == Some(on)) == present
    });
    chosen.copied().collect()
}
