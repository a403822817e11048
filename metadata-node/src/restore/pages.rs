//! The manifest pages of a partition: whether they can be read, and whether all that they refer to is there.
//!
//! A page that cannot be read may refer to any merged object of its partition whose id lies in its range: none of these is deleted.

use std::collections::{BTreeMap, BTreeSet};

use carnax_core::id::{Incarnation, SegmentId, TopicPartition};
use carnax_core::limits;
use carnax_core::manifest_page::ManifestPage;
use carnax_core::object_key::{SegmentKey, merged_partition_folder};
use carnax_metadata_state::restore::KnownPage;
use carnax_object_store::{GetRange, ObjectStore, ObjectStoreError};
use futures::{StreamExt, TryStreamExt};

use super::RestoreError;
use super::tail::{READS_AT_ONCE, Tail};
use crate::backup::list_each;

/// What the pages of a partition refer to.
#[derive(Debug, Default)]
struct Paged {
    /// The objects, by incarnation, and whether records are read from them.
    objects: BTreeMap<Incarnation, BTreeMap<SegmentId, bool>>,
    /// The ranges of those pages that cannot be read.
    unread: Vec<(SegmentId, SegmentId)>,
}

/// Reads the pages of one partition and lists its merged objects. What its pages refer to is in memory, for this partition alone.
pub(super) async fn survey(
    store: &dyn ObjectStore,
    (on, pages): (TopicPartition, &[KnownPage]),
    known: &BTreeSet<SegmentId>,
    incarnations: &[Incarnation],
    tail: &mut Tail,
) -> Result<(), RestoreError> {
    let mut paged = read(store, on, pages, tail).await?;
    let mut all: BTreeSet<Incarnation> = paged.objects.keys().copied().collect();
    all.extend(incarnations);
    for incarnation in all {
        let mut wanted = paged.objects.remove(&incarnation).unwrap_or_default();
        let may_be_lost = incarnations.contains(&incarnation);
        list_each(store, &merged_partition_folder(incarnation, on), &mut |object| {
            let Ok(key) = object.key.parse::<SegmentKey>() else { return };
            let is_known = wanted.remove(&key.segment).is_some() || known.contains(&key.segment);
            if may_be_lost && !is_known && !paged.may_hold(key.segment) {
                tail.add_merged(object.key);
            }
        })
        .await?;
        for (segment, _) in wanted.into_iter().filter(|(_, live)| *live) {
            tail.missing.add(SegmentKey { incarnation, segment, merged: Some(on) });
        }
    }
    Ok(())
}

async fn read(
    store: &dyn ObjectStore,
    on: TopicPartition,
    pages: &[KnownPage],
    tail: &mut Tail,
) -> Result<Paged, RestoreError> {
    let mut paged = Paged::default();
    let owners = pages.iter().filter(|page| page.owns_slices).copied();
    let read = |page: KnownPage| async move {
        let read = get(store, on, &page).await;
        read.map(|read| (page, read))
    };
    let mut read = futures::stream::iter(owners).map(read).buffered(READS_AT_ONCE);
    while let Some((page, read)) = read.try_next().await? {
        match read {
            Ok(found) => paged.add(&found, page.live),
            Err(problem) => {
                paged.unread.push(page.segments);
                // One that waits for its deletion may be gone already.
                if page.live {
                    tail.unusable_pages.add(format_args!("{}: {problem}", page.key));
                }
            }
        }
    }
    Ok(paged)
}

/// A page, or why it cannot be used.
async fn get(
    store: &dyn ObjectStore,
    on: TopicPartition,
    page: &KnownPage,
) -> Result<Result<ManifestPage, String>, ObjectStoreError> {
    let bytes_max = ManifestPage::object_bytes(limits::PAGE_SLICES_MAX);
    let bytes = match store.get(&page.key.to_string(), GetRange::WholeUpTo(bytes_max)).await {
        Ok((bytes, _)) => bytes,
        Err(error @ (ObjectStoreError::NotFound { .. } | ObjectStoreError::TooLarge { .. })) => {
            return Ok(Err(error.to_string()));
        }
        Err(error) => return Err(error),
    };
    let found = match ManifestPage::decode(&bytes) {
        Ok(found) => found,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let slices = found.slices();
    let offsets = slices.first().zip(slices.last()).map(|(first, last)| (first.base_offset, last.end_offset));
    let is_it = found.on() == on && offsets == Some(page.offsets) && slices.len() == page.slices as usize;
    Ok(if is_it { Ok(found) } else { Err("it is another page".to_owned()) })
}

impl Paged {
    fn add(&mut self, page: &ManifestPage, live: bool) {
        for SegmentKey { incarnation, segment, .. } in page.slices().iter().map(|slice| slice.segment) {
            self.objects.entry(incarnation).or_default().insert(segment, live);
        }
    }

    fn may_hold(&self, segment: SegmentId) -> bool {
        self.unread.iter().any(|(first, last)| (*first..=*last).contains(&segment))
    }
}
