//! Maintenance: who may do what, and what it is about.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use carnax_core::id::LogIndex;
use carnax_core::metadata::{
    CompactionFinished, CompactionPlan, DeadForgotten, DeadObjects, DescribeMaintenance, FindDead,
    FindOrphans, FinishCompaction, ForgetDead, JobReported, JobTaken, MaintenanceDescription, MergePlan,
    Orphans, PagePlan, PageReplaced, PlanCompaction, PlanMerge, PlanPage, ReplaceByPage, ReplaceSlices,
    ReportJob, SlicesReplaced, TakeJob,
};
use carnax_core::problem::Problem;
use carnax_core::time::Timestamp;
use carnax_metadata_raft::StateView;
use carnax_metadata_state::answer::NextJob;
use carnax_metadata_state::deliberate_bugs::{self, DeliberateBug};
use carnax_metadata_state::{Command, Reply, answer};

use super::{Handle, mismatched, reply, stale_incarnation};

impl Handle {
    /// Answers from the leader's state where there is no job, so that workers which ask in vain write nothing into the log.
    pub(crate) async fn take_job(&self, mut request: TakeJob) -> Result<JobTaken, Problem> {
        let (view, now) = (self.0.raft.state(), self.log_time());
        if self.0.raft.leadership().leads {
            match answer::next_job(&view.state, &request.worker, now, self.archived()) {
                NextJob::Take(kind) => request.kind = Some(kind),
                NextJob::Wait(wait) => {
                    let ask_again_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                    return Ok(JobTaken { job: None, ask_again_ms });
                }
            }
        }
        reply!(self, Command::TakeJob(request), JobTaken)
    }

    /// Answered by the leader alone: a follower's log time, which is that of the new object, stands still while nobody writes.
    pub(crate) async fn plan_merge(&self, request: PlanMerge) -> Result<MergePlan, Problem> {
        let view = self.linearizable_at_leader().await?;
        self.counted(answer::plan_merge(&view.state, &request, self.log_time()))
    }

    pub(crate) async fn replace_slices(&self, request: ReplaceSlices) -> Result<SlicesReplaced, Problem> {
        reply!(self, Command::ReplaceSlices(request), SlicesReplaced)
    }

    /// Answered by the leader alone, as a plan of a merge.
    pub(crate) async fn plan_compaction(&self, request: PlanCompaction) -> Result<CompactionPlan, Problem> {
        let view = self.linearizable_at_leader().await?;
        self.counted(answer::plan_compaction(&view.state, &request, self.log_time()))
    }

    pub(crate) async fn finish_compaction(
        &self,
        request: FinishCompaction,
    ) -> Result<CompactionFinished, Problem> {
        reply!(self, Command::FinishCompaction(request), CompactionFinished)
    }

    pub(crate) async fn plan_page(&self, request: PlanPage) -> Result<PagePlan, Problem> {
        let view = self.linearizable_at_leader().await?;
        self.counted(answer::plan_page(&view.state, &request, self.log_time()))
    }

    pub(crate) async fn replace_by_page(&self, request: ReplaceByPage) -> Result<PageReplaced, Problem> {
        reply!(self, Command::ReplaceByPage(request), PageReplaced)
    }

    /// When it is for the collector of dead objects. Log time, but for a deliberate mistake.
    fn collecting_time(&self) -> Timestamp {
        if deliberate_bugs::makes(DeliberateBug::CollectorJudgesByAnotherClock) {
            return deliberate_bugs::latest(self.log_time());
        }
        self.log_time()
    }

    /// Answered by the leader alone, which knows what is in the archive.
    pub(crate) async fn find_dead(&self, request: FindDead) -> Result<DeadObjects, Problem> {
        let view = self.linearizable_at_leader().await?;
        self.counted(answer::find_dead(&view.state, &request, self.collecting_time(), self.archived()))
    }

    pub(crate) async fn forget_dead(&self, request: ForgetDead) -> Result<DeadForgotten, Problem> {
        reply!(self, Command::ForgetDead(request), DeadForgotten)
    }

    /// The state after everything that was acknowledged before this call, where this node leads.
    pub(super) async fn linearizable_at_leader(&self) -> Result<Arc<StateView>, Problem> {
        let view = self.linearizable().await?;
        if self.0.raft.leadership().leads { Ok(view) } else { self.counted(Err(self.not_leading())) }
    }

    /// Up to where the log is in the archive. If there is none, everywhere, once the bucket says so.
    pub(crate) fn archived(&self) -> LogIndex {
        if self.0.is_archived {
            return LogIndex(self.0.archived.load(Ordering::Acquire));
        }
        let off_term = self.0.off_term.load(Ordering::Acquire);
        let may_delete = self.0.raft.leading_term() == Some(off_term);
        LogIndex(if may_delete { u64::MAX } else { 0 })
    }

    /// Everything up to here is in the archive, and the incarnation was still this one afterwards.
    pub(crate) fn set_archived(&self, upto: LogIndex) {
        self.0.archived.fetch_max(upto.0, Ordering::AcqRel);
    }

    /// The bucket knows that the leader of this term deletes objects without an archive.
    pub(crate) fn set_off_term(&self, term: u64) {
        self.0.off_term.store(term, Ordering::Release);
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
        Ok(answer::describe_maintenance(&view.state, self.log_time(), self.archived()))
    }
}
