//! Maintenance jobs: what is due, who has it, how far it is.
//!
//! The search for orphans goes in passes: one looks at the objects whose ids are older than an orphan's, from where the last pass
//! ended, folder by folder, so that a worker which dies or runs out of time loses little. The other kinds need no memory: what there
//! is to do follows from the rest of the state, so that all there is here is who is at it.

use std::sync::Arc;
use std::time::Duration;

use carnax_core::error_code::ErrorCode;
use carnax_core::id::{Incarnation, LogIndex};
use carnax_core::limits;
use carnax_core::metadata::{
    AfterReport, ClusterSettings, JobDescription, JobKind, JobLease, JobReported, JobTaken, JobTask,
    ReportJob, TakeJob,
};
use carnax_core::object_key::SEGMENT_FOLDERS;
use carnax_core::problem::Problem;
use carnax_core::time::Timestamp;
use imbl::OrdMap;

use crate::entry::FeatureLevel;
use crate::segment::Moment;

/// The search for orphans, and who is at the other jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Jobs {
    /// Log time of the last session or commit: until then somebody may have left objects behind.
    pub(crate) written: Timestamp,
    /// Objects whose ids are older were looked at.
    pub(crate) done_until: Timestamp,
    /// The pass that has begun and is not finished.
    pub(crate) pass: Option<Pass>,
    /// Who took it; its time may have run out.
    pub(crate) lease: Option<Lease>,
    /// When a pass was last finished.
    pub(crate) last_success: Option<Timestamp>,
    /// Of the other kinds.
    pub(crate) seats: OrdMap<JobKind, Seat>,
}

/// Who is at a job that needs no memory of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seat {
    /// Who took it; its time may have run out.
    pub(crate) lease: Option<Lease>,
    /// When there was last nothing left to do.
    pub(crate) last_success: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pass {
    /// It looks at objects whose ids are older.
    pub(crate) until: Timestamp,
    pub(crate) folders_done: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lease {
    /// The log index at which it was taken.
    pub(crate) id: LogIndex,
    pub(crate) worker: Arc<str>,
    pub(crate) expires: Timestamp,
}

impl Default for Jobs {
    fn default() -> Self {
        let (written, done_until) = (Timestamp::EPOCH, Timestamp::EPOCH);
        Self { written, done_until, pass: None, lease: None, last_success: None, seats: OrdMap::new() }
    }
}

impl Jobs {
    /// There was nobody to leave anything behind before.
    pub(crate) fn cluster_begins(&mut self, at: Moment) {
        if at.level >= FeatureLevel::JOBS {
            self.done_until = at.time;
        }
    }

    /// Collectors look at the objects of their own incarnation, of which there are none yet; workers of the former one are gone.
    pub(crate) fn cluster_restored(&mut self, now: Timestamp) {
        let last_success = self.last_success;
        *self = Self { done_until: now, last_success, ..Self::default() };
    }

    pub(crate) fn somebody_writes(&mut self, at: Moment) {
        if at.level >= FeatureLevel::JOBS {
            self.written = at.time;
        }
    }

    /// Who writes objects may die before it is known what they are for: then they are left behind as those of appends are. If the job
    /// is still due, somebody takes it later, so that the last who does comes after all that was written for it.
    fn somebody_works(&mut self, kind: JobKind, at: Moment) {
        match kind {
            JobKind::Merge | JobKind::CompactKeys | JobKind::PageOut => self.somebody_writes(at),
            JobKind::CollectOrphans | JobKind::CollectDead => {}
        }
    }

    /// Since when a pass has been due, at a time. A pass that has begun stays due until it is finished.
    pub(crate) fn due_since(&self, settings: &ClusterSettings, now: Timestamp) -> Option<Timestamp> {
        let due = self.next_pass(settings);
        let is_due = self.pass.is_some() || (self.is_worth_it() && due <= now);
        is_due.then_some(due.min(now))
    }

    fn next_pass(&self, settings: &ClusterSettings) -> Timestamp {
        self.done_until.saturating_add(settings.orphan_age.saturating_add(settings.orphan_scan_interval))
    }

    /// Objects that are younger than `done_until` are left behind only by those who wrote since.
    fn is_worth_it(&self) -> bool {
        self.written >= self.done_until && self.written > Timestamp::EPOCH
    }

    /// How long it takes until a pass is due that is not.
    pub(crate) fn due_in(&self, settings: &ClusterSettings, now: Timestamp) -> Duration {
        if self.is_worth_it() { self.next_pass(settings).since(now) } else { settings.orphan_scan_interval }
    }

    /// How long a worker does not get a job that is due, since another has it; none if it gets it.
    pub(crate) fn taken_for(&self, kind: JobKind, worker: &str, now: Timestamp) -> Option<Duration> {
        let lease = self.holder(kind, now).filter(|lease| &*lease.worker != worker)?;
        Some(lease.expires.since(now))
    }

    /// Who is at it, at a time.
    pub(crate) fn holder(&self, kind: JobKind, now: Timestamp) -> Option<&Lease> {
        self.lease(kind).filter(|lease| lease.expires > now)
    }

    fn lease(&self, kind: JobKind) -> Option<&Lease> {
        match kind {
            JobKind::CollectOrphans => self.lease.as_ref(),
            _ => self.seats.get(&kind)?.lease.as_ref(),
        }
    }

    pub(crate) fn last_success(&self, kind: JobKind) -> Option<Timestamp> {
        match kind {
            JobKind::CollectOrphans => self.last_success,
            _ => self.seats.get(&kind)?.last_success,
        }
    }

    pub(crate) fn take(
        &mut self,
        settings: &ClusterSettings,
        at: Moment,
        request: &TakeJob,
        incarnation: Incarnation,
    ) -> Result<JobTaken, Problem> {
        if request.worker.len() > limits::ADDRESS_BYTES_MAX {
            let limit = Some(limits::ADDRESS_BYTES_MAX as u64);
            let problem = Problem::new(ErrorCode::TooLarge, "the worker's name is too long");
            return Err(problem.with(|facts| facts.limit = limit));
        }
        let kind = request.kind.unwrap_or(JobKind::CollectOrphans);
        let pass_is_due = || self.due_since(settings, at.time).is_some();
        let wait = match self.taken_for(kind, &request.worker, at.time) {
            None if kind == JobKind::CollectOrphans && !pass_is_due() => Some(self.due_in(settings, at.time)),
            wait => wait,
        };
        if let Some(wait) = wait {
            return Ok(JobTaken { job: None, ask_again_ms: millis(wait).max(1) });
        }
        let task = match kind {
            JobKind::CollectOrphans => self.next_task(settings, at),
            JobKind::CollectDead => JobTask::CollectDead,
            JobKind::Merge => JobTask::Merge,
            JobKind::CompactKeys => JobTask::CompactKeys,
            JobKind::PageOut => JobTask::PageOut,
        };
        self.somebody_works(kind, at);
        let known = self.lease(kind).filter(|lease| *lease.worker == *request.worker);
        let id = known.map_or(at.index, |lease| lease.id);
        let expires = at.time.saturating_add(limits::JOB_LEASE);
        let lease = Some(Lease { id, worker: request.worker.as_str().into(), expires });
        match kind {
            JobKind::CollectOrphans => self.lease = lease,
            _ => self.seats.entry(kind).or_default().lease = lease,
        }
        let job = JobLease { lease: id, expires_in_ms: millis(limits::JOB_LEASE), incarnation, task };
        Ok(JobTaken { job: Some(job), ask_again_ms: 0 })
    }

    /// The pass under way, or a new one.
    fn next_task(&mut self, settings: &ClusterSettings, at: Moment) -> JobTask {
        let new = Pass { until: at.time.saturating_sub(settings.orphan_age), folders_done: 0 };
        let pass = *self.pass.get_or_insert(new);
        // An object may have appeared behind the last pass: later than its id says.
        let from = self.done_until.saturating_sub(limits::ORPHAN_DELAY).max(Timestamp::EPOCH);
        let Pass { until, folders_done } = pass;
        JobTask::CollectOrphans { from, until, folders_done }
    }

    pub(crate) fn report(&mut self, at: Moment, report: &ReportJob) -> Result<JobReported, Problem> {
        let ReportJob { kind, lease, folders_done, next } = *report;
        if kind != JobKind::CollectOrphans {
            return self.report_seat(at, report);
        }
        let (Some(known), Some(pass)) =
            (self.lease.as_mut().filter(|known| known.id == lease), &mut self.pass)
        else {
            return Err(lease_lost(lease));
        };
        let least = if next == AfterReport::Finish { SEGMENT_FOLDERS } else { pass.folders_done };
        if !(least..=SEGMENT_FOLDERS).contains(&folders_done) {
            let detail = format_args!("{folders_done} folders are done, not {least} to {SEGMENT_FOLDERS}");
            return Err(Problem::new(ErrorCode::InvalidValue, detail));
        }
        pass.folders_done = folders_done;
        match next {
            AfterReport::GoOn => {
                known.expires = at.time.saturating_add(limits::JOB_LEASE);
                return Ok(JobReported { expires_in_ms: millis(limits::JOB_LEASE) });
            }
            AfterReport::LayDown => {}
            AfterReport::Finish => {
                self.done_until = self.done_until.max(pass.until);
                self.last_success = Some(at.time);
                self.pass = None;
            }
        }
        self.lease = None;
        Ok(JobReported { expires_in_ms: 0 })
    }

    fn report_seat(&mut self, at: Moment, report: &ReportJob) -> Result<JobReported, Problem> {
        let ReportJob { kind, lease, next, .. } = *report;
        let seat = self
            .seats
            .get_mut(&kind)
            .filter(|seat| seat.lease.as_ref().is_some_and(|known| known.id == lease));
        let Some(seat) = seat else { return Err(lease_lost(lease)) };
        let mut expires_in = Duration::ZERO;
        match (next, &mut seat.lease) {
            (AfterReport::GoOn, Some(known)) => {
                known.expires = at.time.saturating_add(limits::JOB_LEASE);
                expires_in = limits::JOB_LEASE;
            }
            (AfterReport::Finish, _) => seat.last_success = Some(at.time),
            _ => {}
        }
        if next != AfterReport::GoOn {
            seat.lease = None;
        }
        self.somebody_works(kind, at);
        Ok(JobReported { expires_in_ms: millis(expires_in) })
    }

    /// As far as it is known here: what is due, and how much, is for the caller to say.
    pub(crate) fn describe(&self, kind: JobKind, now: Timestamp) -> JobDescription {
        let orphans = kind == JobKind::CollectOrphans;
        let pass = self.pass.filter(|_| orphans);
        JobDescription {
            job: kind,
            due_since: None,
            last_success: self.last_success(kind),
            done_until: if orphans { self.done_until } else { Timestamp::EPOCH },
            worker: self.holder(kind, now).map(|lease| lease.worker.to_string()),
            progress_percent: pass.map(|pass| pass.folders_done * 100 / SEGMENT_FOLDERS),
            backlog: 0,
        }
    }
}

fn lease_lost(lease: LogIndex) -> Problem {
    let detail = format_args!("lease {lease} is another worker's by now, or nobody's");
    Problem::new(ErrorCode::LeaseLost, detail)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
