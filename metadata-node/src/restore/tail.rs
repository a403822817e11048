//! What was written behind the end of the archive: objects that the restored state does not know.
//!
//! An acknowledged record lies in an object that was there before the acknowledgement, and an object whose death is not in the
//! archive is never deleted. So the records of all objects that the state does not know, and that are young enough to have been
//! committed behind it, bound the offsets that were given out behind it.

use std::collections::BTreeMap;
use std::sync::Arc;

use carnax_core::id::{Incarnation, SegmentId, TopicPartition};
use carnax_core::limits;
use carnax_core::object_key::SegmentKey;
use carnax_core::offset::ByteRange;
use carnax_core::record::{Batch, gap_batch};
use carnax_core::segment::{Footer, PartitionBatches, SegmentError, SegmentWriter};
use carnax_metadata_state::restore::GapSegment;
use carnax_metadata_state::{State, restore};
use carnax_object_store::{GetRange, ListedObject, ObjectStore, ObjectStoreError, Payload};
use carnax_platform::entropy::Entropy;
use futures::{StreamExt, TryStreamExt};

use super::RestoreError;
use crate::backup::list_all;

/// How much of the end of an object is read to find its footer.
const TAIL_BYTES: u64 = 64 * 1024;
/// Footers that are read at the same time.
const READS_AT_ONCE: usize = 16;
/// Offsets of one empty batch.
const GAP_BATCH_OFFSETS: u64 = 1 << 31;

/// The objects that the state does not know.
#[derive(Debug, Clone, Default)]
pub(super) struct Tail {
    /// Records of those that may have been committed, by partition.
    pub(super) records: BTreeMap<TopicPartition, u64>,
    /// How many may have been committed, and their bytes.
    pub(super) objects: u64,
    pub(super) bytes: u64,
    /// Those of them whose footers cannot be read.
    pub(super) unreadable: Vec<String>,
    /// All that the state does not know, older ones included, which were never committed.
    pub(super) keys: Vec<String>,
}

/// Looks at the objects of some incarnations.
pub(super) async fn survey(
    store: &dyn ObjectStore,
    state: &State,
    incarnations: &[Incarnation],
) -> Result<Tail, RestoreError> {
    let (known, oldest) = (restore::known_segments(state), restore::oldest_uncommitted(state));
    let mut tail = Tail::default();
    let mut young = Vec::new();
    for incarnation in incarnations {
        for object in list_all(store, &format!("{incarnation}/segments/")).await? {
            let Ok(SegmentKey { segment, .. }) = object.key.parse() else { continue };
            if known.contains(&segment) {
                continue;
            }
            tail.keys.push(object.key.clone());
            if segment.time() >= oldest {
                young.push(object);
            }
        }
    }
    let mut footers = futures::stream::iter(young)
        .map(|object| async move {
            let footer = footer(store, &object).await;
            footer.map(|footer| (object, footer))
        })
        .buffered(READS_AT_ONCE);
    while let Some((object, footer)) = footers.try_next().await? {
        tail.objects += 1;
        tail.bytes += object.size;
        match footer {
            Ok(footer) => tail.count(&footer),
            Err(error) => tail.unreadable.push(format!("{}: {error}", object.key)),
        }
    }
    Ok(tail)
}

async fn footer(
    store: &dyn ObjectStore,
    object: &ListedObject,
) -> Result<Result<Footer, String>, ObjectStoreError> {
    let size = object.size;
    let mut tail_bytes = TAIL_BYTES.min(size);
    loop {
        if tail_bytes == 0 {
            return Ok(Err("it is empty".to_owned()));
        }
        let range = ByteRange { start: size - tail_bytes, length: tail_bytes };
        let tail = match store.get(&object.key, GetRange::Bytes(range)).await {
            Ok((tail, _)) => tail,
            Err(ObjectStoreError::NotFound { .. }) => return Ok(Err("it is gone".to_owned())),
            Err(error) => return Err(error),
        };
        match Footer::parse(&tail, size) {
            Ok(footer) => return Ok(Ok(footer)),
            Err(SegmentError::TailTooShort { needed }) if needed > tail_bytes && needed <= size => {
                tail_bytes = needed;
            }
            Err(error) => return Ok(Err(error.to_string())),
        }
    }
}

impl Tail {
    fn count(&mut self, footer: &Footer) {
        for slice in footer.slices() {
            let records: u64 =
                footer.batches_of(slice).iter().map(|batch| u64::from(batch.offset_count)).sum();
            *self.records.entry(slice.on).or_default() += records;
        }
    }
}

/// Writes the objects of a gap in each of these partitions, and puts them at their ends.
pub(super) async fn skip(
    store: &Arc<dyn ObjectStore>,
    entropy: &dyn Entropy,
    state: &mut State,
    incarnation: Incarnation,
    mut offsets: Vec<(TopicPartition, u64)>,
) -> Result<(), RestoreError> {
    offsets.retain(|(_, offsets)| *offsets > 0);
    while !offsets.is_empty() {
        let mut writer = SegmentWriter::new();
        let unit = offsets.iter_mut().take(limits::SEGMENT_SLICES_MAX).map(|(on, left)| {
            let now = (*left).min(u32::MAX.into());
            *left -= now;
            PartitionBatches { on: *on, batches: gap_batches(now), encoded_by_frontend: false }
        });
        writer.push_unit(unit.collect()).expect("a gap is bounded by the limits of a segment");
        offsets.retain(|(_, offsets)| *offsets > 0);
        let mut sealed = writer.seal();
        let segment = SegmentId::from_parts(state.log_time(), entropy.next_u128());
        let key = SegmentKey::appended(incarnation, segment).to_string();
        store.put_if_absent(&key, Payload::with_checksum(sealed.chunks, sealed.crc32c)).await?;
        let slices = sealed.units.swap_remove(0);
        restore::skip(state, &GapSegment { segment, size: sealed.size, slices })?;
    }
    Ok(())
}

fn gap_batches(offsets: u64) -> Vec<Batch> {
    let mut left = offsets;
    let mut batches = Vec::new();
    while left > 0 {
        let now = left.min(GAP_BATCH_OFFSETS);
        batches.push(gap_batch(u32::try_from(now).expect("2^31 is a 32-bit number")));
        left -= now;
    }
    batches
}
