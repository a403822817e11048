//! A state under a new incarnation: what a restore from the bucket changes before anybody may use it.
//!
//! The state came from a snapshot and an archive, behind which a tail of the log may be lost. Whatever that tail may have given out
//! is not given out again:
//!
//! | what | how |
//! |------|-----|
//! | log indexes, and with them ids of nodes, sessions, leases, versions | the next incarnation's begin at the next multiple of 2³² |
//! | offsets | skipped by [gaps](GapSegment): segments whose batches take offsets and have no records |
//! | member epochs of groups | raised by 2¹⁶ |
//! | partitions of known topics | made, if a segment of the tail has records for them |
//!
//! What belongs to processes of the former incarnation goes: nodes, sessions, members of groups, leases of jobs. Topics, slices,
//! producers, keys, committed offsets, wake-ups, settings and log time stay; segments keep the incarnation under whose key they lie.

use std::collections::{BTreeMap, BTreeSet};

use carnax_core::error_code::ErrorCode;
use carnax_core::id::{ClusterId, Incarnation, LogIndex, NodeId, PartitionIndex, SegmentId, TopicPartition};
use carnax_core::metadata::UnitSlice;
use carnax_core::object_key::{PageKey, SegmentKey};
use carnax_core::offset::Offset;
use carnax_core::problem::Problem;
use carnax_core::time::Timestamp;
use carnax_core::topic::TopicName;
use imbl::OrdMap;

use crate::State;
use crate::entry::FeatureLevel;
use crate::group::{Group, Groups};
use crate::node::{Cluster, Node};
use crate::page::Page;
use crate::partition::NewSlice;
use crate::segment::{Moment, Segment};
use crate::session::Sessions;

/// Log indexes that the lost tail may have had: the next incarnation begins behind them.
const INDEXES_SKIPPED: u64 = 1 << 32;
/// Member epochs that the lost tail may have given out in one group.
const EPOCHS_SKIPPED: u32 = 1 << 16;

/// The cluster that a restore makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCluster {
    /// Its id: nodes of the former cluster do not talk to it.
    pub cluster: ClusterId,
    /// Its incarnation, higher than that of the state.
    pub incarnation: Incarnation,
    /// Voters that it waits for before it takes appends, from 1.
    pub voters_wanted: u32,
    /// Where its only node so far listens.
    pub address: String,
    /// The random number beside that node's log.
    pub disk: u128,
}

/// An object under the new incarnation whose batches take offsets without having records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GapSegment {
    /// Its id, with log time as its time.
    pub segment: SegmentId,
    /// Bytes of the object.
    pub size: u64,
    /// What it holds: each partition once.
    pub slices: Vec<UnitSlice>,
}

/// Where a partition stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionEnd {
    /// Which.
    pub on: TopicPartition,
    /// The name of its topic.
    pub topic: TopicName,
    /// The next offset that would be given out.
    pub high_watermark: Offset,
}

/// A manifest page that the state knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownPage {
    /// Its object.
    pub key: PageKey,
    /// Whether records are read through it; if not, it waits for its deletion.
    pub live: bool,
    /// Whether its slices are its own; if not, it came too late and they are those of others.
    pub owns_slices: bool,
    /// The first offset of its first slice, and one past the last one of its last slice.
    pub offsets: (Offset, Offset),
    /// Its slices.
    pub slices: u32,
    /// The smallest and the largest id of its segments.
    pub segments: (SegmentId, SegmentId),
}

/// All partitions, in order.
pub fn partition_ends(state: &State) -> impl Iterator<Item = PartitionEnd> {
    state.topics.by_id.iter().flat_map(|(id, topic)| {
        (0..).zip(&topic.partitions).map(|(index, partition)| PartitionEnd {
            on: TopicPartition { topic: *id, partition: PartitionIndex(index) },
            topic: topic.name.clone(),
            high_watermark: partition.high_watermark,
        })
    })
}

/// The ids of all segments that the state knows: with live slices, without any, or committed so lately that it still remembers.
pub fn known_segments(state: &State) -> BTreeSet<SegmentId> {
    let segments = &state.segments;
    let live = segments.iter().map(|(_, segment)| segment.id);
    let dead = segments.dead().values().map(|segment| segment.id);
    live.chain(dead).chain(segments.recent().iter().copied()).collect()
}

/// The objects that slices of the state refer to. Those that stand in manifest pages alone are not among them.
pub fn live_objects(state: &State) -> BTreeSet<SegmentKey> {
    let segments = &state.segments;
    let key = |(number, segment): (_, &Segment)| segments.key(number, segment.incarnation, segment.id);
    segments.iter().map(key).collect()
}

/// The manifest pages of each partition that has some, those that wait for their deletion included.
pub fn known_pages(state: &State) -> BTreeMap<TopicPartition, Vec<KnownPage>> {
    let mut all: BTreeMap<TopicPartition, Vec<KnownPage>> = BTreeMap::new();
    for (id, topic) in &state.topics.by_id {
        for (index, partition) in (0..).zip(&topic.partitions) {
            let on = TopicPartition { topic: *id, partition: PartitionIndex(index) };
            let pages = partition.pages.all();
            if !pages.is_empty() {
                all.entry(on).or_default().extend(pages.iter().map(|page| known_page(page, on, true, true)));
            }
        }
    }
    for (_, dead) in state.dead_pages.iter() {
        all.entry(dead.on).or_default().push(known_page(&dead.page, dead.on, false, dead.owns_slices));
    }
    all
}

fn known_page(page: &Page, on: TopicPartition, live: bool, owns_slices: bool) -> KnownPage {
    let Page { base, end, slices, segments, .. } = *page;
    KnownPage { key: page.key(on), live, owns_slices, offsets: (base, end), slices, segments }
}

/// A segment whose id is older was not committed behind this state, whatever the lost tail held.
pub fn oldest_uncommitted(state: &State) -> Timestamp {
    state.segments.open_from(state.log_time, state.settings.typed.commit_deadline)
}

/// Makes the state that of a new cluster with one node; gives the id of that node.
///
/// # Errors
/// `invalid_value` for an address or a number of voters that no cluster has, `unavailable` if the state is that of no cluster,
/// `stale_incarnation` if the incarnation is not a new one. The state is as it was before.
pub fn begin(state: &mut State, new: &NewCluster) -> Result<NodeId, Problem> {
    let former = state.cluster()?;
    if new.incarnation <= former.incarnation {
        let detail =
            format_args!("{} does not come behind incarnation {}", new.incarnation, former.incarnation);
        return Err(Problem::new(ErrorCode::StaleIncarnation, detail));
    }
    let (ids, level) = ((new.cluster, new.incarnation), former.level);
    let mut cluster = Cluster::new(ids, level, new.voters_wanted, &new.address, new.disk)?;
    let applied = LogIndex((state.applied.0 / INDEXES_SKIPPED + 1).saturating_mul(INDEXES_SKIPPED));
    let node = NodeId(applied.0.max(former.last_node.0.saturating_add(1)));
    cluster.nodes = OrdMap::unit(node, Node { address: new.address.clone(), disk: new.disk, voter: true });
    cluster.last_node = node;
    state.cluster = Some(cluster);
    state.applied = applied;
    let last_session = state.sessions.last_id();
    state.sessions = Sessions::default();
    state.sessions.restore_last_id(last_session);
    state.groups = without_members(&state.groups, state.log_time);
    state.jobs.cluster_restored(state.log_time);
    Ok(node)
}

/// Makes the partitions of a topic that it must have had, since a segment has records for them; says how many there are now. None
/// for a topic that the state does not know, or that cannot have so many.
pub fn grow_topic(state: &mut State, last: TopicPartition) -> Option<u32> {
    let topic = state.topics.get(last.topic)?;
    let (known, wanted) = (topic.partition_count(), last.partition.0.checked_add(1)?);
    if wanted > known {
        state.topics.grow(last.topic, wanted)?;
        let name = state.topics.get(last.topic)?.name.clone();
        state.groups.topic_grew(&state.topics, &name);
    }
    Some(wanted.max(known))
}

/// Puts a gap at the end of partitions.
///
/// # Errors
/// `invalid_value` if it names a partition that is not there or would pass the last offset. The state is as it was before.
pub fn skip(state: &mut State, gap: &GapSegment) -> Result<(), Problem> {
    let incarnation = state.cluster()?.incarnation;
    let invalid = |what: String| Problem::new(ErrorCode::InvalidValue, what);
    let narrow = |bytes: u64| u32::try_from(bytes).map_err(|_| invalid(format!("a gap of {bytes} bytes")));
    let number = state.segments.next_number();
    let mut new = Vec::with_capacity(gap.slices.len());
    for slice in &gap.slices {
        let on = TopicPartition { topic: slice.topic, partition: slice.partition };
        let known = state.topics.get(on.topic).and_then(|topic| topic.partition(on.partition).ok());
        let known = known.ok_or_else(|| invalid(format!("there is no partition {on}")))?;
        let end = known.high_watermark.0.checked_add(slice.records.into());
        end.filter(|end| *end <= Offset::MAX.0)
            .ok_or_else(|| invalid(format!("{on} has no more offsets")))?;
        let (start, length) = (narrow(slice.bytes.start)?, narrow(slice.bytes.length)?);
        let (records, max_timestamp) = (slice.records, slice.max_timestamp);
        new.push((on, NewSlice { segment: number, start, length, records, max_timestamp }));
    }
    let size = narrow(gap.size)?;
    let mut live = 0;
    for (on, slice) in new {
        let topic = state.topics.get_mut(on.topic).expect("the topic was found above");
        let partition = topic.partition_mut(on.partition).expect("the partition was found above");
        if partition.append(slice) {
            live += 1;
            state.topics.slice_count = state.topics.slice_count.saturating_add(1);
        }
    }
    let at = Moment { index: state.applied, time: state.log_time, level: FeatureLevel::CURRENT };
    state.segments.remember(gap.segment, at.time, state.settings.typed.commit_deadline);
    state.segments.insert(Segment { id: gap.segment, incarnation, append_time: at.time, size, live }, at);
    Ok(())
}

/// The groups as they are when nobody is there: with their offsets, and with epochs that nobody has.
fn without_members(groups: &Groups, now: Timestamp) -> Groups {
    let mut restored =
        Groups { retired_epoch: groups.retired_epoch.saturating_add(EPOCHS_SKIPPED), ..Groups::default() };
    for (name, group) in &groups.by_name {
        let epoch = group.epoch.saturating_add(EPOCHS_SKIPPED);
        let (members, owners) = Default::default();
        let empty = Group { epoch, members, owners, last_active: now, ..(**group).clone() };
        restored.restore(name, empty);
    }
    restored
}
