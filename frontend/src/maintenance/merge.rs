//! Merging: reads the slices of a plan, writes their batches into one new object, and has the metadata core put that into their
//! places, if they are still what they were.
//!
//! ```text
//!  plan ─▶ read the objects, each once ─▶ rewrite, partition by partition ─▶ upload ─▶ replace
//! ```
//!
//! Whatever goes wrong before the last step leaves an object that nobody refers to, which is collected. A part that holds damaged
//! batches is left as it is: a merge never hides damage. Memory: about twice the bytes of a plan
//! ([`MERGED_BYTES_TARGET`](carnax_core::limits::MERGED_BYTES_TARGET)).

use std::collections::BTreeSet;

use carnax_core::id::{SegmentId, TopicPartition};
use carnax_core::metadata::{
    AfterReport, JobLease, MergePart, MergePlan, PlanMerge, ReplaceSlices, ReplacedPart,
};
use carnax_core::object_key::SegmentKey;
use carnax_core::segment::{SealedSegment, SegmentWriter};
use carnax_object_store::Payload;
use tokio::time::Instant;

use super::rewrite::{Keep, Part, Rewritten, rewrite};
use super::sources::Sources;
use super::stay::Stay;
use super::{Maintenance, MaintenanceError, Work};
use crate::deliberate_bugs::DeliberateBug;
use crate::metadata_client::CommandError;

/// Asks for plans and carries them out until there is nothing worth it left, or `enough` says so. A partition with damaged batches is
/// left as it is, and does not keep others from their turn.
pub(super) async fn merge(
    maintenance: &Maintenance,
    job: &JobLease,
    enough: &(dyn Fn() -> bool + Send + Sync),
    work: &mut Work,
) -> Result<(), MaintenanceError> {
    let mut stay = Stay::new(maintenance, job);
    let (mut after, mut failed, mut failure) = (None, BTreeSet::new(), None);
    while !enough() {
        let mut plan = maintenance.client.query(PlanMerge { after }).await?;
        plan.parts.retain(|part| !failed.contains(&part.on));
        let Some(last) = plan.parts.last() else {
            let next = if failure.is_none() { AfterReport::Finish } else { AfterReport::LayDown };
            maintenance.report(job, 0, next).await?;
            work.finished += u64::from(failure.is_none());
            return failure.map_or(Ok(()), Err);
        };
        after = Some(last.on);
        match carry_out(maintenance, plan).await {
            Ok(damaged) => {
                failed.extend(damaged.iter().map(|(on, _)| *on));
                failure = failure.or(damaged
                    .into_iter()
                    .next()
                    .map(|(on, reason)| MaintenanceError::Damaged { on, reason }));
            }
            Err(error) => {
                // Another worker may go on; what failed is told by the one who sees it.
                let _laid_down = maintenance.report(job, 0, AfterReport::LayDown).await;
                return Err(error);
            }
        }
        work.merged += 1;
        stay.stay(0).await?;
    }
    maintenance.report(job, 0, AfterReport::LayDown).await?;
    failure.map_or(Ok(()), Err)
}

/// Gives the parts that hold damaged batches, with what is wrong.
async fn carry_out(
    maintenance: &Maintenance,
    plan: MergePlan,
) -> Result<Vec<(TopicPartition, String)>, MaintenanceError> {
    let (log_time, planned, incarnation) = (plan.log_time, Instant::now(), plan.incarnation);
    let sources = Sources::read(maintenance, plan.parts.iter().flat_map(|part| &part.slices)).await?;
    let (mut writer, mut parts, mut damaged) = (SegmentWriter::new(), Vec::new(), Vec::new());
    for part in plan.parts {
        let MergePart { on, stamp, slices } = &part;
        // A deliberate mistake: the second slice is left out.
        let loses = maintenance.bugs.makes(DeliberateBug::MergeLosesSlice);
        let lost = slices.get(1).map(|source| source.slice.base_offset..source.slice.end_offset);
        let mut keeps = |offset, _: &_| lost.as_ref().is_none_or(|lost| !lost.contains(&offset));
        let keep = if loses { Keep::Where(&mut keeps) } else { Keep::All };
        match rewrite(Part { on: *on, stamp: *stamp, slices }, &sources, keep) {
            Ok(Rewritten { unit, .. }) => {
                let full = |full: carnax_core::segment::SegmentFull| MaintenanceError::Plan(full.to_string());
                writer.push_unit(unit).map_err(full)?;
                parts.push(part);
            }
            Err(reason) => {
                let on = part.on;
                tracing::error!(topic = %on.topic, partition = %on.partition, reason, "slices are damaged: they are not merged");
                damaged.push((on, reason));
            }
        }
    }
    drop(sources);
    if !parts.is_empty() {
        let on = parts.iter().map(|part| part.on);
        // Log time has gone on: to read much takes longer than an object may be old when it is committed.
        let now = log_time.saturating_add(planned.elapsed());
        let segment = SegmentId::from_parts(now, maintenance.entropy.next_u128());
        let key = SegmentKey::rewritten(incarnation, segment, on);
        let SealedSegment { chunks, size, crc32c, units } = writer.seal();
        let payload = Payload::with_checksum(chunks, crc32c);
        let name = key.to_string();
        maintenance.pace.request(maintenance.object_store.put_if_absent(&name, payload)).await?;
        let replaced = parts.iter().zip(units.into_iter().flatten());
        let replaced = replaced.map(|(part, new)| ReplacedPart {
            on: part.on,
            base_offset: part.slices[0].slice.base_offset,
            end_offset: part.slices[part.slices.len() - 1].slice.end_offset,
            sources: part.slices.iter().map(|source| source.segment).collect(),
            bytes: new.bytes,
            max_timestamp: latest(part),
        });
        replace(maintenance, &key, size, replaced.collect()).await?;
    }
    Ok(damaged)
}

/// The largest timestamp of the sources as the metadata core has it: that of the records may be another, where records have the
/// time of their append.
fn latest(part: &MergePart) -> carnax_core::time::Timestamp {
    let times = part.slices.iter().map(|source| source.slice.max_timestamp);
    times.max().expect("a part of a plan has slices")
}

async fn replace(
    maintenance: &Maintenance,
    key: &SegmentKey,
    size: u64,
    parts: Vec<ReplacedPart>,
) -> Result<(), MaintenanceError> {
    let slices: Vec<u64> = parts.iter().map(|part| part.sources.len() as u64).collect();
    let SegmentKey { incarnation, segment, .. } = *key;
    let on: Vec<TopicPartition> = parts.iter().map(|part| part.on).collect();
    let request = ReplaceSlices { incarnation, segment, size, parts };
    let replaced = maintenance.client.command(request).await.map_err(CommandError::into_problem)?.replaced;
    let metrics = &maintenance.metrics.maintenance;
    metrics.merges.inc();
    metrics.merged_bytes.inc_by(size);
    for ((on, slices), replaced) in on.iter().zip(slices).zip(replaced) {
        if replaced {
            metrics.merged_slices.inc_by(slices);
        } else {
            metrics.merges_lost.inc();
            tracing::debug!(topic = %on.topic, partition = %on.partition, "a merge came too late");
        }
    }
    tracing::debug!(%key, bytes = size, partitions = on.len(), "slices are merged");
    Ok(())
}
