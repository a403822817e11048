//! Segments: which objects exist, and how many slices still refer to each.
//!
//! Inside the state a segment is a number, given out densely in the order of commits, so that a slice needs eight bytes for it
//! instead of sixteen and the table needs no room between its rows.

use std::sync::Arc;
use std::time::Duration;

pub(crate) use carnax_core::id::SegmentNumber;
use carnax_core::id::{Incarnation, LogIndex, SegmentId, TopicPartition};
use carnax_core::object_key::SegmentKey;
use carnax_core::time::Timestamp;
use imbl::{OrdMap, OrdSet};

use crate::entry::FeatureLevel;

/// An object that live slices refer to.
///
/// Packed, since the 16-byte alignment of the id would cost 8 bytes in a table that may have as many rows as there are slices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, packed(8))]
pub(crate) struct Segment {
    pub(crate) id: SegmentId,
    pub(crate) incarnation: Incarnation,
    /// Log time of its commit.
    pub(crate) append_time: Timestamp,
    /// Bytes of the object.
    pub(crate) size: u32,
    /// Live slices, at least 1.
    pub(crate) live: u32,
}

/// An object that was committed and that no slice refers to any more: to be collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeadSegment {
    pub(crate) id: SegmentId,
    pub(crate) incarnation: Incarnation,
    pub(crate) size: u32,
    /// Log time of its death; the log index is in the key.
    pub(crate) died: Timestamp,
}

/// A point in the log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) index: LogIndex,
    pub(crate) time: Timestamp,
    /// Of the entry: what it means never changes, so what came with a higher level is not looked at below it.
    pub(crate) level: FeatureLevel,
}

#[derive(Debug, Clone)]
pub(crate) struct Segments {
    chunks: OrdMap<u64, Arc<Chunk>>,
    /// The number of the next segment.
    next: u64,
    /// Segments with live slices.
    live: u64,
    /// Those that a merge or a key compaction wrote, live or dead: for which partition, if for one alone. A table of its own, since
    /// they are few, and large.
    rewritten: OrdMap<SegmentNumber, Option<TopicPartition>>,
    /// In order of death.
    dead: OrdMap<(LogIndex, SegmentNumber), DeadSegment>,
    /// Every segment that was committed and whose time would still allow it to be committed once more.
    recent: OrdSet<SegmentId>,
    /// Segments whose ids are older are never committed, whatever the deadline says now: what was an orphan under a shorter
    /// deadline may be gone.
    closed_before: Timestamp,
}

impl Default for Segments {
    fn default() -> Self {
        let (chunks, rewritten, dead, recent) = Default::default();
        Self { chunks, next: 0, live: 0, rewritten, dead, recent, closed_before: Timestamp::MIN }
    }
}

/// The segments of 64 consecutive numbers, without room for those that are gone.
#[derive(Debug, Clone, Default)]
struct Chunk {
    /// Bit `n` is set if the `n`th number is present.
    present: u64,
    segments: Vec<Segment>,
}

impl Segments {
    pub(crate) fn live_count(&self) -> u64 {
        self.live
    }

    pub(crate) fn dead(&self) -> &OrdMap<(LogIndex, SegmentNumber), DeadSegment> {
        &self.dead
    }

    pub(crate) fn rewritten(&self) -> &OrdMap<SegmentNumber, Option<TopicPartition>> {
        &self.rewritten
    }

    /// The object of a live segment, and the segment.
    pub(crate) fn object(&self, number: SegmentNumber) -> Option<(SegmentKey, &Segment)> {
        let segment = self.get(number)?;
        Some((self.key(number, segment.incarnation, segment.id), segment))
    }

    /// The object of a segment, live or dead.
    pub(crate) fn key(
        &self,
        number: SegmentNumber,
        incarnation: Incarnation,
        segment: SegmentId,
    ) -> SegmentKey {
        let merged = self.rewritten.get(&number).copied().flatten();
        SegmentKey { incarnation, segment, merged }
    }

    pub(crate) fn recent(&self) -> &OrdSet<SegmentId> {
        &self.recent
    }

    pub(crate) fn next_number(&self) -> SegmentNumber {
        SegmentNumber(self.next)
    }

    pub(crate) fn get(&self, number: SegmentNumber) -> Option<&Segment> {
        let chunk = self.chunks.get(&(number.0 / 64))?;
        chunk.has(number).then(|| chunk.segments.get(chunk.place(number)))?
    }

    /// All segments with live slices, in order of their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (SegmentNumber, &Segment)> {
        self.iter_from(SegmentNumber(0))
    }

    /// Segments with live slices from a number on, in order.
    pub(crate) fn iter_from(&self, first: SegmentNumber) -> impl Iterator<Item = (SegmentNumber, &Segment)> {
        let chunks = self.chunks.range(first.0 / 64..);
        let all = chunks.flat_map(|(chunk_number, chunk)| {
            let numbers = (0..64).filter(|bit| chunk.present & (1 << bit) != 0);
            numbers.map(move |bit| SegmentNumber(chunk_number * 64 + bit)).zip(&chunk.segments)
        });
        all.skip_while(move |(number, _)| *number < first)
    }

    /// The oldest id with which a segment may still be committed.
    pub(crate) fn open_from(&self, log_time: Timestamp, deadline: Duration) -> Timestamp {
        log_time.saturating_sub(deadline).max(self.closed_before)
    }

    pub(crate) fn closed_before(&self) -> Timestamp {
        self.closed_before
    }

    /// From now on no segment is committed whose id is older.
    pub(crate) fn close_before(&mut self, time: Timestamp) {
        self.closed_before = self.closed_before.max(time);
    }

    /// Notes that an object was committed, and forgets those that are too old to be committed again.
    pub(crate) fn remember(&mut self, id: SegmentId, log_time: Timestamp, deadline: Duration) {
        self.forget_old(log_time, deadline);
        self.recent.insert(id);
    }

    pub(crate) fn forget_old(&mut self, log_time: Timestamp, deadline: Duration) {
        let oldest = self.open_from(log_time, deadline);
        while self.recent.get_min().is_some_and(|id| id.time() < oldest) {
            self.recent.remove_min();
        }
    }

    /// The ids of the segments with live slices that were committed at these times, in any order.
    pub(crate) fn committed_between(
        &self,
        first: Timestamp,
        last: Timestamp,
    ) -> impl Iterator<Item = SegmentId> {
        // Log time goes up with the numbers, so that the first chunk is found by halving.
        let (mut low, mut high) = (0, self.next / 64 + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            let chunk = self.chunks.range(middle..).next().and_then(|(_, chunk)| chunk.segments.last());
            if chunk.is_some_and(|segment| segment.append_time < first) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let segments = self.chunks.range(low..).flat_map(|(_, chunk)| &chunk.segments);
        segments.take_while(move |segment| segment.append_time <= last).map(|segment| segment.id)
    }

    /// Puts a segment behind all others; one without live slices is dead from the start.
    pub(crate) fn insert(&mut self, segment: Segment, at: Moment) {
        let number = self.next_number();
        self.next = self.next.saturating_add(1);
        self.place(number, segment, at);
    }

    /// Notes that the next segment is the work of a merge or a key compaction.
    pub(crate) fn next_is_rewritten(&mut self, only: Option<TopicPartition>) {
        self.rewritten.insert(self.next_number(), only);
    }

    /// Forgets a dead segment, whose object is deleted; says whether it was there.
    pub(crate) fn forget_dead(&mut self, died_at: LogIndex, number: SegmentNumber) -> bool {
        let known = self.dead.remove(&(died_at, number)).is_some();
        if known {
            self.rewritten.remove(&number);
        }
        known
    }

    /// Takes a live segment off the list, which is written down elsewhere from now on.
    pub(crate) fn unlist(&mut self, number: SegmentNumber) {
        self.take(number);
        self.rewritten.remove(&number);
    }

    /// Counts one slice less.
    pub(crate) fn drop_slice(&mut self, number: SegmentNumber, at: Moment) {
        let Some(chunk) = self.chunks.get_mut(&(number.0 / 64)) else { return };
        let chunk = Arc::make_mut(chunk);
        let place = chunk.place(number);
        let Some(segment) = chunk.segments.get_mut(place).filter(|_| chunk.present & bit(number) != 0) else {
            return;
        };
        segment.live = segment.live.saturating_sub(1);
        if segment.live > 0 {
            return;
        }
        if let Some(segment) = self.take(number) {
            self.bury(number, &segment, at);
        }
    }

    /// Takes a segment out of the table of the live ones.
    fn take(&mut self, number: SegmentNumber) -> Option<Segment> {
        let chunk = Arc::make_mut(self.chunks.get_mut(&(number.0 / 64))?);
        if !chunk.has(number) {
            return None;
        }
        let segment = chunk.segments.remove(chunk.place(number));
        chunk.present &= !bit(number);
        if chunk.segments.is_empty() {
            self.chunks.remove(&(number.0 / 64));
        }
        self.live = self.live.saturating_sub(1);
        Some(segment)
    }

    fn place(&mut self, number: SegmentNumber, segment: Segment, at: Moment) {
        if segment.live == 0 {
            return self.bury(number, &segment, at);
        }
        let chunk = Arc::make_mut(self.chunks.entry(number.0 / 64).or_default());
        if chunk.segments.len() == chunk.segments.capacity() {
            chunk.segments.reserve_exact(16);
        }
        chunk.segments.push(segment);
        chunk.present |= bit(number);
        self.live = self.live.saturating_add(1);
    }

    fn bury(&mut self, number: SegmentNumber, segment: &Segment, at: Moment) {
        let Segment { id, incarnation, size, .. } = *segment;
        self.dead.insert((at.index, number), DeadSegment { id, incarnation, size, died: at.time });
    }
}

/// How a snapshot puts the table together again.
impl Segments {
    pub(crate) fn restore_next(&mut self, next: u64) {
        self.next = next;
    }

    /// Puts back a live segment; numbers must go up from call to call and stay below the next one.
    pub(crate) fn restore_live(&mut self, number: SegmentNumber, segment: Segment) -> bool {
        let last = self.chunks.get_max().map(|(chunk_number, chunk)| {
            chunk_number.saturating_mul(64) + u64::from(63 - chunk.present.leading_zeros().min(63))
        });
        let last_time = self.chunks.get_max().and_then(|(_, chunk)| chunk.segments.last());
        let in_time = last_time.is_none_or(|last| last.append_time <= segment.append_time);
        let in_order = last.is_none_or(|last| last < number.0) && number.0 < self.next && in_time;
        if in_order && segment.live > 0 {
            let at = Moment { index: LogIndex(0), time: segment.append_time, level: FeatureLevel(0) };
            self.place(number, segment, at);
        }
        in_order && segment.live > 0
    }

    pub(crate) fn restore_dead(&mut self, died_at: LogIndex, number: SegmentNumber, segment: DeadSegment) {
        self.dead.insert((died_at, number), segment);
    }

    pub(crate) fn restore_rewritten(&mut self, number: SegmentNumber, only: Option<TopicPartition>) -> bool {
        number < self.next_number() && self.rewritten.insert(number, only).is_none()
    }

    pub(crate) fn restore_recent(&mut self, id: SegmentId) {
        self.recent.insert(id);
    }
}

impl Chunk {
    fn has(&self, number: SegmentNumber) -> bool {
        self.present & bit(number) != 0
    }

    /// How many present numbers come before this one.
    fn place(&self, number: SegmentNumber) -> usize {
        (self.present & (bit(number) - 1)).count_ones() as usize
    }
}

fn bit(number: SegmentNumber) -> u64 {
    1 << (number.0 % 64)
}
