//! What was written behind the end of the archive: objects that the restored state does not know.
//!
//! An acknowledged record lies in an object that was there before the acknowledgement, and an object whose death is not in the
//! archive is never deleted. So the records of all objects that the state does not know, and that are young enough to have been
//! committed behind it, bound the offsets that were given out behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use carnax_core::id::{Incarnation, SegmentId, TopicPartition};
use carnax_core::limits;
use carnax_core::object_key::{PageKey, SegmentKey, merged_folder, page_folder};
use carnax_core::offset::ByteRange;
use carnax_core::record::{Batch, gap_batch};
use carnax_core::segment::{Footer, PartitionBatches, SegmentError, SegmentWriter};
use carnax_metadata_state::restore::GapSegment;
use carnax_metadata_state::{State, restore};
use carnax_object_store::{GetRange, ListedObject, ObjectStore, ObjectStoreError, Payload};
use carnax_platform::entropy::Entropy;
use futures::{StreamExt, TryStreamExt};

use super::report::Named;
use super::{RestoreError, pages};
use crate::backup::list_each;

/// How much of the end of an object is read to find its footer.
const TAIL_BYTES: u64 = 64 * 1024;
/// Footers that are read at the same time.
pub(super) const READS_AT_ONCE: usize = 16;
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
    /// How many of these are merged objects and manifest pages of single partitions: they hold copies of records, and no new ones.
    pub(super) merged_objects: u64,
    /// Objects that the state, or one of its pages, refers to and that are not there.
    pub(super) missing: Named,
    /// Manifest pages that cannot be read, and why.
    pub(super) unusable_pages: Named,
}

/// Looks at the objects of the incarnations behind which a tail may lie, and for all objects that the state refers to.
pub(super) async fn survey(
    store: &dyn ObjectStore,
    state: &State,
    incarnations: &[Incarnation],
) -> Result<Tail, RestoreError> {
    let (known, oldest) = (restore::known_segments(state), restore::oldest_uncommitted(state));
    let mut tail = Tail::default();
    let mut young = Vec::new();
    let mut live = restore::live_objects(state);
    let pages = restore::known_pages(state);
    let page_keys: BTreeSet<PageKey> = pages.values().flatten().map(|page| page.key).collect();
    let mut all: BTreeSet<Incarnation> = live.iter().map(|key| key.incarnation).collect();
    all.extend(incarnations);
    for incarnation in all {
        let may_be_lost = incarnations.contains(&incarnation);
        let segments = format!("{incarnation}/segments/");
        list_each(store, &segments, &mut |object| {
            let Ok(key) = object.key.parse::<SegmentKey>() else { return };
            live.remove(&key);
            if !may_be_lost || known.contains(&key.segment) {
                return;
            }
            tail.keys.push(object.key.clone());
            if key.segment.time() >= oldest {
                young.push(object);
            }
        })
        .await?;
        list_each(store, &merged_folder(incarnation), &mut |object| {
            let Ok(key) = object.key.parse::<SegmentKey>() else { return };
            live.remove(&key);
            let is_paged = key.merged.is_some_and(|on| pages.contains_key(&on));
            if may_be_lost && !is_paged && !known.contains(&key.segment) {
                tail.add_merged(object.key);
            }
        })
        .await?;
        if may_be_lost {
            list_each(store, &page_folder(incarnation), &mut |object| {
                if object.key.parse().is_ok_and(|key: PageKey| !page_keys.contains(&key)) {
                    tail.add_merged(object.key);
                }
            })
            .await?;
        }
    }
    live.iter().for_each(|key| tail.missing.add(key));
    for (on, pages) in &pages {
        pages::survey(store, (*on, pages), &known, incarnations, &mut tail).await?;
    }
    tail.read_footers(store, young).await?;
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
    /// Notes a merged object or a page that nothing refers to.
    pub(super) fn add_merged(&mut self, key: String) {
        self.merged_objects += 1;
        self.keys.push(key);
    }

    /// Counts the records of objects that may have been committed.
    async fn read_footers(
        &mut self,
        store: &dyn ObjectStore,
        young: Vec<ListedObject>,
    ) -> Result<(), RestoreError> {
        let mut footers = futures::stream::iter(young)
            .map(|object| async move {
                let footer = footer(store, &object).await;
                footer.map(|footer| (object, footer))
            })
            .buffered(READS_AT_ONCE);
        while let Some((object, footer)) = footers.try_next().await? {
            self.objects += 1;
            self.bytes += object.size;
            match footer {
                Ok(footer) => self.count(&footer),
                Err(error) => self.unreadable.push(format!("{}: {error}", object.key)),
            }
        }
        Ok(())
    }

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
