//! Members: joining, confirming, leaving, expiring.

use std::collections::BTreeSet;
use std::sync::Arc;

use carnax_core::error_code::ErrorCode;
use carnax_core::id::TopicPartition;
use carnax_core::limits;
use carnax_core::metadata::{
    AssignedTopic, Assignor, Heartbeat, JoinGroup, LeaveGroup, LeftGroup, MemberAssignment,
};
use carnax_core::name::{GroupName, MemberId, TopicPattern};
use carnax_core::problem::Problem;
use carnax_core::topic::TopicName;

use super::{Group, Groups, at_most};
use crate::segment::Moment;
use crate::topic::Topics;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// From its group's at joining; the same as long as it is a member.
    pub(crate) epoch: u32,
    /// Goes up with each change of `kept`.
    pub(crate) assignment_epoch: u64,
    pub(crate) client: Arc<str>,
    pub(crate) subscription: Arc<Subscription>,
    pub(crate) session_timeout_millis: u64,
    /// The number of its last plain offset commit.
    pub(crate) last_number: Option<u64>,
    /// What it may have and should have: what it is told. Ascending, as the next two.
    pub(crate) kept: Vec<TopicPartition>,
    /// What it may still have until it confirms.
    pub(crate) releasing: Vec<TopicPartition>,
    /// What it should have and others may still have.
    pub(crate) promised: Vec<TopicPartition>,
}

/// What a member asks for; both lists ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Subscription {
    pub(crate) topics: Vec<TopicName>,
    pub(crate) patterns: Vec<TopicPattern>,
}

impl Subscription {
    /// Sorts what was asked for and takes out what was asked for twice.
    ///
    /// # Errors
    /// `invalid_value` if nothing is asked for, or too much.
    pub(crate) fn new(topics: &[TopicName], patterns: &[TopicPattern]) -> Result<Self, Problem> {
        let max = limits::SUBSCRIPTION_TOPICS_MAX;
        let wanted = topics.len().saturating_add(patterns.len());
        if !(1..=max).contains(&wanted) {
            let detail = format_args!("a member asks for 1 to {max} topics and patterns, not {wanted}");
            return Err(invalid(detail, max as u64));
        }
        let topics: BTreeSet<_> = topics.iter().cloned().collect();
        let patterns: BTreeSet<_> = patterns.iter().cloned().collect();
        Ok(Self { topics: topics.into_iter().collect(), patterns: patterns.into_iter().collect() })
    }
}

impl Member {
    /// Whether it has to let go of something or waits for others to do so.
    pub(crate) fn is_moving(&self) -> bool {
        !self.releasing.is_empty() || !self.promised.is_empty()
    }

    /// Whether it may have a partition.
    pub(crate) fn owns(&self, on: TopicPartition) -> bool {
        self.kept.binary_search(&on).is_ok() || self.releasing.binary_search(&on).is_ok()
    }

    /// What it has to do now.
    pub(crate) fn assignment(&self, topics: &Topics) -> MemberAssignment {
        let interval = u64::try_from(limits::HEARTBEAT_INTERVAL_MAX.as_millis()).unwrap_or(u64::MAX);
        MemberAssignment {
            epoch: self.epoch,
            assignment_epoch: self.assignment_epoch,
            partitions: by_topic(topics, &self.kept),
            heartbeat_interval_millis: interval.min(self.session_timeout_millis / 3),
            session_timeout_millis: self.session_timeout_millis,
        }
    }
}

impl Group {
    /// The member that a caller means.
    ///
    /// # Errors
    /// `unknown_member`, `fenced`.
    pub(crate) fn member(&self, id: &MemberId, epoch: u32) -> Result<&Arc<Member>, Problem> {
        let member = self.members.get(id).ok_or_else(|| unknown(id))?;
        if member.epoch == epoch {
            return Ok(member);
        }
        let detail = format_args!("member {id} has the epoch {} now, not {epoch}", member.epoch);
        Err(Problem::new(ErrorCode::Fenced, detail).with(|facts| {
            facts.expected = Some(member.epoch.to_string());
            facts.actual = Some(epoch.to_string());
        }))
    }

    /// Takes a member out; what it may have had is free.
    fn remove_member(&mut self, id: &MemberId) -> Option<Arc<Member>> {
        let member = self.members.remove(id)?;
        for on in member.kept.iter().chain(&member.releasing) {
            self.owners.remove(on);
        }
        Some(member)
    }
}

impl Groups {
    pub(crate) fn join(
        &mut self,
        topics: &Topics,
        at: Moment,
        request: &JoinGroup,
    ) -> Result<MemberAssignment, Problem> {
        check_join(request)?;
        let subscription = Subscription::new(&request.topics, &request.patterns)?;
        let mut group = self.open(&request.group, at.time)?;
        group.choose_assignor(request)?;
        let before = group.members.get(&request.member).cloned();
        let member = match &before {
            Some(known) => Member {
                client: request.client.as_str().into(),
                session_timeout_millis: request.session_timeout_millis,
                subscription: Arc::new(subscription),
                ..(**known).clone()
            },
            None => {
                self.check_room_for_member(&group)?;
                group.epoch = group.epoch.checked_add(1).ok_or_else(|| {
                    Problem::new(ErrorCode::Conflict, "the group has used up its epochs: delete it")
                })?;
                Member::new(group.epoch, request, subscription)
            }
        };
        let same = before.as_ref().is_some_and(|before| before.subscription == member.subscription);
        let subscription = Arc::clone(&member.subscription);
        let assignor = self.by_name.get(&request.group).map(|before| before.assignor);
        let partitions = if same { 0 } else { group.partitions_asked(topics) };
        group.members.insert(request.member.clone(), Arc::new(member));
        if !same {
            group.check_subscriptions(topics, partitions)?;
        }
        if !same || assignor != Some(group.assignor) {
            group.rebalance(topics);
            group.last_active = at.time;
        }
        if !same {
            if let Some(before) = before {
                self.interest.remove(&request.group, &before.subscription);
            }
            self.interest.add(&request.group, &subscription);
        }
        let assignment = group.members.get(&request.member).map(|member| member.assignment(topics));
        self.put(&request.group, group);
        assignment.ok_or_else(|| unknown(&request.member))
    }

    fn check_room_for_member(&self, group: &Group) -> Result<(), Problem> {
        let wanted = (group.members.len() as u64).saturating_add(1);
        at_most("members in the group", wanted, limits::GROUP_MEMBERS_MAX as u64)?;
        at_most("members", self.member_count.saturating_add(1), limits::MEMBERS_MAX as u64)
    }

    /// A member has reached its assignment: what it let go of is free.
    pub(crate) fn confirm(
        &mut self,
        topics: &Topics,
        heartbeat: &Heartbeat,
    ) -> Result<MemberAssignment, Problem> {
        let group = self.get(&heartbeat.group)?;
        let member = group.member(&heartbeat.member, heartbeat.epoch)?;
        if !must_confirm(member, heartbeat) {
            return Ok(member.assignment(topics));
        }
        let (mut member, mut group) = ((**member).clone(), group.clone());
        let released = std::mem::take(&mut member.releasing);
        for on in &released {
            group.owners.remove(on);
        }
        group.members.insert(heartbeat.member.clone(), Arc::new(member));
        group.grant();
        let assignment = group.members.get(&heartbeat.member).map(|member| member.assignment(topics));
        self.put(&heartbeat.group, group);
        assignment.ok_or_else(|| unknown(&heartbeat.member))
    }

    pub(crate) fn leave(
        &mut self,
        topics: &Topics,
        at: Moment,
        request: &LeaveGroup,
    ) -> Result<LeftGroup, Problem> {
        let LeaveGroup { group, member, epoch } = request;
        let known = self.by_name.get(group).filter(|group| group.members.contains_key(member));
        let Some(known) = known else { return Ok(LeftGroup { was_member: false }) };
        if let Some(epoch) = epoch {
            known.member(member, *epoch)?;
        }
        self.take_out(topics, at, group, std::slice::from_ref(member));
        Ok(LeftGroup { was_member: true })
    }

    /// Takes out members that have expired; those that joined again since stay. Says how many.
    pub(crate) fn expire_members(
        &mut self,
        topics: &Topics,
        at: Moment,
        expired: &[(GroupName, MemberId, u32)],
    ) -> u64 {
        let mut by_group = std::collections::BTreeMap::<&GroupName, BTreeSet<MemberId>>::new();
        for (group, member, epoch) in expired {
            let known = self.by_name.get(group).and_then(|group| group.members.get(member));
            if known.is_some_and(|known| known.epoch == *epoch) {
                by_group.entry(group).or_default().insert(member.clone());
            }
        }
        let mut count = 0;
        for (group, members) in by_group {
            let members: Vec<MemberId> = members.into_iter().collect();
            count += members.len() as u64;
            self.take_out(topics, at, group, &members);
        }
        count
    }

    fn take_out(&mut self, topics: &Topics, at: Moment, name: &GroupName, members: &[MemberId]) {
        let Some(group) = self.by_name.get(name) else { return };
        let mut group = (**group).clone();
        for member in members {
            if let Some(gone) = group.remove_member(member) {
                self.interest.remove(name, &gone.subscription);
            }
        }
        group.last_active = at.time;
        group.rebalance(topics);
        self.put(name, group);
    }
}

impl Member {
    fn new(epoch: u32, request: &JoinGroup, subscription: Subscription) -> Self {
        Self {
            epoch,
            assignment_epoch: 0,
            client: request.client.as_str().into(),
            subscription: Arc::new(subscription),
            session_timeout_millis: request.session_timeout_millis,
            last_number: None,
            kept: Vec::new(),
            releasing: Vec::new(),
            promised: Vec::new(),
        }
    }
}

impl Group {
    /// Members agree on the assignor; the only one may choose another.
    fn choose_assignor(&mut self, request: &JoinGroup) -> Result<(), Problem> {
        let others = self.members.keys().any(|member| *member != request.member);
        match request.assignor {
            Some(wanted) if others && wanted != self.assignor => {
                let (word, wanted) = (word(self.assignor), word(wanted));
                let detail = format_args!("the members of the group use the assignor {word}, not {wanted}");
                Err(Problem::new(ErrorCode::Conflict, detail).with(|facts| {
                    facts.expected = Some(wanted.to_owned());
                    facts.actual = Some(word.to_owned());
                }))
            }
            Some(wanted) => {
                self.assignor = wanted;
                Ok(())
            }
            None => {
                if self.members.is_empty() {
                    self.assignor = Assignor::default();
                }
                Ok(())
            }
        }
    }

    /// Whether a group may ask for so much; `before` is how many partitions it asked for before the change.
    fn check_subscriptions(&self, topics: &Topics, before: u64) -> Result<(), Problem> {
        let subscriptions = self.members.values().map(|member| &member.subscription);
        let patterns: BTreeSet<_> = subscriptions.flat_map(|asked| &asked.patterns).collect();
        let patterns_max = limits::GROUP_PATTERNS_MAX as u64;
        at_most("different patterns in the group", patterns.len() as u64, patterns_max)?;
        // A group that topics have made too large may still get members.
        let partitions = self.partitions_asked(topics);
        let partitions_max = (limits::GROUP_PARTITIONS_MAX as u64).max(before);
        at_most("partitions that the group asks for", partitions, partitions_max)
    }
}

/// Whether a heartbeat says that a member let go of something.
pub(crate) fn must_confirm(member: &Member, heartbeat: &Heartbeat) -> bool {
    member.epoch == heartbeat.epoch
        && member.assignment_epoch == heartbeat.assignment_epoch
        && !member.releasing.is_empty()
}

/// Partitions as clients are told of them: by topic, in order of its name.
pub(crate) fn by_topic(topics: &Topics, partitions: &[TopicPartition]) -> Vec<AssignedTopic> {
    let mut assigned = Vec::new();
    for of_topic in partitions.chunk_by(|a, b| a.topic == b.topic) {
        let topic_id = of_topic[0].topic;
        let Some(topic) = topics.get(topic_id) else { continue };
        let partitions = of_topic.iter().map(|on| on.partition).collect();
        assigned.push(AssignedTopic { topic: topic.name.clone(), topic_id, partitions });
    }
    assigned.sort_by(|a, b| a.topic.cmp(&b.topic));
    assigned
}

fn check_join(request: &JoinGroup) -> Result<(), Problem> {
    let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let (min, max) = (millis(limits::MEMBER_SESSION_MIN), millis(limits::MEMBER_SESSION_MAX));
    let timeout = request.session_timeout_millis;
    if !(min..=max).contains(&timeout) {
        let detail = format_args!("a session lasts {min} to {max} ms without a heartbeat, not {timeout}");
        return Err(invalid(detail, if timeout < min { min } else { max }));
    }
    if request.client.len() > limits::ADDRESS_BYTES_MAX {
        return Err(invalid("the description of the client is too long", limits::ADDRESS_BYTES_MAX as u64));
    }
    Ok(())
}

pub(super) fn unknown(member: &MemberId) -> Problem {
    let detail = format_args!("{member} is no member of the group (any more): join again");
    Problem::new(ErrorCode::UnknownMember, detail)
}

fn invalid(detail: impl std::fmt::Display, limit: u64) -> Problem {
    Problem::new(ErrorCode::InvalidValue, detail).with(|facts| facts.limit = Some(limit))
}

fn word(assignor: Assignor) -> &'static str {
    match assignor {
        Assignor::Sticky => "sticky",
        Assignor::Range => "range",
    }
}
