//! What changes the log behind its readers: slices that are replaced, records whose time is over, objects that are gone.
//!
//! Offsets and records stay what they are: a replacement spans exactly the offsets of its sources, and is refused where those are
//! not what the worker planned with.

use carnax_core::id::{LogIndex, PageId, SegmentNumber, TopicPartition};
use carnax_core::limits;
use carnax_core::metadata::{
    CompactionFinished, DeadForgotten, FinishCompaction, ForgetDead, ReplaceSlices, ReplacedPart,
    SlicesReplaced,
};
use carnax_core::problem::Problem;

use super::State;
use super::commit::{check_size, stale_incarnation};
use super::unit::{at_most, invalid};
use crate::command::{Outcome, Reply};
use crate::deliberate_bugs::{self, DeliberateBug};
use crate::partition::{Partition, Slice};
use crate::retention;
use crate::segment::{Moment, Segment};

impl State {
    pub(super) fn replace_slices(
        &mut self,
        at: Moment,
        request: &ReplaceSlices,
    ) -> Result<SlicesReplaced, Problem> {
        let ReplaceSlices { incarnation, segment, size, parts } = request;
        let cluster = self.cluster()?;
        if *incarnation != cluster.incarnation {
            return Err(stale_incarnation(*incarnation, cluster.incarnation));
        }
        self.check_id(at, *segment)?;
        let size = check_size(*size)?;
        check_parts(parts, size)?;
        let number = self.segments.next_number();
        let only = if let [part] = &parts[..] { Some(part.on) } else { None };
        let mut replaced = Vec::with_capacity(parts.len());
        let mut sources = Vec::new();
        for part in parts {
            replaced.push(self.replace_part(part, number, &mut sources));
        }
        let live = u32::try_from(replaced.iter().filter(|replaced| **replaced).count()).unwrap_or(u32::MAX);
        self.segments.remember(*segment, at.time, self.settings.typed.commit_deadline);
        self.segments.next_is_rewritten(only);
        let (id, incarnation) = (*segment, *incarnation);
        self.segments.insert(Segment { id, incarnation, append_time: at.time, size, live }, at);
        self.topics.slice_count = self.topics.slice_count.saturating_add(u64::from(live));
        self.drop_slices(at, &sources);
        Ok(SlicesReplaced { replaced })
    }

    /// Replaces the slices of a part if they are as it says; notes whose they were.
    fn replace_part(
        &mut self,
        part: &ReplacedPart,
        number: SegmentNumber,
        sources: &mut Vec<SegmentNumber>,
    ) -> bool {
        let known = self.topics.get(part.on.topic).and_then(|topic| topic.partition(part.on.partition).ok());
        let Some(new) = known.and_then(|partition| new_slice(partition, part, number)) else { return false };
        let partition = self.topics.get_mut(part.on.topic);
        let partition = partition.and_then(|topic| topic.partition_mut(part.on.partition));
        partition.expect("the partition was found above").slices.replace(new);
        sources.extend_from_slice(&part.sources);
        true
    }

    /// Moves the log start of partitions up to where their retention says now; says how many moved.
    pub(super) fn retain(&mut self, at: Moment, partitions: &[TopicPartition]) -> Result<u64, Problem> {
        at_most("partitions", partitions.len(), limits::RETAIN_PARTITIONS_MAX)?;
        let mut moved = 0;
        for on in partitions {
            let Some(topic) = self.topics.get(on.topic) else { continue };
            let Ok(partition) = topic.partition(on.partition) else { continue };
            let Some(start) = retention::log_start(partition, &self.segments, &topic.typed, at.time) else {
                continue;
            };
            moved += 1;
            self.move_log_start(at, *on, start);
        }
        Ok(moved)
    }

    pub(super) fn forget_dead(&mut self, request: &ForgetDead) -> Result<DeadForgotten, Problem> {
        let ForgetDead { objects, pages } = request;
        at_most("dead objects", objects.len().saturating_add(pages.len()), limits::FIND_DEAD_MAX)?;
        let forget =
            |(died_at, number): &&(LogIndex, SegmentNumber)| self.segments.forget_dead(*died_at, *number);
        let forgotten = objects.iter().filter(forget).count() as u64;
        let forget = |(died_at, page): &&(LogIndex, PageId)| self.dead_pages.forget(*died_at, *page);
        let forgotten = forgotten + pages.iter().filter(forget).count() as u64;
        let dead = self.segments.dead().len() + self.dead_pages.len();
        Ok(DeadForgotten { forgotten, dead: dead as u64 })
    }

    pub(super) fn finish_compaction(&mut self, at: Moment, request: &FinishCompaction) -> Outcome {
        let incarnation = self.cluster()?.incarnation;
        if request.incarnation != incarnation {
            return Err(stale_incarnation(request.incarnation, incarnation));
        }
        let finished = self.compactions.finish(&self.topics, at, request)?;
        Ok(Reply::CompactionFinished(CompactionFinished { finished }))
    }

    /// Counts slices less at their segments.
    pub(super) fn drop_slices(&mut self, at: Moment, of: &[SegmentNumber]) {
        for segment in of {
            self.segments.drop_slice(*segment, at);
        }
        self.topics.slice_count = self.topics.slice_count.saturating_sub(of.len() as u64);
    }
}

/// The slice that is to stand where the sources of a part stand, if they do.
fn new_slice(partition: &Partition, part: &ReplacedPart, segment: SegmentNumber) -> Option<Slice> {
    let ReplacedPart { base_offset, end_offset, sources, bytes, max_timestamp, .. } = part;
    let found = partition.slices.some_from(*base_offset, sources.len());
    let (first, last) = (found.first()?, found.last()?);
    let are_there = found.iter().map(|slice| slice.segment).eq(sources.iter().copied());
    // A deliberate mistake: whatever stands there is replaced.
    let careless = deliberate_bugs::makes(DeliberateBug::MergeLosesSliceOnLostRace);
    if !careless && (!are_there || first.base != *base_offset || last.end() != *end_offset) {
        return None;
    }
    let (base_offset, end_offset) =
        if careless { (&first.base, &last.end()) } else { (base_offset, end_offset) };
    let latest = found.iter().map(|slice| slice.max_timestamp).max()?;
    Some(Slice {
        base: *base_offset,
        segment,
        max_timestamp: latest.min(*max_timestamp),
        start: u32::try_from(bytes.start).ok()?,
        length: u32::try_from(bytes.length).ok()?,
        records: u32::try_from(end_offset.since(*base_offset)).ok()?,
    })
}

fn check_parts(parts: &[ReplacedPart], size: u32) -> Result<(), Problem> {
    at_most("parts of a replacement", parts.len(), limits::MERGE_PARTS_MAX)?;
    let sources = parts.iter().map(|part| part.sources.len()).fold(0_usize, usize::saturating_add);
    at_most("slices of a replacement", sources, limits::MERGE_SLICES_MAX)?;
    if parts.is_empty() || !parts.is_sorted_by(|a, b| a.on < b.on) {
        return Err(invalid("a replacement has parts, in order of topic and partition, one a partition"));
    }
    let mut free_from = 0;
    for ReplacedPart { bytes, .. } in parts {
        let end = bytes.end().filter(|end| *end <= u64::from(size) && bytes.length > 0);
        let Some(end) = end.filter(|_| bytes.start >= free_from) else {
            return Err(invalid(format_args!("bytes {bytes} lie outside the object, or in another part")));
        };
        free_from = end;
    }
    Ok(())
}
