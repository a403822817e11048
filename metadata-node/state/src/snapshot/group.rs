//! The frames of groups: written after the topics, which they refer to. Indexes, owners and counters are not written: they
//! follow from what is.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use carnax_core::id::{PartitionIndex, TopicId, TopicPartition};
use carnax_core::limits;
use carnax_core::metadata::Assignor;
use carnax_core::name::{GroupName, MemberId, TopicPattern};
use carnax_core::offset::Offset;
use carnax_core::time::Timestamp;
use carnax_core::topic::TopicName;
use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::frame::Frame;
use super::write::Frames;
use crate::State;
use crate::group::{Committed, Group, Groups, Member, Offsets, Subscription};
use crate::topic::Topics;

#[derive(Serialize, Deserialize)]
pub(super) struct GroupsHead {
    pub(super) retired_epoch: u32,
}

#[derive(Serialize, Deserialize)]
pub(super) struct GroupHead {
    name: GroupName,
    assignor: Assignor,
    epoch: u32,
    last_active: Timestamp,
}

#[derive(Serialize, Deserialize)]
pub(super) struct MemberRow {
    id: MemberId,
    epoch: u32,
    assignment_epoch: u64,
    client: String,
    topics: Vec<TopicName>,
    patterns: Vec<TopicPattern>,
    session_timeout_millis: u64,
    last_number: Option<u64>,
    kept: Vec<TopicRow>,
    releasing: Vec<TopicRow>,
    promised: Vec<TopicRow>,
}

/// A topic with some of its partitions, ascending.
type TopicRow = (TopicId, Vec<u32>);

/// Topic, partition, offset, log time of the commit, metadata.
pub(super) type OffsetRow = (TopicId, u32, u64, i64, Option<String>);

/// Writes all groups; nothing if there are none and never was one with a member.
pub(super) fn write(groups: &Groups, frames: &mut Frames<'_, impl Write>) -> io::Result<()> {
    if groups.retired_epoch > 0 || !groups.by_name.is_empty() {
        frames.put(&Frame::Groups(GroupsHead { retired_epoch: groups.retired_epoch }))?;
    }
    for (name, group) in &groups.by_name {
        let Group { assignor, epoch, last_active, .. } = **group;
        frames.put(&Frame::Group(GroupHead { name: name.clone(), assignor, epoch, last_active }))?;
        // One a frame: it may have very many partitions.
        for (id, member) in &group.members {
            frames.put(&Frame::Member(Box::new(member_to_row(id, member))))?;
        }
        let rows = group.offsets.after(None).map(|(on, committed)| {
            let Committed { offset, at, metadata } = committed;
            let metadata = metadata.as_deref().map(str::to_owned);
            (on.topic, on.partition.0, offset.0, at.millis(), metadata)
        });
        frames.put_rows(rows, Frame::Offsets)?;
    }
    Ok(())
}

fn member_to_row(id: &MemberId, member: &Member) -> MemberRow {
    MemberRow {
        id: id.clone(),
        epoch: member.epoch,
        assignment_epoch: member.assignment_epoch,
        client: member.client.to_string(),
        topics: member.subscription.topics.clone(),
        patterns: member.subscription.patterns.clone(),
        session_timeout_millis: member.session_timeout_millis,
        last_number: member.last_number,
        kept: to_rows(&member.kept),
        releasing: to_rows(&member.releasing),
        promised: to_rows(&member.promised),
    }
}

fn to_rows(partitions: &[TopicPartition]) -> Vec<TopicRow> {
    let by_topic = partitions.chunk_by(|a, b| a.topic == b.topic);
    by_topic.map(|some| (some[0].topic, some.iter().map(|on| on.partition.0).collect())).collect()
}

type Checked = Result<(), &'static str>;

/// Groups of which not all frames were read yet.
#[derive(Default)]
pub(super) struct Reading {
    begun: bool,
    group: Option<(GroupName, Group)>,
    /// Who should have what in the group: each partition once.
    targets: BTreeMap<TopicPartition, MemberId>,
}

impl Reading {
    /// Whether frames of groups have come: no topic comes after them.
    pub(super) fn begun(&self) -> bool {
        self.begun
    }

    pub(super) fn begin(&mut self, state: &mut State, head: &GroupsHead) -> Checked {
        require(!self.begun, "a second head of groups")?;
        self.begun = true;
        state.groups.retired_epoch = head.retired_epoch;
        Ok(())
    }

    pub(super) fn begin_group(&mut self, state: &mut State, head: GroupHead) -> Checked {
        require(self.begun, "a group before the head of groups")?;
        self.end(state)?;
        let GroupHead { name, assignor, epoch, last_active } = head;
        let groups = &state.groups;
        require(groups.by_name.len() < limits::GROUPS_MAX, "too many groups")?;
        require(groups.by_name.get_max().is_none_or(|(last, _)| *last < name), "groups out of order")?;
        require(last_active <= state.log_time, "a group was active in the future")?;
        let (members, owners, offsets) = (OrdMap::new(), OrdMap::new(), Offsets::default());
        self.group = Some((name, Group { assignor, epoch, last_active, members, owners, offsets }));
        self.targets.clear();
        Ok(())
    }

    pub(super) fn add_member(&mut self, state: &State, row: MemberRow) -> Checked {
        let (_, group) = self.group.as_mut().ok_or("a member before a group")?;
        let subscription = Subscription::new(&row.topics, &row.patterns)
            .map_err(|_| "a member that asks for nothing or too much")?;
        require(group.members.len() < limits::GROUP_MEMBERS_MAX, "too many members in a group")?;
        require(
            state.groups.member_count.saturating_add(group.members.len() as u64) < limits::MEMBERS_MAX as u64,
            "too many members",
        )?;
        require(group.members.get_max().is_none_or(|(last, _)| *last < row.id), "members out of order")?;
        require(row.epoch <= group.epoch, "a member of an epoch that was not given out")?;
        let kept = from_rows(&state.topics, row.kept)?;
        let releasing = from_rows(&state.topics, row.releasing)?;
        let promised = from_rows(&state.topics, row.promised)?;
        for on in kept.iter().chain(&releasing) {
            require(group.owners.insert(*on, row.id.clone()).is_none(), "a partition with two owners")?;
        }
        for on in kept.iter().chain(&promised) {
            require(self.targets.insert(*on, row.id.clone()).is_none(), "a partition that two should have")?;
        }
        let member = Member {
            epoch: row.epoch,
            assignment_epoch: row.assignment_epoch,
            client: row.client.into(),
            subscription: Arc::new(subscription),
            session_timeout_millis: row.session_timeout_millis,
            last_number: row.last_number,
            kept,
            releasing,
            promised,
        };
        group.members.insert(row.id, Arc::new(member));
        Ok(())
    }

    pub(super) fn add_offsets(&mut self, state: &State, rows: Vec<OffsetRow>) -> Checked {
        let (_, group) = self.group.as_mut().ok_or("offsets before a group")?;
        for (topic, partition, offset, at, metadata) in rows {
            let on = TopicPartition { topic, partition: PartitionIndex(partition) };
            let (offset, at) = (Offset(offset), Timestamp::from_millis(at));
            let found = state.topics.get(topic).and_then(|topic| topic.partition(on.partition).ok());
            require(found.is_some_and(|found| offset <= found.high_watermark), "an offset of nothing")?;
            require(group.offsets.get(on).is_none(), "a committed offset twice")?;
            require(
                metadata.as_ref().is_none_or(|text| text.len() <= limits::OFFSET_METADATA_BYTES_MAX),
                "too much metadata",
            )?;
            group.offsets.set(on, Committed { offset, at, metadata: metadata.map(Into::into) });
        }
        let count = state.groups.offset_count.saturating_add(group.offsets.len());
        require(count <= limits::GROUP_OFFSETS_MAX, "too many committed offsets")
    }

    /// Puts the group that was read last into the state.
    pub(super) fn end(&mut self, state: &mut State) -> Checked {
        let Some((name, group)) = self.group.take() else { return Ok(()) };
        let awaited = group.members.values().flat_map(|member| &member.promised);
        let held = awaited.into_iter().all(|on| group.owners.contains_key(on));
        require(held, "a partition that is awaited and that nobody has")?;
        state.groups.restore(&name, group);
        Ok(())
    }
}

fn from_rows(topics: &Topics, rows: Vec<TopicRow>) -> Result<Vec<TopicPartition>, &'static str> {
    let mut partitions: Vec<TopicPartition> = Vec::new();
    for (topic, numbers) in rows {
        let count = topics.get(topic).ok_or("a member has partitions of no topic")?.partition_count();
        for number in numbers {
            let on = TopicPartition { topic, partition: PartitionIndex(number) };
            require(number < count, "a member has partitions that do not exist")?;
            require(partitions.last().is_none_or(|last| *last < on), "partitions of a member out of order")?;
            partitions.push(on);
        }
    }
    Ok(partitions)
}

fn require(holds: bool, what: &'static str) -> Checked {
    if holds { Ok(()) } else { Err(what) }
}
