//! What the state says of maintenance.

use std::collections::BTreeSet;
use std::time::Duration;

use carnax_core::error_code::ErrorCode;
use carnax_core::id::SegmentId;
use carnax_core::limits;
use carnax_core::metadata::{FindOrphans, JobDescription, JobKind, MaintenanceDescription, Orphans};
use carnax_core::problem::Problem;
use carnax_core::time::Timestamp;

use crate::State;

/// A job that nobody is at, although it is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DueJob {
    /// Which kind.
    pub kind: JobKind,
    /// Since when.
    pub since: Timestamp,
}

/// Which of the candidates are orphans: no manifest refers to them, and they are too old to be committed any more.
///
/// The time it takes grows with the segments that were committed while the candidates were made.
///
/// # Errors
/// `invalid_value` for too many candidates.
pub fn find_orphans(state: &State, request: &FindOrphans) -> Result<Orphans, Problem> {
    let candidates = &request.candidates;
    if candidates.len() > limits::FIND_ORPHANS_MAX {
        let detail = format_args!("a question for orphans has at most {} objects", limits::FIND_ORPHANS_MAX);
        return Err(Problem::new(ErrorCode::InvalidValue, detail));
    }
    let old = state.log_time.saturating_sub(state.settings.typed.orphan_age);
    let mut orphans: BTreeSet<SegmentId> = candidates.iter().copied().filter(|id| id.time() < old).collect();
    let (Some(first), Some(last)) = (orphans.first().copied(), orphans.last().copied()) else {
        return Ok(Orphans { orphans: Vec::new() });
    };
    let ids = first..=last;
    // The commit of a segment is hardly earlier than its id says, and not much later.
    let first = first.time().saturating_sub(limits::CLOCK_AHEAD_MAX);
    let last = last.time().saturating_add(limits::COMMIT_DEADLINE);
    for committed in state.segments.committed_between(first, last) {
        orphans.remove(&committed);
    }
    for dead in state.segments.dead().values().filter(|dead| ids.contains(&dead.id)) {
        orphans.remove(&dead.id);
    }
    Ok(Orphans { orphans: orphans.into_iter().collect() })
}

/// How maintenance is getting on at a time.
pub fn describe_maintenance(state: &State, now: Timestamp) -> MaintenanceDescription {
    MaintenanceDescription { log_time: now, jobs: vec![describe_job(state, now)] }
}

/// The search for orphans at a time.
pub fn describe_job(state: &State, now: Timestamp) -> JobDescription {
    state.jobs.describe(&state.settings.typed, now)
}

/// How long a worker that asks for a job gets none; nothing if there is one for it.
pub fn job_wait(state: &State, worker: &str, now: Timestamp) -> Option<Duration> {
    state.jobs.wait(&state.settings.typed, worker, now)
}

/// What workers should be told of.
pub fn due_jobs(state: &State, now: Timestamp) -> Vec<DueJob> {
    let since = state.jobs.due_since(&state.settings.typed, now);
    since
        .filter(|_| state.jobs.holder(now).is_none())
        .map(|since| DueJob { kind: JobKind::CollectOrphans, since })
        .into_iter()
        .collect()
}
