//! Which groups a topic concerns, by what their members subscribe to: a change of a topic looks at no other group.

use std::collections::BTreeSet;

use carnax_core::name::{GroupName, TopicPattern};
use carnax_core::topic::TopicName;
use imbl::OrdMap;

use super::Subscription;

/// Groups, each with the number of its members that ask.
type Askers = OrdMap<GroupName, u64>;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Interest {
    topics: OrdMap<TopicName, Askers>,
    patterns: OrdMap<TopicPattern, Askers>,
}

impl Interest {
    /// A member of a group asks for topics.
    pub(crate) fn add(&mut self, group: &GroupName, subscription: &Subscription) {
        for topic in &subscription.topics {
            add(&mut self.topics, topic, group);
        }
        for pattern in &subscription.patterns {
            add(&mut self.patterns, pattern, group);
        }
    }

    /// A member of a group asks no more.
    pub(crate) fn remove(&mut self, group: &GroupName, subscription: &Subscription) {
        for topic in &subscription.topics {
            remove(&mut self.topics, topic, group);
        }
        for pattern in &subscription.patterns {
            remove(&mut self.patterns, pattern, group);
        }
    }

    /// The groups that a topic concerns. Tries each different pattern once.
    pub(crate) fn groups_of(&self, topic: &TopicName) -> BTreeSet<GroupName> {
        let by_name = self.topics.get(topic).into_iter();
        let matching = self.patterns.iter().filter(|(pattern, _)| pattern.matches(topic.as_str()));
        let askers = by_name.chain(matching.map(|(_, askers)| askers));
        askers.flat_map(|askers| askers.keys().cloned()).collect()
    }
}

fn add<K: Ord + Clone>(asked: &mut OrdMap<K, Askers>, key: &K, group: &GroupName) {
    let mut askers = asked.get(key).cloned().unwrap_or_default();
    let count = askers.get(group).copied().unwrap_or(0);
    askers.insert(group.clone(), count.saturating_add(1));
    asked.insert(key.clone(), askers);
}

fn remove<K: Ord + Clone>(asked: &mut OrdMap<K, Askers>, key: &K, group: &GroupName) {
    let Some(askers) = asked.get_mut(key) else { return };
    match askers.get(group).copied() {
        Some(count) if count > 1 => {
            askers.insert(group.clone(), count - 1);
        }
        _ => {
            askers.remove(group);
        }
    }
    if askers.is_empty() {
        asked.remove(key);
    }
}
