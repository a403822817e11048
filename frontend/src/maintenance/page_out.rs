//! Paging: writes where old slices lie into an object, and has the metadata core forget them for it.

use carnax_core::id::PageId;
use carnax_core::manifest_page::ManifestPage;
use carnax_core::metadata::{PagePart, PlanPage, ReplaceByPage};
use carnax_core::object_key::PageKey;

use super::stay::Stay;
use super::{Ended, Maintenance, MaintenanceError, Work};
use crate::metadata_client::CommandError;

/// Asks for plans and carries them out until there is nothing worth it left, or `enough` says so.
pub(super) async fn page_out(
    maintenance: &Maintenance,
    enough: &(dyn Fn() -> bool + Send + Sync),
    work: &mut Work,
    stay: &mut Stay<'_>,
) -> Result<Ended, MaintenanceError> {
    let mut after = None;
    while !enough() {
        let plan = maintenance.client.query(PlanPage { after }).await?;
        let Some(part) = plan.part else { return Ok(Ended::Finished) };
        after = Some(part.on);
        let page = PageId::from_parts(plan.log_time, maintenance.entropy.next_u128());
        write(maintenance, PageKey { incarnation: plan.incarnation, on: part.on, page }, part).await?;
        work.paged += 1;
        stay.stay().await?;
    }
    Ok(Ended::Enough)
}

async fn write(maintenance: &Maintenance, key: PageKey, part: PagePart) -> Result<(), MaintenanceError> {
    let PagePart { on, slices } = part;
    let sources = slices.iter().map(|source| source.segment).collect();
    let planned = slices.into_iter().map(|source| source.slice).collect();
    let page = ManifestPage::new(on, planned).map_err(|error| MaintenanceError::Plan(error.to_string()))?;
    let bytes = page.encode();
    let size = bytes.len() as u64;
    let (first, last) = (&page.slices()[0], &page.slices()[page.slices().len() - 1]);
    let request = ReplaceByPage {
        incarnation: key.incarnation,
        page: key.page,
        size,
        on,
        base_offset: first.base_offset,
        end_offset: last.end_offset,
        sources,
    };
    let name = key.to_string();
    let put = maintenance.object_store.put_if_absent(&name, bytes::Bytes::from(bytes).into());
    maintenance.pace.request(put).await?;
    let replaced = maintenance.client.command(request).await.map_err(CommandError::into_problem)?.replaced;
    maintenance.metrics.maintenance.pages.inc();
    tracing::debug!(%key, slices = page.slices().len(), replaced, "slices are paged out");
    Ok(())
}
