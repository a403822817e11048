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

use carnax_core::id::TopicPartition;
use carnax_core::metadata::{MergePart, MergePlan, PlanMerge, ReplacedPart};
use carnax_core::segment::SegmentWriter;

use super::rewrite::{Keep, Part, Rewritten, rewrite};
use super::sources::Sources;
use super::stay::Stay;
use super::upload::{PlanTime, replace, upload};
use super::{Ended, Maintenance, MaintenanceError, Work};
use crate::deliberate_bugs::DeliberateBug;

/// Asks for plans and carries them out until there is nothing worth it left, or `enough` says so. A partition with damaged batches is
/// left as it is, and does not keep others from their turn.
pub(super) async fn merge(
    maintenance: &Maintenance,
    enough: &(dyn Fn() -> bool + Send + Sync),
    work: &mut Work,
    stay: &mut Stay<'_>,
) -> Result<Ended, MaintenanceError> {
    let (mut after, mut failed, mut failure) = (None, BTreeSet::new(), None);
    let mut ended = Ended::Enough;
    while !enough() {
        let mut plan = maintenance.client.query(PlanMerge { after }).await?;
        plan.parts.retain(|part| !failed.contains(&part.on));
        let Some(last) = plan.parts.last() else {
            ended = Ended::Finished;
            break;
        };
        after = Some(last.on);
        let damaged = carry_out(maintenance, plan).await?;
        failed.extend(damaged.iter().map(|(on, _)| *on));
        failure = failure.or(damaged.into_iter().next());
        work.merged += 1;
        stay.stay().await?;
    }
    match failure {
        Some((on, reason)) => Err(MaintenanceError::Damaged { on, reason }),
        None => Ok(ended),
    }
}

/// Gives the parts that hold damaged batches, with what is wrong.
async fn carry_out(
    maintenance: &Maintenance,
    plan: MergePlan,
) -> Result<Vec<(TopicPartition, String)>, MaintenanceError> {
    let (time, incarnation) = (PlanTime::of(plan.log_time), plan.incarnation);
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
        let uploaded = upload(maintenance, incarnation, time.now(), writer).await?;
        let replaced = parts.iter().zip(&uploaded.slices);
        let replaced = replaced.map(|(part, new)| ReplacedPart {
            on: part.on,
            base_offset: part.slices[0].slice.base_offset,
            end_offset: part.slices[part.slices.len() - 1].slice.end_offset,
            sources: part.slices.iter().map(|source| source.segment).collect(),
            bytes: new.bytes,
            max_timestamp: latest(part),
        });
        let replaced = replace(maintenance, &uploaded, replaced.collect()).await?.replaced;
        count(maintenance, uploaded.size, &parts, &replaced);
    }
    Ok(damaged)
}

/// The largest timestamp of the sources as the metadata core has it: that of the records may be another, where records have the
/// time of their append.
fn latest(part: &MergePart) -> carnax_core::time::Timestamp {
    let times = part.slices.iter().map(|source| source.slice.max_timestamp);
    times.max().expect("a part of a plan has slices")
}

fn count(maintenance: &Maintenance, size: u64, parts: &[MergePart], replaced: &[bool]) {
    let metrics = &maintenance.metrics.maintenance;
    metrics.merges.inc();
    metrics.merged_bytes.inc_by(size);
    for (MergePart { on, slices, .. }, replaced) in parts.iter().zip(replaced) {
        if *replaced {
            metrics.merged_slices.inc_by(slices.len() as u64);
        } else {
            metrics.merges_lost.inc();
            tracing::debug!(topic = %on.topic, partition = %on.partition, "a merge came too late");
        }
    }
}
