//! Maintenance: who may do what, and what it is about.

use carnax_core::metadata::{
    DescribeMaintenance, FindOrphans, JobReported, JobTaken, MaintenanceDescription, Orphans, ReportJob,
    TakeJob,
};
use carnax_core::problem::Problem;
use carnax_metadata_state::{Command, Reply, answer};

use super::{Handle, mismatched, reply, stale_incarnation};

impl Handle {
    /// Answers from the leader's state where there is no job, so that workers which ask in vain write nothing into the log.
    pub(crate) async fn take_job(&self, request: TakeJob) -> Result<JobTaken, Problem> {
        let (view, now) = (self.0.raft.state(), self.log_time());
        if self.0.raft.leadership().leads
            && let Some(wait) = answer::job_wait(&view.state, &request.worker, now)
        {
            let ask_again_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            return Ok(JobTaken { job: None, ask_again_ms });
        }
        reply!(self, Command::TakeJob(request), JobTaken)
    }

    pub(crate) async fn report_job(&self, request: ReportJob) -> Result<JobReported, Problem> {
        reply!(self, Command::ReportJob(request), JobReported)
    }

    pub(crate) async fn find_orphans(&self, request: FindOrphans) -> Result<Orphans, Problem> {
        if request.incarnation != self.0.incarnation {
            return self.counted(Err(stale_incarnation(self.0.incarnation)));
        }
        let view = self.linearizable().await?;
        self.counted(answer::find_orphans(&view.state, &request))
    }

    pub(crate) async fn describe_maintenance(
        &self,
        _: DescribeMaintenance,
    ) -> Result<MaintenanceDescription, Problem> {
        let view = self.linearizable().await?;
        // A follower's log time stands still while nobody writes.
        Ok(answer::describe_maintenance(&view.state, self.log_time()))
    }
}
