//! The search for orphans: a pass over the folders that frontends and workers write into.

mod covering;

use carnax_core::id::{SegmentId, TopicPartition};
use carnax_core::limits::FIND_ORPHANS_MAX;
use carnax_core::metadata::{FindOrphans, JobLease};
use carnax_core::object_key::{
    PageKey, SEGMENT_FOLDERS, SegmentKey, merged_folder, page_folder, segment_folder,
};
use carnax_core::time::Timestamp;
use carnax_object_store::{LIST_PAGE_KEYS_MAX, ListedObject};

use super::stay::Stay;
use super::{Ended, Maintenance, MaintenanceError, Work, delete_many};

const _: () = assert!(LIST_PAGE_KEYS_MAX <= FIND_ORPHANS_MAX);

/// A pass, or the rest of one.
pub(super) struct Pass<'a, 's> {
    maintenance: &'a Maintenance,
    job: &'a JobLease,
    from: Timestamp,
    until: Timestamp,
    work: &'a mut Work,
    stay: &'a mut Stay<'s>,
}

/// Where the listing of a folder goes on.
enum Next {
    After(String),
    Nowhere,
}

impl<'a, 's> Pass<'a, 's> {
    pub(super) fn new(
        maintenance: &'a Maintenance,
        job: &'a JobLease,
        (from, until): (Timestamp, Timestamp),
        work: &'a mut Work,
        stay: &'a mut Stay<'s>,
    ) -> Self {
        Self { maintenance, job, from, until, work, stay }
    }

    /// Goes over the folders that are left, as far as there is time.
    pub(super) async fn run(
        &mut self,
        enough: &(dyn Fn() -> bool + Send + Sync),
    ) -> Result<Ended, MaintenanceError> {
        while self.stay.folders_done < SEGMENT_FOLDERS {
            if !self.folder(self.stay.folders_done, enough).await? {
                return Ok(Ended::Enough);
            }
            self.stay.folders_done += 1;
            self.stay.stay().await?;
        }
        let Work { seen, deleted, deleted_bytes, .. } = *self.work;
        tracing::info!(seen, deleted, deleted_bytes, "a pass over the objects for orphans is finished");
        Ok(Ended::Finished)
    }

    /// Says whether there was time for all of a folder.
    async fn folder(
        &mut self,
        folder: u32,
        enough: &(dyn Fn() -> bool + Send + Sync),
    ) -> Result<bool, MaintenanceError> {
        let prefix = segment_folder(self.job.incarnation, folder);
        let first = SegmentId::from_parts(self.from, 0);
        let whole = self.objects(&prefix, format!("{prefix}{first}"), enough).await?;
        if !whole || folder + 1 < SEGMENT_FOLDERS {
            return Ok(whole);
        }
        // These are not in the order of their ages.
        for prefix in [merged_folder(self.job.incarnation), page_folder(self.job.incarnation)] {
            if !self.objects(&prefix, String::new(), enough).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Looks at objects in the order of their keys, behind one of them; says whether there was time for all.
    async fn objects(
        &mut self,
        prefix: &str,
        after: String,
        enough: &(dyn Fn() -> bool + Send + Sync),
    ) -> Result<bool, MaintenanceError> {
        let mut next = Next::After(after);
        while let Next::After(after) = next {
            if enough() {
                return Ok(false);
            }
            let list = self.maintenance.object_store.list(prefix, &after, LIST_PAGE_KEYS_MAX);
            let page = self.maintenance.pace.request(list).await?;
            next = match page.objects.last() {
                Some(last) if page.more => Next::After(last.key.clone()),
                _ => Next::Nowhere,
            };
            let young_from_here = !self.page(&page.objects).await?;
            if young_from_here {
                return Ok(true);
            }
            self.stay.stay().await?;
        }
        Ok(true)
    }

    /// Deletes the orphans of a listing; says whether objects that are old enough may follow.
    async fn page(&mut self, objects: &[ListedObject]) -> Result<bool, MaintenanceError> {
        let mut candidates: Vec<Candidate<'_>> = Vec::with_capacity(objects.len());
        let mut old = true;
        for object in objects {
            let Some(candidate) = Candidate::of(object) else {
                tracing::warn!(key = object.key, "an object that is not ours is left alone");
                continue;
            };
            if candidate.time() < self.until {
                candidates.push(candidate);
            } else if candidate.is_in_order_of_age() {
                old = false;
                break;
            }
        }
        self.work.seen += candidates.len() as u64;
        for same in candidates.chunk_by(|a, b| a.on() == b.on()) {
            let orphans = self.orphans_of(same).await?;
            if !orphans.is_empty() {
                self.delete(&orphans).await?;
            }
        }
        Ok(old)
    }

    /// Those of the candidates, all of one partition or of all, that are orphans.
    async fn orphans_of<'o>(
        &self,
        candidates: &[Candidate<'o>],
    ) -> Result<Vec<&'o ListedObject>, MaintenanceError> {
        let mut question = FindOrphans {
            incarnation: self.job.incarnation,
            candidates: Vec::new(),
            on: candidates.first().and_then(Candidate::on),
            pages: Vec::new(),
        };
        for candidate in candidates {
            match &candidate.name {
                Name::Segment(key) => question.candidates.push(key.segment),
                Name::Page(key) => question.pages.push(*key),
            }
        }
        let found = self.maintenance.client.query(question).await?;
        let covered = covering::covered(self.maintenance, &found).await;
        let is_orphan = |candidate: &&Candidate<'_>| match &candidate.name {
            Name::Segment(key) => {
                found.orphans.binary_search(&key.segment).is_ok() && !covered.holds(key.segment)
            }
            Name::Page(key) => found.orphan_pages.binary_search(&key.page).is_ok(),
        };
        Ok(candidates.iter().filter(is_orphan).map(|candidate| candidate.object).collect())
    }

    async fn delete(&mut self, orphans: &[&ListedObject]) -> Result<(), MaintenanceError> {
        let keys: Vec<String> = orphans.iter().map(|object| object.key.clone()).collect();
        let results = delete_many(self.maintenance, self.job.incarnation, &keys).await?;
        let mut failed = None;
        for (object, result) in orphans.iter().zip(results) {
            match result {
                Ok(()) => {
                    self.work.deleted += 1;
                    self.work.deleted_bytes += object.size;
                    self.maintenance.metrics.maintenance.orphans_deleted.inc();
                    self.maintenance.metrics.maintenance.orphan_bytes_deleted.inc_by(object.size);
                    tracing::debug!(key = object.key, bytes = object.size, "an orphan is deleted");
                }
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(()), |error| Err(error.into()))
    }
}

/// An object that may be an orphan.
struct Candidate<'o> {
    name: Name,
    object: &'o ListedObject,
}

enum Name {
    Segment(SegmentKey),
    Page(PageKey),
}

impl<'o> Candidate<'o> {
    fn of(object: &'o ListedObject) -> Option<Self> {
        let segment = object.key.parse().map(Name::Segment).ok();
        let name = segment.or_else(|| Some(Name::Page(object.key.parse().ok()?)))?;
        Some(Self { name, object })
    }

    fn time(&self) -> Timestamp {
        match &self.name {
            Name::Segment(key) => key.segment.time(),
            Name::Page(key) => key.page.time(),
        }
    }

    /// The partition of a merged object.
    fn on(&self) -> Option<TopicPartition> {
        match &self.name {
            Name::Segment(key) => key.merged,
            Name::Page(_) => None,
        }
    }

    /// Whether what follows in the listing is younger.
    fn is_in_order_of_age(&self) -> bool {
        matches!(&self.name, Name::Segment(key) if key.merged.is_none())
    }
}
