//! Keeps a job while its worker is at it.

use std::time::Duration;

use carnax_core::metadata::{AfterReport, JobLease, JobTask};
use carnax_core::problem::Problem;
use tokio::time::Instant;

use super::Maintenance;

/// When the lease of a job was last extended, and how far the job is.
pub(super) struct Stay<'a> {
    maintenance: &'a Maintenance,
    job: &'a JobLease,
    reported: Instant,
    /// Folders of a pass that are done; 0 where the job has none.
    pub(super) folders_done: u32,
}

impl<'a> Stay<'a> {
    pub(super) fn new(maintenance: &'a Maintenance, job: &'a JobLease) -> Self {
        let folders_done = match job.task {
            JobTask::CollectOrphans { folders_done, .. } => folders_done,
            JobTask::CollectDead | JobTask::PageOut | JobTask::Merge | JobTask::CompactKeys => 0,
        };
        Self { maintenance, job, reported: Instant::now(), folders_done }
    }

    /// Reports when a third of the lease has passed.
    ///
    /// # Errors
    /// `lease_lost`: the job is another worker's by now.
    pub(super) async fn stay(&mut self) -> Result<(), Problem> {
        if self.reported.elapsed() >= Duration::from_millis(self.job.expires_in_ms) / 3 {
            self.reported = Instant::now();
            self.maintenance.report(self.job, self.folders_done, AfterReport::GoOn).await?;
        }
        Ok(())
    }
}
