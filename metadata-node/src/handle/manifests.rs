//! What the state knows of all objects, for whoever compares it with the bucket.

use carnax_core::error_code::ErrorCode;
use carnax_core::metadata::{DeadList, ListDead, ListManifests, ListPages, ManifestList, PageList};
use carnax_core::problem::Problem;
use carnax_metadata_state::answer;

use super::Handle;

/// So many slices are searched in less than a millisecond.
const SLICES_AT_ONCE: u64 = 100_000;

impl Handle {
    /// A large state is searched by another thread, since with slices every one of them is looked at.
    pub(crate) async fn list_manifests(&self, request: ListManifests) -> Result<ManifestList, Problem> {
        let view = self.linearizable().await?;
        let large = request.slices && answer::status(&view.state).slices > SLICES_AT_ONCE;
        let search = move || answer::list_manifests(&view.state, &request);
        let page = if large { tokio::task::spawn_blocking(search).await } else { Ok(search()) };
        let stopped = |error| Problem::new(ErrorCode::Unavailable, format_args!("the search ended: {error}"));
        self.counted(page.unwrap_or_else(|error| Err(stopped(error))))
    }

    pub(crate) async fn list_dead(&self, request: ListDead) -> Result<DeadList, Problem> {
        let view = self.linearizable().await?;
        self.counted(answer::list_dead(&view.state, &request))
    }

    pub(crate) async fn list_pages(&self, request: ListPages) -> Result<PageList, Problem> {
        let view = self.linearizable().await?;
        self.counted(answer::list_pages(&view.state, &request))
    }
}
