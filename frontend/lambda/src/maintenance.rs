//! Role `maintenance`: an event, whatever it says, is a reason to ask for jobs.
//!
//! The event comes from the queue that the metadata core tells of jobs, or from a schedule. What is not finished when the
//! time is up stays due, and the metadata core announces it again.

use lambda_http::Error;
use serde::Serialize;
use tokio::time::Instant;

use crate::environment::{Environment, Times};

/// What was done, for whoever invokes the function by hand. To an event source mapping it says that no message has to come
/// again, by the field that is absent.
#[derive(Debug, Serialize)]
pub(crate) struct Answer {
    /// Jobs that were finished.
    finished: u64,
    /// Objects that were looked at.
    seen: u64,
    /// Orphans that were deleted.
    deleted: u64,
    /// Their bytes.
    deleted_bytes: u64,
}

/// Does what is due within the time of the invocation, which ends at `deadline`, in milliseconds since 1970.
///
/// # Errors
/// What failed: the message goes back to its queue.
pub(crate) async fn work(environment: &Environment, deadline: u64) -> Result<Answer, Error> {
    let times = Times::until(environment, crate::deadline(deadline));
    let invocation = environment.begin().await?;
    // A job that is laid down in time is free at once; one that is cut off only when its lease has run out.
    let enough = || Instant::now() >= times.waits_end;
    let maintenance = invocation.maintenance();
    let done = tokio::time::timeout_at(times.answer, maintenance.work(&enough)).await;
    environment.settle(invocation, times.end).await;
    let work = done.map_err(|_| "the object store or the metadata core took too long")??;
    let (finished, seen) = (work.finished, work.seen);
    Ok(Answer { finished, seen, deleted: work.deleted, deleted_bytes: work.deleted_bytes })
}
