//! Merged objects that manifest pages refer to: the metadata core knows the pages, not what stands in them.

use std::collections::BTreeSet;

use carnax_core::id::SegmentId;
use carnax_core::manifest_page::ManifestPage;
use carnax_core::metadata::{CoveringPage, Orphans};
use carnax_object_store::GetRange;

use crate::maintenance::Maintenance;

/// What must not be taken for an orphan.
#[derive(Debug, Default)]
pub(super) struct Covered {
    segments: BTreeSet<SegmentId>,
    /// The ranges of pages that could not be read: everything in them counts as live.
    unread: Vec<(SegmentId, SegmentId)>,
}

impl Covered {
    pub(super) fn holds(&self, segment: SegmentId) -> bool {
        self.segments.contains(&segment)
            || self.unread.iter().any(|(first, last)| (*first..=*last).contains(&segment))
    }
}

/// Reads the pages that may hold what looks like an orphan.
pub(super) async fn covered(maintenance: &Maintenance, found: &Orphans) -> Covered {
    let mut covered = Covered::default();
    for page in &found.covering {
        if !found.orphans.iter().any(|orphan| (page.first..=page.last).contains(orphan)) {
            continue;
        }
        match read(maintenance, page).await {
            Ok(read) => covered.segments.extend(read.slices().iter().map(|slice| slice.segment.segment)),
            Err(reason) => {
                tracing::warn!(page = %page.page.key, reason, "a manifest page cannot be read: nothing that it may cover is deleted");
                covered.unread.push((page.first, page.last));
            }
        }
    }
    covered
}

async fn read(maintenance: &Maintenance, page: &CoveringPage) -> Result<ManifestPage, String> {
    let name = page.page.key.to_string();
    let read = maintenance.object_store.get(&name, GetRange::WholeUpTo(page.page.size));
    let (bytes, _) = maintenance.pace.request(read).await.map_err(|error| error.to_string())?;
    ManifestPage::decode(&bytes).map_err(|error| error.to_string())
}
