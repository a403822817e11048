//! The search for orphans: a pass over the folders that frontends write into.

use carnax_core::id::SegmentId;
use carnax_core::limits::FIND_ORPHANS_MAX;
use carnax_core::metadata::{AfterReport, FindOrphans, JobLease};
use carnax_core::object_key::{SEGMENT_FOLDERS, SegmentKey, merged_folder, segment_folder};
use carnax_core::time::Timestamp;
use carnax_object_store::{LIST_PAGE_KEYS_MAX, ListedObject};

use super::stay::Stay;
use super::{Maintenance, MaintenanceError, Work, delete_many};

const _: () = assert!(LIST_PAGE_KEYS_MAX <= FIND_ORPHANS_MAX);

/// A pass, or the rest of one.
pub(super) struct Pass<'a> {
    maintenance: &'a Maintenance,
    job: &'a JobLease,
    from: Timestamp,
    until: Timestamp,
    work: &'a mut Work,
    stay: Stay<'a>,
}

/// Where the listing of a folder goes on.
enum Next {
    After(String),
    Nowhere,
}

impl<'a> Pass<'a> {
    pub(super) fn new(
        maintenance: &'a Maintenance,
        job: &'a JobLease,
        (from, until): (Timestamp, Timestamp),
        work: &'a mut Work,
    ) -> Self {
        Self { maintenance, job, from, until, work, stay: Stay::new(maintenance, job) }
    }

    /// Goes over the folders that are left, as far as there is time.
    pub(super) async fn run(
        &mut self,
        folders_done: u32,
        enough: &(dyn Fn() -> bool + Send + Sync),
    ) -> Result<(), MaintenanceError> {
        for folder in folders_done..SEGMENT_FOLDERS {
            let whole = self.folder(folder, enough).await;
            if !matches!(whole, Ok(true)) {
                let laid_down = self.maintenance.report(self.job, folder, AfterReport::LayDown).await;
                return whole.and(laid_down.map_err(MaintenanceError::from));
            }
            self.stay.stay(folder + 1).await?;
        }
        self.maintenance.report(self.job, SEGMENT_FOLDERS, AfterReport::Finish).await?;
        self.work.finished += 1;
        let Work { seen, deleted, deleted_bytes, .. } = *self.work;
        tracing::info!(seen, deleted, deleted_bytes, "a pass over the objects for orphans is finished");
        Ok(())
    }

    /// Says whether there was time for all of a folder.
    async fn folder(
        &mut self,
        folder: u32,
        enough: &(dyn Fn() -> bool + Send + Sync),
    ) -> Result<bool, MaintenanceError> {
        let prefix = segment_folder(self.job.incarnation, folder);
        let first = SegmentId::from_parts(self.from, 0);
        let whole = self.objects(&prefix, format!("{prefix}{first}"), folder, enough).await?;
        if !whole || folder + 1 < SEGMENT_FOLDERS {
            return Ok(whole);
        }
        // These are not in the order of their ages.
        let prefix = merged_folder(self.job.incarnation);
        self.objects(&prefix, String::new(), folder, enough).await
    }

    /// Looks at objects in the order of their keys, behind one of them; says whether there was time for all.
    async fn objects(
        &mut self,
        prefix: &str,
        after: String,
        folder: u32,
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
            self.stay.stay(folder).await?;
        }
        Ok(true)
    }

    /// Deletes the orphans of a page; says whether objects that are old enough may follow.
    async fn page(&mut self, objects: &[ListedObject]) -> Result<bool, MaintenanceError> {
        let mut candidates: Vec<(SegmentId, &ListedObject)> = Vec::with_capacity(objects.len());
        let mut old = true;
        for object in objects {
            match object.key.parse::<SegmentKey>() {
                Ok(key) if key.segment.time() < self.until => candidates.push((key.segment, object)),
                Ok(key) if key.merged.is_some() => {}
                Ok(_) => {
                    old = false;
                    break;
                }
                Err(_) => tracing::warn!(key = object.key, "an object that is not ours is left alone"),
            }
        }
        self.work.seen += candidates.len() as u64;
        if candidates.is_empty() {
            return Ok(old);
        }
        let ids = candidates.iter().map(|(id, _)| *id).collect();
        let question = FindOrphans { incarnation: self.job.incarnation, candidates: ids };
        let orphans = self.maintenance.client.query(question).await?.orphans;
        candidates.retain(|(id, _)| orphans.binary_search(id).is_ok());
        if !candidates.is_empty() {
            self.delete(&candidates).await?;
        }
        Ok(old)
    }

    async fn delete(&mut self, orphans: &[(SegmentId, &ListedObject)]) -> Result<(), MaintenanceError> {
        let keys: Vec<String> = orphans.iter().map(|(_, object)| object.key.clone()).collect();
        let results = delete_many(self.maintenance, &keys).await;
        let mut failed = None;
        for ((_, object), result) in orphans.iter().zip(results) {
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
