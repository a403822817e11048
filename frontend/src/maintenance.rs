//! Maintenance: takes jobs that are due from the metadata core, and does them in the object store.
//!
//! ```text
//!  take a job ─▶ list objects ─▶ ask the metadata core which are orphans ─▶ delete those ─▶ report ─▶ … ─▶ finished
//! ```
//!
//! Invariants: nothing is deleted that the metadata core did not name. It names only what is, and stays, no part of the log,
//! so that two workers at the same job, or one that stood still for hours, do no harm. And nothing is deleted for a former cluster: the
//! bucket is asked whose it is before each batch. A worker that dies leaves its job to
//! the next one, which goes on from the last report. Where nothing is due, the object store is left alone.

mod compact;
mod dead;
mod merge;
mod orphans;
mod pace;
mod page_out;
mod rewrite;
mod sources;
mod stay;
mod upload;
mod worker;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use carnax_core::cluster_document::{self, BYTES_MAX, IncarnationDocument};
use carnax_core::id::{ClusterId, Incarnation, TopicPartition};
use carnax_core::metadata::{AfterReport, JobLease, JobTask, ReportJob, TakeJob};
use carnax_core::object_key;
use carnax_core::problem::Problem;
use carnax_object_store::{GetRange, ObjectStore, ObjectStoreError};
use carnax_platform::entropy::Entropy;

use crate::deliberate_bugs::DeliberateBugs;
use crate::metadata_client::{CommandError, MetadataClient};
use crate::metrics::Metrics;

pub(crate) use pace::Pace;
use stay::Stay;
pub(crate) use worker::Worker;

/// Does maintenance jobs.
pub struct Maintenance {
    pub(crate) client: Arc<MetadataClient>,
    pub(crate) object_store: Arc<dyn ObjectStore>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) pace: Arc<Pace>,
    pub(crate) bugs: DeliberateBugs,
    /// Who does it, as the metadata core shows it; another text for each process.
    pub(crate) name: String,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Jobs that were finished.
    pub finished: u64,
    /// Objects that merges wrote.
    pub merged: u64,
    /// Rounds of key compaction that were finished.
    pub compacted: u64,
    /// Manifest pages that were written.
    pub paged: u64,
    /// Objects that were looked at.
    pub seen: u64,
    /// Orphans and dead objects that were deleted.
    pub deleted: u64,
    /// Their bytes.
    pub deleted_bytes: u64,
    /// After what time asking again may bring a job; zero if there was not enough time for all that is due.
    pub ask_again: Duration,
}

/// How a worker leaves a job that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// There is nothing left to do.
    Finished,
    /// There is no time for more.
    Enough,
}

/// Why a job was laid down. What was done stays done, and another try goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum MaintenanceError {
    /// The metadata core could not answer, or gave the job to another worker.
    #[error("the metadata core did not go along: {0}")]
    Metadata(Problem),
    /// The object store fails.
    #[error(transparent)]
    ObjectStore(#[from] ObjectStoreError),
    /// Stored records are not what was stored.
    #[error("records of partition {on} are damaged: {reason}")]
    Damaged {
        /// Whose.
        on: TopicPartition,
        /// What is wrong.
        reason: String,
    },
    /// A restore has made a new cluster of the bucket: nothing may be deleted for the former one.
    #[error(
        "the bucket belongs to incarnation {found} of cluster {cluster}, this worker's metadata nodes to {own}: stop them, and point \
         this process at those of the restored cluster"
    )]
    OtherIncarnation {
        /// The cluster of the bucket.
        cluster: ClusterId,
        /// Its incarnation.
        found: Incarnation,
        /// That of the job.
        own: Incarnation,
    },
    /// What is to be done cannot be done.
    #[error("a plan cannot be carried out: {0}")]
    Plan(String),
}

impl From<Problem> for MaintenanceError {
    fn from(problem: Problem) -> Self {
        Self::Metadata(problem)
    }
}

impl fmt::Debug for Maintenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Maintenance").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Maintenance {
    /// Does what is due, until nothing is or `enough` says so: it is asked between two requests to the object store.
    ///
    /// Dropping the future leaves the job to whoever asks for it when the lease has run out.
    ///
    /// # Errors
    /// See [`MaintenanceError`]; the job is laid down.
    pub async fn work(&self, enough: &(dyn Fn() -> bool + Send + Sync)) -> Result<Work, MaintenanceError> {
        let worked = self.work_until(enough).await;
        if worked.is_err() {
            self.metrics.maintenance.failures.inc();
        }
        worked
    }

    async fn work_until(&self, enough: &(dyn Fn() -> bool + Send + Sync)) -> Result<Work, MaintenanceError> {
        let mut work = Work::default();
        while !enough() {
            let taken = self.client.repeat(TakeJob { worker: self.name.clone(), kind: None }).await;
            let taken = taken.map_err(CommandError::into_problem)?;
            let Some(job) = taken.job else {
                work.ask_again = Duration::from_millis(taken.ask_again_ms);
                return Ok(work);
            };
            tracing::info!(job = job.task.kind().as_str(), lease = %job.lease, "a maintenance job is taken");
            self.do_job(&job, enough, &mut work).await?;
        }
        Ok(work)
    }

    async fn do_job(
        &self,
        job: &JobLease,
        enough: &(dyn Fn() -> bool + Send + Sync),
        work: &mut Work,
    ) -> Result<(), MaintenanceError> {
        let mut stay = Stay::new(self, job);
        let ended = match job.task {
            JobTask::CollectOrphans { from, until, .. } => {
                orphans::Pass::new(self, job, (from, until), work, &mut stay).run(enough).await
            }
            JobTask::CollectDead => dead::collect(self, job, enough, work, &mut stay).await,
            JobTask::PageOut => page_out::page_out(self, enough, work, &mut stay).await,
            JobTask::Merge => merge::merge(self, enough, work, &mut stay).await,
            JobTask::CompactKeys => compact::compact(self, enough, work, &mut stay).await,
        };
        let finished = matches!(ended, Ok(Ended::Finished));
        // Where it failed, another worker may go on; what failed is told by the one who sees it.
        let next = if finished { AfterReport::Finish } else { AfterReport::LayDown };
        let reported = self.report(job, stay.folders_done, next).await;
        ended?;
        reported?;
        work.finished += u64::from(finished);
        Ok(())
    }

    async fn report(&self, job: &JobLease, folders_done: u32, next: AfterReport) -> Result<(), Problem> {
        let report = ReportJob { kind: job.task.kind(), lease: job.lease, folders_done, next };
        match self.client.repeat(report).await {
            Ok(_) => Ok(()),
            // The try without an answer laid the job down or ended it, or somebody else has it: there is nothing to do.
            Err(CommandError::RefusedRepeat(_)) if next != AfterReport::GoOn => Ok(()),
            Err(error) => Err(error.into_problem()),
        }
    }
}

/// Deletes objects at the pace of maintenance, if the bucket still belongs to the incarnation that says so: one result for each.
async fn delete_many(
    maintenance: &Maintenance,
    incarnation: Incarnation,
    keys: &[String],
) -> Result<Vec<Result<(), ObjectStoreError>>, MaintenanceError> {
    check_incarnation(maintenance, incarnation).await?;
    maintenance.pace.turn().await;
    let results = maintenance.object_store.delete_many(keys).await;
    maintenance
        .pace
        .learn(results.iter().any(|result| matches!(result, Err(ObjectStoreError::Throttled { .. }))));
    Ok(results)
}

/// A restore may have made a new cluster out of what a former one would delete.
async fn check_incarnation(maintenance: &Maintenance, own: Incarnation) -> Result<(), MaintenanceError> {
    let read = maintenance.object_store.get(object_key::INCARNATION, GetRange::WholeUpTo(BYTES_MAX));
    let (bytes, _) = maintenance.pace.request(read).await?;
    let document: IncarnationDocument = cluster_document::parse(&bytes)
        .map_err(|error| MaintenanceError::Plan(format!("{}: {error}", object_key::INCARNATION)))?;
    let IncarnationDocument { cluster, incarnation: found, .. } = document;
    if found == own { Ok(()) } else { Err(MaintenanceError::OtherIncarnation { cluster, found, own }) }
}
