//! What is true of every state: each invariant one function, with the argument why it holds.
//!
//! For tests and for operators: a check walks over everything.

use std::collections::{BTreeMap, BTreeSet};

use carnax_core::id::{PartitionIndex, SegmentId, TopicPartition};
use carnax_core::limits;
use carnax_core::metadata::JobKind;
use carnax_core::object_key::SEGMENT_FOLDERS;
use carnax_core::offset::Offset;
use carnax_core::usage::{Month, Traffic};

use crate::State;
use crate::job::Jobs;
use crate::partition::{Partition, Slice};
use crate::segment::SegmentNumber;
use crate::usage::Period;

mod group;

type Predicate<T> = (&'static str, fn(&T) -> bool);

/// Says which invariants a state breaks; empty is well.
pub fn check(state: &State) -> Vec<String> {
    let mut broken = Vec::new();
    for (on, partition) in partitions(state) {
        let checks: [Predicate<Partition>; 3] = [
            ("bounds are in order", bounds_are_in_order),
            ("slices are dense between the bounds", slices_are_dense_between_the_bounds),
            ("the slice tree is sound", the_slice_tree_is_sound),
        ];
        broken.extend(
            checks.iter().filter(|(_, holds)| !holds(partition)).map(|(name, _)| format!("{on}: {name}")),
        );
    }
    let checks: [Predicate<State>; 16] = [
        ("live counts are the slices", live_counts_are_the_slices),
        ("slices lie in their objects and share no byte", slices_lie_in_their_objects_and_share_no_byte),
        ("names and ids match", names_and_ids_match),
        ("counters are what they count", counters_are_what_they_count),
        ("sessions are watched", sessions_are_watched),
        ("ids were given out", ids_were_given_out),
        ("remembered segments are recent", remembered_segments_are_recent),
        ("producers are sound and live", producers_are_sound_and_live),
        ("idempotency keys are in order and live", idempotency_keys_are_in_order_and_live),
        ("wake-ups speak of what is committed", wakeups_speak_of_what_is_committed),
        ("jobs are sound", jobs_are_sound),
        ("segments are in order of commit", segments_are_in_order_of_commit),
        ("rewritten segments are of whom they say", rewritten_segments_are_of_whom_they_say),
        ("compactions speak of what is committed", compactions_speak_of_what_is_committed),
        ("tokens are sound", tokens_are_sound),
        ("usage is sound", usage_is_sound),
    ];
    broken.extend(checks.iter().filter(|(_, holds)| !holds(state)).map(|(name, _)| (*name).to_owned()));
    broken.extend(group::check(state));
    broken
}

/// Says which invariants a step from one state to a later one breaks; empty is well.
pub fn check_step(before: &State, after: &State) -> Vec<String> {
    let mut broken = Vec::new();
    if after.log_time < before.log_time || after.applied < before.applied {
        broken.push("log time and applied index never go back".to_owned());
    }
    let earlier: BTreeMap<TopicPartition, &Partition> = partitions(before).collect();
    for (on, now) in partitions(after) {
        // Offsets are only given out at the high watermark, and only a trim moves the log start, upwards.
        let kept = earlier
            .get(&on)
            .is_none_or(|was| was.high_watermark <= now.high_watermark && was.log_start <= now.log_start);
        if !kept {
            broken.push(format!("{on}: bounds never go back"));
        }
    }
    broken.extend(group::check_step(before, after));
    broken
}

/// A trim is refused above the high watermark, and an append that would pass `Offset::MAX` is refused.
fn bounds_are_in_order(partition: &Partition) -> bool {
    partition.log_start <= partition.high_watermark && partition.high_watermark <= Offset::MAX
}

/// An append puts its slice at the high watermark and moves that to the slice's end; a trim drops whole slices from the front,
/// and only those that end at or below the log start. A page takes the place of the first ones. So each slice begins where the last one ended, the last one ends at
/// the high watermark, and the first one reaches beyond the log start.
fn slices_are_dense_between_the_bounds(partition: &Partition) -> bool {
    let pages = partition.pages.all().iter().map(|page| (page.base, page.end));
    let slices = slices_of(partition);
    let ranges: Vec<(Offset, Offset)> =
        pages.chain(slices.iter().map(|slice| (slice.base, slice.end()))).collect();
    let (Some(first), Some(last)) = (ranges.first(), ranges.last()) else {
        return partition.log_start == partition.high_watermark;
    };
    first.0 <= partition.log_start
        && partition.log_start < first.1
        && last.1 == partition.high_watermark
        && ranges.windows(2).all(|pair| pair[0].1 == pair[1].0)
}

/// Each change of a leaf renews the summaries on the path to it.
fn the_slice_tree_is_sound(partition: &Partition) -> bool {
    partition.slices.faults().is_empty()
}

/// A commit counts the slices that it makes, deleting and trimming count those that they drop, and at zero the segment
/// moves to the dead, which nothing refers to.
fn live_counts_are_the_slices(state: &State) -> bool {
    let mut counts: BTreeMap<SegmentNumber, u32> = BTreeMap::new();
    for (_, partition) in partitions(state) {
        partition.slices.visit(&mut |slice| *counts.entry(slice.segment).or_default() += 1);
    }
    let dead: BTreeSet<SegmentNumber> = state.segments.dead().keys().map(|(_, number)| *number).collect();
    let ids: BTreeSet<SegmentId> = state.segments.iter().map(|(_, segment)| segment.id).collect();
    state
        .segments
        .iter()
        .map(|(number, segment)| (number, segment.live))
        .eq(counts.iter().map(|(n, c)| (*n, *c)))
        && counts.keys().all(|number| state.segments.get(*number).is_some() && !dead.contains(number))
        && ids.len() as u64 == state.segments.live_count()
}

/// A unit whose bytes leave the object, or meet those of an accepted unit of the same segment, is refused.
fn slices_lie_in_their_objects_and_share_no_byte(state: &State) -> bool {
    let mut ranges = Vec::new();
    for (_, partition) in partitions(state) {
        let range = |slice: &Slice| (slice.segment, slice.bytes().start, slice.bytes().end());
        ranges.extend(slices_of(partition).iter().map(range));
    }
    ranges.sort_unstable();
    let inside = ranges.iter().all(|(number, start, end)| {
        let size = state.segments.get(*number).map(|segment| u64::from(segment.size));
        end.is_some_and(|end| *start < end && size.is_some_and(|size| end <= size))
    });
    inside && ranges.windows(2).all(|pair| pair[0].0 != pair[1].0 || pair[0].2 <= Some(pair[1].1))
}

/// Both maps change together, and an id moves from the living to the former ones when its topic is deleted.
fn names_and_ids_match(state: &State) -> bool {
    let topics = &state.topics;
    topics.by_id.len() == topics.by_name.len()
        && topics.by_id.iter().all(|(id, topic)| topics.by_name.get(&topic.name) == Some(id))
        && topics.by_id.keys().all(|id| !topics.former.contains_key(id))
        && topics.former.len() == topics.former_order.len()
        && topics.former_order.iter().all(|id| topics.former.contains_key(id))
}

/// Every change of the counted things changes the counter, and stops at the limit.
fn counters_are_what_they_count(state: &State) -> bool {
    let topics = &state.topics;
    let (mut partition_count, mut slice_count, mut page_count) = (0_u64, 0_u64, 0_u64);
    for (_, partition) in partitions(state) {
        partition_count += 1;
        slice_count += slices_of(partition).len() as u64;
        page_count += partition.pages.all().len() as u64;
    }
    partition_count == topics.partition_count
        && slice_count == topics.slice_count
        && page_count == topics.page_count
        && partition_count <= limits::PARTITIONS_MAX as u64
        && topics.by_id.len() <= limits::TOPICS_MAX
        && state.segments.iter().count() as u64 == state.segments.live_count()
}

/// A session enters with its watch entry; the entry moves only up to `last_seen`, and both leave together.
fn sessions_are_watched(state: &State) -> bool {
    let sessions = &state.sessions;
    let seen: BTreeMap<_, _> = sessions.iter().map(|(id, session)| (id, session.last_seen)).collect();
    sessions.len() <= limits::SESSIONS_MAX
        && sessions.watch().len() == seen.len()
        && sessions.watch().iter().all(|(at, id)| seen.get(id).is_some_and(|last_seen| at <= last_seen))
        && seen.values().all(|last_seen| *last_seen <= state.log_time)
}

/// The highest id is noted when it is given out, and ids only go up from there.
fn ids_were_given_out(state: &State) -> bool {
    let next = state.segments.next_number();
    state.sessions.iter().all(|(id, _)| id <= state.sessions.last_id())
        && state.cluster.iter().all(|cluster| cluster.nodes.keys().all(|id| *id <= cluster.last_node))
        && state.segments.iter().all(|(number, _)| number < next)
        && state.segments.dead().keys().all(|(index, number)| *number < next && *index <= state.applied)
}

/// A wake-up is made for a topic and leaves with it; its cursors move only up to high watermarks, which never go back.
fn wakeups_speak_of_what_is_committed(state: &State) -> bool {
    state.wakeups.iter().count() == state.wakeups.len()
        && state.wakeups.iter().all(|(topic, _, wakeup)| {
            let committed = |(partition, offset): (&PartitionIndex, &Offset)| {
                let known = state.topics.get(topic).and_then(|topic| topic.partition(*partition).ok());
                known.is_some_and(|known| *offset <= known.high_watermark)
            };
            wakeup.version <= state.applied && wakeup.announced.iter().all(committed)
        })
}

/// Times are log time of earlier entries. A lease is on a pass, and a pass goes over the folders once.
fn jobs_are_sound(state: &State) -> bool {
    let Jobs { written, done_until, pass, lease, last_success, seats } = &state.jobs;
    let seats_are_sound = seats.iter().all(|(kind, seat)| {
        *kind != JobKind::CollectOrphans
            && seat.lease.as_ref().is_none_or(|lease| lease.id <= state.applied)
            && seat.last_success.is_none_or(|time| time <= state.log_time)
    });
    let times = [Some(*written), Some(*done_until), pass.map(|pass| pass.until), *last_success];
    seats_are_sound
        && times.into_iter().flatten().all(|time| time <= state.log_time)
        && pass.is_none_or(|pass| pass.folders_done <= SEGMENT_FOLDERS)
        && lease.as_ref().is_none_or(|lease| pass.is_some() && lease.id <= state.applied)
}

/// Grants are checked before they are kept, and times are the log's.
fn tokens_are_sound(state: &State) -> bool {
    let past = |time| time <= state.log_time;
    state.tokens.len() <= limits::TOKENS_MAX
        && state
            .tokens
            .iter()
            .all(|(_, token)| token.is_sound() && past(token.created) && token.last_used.is_none_or(past))
}

/// Rows are of topics and tokens that are there, and those of topics stay below the sums; reports came in the past.
fn usage_is_sound(state: &State) -> bool {
    let usage = &state.usage;
    let sound = |period: &Period| {
        let (part, whole) = (rows(period.topics.values()), period.traffic);
        period.topics.keys().all(|id| state.topics.get(*id).is_some())
            && period.tokens.keys().all(|id| state.tokens.contains(id))
            && part.records_in <= whole.records_in
            && part.bytes_in <= whole.bytes_in
            && part.records_out <= whole.records_out
            && part.bytes_out <= whole.bytes_out
    };
    sound(&usage.this)
        && sound(&usage.last)
        && usage.is_sound()
        && usage.month.is_none_or(|month| month <= Month::of(state.log_time))
        && (usage.month.is_some() || usage.this.is_empty() && usage.last.is_empty())
        && usage.reporters().all(|(_, reporter)| reporter.at <= state.log_time)
}

fn rows<'a>(rows: impl Iterator<Item = &'a Traffic>) -> Traffic {
    rows.fold(Traffic::default(), |sum, row| sum.plus(*row))
}

/// A round ends at or below the high watermark; a mark is set at what is clean, which never shrinks.
fn compactions_speak_of_what_is_committed(state: &State) -> bool {
    state.compactions.iter().all(|(on, compaction)| {
        let known = state.topics.get(on.topic).and_then(|topic| topic.partition(on.partition).ok());
        let (index, time) = compaction.finished;
        known.is_some_and(|known| compaction.clean_until <= known.high_watermark)
            && compaction.mark.is_none_or(|(until, since)| until <= compaction.clean_until && since <= time)
            && index <= state.applied
            && time <= state.log_time
    })
}

/// Numbers are given out in the order of commits, whose log time never goes back.
fn segments_are_in_order_of_commit(state: &State) -> bool {
    state.segments.iter().map(|(_, segment)| segment.append_time).is_sorted()
}

/// A replacement notes its segment, which leaves when it is dead and deleted. The object of a single part has slices of that
/// partition alone.
fn rewritten_segments_are_of_whom_they_say(state: &State) -> bool {
    let segments = &state.segments;
    let dead: BTreeSet<SegmentNumber> = segments.dead().keys().map(|(_, number)| *number).collect();
    let known = |number: &SegmentNumber| segments.get(*number).is_some() || dead.contains(number);
    segments.rewritten().keys().all(known)
        && partitions(state).all(|(on, partition)| {
            let only = |slice: &Slice| segments.rewritten().get(&slice.segment).copied().flatten();
            slices_of(partition).iter().all(|slice| only(slice).is_none_or(|only| only == on))
        })
}

/// A segment is remembered when it is committed, which its time must allow, and nothing is forgotten that could still be
/// committed once more.
fn remembered_segments_are_recent(state: &State) -> bool {
    let oldest = state.segments.open_from(state.log_time, state.settings.typed.commit_deadline);
    let newest = state.log_time.saturating_add(limits::CLOCK_AHEAD_MAX);
    let recent = state.segments.recent();
    recent.iter().all(|id| id.time() <= newest)
        && state
            .segments
            .iter()
            .all(|(_, segment)| segment.id.time() < oldest || recent.contains(&{ segment.id }))
}

/// Every entry drops what has expired before it is applied, and a change sets `last_seen` to log time. A producer enters with
/// its watch entry, which moves only up to `last_seen`, and both leave together. Each answer is counted when it is kept, and
/// none that would pass the limit.
fn producers_are_sound_and_live(state: &State) -> bool {
    let producers = &state.producers;
    let seen: BTreeMap<_, _> = producers.iter().map(|(id, producer)| (id, producer.last_seen)).collect();
    let window = state.settings.typed.producer_window;
    let slices: u64 = producers.iter().map(|(_, producer)| producer.slices()).sum();
    producers.watch().len() == seen.len()
        && producers.watch().iter().all(|(at, id)| seen.get(id).is_some_and(|last_seen| at <= last_seen))
        && seen.values().all(|seen| *seen <= state.log_time && state.log_time.since(*seen) < window)
        && producers.iter().all(|(_, producer)| producer.is_sound())
        && slices == producers.slices()
        && slices.saturating_add(state.keys.slices()) <= limits::REMEMBERED_SLICES_MAX
}

/// A key enters the map and the end of the queue together, at a log time that never goes back, and leaves both at the front.
fn idempotency_keys_are_in_order_and_live(state: &State) -> bool {
    let keys: BTreeSet<_> = state.keys.iter().map(|(key, _)| key).collect();
    let times: Vec<_> = state.keys.iter().map(|(_, reply)| reply.append_time).collect();
    let window = state.settings.typed.idempotency_window;
    let slices: u64 = state.keys.iter().map(|(_, reply)| reply.slice_count()).sum();
    keys.len() == state.keys.len()
        && times.len() == keys.len()
        && times.is_sorted()
        && times.first().is_none_or(|oldest| state.log_time.since(*oldest) < window)
        && times.last().is_none_or(|newest| *newest <= state.log_time)
        && slices == state.keys.slices()
}

fn partitions(state: &State) -> impl Iterator<Item = (TopicPartition, &Partition)> {
    state.topics.by_id.iter().flat_map(|(id, topic)| {
        let numbered = (0..).zip(&topic.partitions);
        numbered.map(|(index, partition)| {
            (TopicPartition { topic: *id, partition: PartitionIndex(index) }, &**partition)
        })
    })
}

fn slices_of(partition: &Partition) -> Vec<Slice> {
    let mut slices = Vec::new();
    partition.slices.visit(&mut |slice| slices.push(*slice));
    slices
}
