//! Maintenance jobs: the metadata core says what is due and who does it, workers do it in the object store.
//!
//! A job is taken under a lease, so that workers do not tread on each other. Nothing hangs on that: what a worker does is
//! right whoever else does it at the same time.

use serde::{Deserialize, Serialize};

use super::page::PlannedPage;
use crate::id::{Incarnation, LogIndex, PageId, SegmentId, TopicPartition};
use crate::object_key::PageKey;
use crate::time::Timestamp;

/// The kinds of maintenance jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// Deletes objects that were uploaded and never committed.
    CollectOrphans,
    /// Deletes objects that were committed and that nothing refers to any more.
    CollectDead,
    /// Rewrites many small slices into few large ones.
    Merge,
    /// Rewrites slices of topics with `cleanup.policy=compact`, so that the newest record of each key stays.
    CompactKeys,
    /// Moves old slices out of the metadata core into manifest pages.
    PageOut,
}

impl JobKind {
    /// All kinds, the most urgent first.
    pub const ALL: [Self; 5] =
        [Self::CollectDead, Self::Merge, Self::CompactKeys, Self::PageOut, Self::CollectOrphans];

    /// Its name in messages, metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CollectOrphans => "collect_orphans",
            Self::CollectDead => "collect_dead",
            Self::Merge => "merge",
            Self::CompactKeys => "compact_keys",
            Self::PageOut => "page_out",
        }
    }
}

/// The body of the message that wakes workers. JSON; fields are only ever added. It only says that asking is worth it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobAnnouncement {
    /// What is due.
    pub job: JobKind,
    /// Since when, in milliseconds since 1970.
    pub due_since: Timestamp,
}

/// Asks for a job that is due. Idempotent: a worker that asks again gets the job that it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeJob {
    /// Who asks; another text for each process. At most [`ADDRESS_BYTES_MAX`](crate::limits::ADDRESS_BYTES_MAX).
    pub worker: String,
    /// Which kind of job: the leader says so, who knows what is due; none is the search for orphans.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<JobKind>,
}

/// What there is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobTaken {
    /// A job; none if nothing is due, or another worker has it.
    pub job: Option<JobLease>,
    /// Milliseconds after which asking again may bring one; 0 if there is a job.
    pub ask_again_ms: u64,
}

/// A job that a worker has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobLease {
    /// The lease: goes up from one to the next.
    pub lease: LogIndex,
    /// Milliseconds of log time after which another worker may have the job, unless this one reports before.
    pub expires_in_ms: u64,
    /// The incarnation whose objects are meant.
    pub incarnation: Incarnation,
    /// What is to be done.
    pub task: JobTask,
}

/// What is to be done, and how far it is done already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobTask {
    /// Look at the objects that frontends wrote, folder by folder, and delete those that are orphans.
    CollectOrphans {
        /// Only objects whose ids are of this time or later.
        from: Timestamp,
        /// Only objects whose ids are of an earlier time.
        until: Timestamp,
        /// So many of the [`SEGMENT_FOLDERS`](crate::object_key::SEGMENT_FOLDERS) were looked at already; merged objects are
        /// looked at with the last one.
        folders_done: u32,
    },
    /// Ask for dead objects and delete them, until there are none ([`FindDead`](super::FindDead)).
    CollectDead,
    /// Ask for plans and carry them out, until there are none ([`PlanMerge`](super::PlanMerge)).
    Merge,
    /// Ask for plans and carry them out, until there are none.
    CompactKeys,
    /// Ask for plans and carry them out, until there are none ([`PlanPage`](super::PlanPage)).
    PageOut,
}

impl JobTask {
    /// The kind of job.
    pub fn kind(&self) -> JobKind {
        match self {
            Self::CollectOrphans { .. } => JobKind::CollectOrphans,
            Self::CollectDead => JobKind::CollectDead,
            Self::Merge => JobKind::Merge,
            Self::CompactKeys => JobKind::CompactKeys,
            Self::PageOut => JobKind::PageOut,
        }
    }
}

/// Says how far a worker is, and keeps the job, lays it down, or ends it. Idempotent while the lease is the worker's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportJob {
    /// Which job.
    pub kind: JobKind,
    /// The lease under which it was taken.
    pub lease: LogIndex,
    /// How much of it is done; never less than before. Only the search for orphans counts folders; 0 for others.
    pub folders_done: u32,
    /// Whether the worker goes on.
    pub next: AfterReport,
}

/// What a worker does after a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AfterReport {
    /// It goes on: the lease is extended.
    GoOn,
    /// It lays the job down: another worker goes on from there.
    LayDown,
    /// Everything is done.
    Finish,
}

/// A report was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobReported {
    /// Milliseconds of log time after which another worker may have the job; 0 if it was laid down or finished.
    pub expires_in_ms: u64,
}

/// Asks which objects are orphans, by a linearizable read.
///
/// An object is one if no manifest refers to it and its id is older than any that may still be committed
/// (`orphan.age.ms` before log time). What is one, stays one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindOrphans {
    /// Under which incarnation the objects lie.
    pub incarnation: Incarnation,
    /// Their ids; at most [`FIND_ORPHANS_MAX`](crate::limits::FIND_ORPHANS_MAX).
    pub candidates: Vec<SegmentId>,
    /// If they are merged objects: of which partition.
    #[serde(default)]
    pub on: Option<TopicPartition>,
    /// Manifest pages; at most as many.
    #[serde(default)]
    pub pages: Vec<PageKey>,
}

/// Those of the candidates that are orphans.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orphans {
    /// In the order of their ids.
    pub orphans: Vec<SegmentId>,
    /// Those of the pages that are orphans, in the order of their ids.
    #[serde(default)]
    pub orphan_pages: Vec<PageId>,
    /// Manifest pages that may hold slices of `orphans`: what they hold is none. If one cannot be read, all in its range is none.
    #[serde(default)]
    pub covering: Vec<CoveringPage>,
}

/// A manifest page, and the range of the ids of its segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoveringPage {
    /// The object.
    pub page: PlannedPage,
    /// The smallest id.
    pub first: SegmentId,
    /// The largest id.
    pub last: SegmentId,
}

/// Asks how maintenance is getting on, by a linearizable read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeMaintenance {}

/// How maintenance is getting on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MaintenanceDescription {
    /// Log time, in milliseconds since 1970: what the other times are to be held against.
    pub log_time: Timestamp,
    /// One of each kind.
    pub jobs: Vec<JobDescription>,
}

/// A kind of job as it is now. Times are log time, in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobDescription {
    /// Which kind.
    pub job: JobKind,
    /// Since when it has been due; none if it is not. Nothing is due where nobody wrote since the last time.
    pub due_since: Option<Timestamp>,
    /// When it was last finished.
    pub last_success: Option<Timestamp>,
    /// Everything older than this was looked at; 1970 for jobs that do not go by time.
    pub done_until: Timestamp,
    /// Who is at it.
    pub worker: Option<String>,
    /// Hundredths of the job under way that are done; none if none is under way.
    pub progress_percent: Option<u32>,
    /// How much there is to do: dead objects that may be deleted, partitions to merge or to compact; 0 for the search for orphans.
    #[serde(default)]
    pub backlog: u64,
}
