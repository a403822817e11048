//! Key compaction: reads what is new in a partition to know the newest record of each key, and rewrites the partition without the
//! older ones.
//!
//! ```text
//!  plan ─▶ read what is new: newest offset of each key ─▶ group by group: read, rewrite, upload, replace ─▶ finish
//! ```
//!
//! Groups go from the log start upwards, each into an object of its own. Whatever goes wrong on the way, every group that was replaced
//! lacks only records that are superseded by others which are there, so that a round which is not finished does no harm: it is begun
//! again. Memory: the map of the keys ([`COMPACT_KEYS_MAX`](limits::COMPACT_KEYS_MAX)) and about twice a group
//! ([`MERGED_BYTES_TARGET`](limits::MERGED_BYTES_TARGET)).

pub(super) mod newest;

use std::collections::BTreeSet;
use std::ops::Range;

use carnax_core::id::{Incarnation, SegmentId, TopicPartition};
use carnax_core::limits;
use carnax_core::metadata::{
    AfterReport, CompactionPlan, CompactionRound, FinishCompaction, JobLease, PlanCompaction, ReplaceSlices,
    ReplacedPart, SourceSlice,
};
use carnax_core::object_key::SegmentKey;
use carnax_core::offset::Offset;
use carnax_core::segment::{SealedSegment, SegmentFull, SegmentWriter};
use carnax_core::time::Timestamp;
use carnax_object_store::Payload;
use tokio::time::Instant;

use self::newest::{Judge, Newest};
use super::rewrite::{Keep, Part, Rewritten, for_each_record, of_slice, rewrite};
use super::sources::Sources;
use super::stay::Stay;
use super::{Maintenance, MaintenanceError, Work};
use crate::metadata_client::CommandError;

/// Asks for rounds and carries them out until there is nothing worth it left, or `enough` says so. A partition with damaged batches is
/// left as it is, and does not keep others from their turn.
pub(super) async fn compact(
    maintenance: &Maintenance,
    job: &JobLease,
    enough: &(dyn Fn() -> bool + Send + Sync),
    work: &mut Work,
) -> Result<(), MaintenanceError> {
    let mut stay = Stay::new(maintenance, job);
    let (mut after, mut failed, mut failure) = (None, BTreeSet::new(), None);
    while !enough() {
        let CompactionPlan { log_time, incarnation, round } =
            maintenance.client.query(PlanCompaction { after }).await?;
        let Some(round) = round.filter(|round| !failed.contains(&round.on)) else {
            let next = if failure.is_none() { AfterReport::Finish } else { AfterReport::LayDown };
            maintenance.report(job, 0, next).await?;
            work.finished += u64::from(failure.is_none());
            return failure.map_or(Ok(()), Err);
        };
        let on = round.on;
        after = Some(on);
        let clock = Clock { log_time, planned: Instant::now() };
        let mut compaction = Compaction { maintenance, round, incarnation, clock, at_hand: None };
        match compaction.carry_out(&mut stay, enough).await {
            Ok(finished) => work.compacted += u64::from(finished),
            Err(error @ (MaintenanceError::Damaged { .. } | MaintenanceError::Plan(_))) => {
                tracing::error!(topic = %on.topic, partition = %on.partition, %error, "a partition is not compacted");
                failed.insert(on);
                failure = failure.or(Some(error));
            }
            Err(error) => {
                // Another worker may go on; what failed is told by the one who sees it.
                let _laid_down = maintenance.report(job, 0, AfterReport::LayDown).await;
                return Err(error);
            }
        }
    }
    maintenance.report(job, 0, AfterReport::LayDown).await?;
    failure.map_or(Ok(()), Err)
}

/// Log time as it goes on since the plan: a round may take longer than an object may be old when it is committed.
struct Clock {
    log_time: Timestamp,
    planned: Instant,
}

/// One round.
struct Compaction<'a> {
    maintenance: &'a Maintenance,
    round: CompactionRound,
    incarnation: Incarnation,
    clock: Clock,
    /// What was read last: a partition that is one group is read once.
    at_hand: Option<(Range<usize>, Sources)>,
}

impl Compaction<'_> {
    /// Says whether the round was finished: not if it came too late, or `enough` said so.
    async fn carry_out(
        &mut self,
        stay: &mut Stay<'_>,
        enough: &(dyn Fn() -> bool + Send + Sync),
    ) -> Result<bool, MaintenanceError> {
        let mut newest =
            Newest::new(self.maintenance.entropy.next_u64(), self.round.clean_until, self.round.until);
        let groups = groups(&self.round.slices);
        for group in &groups {
            let is_new = self.round.slices[group.end - 1].slice.end_offset > self.round.clean_until;
            if enough() {
                return Ok(false);
            }
            if is_new && !self.learn(group, &mut newest).await? {
                break;
            }
            stay.stay(0).await?;
        }
        let CompactionRound { tombstones_until, .. } = self.round;
        let mut judge = Judge { newest: &newest, tombstones_until, tombstones_left: false };
        for group in groups {
            if self.round.slices[group.start].slice.base_offset >= newest.until() {
                break;
            }
            if enough() || !self.rewrite(group, &mut judge).await? {
                return Ok(false);
            }
            stay.stay(0).await?;
        }
        let tombstones_left = judge.tombstones_left;
        self.finish(newest.until(), tombstones_left).await
    }

    /// Takes in the keys of a group; says whether there is room for more.
    async fn learn(&mut self, group: &Range<usize>, newest: &mut Newest) -> Result<bool, MaintenanceError> {
        self.read(group).await?;
        let on = self.round.on;
        for source in &self.round.slices[group.clone()] {
            let slice = &source.slice;
            if slice.end_offset <= self.round.clean_until {
                continue;
            }
            let mut room = true;
            let read = self.sources().slice(on, slice);
            let learned = read.and_then(|(bytes, _)| {
                for_each_record(slice, bytes, |offset, record| {
                    room = newest.learn(offset, record);
                    room
                })
            });
            learned.map_err(|reason| MaintenanceError::Damaged { on, reason: of_slice(slice, &reason) })?;
            if !room {
                return Ok(false);
            }
            newest.learned_until(slice.end_offset);
        }
        Ok(true)
    }

    /// Puts what stays of a group into its place, if anything goes; says whether the group was what it should be.
    async fn rewrite(
        &mut self,
        group: Range<usize>,
        judge: &mut Judge<'_>,
    ) -> Result<bool, MaintenanceError> {
        self.read(&group).await?;
        let (on, stamp) = (self.round.on, self.round.stamp);
        let slices = &self.round.slices[group];
        let part = Part { on, stamp, slices };
        let mut stays = |offset: Offset, record: &_| judge.stays(offset, record);
        let rewritten = rewrite(part, self.sources(), Keep::Where(&mut stays))
            .map_err(|reason| MaintenanceError::Damaged { on, reason })?;
        let Rewritten { unit, dropped, max_timestamp } = rewritten;
        if dropped == 0 {
            return Ok(true);
        }
        let sources: Vec<_> = slices.iter().map(|source| source.segment).collect();
        let (base_offset, end_offset) =
            (slices[0].slice.base_offset, slices[slices.len() - 1].slice.end_offset);
        // Retention goes by it: what is empty is as old as what was there.
        let before = slices.iter().map(|source| source.slice.max_timestamp).max();
        let max_timestamp =
            if max_timestamp < Timestamp::EPOCH { before.unwrap_or(max_timestamp) } else { max_timestamp };
        self.at_hand = None;
        let mut writer = SegmentWriter::new();
        writer.push_unit(unit).map_err(|full: SegmentFull| MaintenanceError::Plan(full.to_string()))?;
        let SealedSegment { chunks, size, crc32c, units } = writer.seal();
        let bytes = units[0][0].bytes;
        let segment = SegmentId::from_parts(self.clock.now(), self.maintenance.entropy.next_u128());
        let key = SegmentKey::rewritten(self.incarnation, segment, std::iter::once(on)).to_string();
        let payload = Payload::with_checksum(chunks, crc32c);
        self.maintenance.pace.request(self.maintenance.object_store.put_if_absent(&key, payload)).await?;
        let part = ReplacedPart { on, base_offset, end_offset, sources, bytes, max_timestamp };
        let replaced =
            self.replace(ReplaceSlices { incarnation: self.incarnation, segment, size, parts: vec![part] });
        let replaced = replaced.await?;
        if replaced {
            self.maintenance.metrics.maintenance.compacted_records.inc_by(dropped);
        }
        Ok(replaced)
    }

    async fn replace(&self, request: ReplaceSlices) -> Result<bool, MaintenanceError> {
        let (size, metrics) = (request.size, &self.maintenance.metrics.maintenance);
        let reply = self.maintenance.client.command(request).await.map_err(CommandError::into_problem)?;
        let replaced = reply.replaced == [true];
        metrics.compacted_bytes.inc_by(size);
        if !replaced {
            self.came_too_late();
        }
        Ok(replaced)
    }

    async fn finish(&self, clean_until: Offset, tombstones_left: bool) -> Result<bool, MaintenanceError> {
        let CompactionRound { on, follows, tombstones_until, .. } = self.round;
        let incarnation = self.incarnation;
        let request =
            FinishCompaction { incarnation, on, follows, clean_until, tombstones_until, tombstones_left };
        let reply = self.maintenance.client.command(request).await.map_err(CommandError::into_problem)?;
        if reply.finished {
            self.maintenance.metrics.maintenance.compactions.inc();
            tracing::debug!(topic = %on.topic, partition = %on.partition, %clean_until, "a partition is compacted");
        } else {
            self.came_too_late();
        }
        Ok(reply.finished)
    }

    fn came_too_late(&self) {
        let TopicPartition { topic, partition } = self.round.on;
        self.maintenance.metrics.maintenance.compactions_lost.inc();
        tracing::debug!(%topic, %partition, "a key compaction came too late");
    }

    /// Sees to it that a group is at hand.
    async fn read(&mut self, group: &Range<usize>) -> Result<(), MaintenanceError> {
        if self.at_hand.as_ref().is_none_or(|(at_hand, _)| at_hand != group) {
            self.at_hand = None;
            let sources = Sources::read(self.maintenance, self.round.slices[group.clone()].iter()).await?;
            self.at_hand = Some((group.clone(), sources));
        }
        Ok(())
    }

    fn sources(&self) -> &Sources {
        &self.at_hand.as_ref().expect("the caller has read the group").1
    }
}

impl Clock {
    fn now(&self) -> Timestamp {
        self.log_time.saturating_add(self.planned.elapsed())
    }
}

/// Neighbouring slices that become one: of about as many bytes as a large slice has.
fn groups(slices: &[SourceSlice]) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    let (mut bytes, mut offsets) = (0_u64, 0_u64);
    for (place, SourceSlice { slice, .. }) in slices.iter().enumerate() {
        let (more, taken) = (slice.bytes.length, slice.end_offset.since(slice.base_offset));
        let fits = bytes + more <= limits::MERGED_BYTES_TARGET && offsets + taken <= u64::from(u32::MAX);
        match groups.last_mut().filter(|group| fits && group.len() < limits::MERGE_PART_SLICES_MAX) {
            Some(group) => {
                group.end = place + 1;
                (bytes, offsets) = (bytes + more, offsets + taken);
            }
            None => {
                groups.push(place..place + 1);
                (bytes, offsets) = (more, taken);
            }
        }
    }
    groups
}
