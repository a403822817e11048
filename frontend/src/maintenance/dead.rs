//! Deletes objects that nothing refers to any more, when the metadata core says that no reader can need them.

use carnax_core::limits::FIND_DEAD_MAX;
use carnax_core::metadata::{AfterReport, DeadObject, FindDead, ForgetDead, JobLease};

use super::stay::Stay;
use super::{Maintenance, MaintenanceError, Work, delete_many};
use crate::metadata_client::CommandError;

/// Asks and deletes until there is nothing left, or `enough` says so.
pub(super) async fn collect(
    maintenance: &Maintenance,
    job: &JobLease,
    enough: &(dyn Fn() -> bool + Send + Sync),
    work: &mut Work,
) -> Result<(), MaintenanceError> {
    let mut stay = Stay::new(maintenance, job);
    loop {
        if enough() {
            return Ok(maintenance.report(job, 0, AfterReport::LayDown).await?);
        }
        let limit = u32::try_from(FIND_DEAD_MAX).expect("the limit fits 32 bits");
        let found = maintenance.client.query(FindDead { limit }).await?;
        if found.objects.is_empty() {
            maintenance.report(job, 0, AfterReport::Finish).await?;
            work.finished += 1;
            return Ok(());
        }
        delete(maintenance, &found.objects, work).await?;
        stay.stay(0).await?;
    }
}

/// Deletes objects, and has those forgotten that are gone; the others are asked for again.
async fn delete(
    maintenance: &Maintenance,
    dead: &[DeadObject],
    work: &mut Work,
) -> Result<(), MaintenanceError> {
    let keys: Vec<String> = dead.iter().map(|object| object.key.to_string()).collect();
    let (mut objects, mut failed) = (Vec::with_capacity(dead.len()), None);
    for (object, result) in dead.iter().zip(delete_many(maintenance, &keys).await) {
        match result {
            Ok(()) => {
                objects.push((object.died_at, object.number));
                work.deleted += 1;
                work.deleted_bytes += object.size;
                maintenance.metrics.maintenance.dead_deleted.inc();
                maintenance.metrics.maintenance.dead_bytes_deleted.inc_by(object.size);
            }
            Err(error) => failed = Some(error),
        }
    }
    if !objects.is_empty() {
        let forgotten = maintenance.client.repeat(ForgetDead { objects }).await;
        let forgotten = forgotten.map_err(CommandError::into_problem)?;
        tracing::debug!(deleted = forgotten.forgotten, dead = forgotten.dead, "dead objects are deleted");
    }
    failed.map_or(Ok(()), |error| Err(error.into()))
}
