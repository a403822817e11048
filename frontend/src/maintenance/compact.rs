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

use carnax_core::id::{Incarnation, TopicPartition};
use carnax_core::limits;
use carnax_core::metadata::{
    CompactionPlan, CompactionRound, FinishCompaction, PlanCompaction, ReplacedPart, SourceSlice,
};
use carnax_core::offset::Offset;
use carnax_core::segment::{SegmentFull, SegmentWriter};
use carnax_core::time::Timestamp;

use self::newest::{Judge, Newest};
use super::rewrite::{Keep, Part, Rewritten, for_each_record, of_slice, rewrite};
use super::sources::Sources;
use super::stay::Stay;
use super::upload::{PlanTime, replace, upload};
use super::{Ended, Maintenance, MaintenanceError, Work};
use crate::metadata_client::CommandError;

/// Asks for rounds and carries them out until there is nothing worth it left, or `enough` says so. A partition with damaged batches is
/// left as it is, and does not keep others from their turn.
pub(super) async fn compact(
    maintenance: &Maintenance,
    enough: &(dyn Fn() -> bool + Send + Sync),
    work: &mut Work,
    stay: &mut Stay<'_>,
) -> Result<Ended, MaintenanceError> {
    let (mut after, mut failed, mut failure) = (None, BTreeSet::new(), None);
    let mut ended = Ended::Enough;
    while !enough() {
        let CompactionPlan { log_time, incarnation, round } =
            maintenance.client.query(PlanCompaction { after }).await?;
        let Some(round) = round.filter(|round| !failed.contains(&round.on)) else {
            ended = Ended::Finished;
            break;
        };
        let on = round.on;
        after = Some(on);
        let time = PlanTime::of(log_time);
        let mut compaction = Compaction { maintenance, round, incarnation, time, at_hand: None };
        match compaction.carry_out(stay, enough).await {
            Ok(finished) => work.compacted += u64::from(finished),
            Err(error @ (MaintenanceError::Damaged { .. } | MaintenanceError::Plan(_))) => {
                tracing::error!(topic = %on.topic, partition = %on.partition, %error, "a partition is not compacted");
                failed.insert(on);
                failure = failure.or(Some(error));
            }
            Err(error) => return Err(error),
        }
    }
    failure.map_or(Ok(ended), Err)
}

/// One round.
struct Compaction<'a> {
    maintenance: &'a Maintenance,
    round: CompactionRound,
    incarnation: Incarnation,
    time: PlanTime,
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
            stay.stay().await?;
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
            stay.stay().await?;
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
        let uploaded = upload(self.maintenance, self.incarnation, self.time.now(), writer).await?;
        let bytes = uploaded.slices[0].bytes;
        let part = ReplacedPart { on, base_offset, end_offset, sources, bytes, max_timestamp };
        let replaced = replace(self.maintenance, &uploaded, vec![part]).await?.replaced == [true];
        self.maintenance.metrics.maintenance.compacted_bytes.inc_by(uploaded.size);
        if !replaced {
            self.came_too_late();
        }
        if replaced {
            self.maintenance.metrics.maintenance.compacted_records.inc_by(dropped);
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
