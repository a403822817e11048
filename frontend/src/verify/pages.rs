//! Manifest pages: they are objects themselves, and know of objects that the metadata core knows nothing of.

use carnax_core::id::SegmentNumber;
use carnax_core::limits::MANIFEST_ROWS_MAX;
use carnax_core::manifest_page::ManifestPage;
use carnax_core::metadata::{
    DeadPage, ListPages, ListedPage, Manifest, ManifestSlice, PlannedPage, PlannedSlice,
};
use carnax_object_store::{GetRange, ObjectStoreError};

use super::objects::get;
use super::report::{Depth, Problem, ProblemKind, Records};
use super::{Verification, VerifyError};

impl Verification<'_> {
    /// Takes in what live pages refer to. What is wrong with them shows later.
    pub(super) async fn learn_pages(&mut self) -> Result<(), VerifyError> {
        let mut after = None;
        loop {
            let list = self.client.query(ListPages { after, limit: MANIFEST_ROWS_MAX }).await?;
            for listed in &list.pages {
                if self.known.has_page(&listed.page.key) {
                    continue;
                }
                self.known.insert_page(listed.page.key, true);
                match self.read_page(listed.page).await {
                    Ok(page) => self.learn_slices(&page, true),
                    // What it refers to is not known, so no object of the partition is called an orphan.
                    Err(_) => drop(self.unread.insert(listed.page.key.on)),
                }
            }
            after = list.pages.last().map(place);
            if !list.more {
                return Ok(());
            }
        }
    }

    /// Takes in a dead page, and what dies with it; both may be gone already.
    pub(super) async fn learn_dead_page(&mut self, dead: &DeadPage) {
        self.known.insert_page(dead.key, false);
        if !dead.owns_slices {
            return;
        }
        if let Ok(page) = self.read_page(PlannedPage { key: dead.key, size: dead.size }).await {
            self.learn_slices(&page, false);
        }
    }

    fn learn_slices(&mut self, page: &ManifestPage, live: bool) {
        for slice in page.slices() {
            let known = self.known.has(slice.segment.segment);
            self.known.insert(None, &slice.segment, slice.segment_size, live);
            if live && !known {
                self.report.checked.segments += 1;
                self.report.checked.bytes += slice.segment_size;
            }
        }
    }

    /// Looks into all live pages, and into the objects of their slices.
    pub(super) async fn look_into_pages(&mut self) -> Result<(), VerifyError> {
        let (mut after, mut bytes) = (None, 0);
        loop {
            let list = self.client.query(ListPages { after, limit: MANIFEST_ROWS_MAX }).await?;
            for listed in &list.pages {
                let problems = self.look_into_page(listed, &mut bytes).await;
                if !problems.is_empty() && self.is_live(listed).await? {
                    problems.into_iter().for_each(|problem| self.report.add(problem));
                }
            }
            after = list.pages.last().map(place);
            if !list.more {
                return Ok(());
            }
        }
    }

    async fn look_into_page(&mut self, listed: &ListedPage, bytes: &mut u64) -> Vec<Problem> {
        let on = listed.page.key.on;
        let problem = |(kind, detail)| {
            let records = vec![Records::new(on, listed.base_offset, listed.end_offset)];
            Problem { kind, key: listed.page.key.to_string(), detail, records }
        };
        let page = match self.read_page(listed.page).await {
            Ok(page) => page,
            Err(wrong) => return vec![problem(wrong)],
        };
        let slices = page.slices();
        let bounds = slices.first().zip(slices.last());
        let bounds = bounds.map(|(first, last)| (first.base_offset, last.end_offset));
        if page.on() != on
            || bounds != Some((listed.base_offset, listed.end_offset))
            || slices.len() as u64 != u64::from(listed.slices)
        {
            let detail = "it holds other slices than the metadata core says".to_owned();
            return vec![problem((ProblemKind::Contradiction, detail))];
        }
        let manifests = slices.iter().map(|slice| manifest(&page, slice));
        if self.depth == Depth::Listing {
            return manifests.filter_map(|manifest| self.judge_unread(&manifest)).collect();
        }
        let suspects = self.look(manifests.collect(), bytes).await;
        let mut problems = Vec::new();
        for (_, examined) in suspects {
            self.report.checked.add(examined.checked);
            problems.extend(examined.problems);
        }
        problems
    }

    /// What the listing says of an object that a live page refers to.
    fn judge_unread(&self, manifest: &Manifest) -> Option<Problem> {
        let id = manifest.key.segment;
        let size = manifest.size;
        if self.paged_wrong.contains(&id) {
            let detail = format!("{size} bytes were committed, and there are more or fewer");
            return Some(Problem::of(manifest, ProblemKind::WrongSize, detail));
        }
        // One that was paged out since was looked at under its number.
        (self.known.has(id) && !self.known.was_seen(id)).then(|| {
            let detail = format!("{size} bytes that were committed are not there");
            Problem::of(manifest, ProblemKind::Missing, detail)
        })
    }

    async fn is_live(&self, listed: &ListedPage) -> Result<bool, VerifyError> {
        // Pages of a partition go away from the first one on: it is the first one from itself on, or gone.
        let before = listed.base_offset.0.checked_sub(1).map(carnax_core::offset::Offset);
        let on = listed.page.key.on;
        let list = match before {
            Some(before) => self.client.query(ListPages { after: Some((on, before)), limit: 1 }).await?,
            None => {
                let all = self.client.query(ListPages { after: None, limit: MANIFEST_ROWS_MAX }).await?;
                return Ok(all.more || all.pages.contains(listed));
            }
        };
        Ok(list.pages.contains(listed))
    }

    async fn read_page(&self, page: PlannedPage) -> Result<ManifestPage, (ProblemKind, String)> {
        let read = get(&*self.object_store, &page.key.to_string(), GetRange::WholeUpTo(page.size)).await;
        let bytes = read.map_err(|error| {
            let kind = match error {
                ObjectStoreError::NotFound { .. } => ProblemKind::Missing,
                ObjectStoreError::TooLarge { .. } => ProblemKind::WrongSize,
                _ => ProblemKind::Unreadable,
            };
            (kind, error.to_string())
        })?;
        if bytes.len() as u64 != page.size {
            let detail = format!("{} bytes are there, {} were committed", bytes.len(), page.size);
            return Err((ProblemKind::WrongSize, detail));
        }
        ManifestPage::decode(&bytes).map_err(|error| (ProblemKind::Damaged, error.to_string()))
    }
}

fn place(listed: &ListedPage) -> (carnax_core::id::TopicPartition, carnax_core::offset::Offset) {
    (listed.page.key.on, listed.base_offset)
}

/// The manifest of an object that holds one slice, which stands in a page.
fn manifest(page: &ManifestPage, slice: &PlannedSlice) -> Manifest {
    Manifest {
        // Objects that pages know have no number any more.
        number: SegmentNumber(u64::MAX),
        key: slice.segment,
        size: slice.segment_size,
        rewritten: slice.rewritten,
        slices: vec![ManifestSlice {
            on: page.on(),
            bytes: slice.bytes,
            base_offset: slice.base_offset,
            end_offset: slice.end_offset,
            max_timestamp: slice.max_timestamp,
        }],
    }
}
