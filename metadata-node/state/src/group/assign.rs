//! Who of a group's members gets which partition: pure functions from subscriptions and what members have to what they
//! should have.
//!
//! What both assignors promise: every partition that somebody asked for is given to exactly one member that asked for it,
//! and the same input gives the same result. [`sticky`] keeps the numbers of partitions balanced and moves as little as that
//! allows; [`range`] gives neighbours to neighbours.
//!
//! Topics that the same subscriptions name are of one *kind*: to the balance their partitions are alike. There are few kinds
//! however many topics there are, and the work grows with kinds, members and partitions, never with their product.

use std::collections::BTreeMap;

use carnax_core::id::{PartitionIndex, TopicId, TopicPartition};
use carnax_core::metadata::Assignor;

mod range;
mod sticky;
#[cfg(test)]
mod tests;

/// What is to be shared out.
#[derive(Debug, Clone, Default)]
pub(super) struct Input {
    /// Topics with their numbers of partitions, ascending by id.
    pub(super) topics: Vec<(TopicId, u32)>,
    /// Different subscriptions: places in `topics`, ascending.
    pub(super) subscriptions: Vec<Vec<usize>>,
    /// Members in order of their ids.
    pub(super) members: Vec<Candidate>,
}

/// A member that asks for partitions.
#[derive(Debug, Clone, Default)]
pub(super) struct Candidate {
    /// Which of the subscriptions it has.
    pub(super) subscription: usize,
    /// What it should have had until now, what it may lose first last. May name what is gone, or not asked for any more.
    pub(super) current: Vec<TopicPartition>,
}

/// What each member should have, in the order of the members, each ascending.
pub(super) fn assign(assignor: Assignor, input: &Input) -> Vec<Vec<TopicPartition>> {
    let kinds = kinds(input);
    let mut assigned = match assignor {
        Assignor::Sticky => sticky::assign(input, kinds),
        Assignor::Range => range::assign(input, &kinds),
    };
    for partitions in &mut assigned {
        partitions.sort_unstable();
    }
    assigned
}

/// Topics that the same subscriptions name, at least one.
struct Kind {
    /// Those subscriptions.
    subscriptions: Vec<usize>,
    /// Places of the topics, ascending.
    topics: Vec<usize>,
    /// Members with those subscriptions, ascending.
    members: Vec<usize>,
}

fn kinds(input: &Input) -> Vec<Kind> {
    let mut with_subscription = vec![Vec::new(); input.subscriptions.len()];
    for (member, candidate) in input.members.iter().enumerate() {
        with_subscription[candidate.subscription].push(member);
    }
    let mut named_by = vec![Vec::new(); input.topics.len()];
    for (subscription, topics) in input.subscriptions.iter().enumerate() {
        if !with_subscription[subscription].is_empty() {
            topics.iter().for_each(|topic| named_by[*topic].push(subscription));
        }
    }
    let mut topics_by_names: BTreeMap<Vec<usize>, Vec<usize>> = BTreeMap::new();
    for (topic, subscriptions) in named_by.into_iter().enumerate() {
        if !subscriptions.is_empty() {
            topics_by_names.entry(subscriptions).or_default().push(topic);
        }
    }
    let kind = |(subscriptions, topics): (Vec<usize>, Vec<usize>)| {
        let with = subscriptions.iter().flat_map(|subscription| &with_subscription[*subscription]);
        let mut members: Vec<usize> = with.copied().collect();
        members.sort_unstable();
        Kind { subscriptions, topics, members }
    };
    topics_by_names.into_iter().map(kind).collect()
}

fn partition_of(topic: TopicId, partition: u32) -> TopicPartition {
    TopicPartition { topic, partition: PartitionIndex(partition) }
}
