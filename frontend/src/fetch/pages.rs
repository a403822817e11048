//! Manifest pages: where old slices lie. A plan that begins in one names it; here it is read, and the plan filled in.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use carnax_core::error_code::ErrorCode;
use carnax_core::limits;
use carnax_core::manifest_page::ManifestPage;
use carnax_core::metadata::{FetchFrom, FetchPlan, PlannedPage, PlannedSlice};
use carnax_core::object_key::PageKey;
use carnax_core::problem::Problem;
use carnax_object_store::{GetRange, ObjectStore, ObjectStoreError};
use tokio::sync::OnceCell;

use super::cache::ReadError;
use super::read::ReadFailure;

/// Slices over all pages that are remembered.
const SLICES_MAX: usize = 400_000;

/// A page that is being read, or was.
type Reading = Arc<OnceCell<Arc<ManifestPage>>>;

/// Reads pages, each once for all who want it at the same time, and keeps them.
#[derive(Debug)]
pub(crate) struct PageCache {
    store: Arc<dyn ObjectStore>,
    deadline: Duration,
    pages: Mutex<Pages>,
}

#[derive(Debug, Default)]
struct Pages {
    by_key: BTreeMap<PageKey, Reading>,
    slices: usize,
}

impl PageCache {
    /// Pages of a store, each to be read within a deadline.
    pub(crate) fn new(store: Arc<dyn ObjectStore>, deadline: Duration) -> Self {
        Self { store, deadline, pages: Mutex::default() }
    }

    /// Fills in the slices of a plan that begins in a page: at least one, and no more than were asked for.
    ///
    /// # Errors
    /// `Gone` if the page is not there (any more): a new plan knows better.
    pub(super) async fn fill(
        &self,
        plan: &mut FetchPlan,
        from: FetchFrom,
        max_bytes: u64,
    ) -> Result<(), ReadFailure> {
        let Some(planned) = plan.page else { return Ok(()) };
        let page = self.read(planned).await?;
        let behind = |slice: &&PlannedSlice| slice.end_offset > plan.start;
        let reaching = |slice: &PlannedSlice| match from {
            FetchFrom::Timestamp(time) => slice.max_timestamp >= time,
            _ => true,
        };
        let slices: Vec<&PlannedSlice> = page.slices().iter().filter(behind).collect();
        // What reaches the time may lie before the log start: then the search goes on behind the page.
        let first = slices.iter().position(|slice| reaching(slice)).unwrap_or(0);
        let mut bytes = 0_u64;
        for slice in slices.into_iter().skip(first).take(limits::PLAN_SLICES_MAX) {
            plan.slices.push(*slice);
            bytes = bytes.saturating_add(slice.bytes.length);
            if bytes >= max_bytes {
                break;
            }
        }
        if let (FetchFrom::Timestamp(_), Some(first)) = (from, plan.slices.first()) {
            plan.start = plan.start.max(first.base_offset);
        }
        Ok(())
    }

    async fn read(&self, planned: PlannedPage) -> Result<Arc<ManifestPage>, ReadFailure> {
        let reading = {
            let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(pages.by_key.entry(planned.key).or_default())
        };
        let page = reading.get_or_try_init(|| self.get(planned)).await;
        if page.is_err() {
            let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
            pages.by_key.remove(&planned.key);
        }
        page.cloned()
    }

    async fn get(&self, planned: PlannedPage) -> Result<Arc<ManifestPage>, ReadFailure> {
        let name = planned.key.to_string();
        let read = self.store.get(&name, GetRange::WholeUpTo(planned.size));
        let read = tokio::time::timeout(self.deadline, read).await;
        let (bytes, _) = match read {
            Ok(read) => read.map_err(ReadError::Store)?,
            Err(_) => return Err(ReadError::Late(self.deadline).into()),
        };
        let damaged = |reason: String| ReadFailure::DamagedPage { page: planned.key, reason };
        let page = ManifestPage::decode(&bytes).map_err(|error| damaged(error.to_string()))?;
        if page.on() != planned.key.on {
            return Err(damaged(format!("it is a page of {}", page.on())));
        }
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.slices += page.slices().len();
        if pages.slices > SLICES_MAX {
            *pages = Pages { by_key: BTreeMap::new(), slices: page.slices().len() };
        }
        Ok(Arc::new(page))
    }
}

/// What to tell a client of a page that is not what was written.
pub(super) fn damaged_page(page: &PageKey, reason: &str) -> Problem {
    let detail =
        format!("the manifest page {page}, which says where these records lie, is damaged: {reason}");
    Problem::new(ErrorCode::DamagedBatch, detail).with(|facts| {
        facts.topic_id = Some(page.on.topic);
        facts.partition = Some(page.on.partition);
    })
}

/// A page that was deleted between the plan and the read.
pub(super) fn is_gone(failure: &ReadFailure) -> bool {
    matches!(failure, ReadFailure::Gone(ReadError::Store(ObjectStoreError::NotFound { .. })))
}
