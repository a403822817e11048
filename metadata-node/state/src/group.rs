//! Groups: who reads which partitions, and how far they are.
//!
//! A partition is *owned* by at most one member, from the command that gives it until its member confirms an assignment
//! without it, leaves or expires. What members *should* have is decided at once when something changes; what they *may*
//! have follows as others let go:
//!
//! ```text
//!                         should have (target)
//!                   ┌───────────────┬──────────┐
//!        ┌──────────┼───────────────┼──────────┘
//!        │releasing │      kept     │ promised      kept is what the member is told
//!        └──────────┴───────────────┘
//!             may have (owned)
//! ```
//!
//! Sessions of members are no part of the state: the leader watches them and proposes who has expired.
//!
//! Invariants (see [`invariant`](crate::invariant)): no partition has two owners, none is promised that has none, every
//! partition that is asked for is somebody's target, all partitions exist.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use carnax_core::error_code::ErrorCode;
use carnax_core::id::{PartitionIndex, TopicId, TopicPartition};
use carnax_core::limits;
use carnax_core::metadata::{Assignor, DeletedGroup, GroupPhase};
use carnax_core::name::{GroupName, MemberId};
use carnax_core::problem::Problem;
use carnax_core::time::Timestamp;
use carnax_core::topic::TopicName;
use imbl::{OrdMap, OrdSet};

use crate::topic::Topics;

mod assign;
mod interest;
mod members;
mod offsets;
mod rebalance;

pub(crate) use interest::Interest;
pub(crate) use members::{Member, Subscription, by_topic, must_confirm};
pub(crate) use offsets::{Committed, Offsets};

/// When to come again after a limit was reached.
const RETRY_AFTER_SECONDS: u64 = 10;

#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) assignor: Assignor,
    /// The epoch of the member that joined last.
    pub(crate) epoch: u32,
    /// Log time of the last change of members or offsets.
    pub(crate) last_active: Timestamp,
    pub(crate) members: OrdMap<MemberId, Arc<Member>>,
    /// Whose each owned partition is: the members' `kept` and `releasing`, the other way round.
    pub(crate) owners: OrdMap<TopicPartition, MemberId>,
    pub(crate) offsets: Offsets,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Groups {
    pub(crate) by_name: OrdMap<GroupName, Arc<Group>>,
    /// Which groups a change of a topic concerns.
    pub(crate) interest: Interest,
    /// Topics with the groups that have offsets of them.
    pub(crate) with_offsets: OrdSet<(TopicId, GroupName)>,
    /// Groups in which somebody has to let go of something, maybe of a topic that nobody asks for any more.
    pub(crate) moving: OrdSet<GroupName>,
    /// When to look at each group without members: one entry a group, at or before its `last_active`. Moved only when it
    /// comes up, so that a commit does not pay for it.
    pub(crate) watch: OrdMap<GroupName, Timestamp>,
    pub(crate) watch_order: OrdSet<(Timestamp, GroupName)>,
    /// The highest epoch of the groups that are gone: a group goes on from there, so that a member of one that was deleted
    /// has no epoch of its successor.
    pub(crate) retired_epoch: u32,
    /// Over all groups.
    pub(crate) member_count: u64,
    /// Over all groups.
    pub(crate) offset_count: u64,
}

impl Group {
    fn new(epoch: u32, now: Timestamp) -> Self {
        Self {
            assignor: Assignor::default(),
            epoch,
            last_active: now,
            members: OrdMap::new(),
            owners: OrdMap::new(),
            offsets: Offsets::default(),
        }
    }

    pub(crate) fn phase(&self) -> GroupPhase {
        if self.members.is_empty() {
            GroupPhase::Empty
        } else if self.members.values().any(|member| member.is_moving()) {
            GroupPhase::Rebalancing
        } else {
            GroupPhase::Stable
        }
    }
}

impl Groups {
    pub(crate) fn get(&self, name: &GroupName) -> Result<&Group, Problem> {
        self.by_name
            .get(name)
            .map(|group| &**group)
            .ok_or_else(|| Problem::new(ErrorCode::GroupNotFound, format_args!("there is no group {name}")))
    }

    /// A copy of a group to change and to put back, which is cheap; a new one if there is none.
    fn open(&self, name: &GroupName, now: Timestamp) -> Result<Group, Problem> {
        if let Some(group) = self.by_name.get(name) {
            return Ok((**group).clone());
        }
        self.check_room_for_group()?;
        Ok(Group::new(self.retired_epoch, now))
    }

    /// Whether one more group may be.
    fn check_room_for_group(&self) -> Result<(), Problem> {
        let wanted = (self.by_name.len() as u64).saturating_add(1);
        at_most("groups", wanted, limits::GROUPS_MAX as u64)
    }

    /// Puts a group where it belongs and keeps counters and indexes right; `before` is what was there.
    fn put(&mut self, name: &GroupName, group: Group) {
        let before = self.by_name.get(name).cloned();
        let (members, offsets) = before.map_or((0, 0), |group| (group.members.len(), group.offsets.len()));
        self.member_count = self.member_count.saturating_sub(members as u64);
        self.member_count = self.member_count.saturating_add(group.members.len() as u64);
        self.offset_count = self.offset_count.saturating_sub(offsets);
        self.offset_count = self.offset_count.saturating_add(group.offsets.len());
        match self.watch.get(name) {
            Some(at) if !group.members.is_empty() => {
                self.watch_order.remove(&(*at, name.clone()));
                self.watch.remove(name);
            }
            None if group.members.is_empty() => self.look_at(name, group.last_active),
            _ => {}
        }
        if group.phase() == GroupPhase::Rebalancing {
            self.moving.insert(name.clone());
        } else {
            self.moving.remove(name);
        }
        self.by_name.insert(name.clone(), Arc::new(group));
    }

    fn look_at(&mut self, name: &GroupName, at: Timestamp) {
        self.watch.insert(name.clone(), at);
        self.watch_order.insert((at, name.clone()));
    }

    /// Puts a group that was read from a snapshot where it belongs.
    pub(crate) fn restore(&mut self, name: &GroupName, group: Group) {
        for member in group.members.values() {
            self.interest.add(name, &member.subscription);
        }
        for topic in group.offsets.topics() {
            self.with_offsets.insert((topic, name.clone()));
        }
        self.put(name, group);
    }

    /// Deletes a group without members.
    pub(crate) fn delete(&mut self, name: &GroupName) -> Result<DeletedGroup, Problem> {
        let group = self.get(name)?;
        if !group.members.is_empty() {
            return Err(not_empty(name, group));
        }
        let offsets = group.offsets.len();
        self.remove(name);
        Ok(DeletedGroup { offsets })
    }

    /// Takes a group without members away.
    fn remove(&mut self, name: &GroupName) {
        let Some(group) = self.by_name.remove(name) else { return };
        self.retired_epoch = self.retired_epoch.max(group.epoch);
        self.offset_count = self.offset_count.saturating_sub(group.offsets.len());
        for topic in group.offsets.topics() {
            self.with_offsets.remove(&(topic, name.clone()));
        }
        if let Some(at) = self.watch.remove(name) {
            self.watch_order.remove(&(at, name.clone()));
        }
    }

    /// Drops the groups that have been without members and commits for too long.
    pub(crate) fn expire(&mut self, now: Timestamp, retention: Duration) {
        while let Some((at, name)) = self.watch_order.get_min().cloned() {
            if now.since(at) < retention {
                return;
            }
            match self.by_name.get(&name).map(|group| group.last_active) {
                Some(active) if now.since(active) < retention => {
                    self.watch_order.remove(&(at, name.clone()));
                    self.look_at(&name, active);
                }
                _ => self.remove(&name),
            }
        }
    }

    /// Whether [`expire`](Self::expire) would have something to look at.
    pub(crate) fn due(&self, now: Timestamp, retention: Duration) -> bool {
        self.watch_order.get_min().is_some_and(|(at, _)| now.since(*at) >= retention)
    }

    /// A topic is new or has more partitions: those who ask for it get them.
    pub(crate) fn topic_grew(&mut self, topics: &Topics, name: &TopicName) {
        self.rebalance_all(topics, &self.interest.groups_of(name));
    }

    /// A topic is gone, and with it all that was said of its partitions.
    pub(crate) fn topic_deleted(&mut self, topics: &Topics, id: TopicId, name: &TopicName) {
        for group in self.groups_with_offsets(id) {
            self.with_offsets.remove(&(id, group.clone()));
            if let Some(found) = self.by_name.get(&group) {
                let mut changed = (**found).clone();
                changed.offsets.remove_topic(id);
                self.put(&group, changed);
            }
        }
        let mut concerned = self.interest.groups_of(name);
        let letting_go = self.moving.iter().filter(|group| self.has_owners(group, id));
        concerned.extend(letting_go.cloned());
        self.rebalance_all(topics, &concerned);
    }

    fn has_owners(&self, group: &GroupName, topic: TopicId) -> bool {
        let first = TopicPartition { topic, partition: PartitionIndex(0) };
        let group = self.by_name.get(group);
        let owned = group.and_then(|group| group.owners.range(first..).next());
        owned.is_some_and(|(on, _)| on.topic == topic)
    }

    fn groups_with_offsets(&self, id: TopicId) -> Vec<GroupName> {
        let first = "-".parse().expect("the lowest character of group names makes one");
        let from = self.with_offsets.range((id, first)..);
        from.take_while(|(topic, _)| *topic == id).map(|(_, group)| group.clone()).collect()
    }

    fn rebalance_all(&mut self, topics: &Topics, groups: &BTreeSet<GroupName>) {
        for name in groups {
            if let Some(found) = self.by_name.get(name) {
                let mut group = (**found).clone();
                group.rebalance(topics);
                self.put(name, group);
            }
        }
    }
}

fn not_empty(name: &GroupName, group: &Group) -> Problem {
    let count = group.members.len();
    let detail = format_args!("group {name} has members: {count}");
    Problem::new(ErrorCode::GroupNotEmpty, detail).with(|facts| {
        facts.expected = Some("0".to_owned());
        facts.actual = Some(count.to_string());
    })
}

/// Refuses what would make more of something than there may be.
fn at_most(what: &str, wanted: u64, max: u64) -> Result<(), Problem> {
    if wanted <= max {
        return Ok(());
    }
    let detail = format_args!("that would be {wanted} {what}, at most {max} are allowed");
    Err(Problem::new(ErrorCode::TooManyRequests, detail).with(|facts| {
        facts.limit = Some(max);
        facts.retry_after_seconds = Some(RETRY_AFTER_SECONDS);
    }))
}
