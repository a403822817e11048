//! Looks into objects: reads footers, or whole objects, and holds them against their manifests.

use std::collections::BTreeMap;
use std::time::Duration;

use carnax_core::id::SegmentNumber;
use carnax_core::metadata::Manifest;
use carnax_core::offset::ByteRange;
use carnax_core::segment::{Footer, SegmentError};
use carnax_object_store::{GetRange, ObjectStore, ObjectStoreError};
use futures::StreamExt;
use tokio::sync::Semaphore;

use super::examine::{Examined, examine_footer, examine_object};
use super::report::{Depth, Problem, ProblemKind};
use super::{OBJECT_MEMORY_BYTES, Step, Verification, VerifyError, manifests};

/// How much of the end of an object is read to find its footer.
const TAIL_BYTES: u64 = 64 * 1024;
/// How often a read is tried, beside what the store does by itself.
const TRIES: u32 = 4;
/// The pause before the second try; each further one is twice as long.
const PAUSE: Duration = Duration::from_secs(1);

impl Verification<'_> {
    /// Looks into the objects of all segments before `end`.
    pub(super) async fn look_into(&mut self, end: SegmentNumber) -> Result<(), VerifyError> {
        let (mut from, mut bytes) = (SegmentNumber(0), 0);
        loop {
            let page = manifests(&self.client, from, true).await?;
            let wanted =
                |manifest: &Manifest| manifest.number < end && !self.settled.contains(&manifest.number);
            let wanted = page.manifests.into_iter().filter(wanted).collect();
            let mut suspects = self.look(wanted, &mut bytes).await;
            while let Some((first, last)) = bounds(&suspects) {
                let mut now = self.manifests_between(first, last).await?;
                let mut again = Vec::new();
                for (manifest, examined) in suspects {
                    match now.remove(&manifest.number) {
                        // Nothing refers to it any more: it may be gone.
                        None => {}
                        Some(same) if same == manifest => {
                            self.report.checked.add(examined.checked);
                            examined.problems.into_iter().for_each(|problem| self.report.add(problem));
                        }
                        Some(other) => again.push(other),
                    }
                }
                suspects = self.look(again, &mut bytes).await;
            }
            match page.next {
                Some(next) if next < end => from = next,
                _ => return Ok(()),
            }
        }
    }

    /// Looks into objects, many at a time; those with problems come back.
    pub(super) async fn look(&mut self, wanted: Vec<Manifest>, bytes: &mut u64) -> Vec<(Manifest, Examined)> {
        let (store, memory, depth) = (&*self.object_store, &*self.memory, self.depth);
        let looks = futures::stream::iter(wanted).map(|manifest| look(store, memory, depth, manifest));
        let mut looks = std::pin::pin!(looks.buffer_unordered(self.concurrency));
        let mut suspects = Vec::new();
        while let Some((manifest, examined)) = looks.next().await {
            *bytes = bytes.saturating_add(manifest.size);
            let total = self.report.checked.bytes;
            let problems = self.report.problem_count;
            (self.tell)(super::Progress { step: Step::Objects, done: (*bytes).min(total), total, problems });
            if examined.problems.is_empty() {
                self.report.checked.add(examined.checked);
            } else {
                suspects.push((manifest, examined));
            }
        }
        suspects
    }

    /// The manifests of a run of segments as they are now.
    async fn manifests_between(
        &self,
        first: SegmentNumber,
        last: SegmentNumber,
    ) -> Result<BTreeMap<SegmentNumber, Manifest>, VerifyError> {
        let (mut from, mut found) = (first, BTreeMap::new());
        loop {
            let page = manifests(&self.client, from, true).await?;
            found.extend(page.manifests.into_iter().map(|manifest| (manifest.number, manifest)));
            match page.next {
                Some(next) if next <= last => from = next,
                _ => return Ok(found),
            }
        }
    }
}

fn bounds(suspects: &[(Manifest, Examined)]) -> Option<(SegmentNumber, SegmentNumber)> {
    let numbers = || suspects.iter().map(|(manifest, _)| manifest.number);
    Some((numbers().min()?, numbers().max()?))
}

async fn look(
    store: &dyn ObjectStore,
    memory: &Semaphore,
    depth: Depth,
    manifest: Manifest,
) -> (Manifest, Examined) {
    let key = manifest.key.to_string();
    let read = match depth {
        Depth::Listing | Depth::Footers => {
            read_footer(store, &key, manifest.size).await.map(|footer| examine_footer(&manifest, &footer))
        }
        Depth::Records => {
            let kibibytes = manifest.size.div_ceil(1024).min(OBJECT_MEMORY_BYTES as u64 / 1024);
            let room = memory.acquire_many(u32::try_from(kibibytes).unwrap_or(u32::MAX)).await;
            let read = get(store, &key, GetRange::WholeUpTo(manifest.size)).await;
            let examined = match read {
                Ok(object) if object.len() as u64 != manifest.size => {
                    let detail =
                        format!("{} bytes are there, {} were committed", object.len(), manifest.size);
                    Ok(one(Problem::of(&manifest, ProblemKind::WrongSize, detail)))
                }
                Ok(object) => {
                    let checked = manifest.clone();
                    let examined = tokio::task::spawn_blocking(move || examine_object(&checked, &object));
                    Ok(examined.await.unwrap_or_else(|error| {
                        one(Problem::of(
                            &manifest,
                            ProblemKind::Damaged,
                            format!("it cannot be read: {error}"),
                        ))
                    }))
                }
                Err(error) => Err(error),
            };
            drop(room);
            examined
        }
    };
    let examined = read.unwrap_or_else(|error| one(unread(&manifest, &error)));
    (manifest, examined)
}

fn one(problem: Problem) -> Examined {
    Examined { problems: vec![problem], ..Examined::default() }
}

fn unread(manifest: &Manifest, error: &ObjectStoreError) -> Problem {
    let kind = match error {
        ObjectStoreError::NotFound { .. } => ProblemKind::Missing,
        ObjectStoreError::ShortRead { .. } | ObjectStoreError::TooLarge { .. } => ProblemKind::WrongSize,
        _ => ProblemKind::Unreadable,
    };
    Problem::of(manifest, kind, error.to_string())
}

async fn read_footer(
    store: &dyn ObjectStore,
    key: &str,
    size: u64,
) -> Result<Result<Footer, SegmentError>, ObjectStoreError> {
    let mut length = TAIL_BYTES.min(size);
    loop {
        let range = ByteRange { start: size - length, length };
        match Footer::parse(&get(store, key, range.into()).await?, size) {
            Err(SegmentError::TailTooShort { needed }) if needed > length && needed <= size => {
                length = needed
            }
            footer => return Ok(footer),
        }
    }
}

/// Reads with more patience than the store has by itself: a verification takes hours, and a bucket that is away for a second
/// says nothing about the log.
pub(super) async fn get(
    store: &dyn ObjectStore,
    key: &str,
    range: GetRange,
) -> Result<bytes::Bytes, ObjectStoreError> {
    let mut pause = PAUSE;
    for _ in 1..TRIES {
        match store.get(key, range).await {
            Err(error) if error.is_transient() => tokio::time::sleep(pause).await,
            read => return read.map(|(bytes, _)| bytes),
        }
        pause *= 2;
    }
    store.get(key, range).await.map(|(bytes, _)| bytes)
}
