//! Keeps a job while its worker is at it.

use std::time::Duration;

use carnax_core::metadata::{AfterReport, JobLease};
use carnax_core::problem::Problem;
use tokio::time::Instant;

use super::Maintenance;

/// When the lease of a job was last extended.
pub(super) struct Stay<'a> {
    maintenance: &'a Maintenance,
    job: &'a JobLease,
    reported: Instant,
}

impl<'a> Stay<'a> {
    pub(super) fn new(maintenance: &'a Maintenance, job: &'a JobLease) -> Self {
        Self { maintenance, job, reported: Instant::now() }
    }

    /// Reports when a third of the lease has passed.
    ///
    /// # Errors
    /// `lease_lost`: the job is another worker's by now.
    pub(super) async fn stay(&mut self, folders_done: u32) -> Result<(), Problem> {
        if self.reported.elapsed() >= Duration::from_millis(self.job.expires_in_ms) / 3 {
            self.reported = Instant::now();
            self.maintenance.report(self.job, folders_done, AfterReport::GoOn).await?;
        }
        Ok(())
    }
}
