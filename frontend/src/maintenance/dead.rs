//! Deletes objects that nothing refers to any more, when the metadata core says that no reader can need them.

use carnax_core::id::Incarnation;
use carnax_core::limits::FIND_DEAD_MAX;
use carnax_core::manifest_page::ManifestPage;
use carnax_core::metadata::{DeadObject, DeadPage, FindDead, ForgetDead, JobLease};
use carnax_object_store::{GetRange, ObjectStoreError};

use super::stay::Stay;
use super::{Ended, Maintenance, MaintenanceError, Work, delete_many};
use crate::metadata_client::CommandError;

/// Asks and deletes until there is nothing left, or `enough` says so.
pub(super) async fn collect(
    maintenance: &Maintenance,
    job: &JobLease,
    enough: &(dyn Fn() -> bool + Send + Sync),
    work: &mut Work,
    stay: &mut Stay<'_>,
) -> Result<Ended, MaintenanceError> {
    while !enough() {
        if !delete_some(maintenance, job.incarnation, stay, work).await? {
            return Ok(Ended::Finished);
        }
    }
    Ok(Ended::Enough)
}

/// Deletes the objects of one answer; says whether there were any.
async fn delete_some(
    maintenance: &Maintenance,
    incarnation: Incarnation,
    stay: &mut Stay<'_>,
    work: &mut Work,
) -> Result<bool, MaintenanceError> {
    let limit = u32::try_from(FIND_DEAD_MAX).expect("the limit fits 32 bits");
    let found = maintenance.client.query(FindDead { limit }).await?;
    delete(maintenance, incarnation, &found.objects, work).await?;
    stay.stay().await?;
    for page in &found.pages {
        delete_page(maintenance, incarnation, page, work).await?;
        stay.stay().await?;
    }
    Ok(!found.objects.is_empty() || !found.pages.is_empty())
}

/// Deletes objects, and has those forgotten that are gone; the others are asked for again.
async fn delete(
    maintenance: &Maintenance,
    incarnation: Incarnation,
    dead: &[DeadObject],
    work: &mut Work,
) -> Result<(), MaintenanceError> {
    if dead.is_empty() {
        return Ok(());
    }
    let keys: Vec<String> = dead.iter().map(|object| object.key.to_string()).collect();
    let results = delete_many(maintenance, incarnation, &keys).await?;
    let gone = dead.iter().zip(&results).filter(|(_, result)| result.is_ok());
    let objects: Vec<_> = gone.map(|(object, _)| (object.died_at, object.number)).collect();
    let counted = count(maintenance, dead.iter().map(|object| object.size), results, work);
    if !objects.is_empty() {
        forget(maintenance, ForgetDead { objects, pages: Vec::new() }).await?;
    }
    Ok(counted?)
}

/// Deletes the objects of a page's slices, then the page. One that is gone was deleted by somebody who died before saying so.
async fn delete_page(
    maintenance: &Maintenance,
    incarnation: Incarnation,
    dead: &DeadPage,
    work: &mut Work,
) -> Result<(), MaintenanceError> {
    let name = dead.key.to_string();
    let read = maintenance.object_store.get(&name, GetRange::WholeUpTo(dead.size));
    match maintenance.pace.request(read).await {
        Ok((bytes, _)) if dead.owns_slices => {
            let page = ManifestPage::decode(&bytes);
            let page = page.map_err(|error| MaintenanceError::Plan(format!("dead page {name}: {error}")))?;
            for slices in page.slices().chunks(FIND_DEAD_MAX) {
                let keys: Vec<String> = slices.iter().map(|slice| slice.segment.to_string()).collect();
                let sizes = slices.iter().map(|slice| slice.segment_size);
                let results = delete_many(maintenance, incarnation, &keys).await?;
                count(maintenance, sizes, results, work)?;
            }
        }
        Ok(_) | Err(ObjectStoreError::NotFound { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let results = delete_many(maintenance, incarnation, &[name]).await?;
    count(maintenance, [dead.size], results, work)?;
    forget(maintenance, ForgetDead { objects: Vec::new(), pages: vec![(dead.died_at, dead.key.page)] }).await
}

/// Counts what was deleted.
///
/// # Errors
/// The last failure, if there is one.
fn count(
    maintenance: &Maintenance,
    sizes: impl IntoIterator<Item = u64>,
    results: Vec<Result<(), ObjectStoreError>>,
    work: &mut Work,
) -> Result<(), ObjectStoreError> {
    let mut outcome = Ok(());
    for (size, result) in sizes.into_iter().zip(results) {
        match result {
            Ok(()) => {
                work.deleted += 1;
                work.deleted_bytes += size;
                maintenance.metrics.maintenance.dead_deleted.inc();
                maintenance.metrics.maintenance.dead_bytes_deleted.inc_by(size);
            }
            Err(error) => outcome = Err(error),
        }
    }
    outcome
}

async fn forget(maintenance: &Maintenance, request: ForgetDead) -> Result<(), MaintenanceError> {
    let forgotten = maintenance.client.repeat(request).await.map_err(CommandError::into_problem)?;
    tracing::debug!(deleted = forgotten.forgotten, dead = forgotten.dead, "dead objects are deleted");
    Ok(())
}
