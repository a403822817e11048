//! New objects: what a merge or a key compaction wrote, and pages.

use carnax_core::id::{Incarnation, SegmentId, TopicPartition};
use carnax_core::metadata::{ReplaceSlices, ReplacedPart, SlicesReplaced, UnitSlice};
use carnax_core::object_key::SegmentKey;
use carnax_core::segment::{SealedSegment, SegmentWriter};
use carnax_core::time::Timestamp;
use carnax_object_store::Payload;
use tokio::time::Instant;

use super::{Maintenance, MaintenanceError};
use crate::metadata_client::CommandError;

/// Log time as it goes on since a plan: to read much takes longer than an object may be old when it is committed, so that it gets its
/// id when it is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct PlanTime {
    log_time: Timestamp,
    planned: Instant,
}

impl PlanTime {
    /// Of a plan that came just now.
    pub(super) fn of(log_time: Timestamp) -> Self {
        Self { log_time, planned: Instant::now() }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.log_time.saturating_add(self.planned.elapsed())
    }
}

/// An object that nobody refers to yet.
pub(super) struct Uploaded {
    key: SegmentKey,
    pub(super) size: u64,
    /// For each partition, where its slice lies.
    pub(super) slices: Vec<UnitSlice>,
}

/// Uploads an object of one unit a partition, in the order of partitions.
pub(super) async fn upload(
    maintenance: &Maintenance,
    incarnation: Incarnation,
    now: Timestamp,
    writer: SegmentWriter,
) -> Result<Uploaded, MaintenanceError> {
    let SealedSegment { chunks, size, crc32c, units } = writer.seal();
    let slices: Vec<UnitSlice> = units.into_iter().flatten().collect();
    let segment = SegmentId::from_parts(now, maintenance.entropy.next_u128());
    let key = SegmentKey::rewritten(incarnation, segment, slices.iter().map(on));
    let payload = Payload::with_checksum(chunks, crc32c);
    let name = key.to_string();
    maintenance.pace.request(maintenance.object_store.put_if_absent(&name, payload)).await?;
    Ok(Uploaded { key, size, slices })
}

fn on(slice: &UnitSlice) -> TopicPartition {
    TopicPartition { topic: slice.topic, partition: slice.partition }
}

/// Has the metadata core put the slices of an object into the places of others, if those are still what they were.
pub(super) async fn replace(
    maintenance: &Maintenance,
    uploaded: &Uploaded,
    parts: Vec<ReplacedPart>,
) -> Result<SlicesReplaced, MaintenanceError> {
    let SegmentKey { incarnation, segment, .. } = uploaded.key;
    let request = ReplaceSlices { incarnation, segment, size: uploaded.size, parts };
    let replaced = maintenance.client.command(request).await.map_err(CommandError::into_problem)?;
    tracing::debug!(key = %uploaded.key, bytes = uploaded.size, "slices are rewritten");
    Ok(replaced)
}
