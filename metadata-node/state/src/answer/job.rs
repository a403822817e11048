//! What the state says of maintenance.

use std::collections::BTreeSet;
use std::time::Duration;

use carnax_core::error_code::ErrorCode;
use carnax_core::id::{LogIndex, SegmentId};
use carnax_core::limits;
use carnax_core::metadata::{
    DeadObject, DeadObjects, FindDead, FindOrphans, JobDescription, JobKind, MaintenanceDescription, Orphans,
};
use carnax_core::problem::Problem;
use carnax_core::time::Timestamp;

use super::compact::compactable;
use super::merge::mergeable;
use crate::State;
use crate::segment::{DeadSegment, SegmentNumber};

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

/// How maintenance is getting on at a time. It takes time for every partition and every dead object.
pub fn describe_maintenance(state: &State, now: Timestamp, archived: LogIndex) -> MaintenanceDescription {
    let jobs = JobKind::ALL.iter().map(|kind| describe_job(state, *kind, now, archived));
    MaintenanceDescription { log_time: now, jobs: jobs.collect() }
}

/// One kind of job at a time, its backlog included.
pub fn describe_job(state: &State, kind: JobKind, now: Timestamp, archived: LogIndex) -> JobDescription {
    let backlog = match kind {
        JobKind::CollectOrphans => 0,
        JobKind::CompactKeys => compactable(state, now).count() as u64,
        JobKind::CollectDead => deletable(state, now, archived).count() as u64,
        JobKind::Merge => mergeable(state).count() as u64,
    };
    let due_since = due_since(state, kind, now, archived);
    JobDescription { due_since, backlog, ..state.jobs.describe(kind, now) }
}

/// What a worker that asks for a job may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextJob {
    /// Take a job of this kind.
    Take(JobKind),
    /// Ask again after this time, or when more was written.
    Wait(Duration),
}

/// The most urgent job for a worker: dead objects, since there is little to it, and else what was finished longest ago, so that each
/// kind has its turn however much there is to do. Dead objects are deleted only if their death is in the archive: at `archived` or before.
pub fn next_job(state: &State, worker: &str, now: Timestamp, archived: LogIndex) -> NextJob {
    let mut wait = state.jobs.due_in(&state.settings.typed, now);
    let mut kinds = JobKind::ALL;
    kinds.sort_by_key(|kind| (*kind != JobKind::CollectDead, state.jobs.last_success(*kind)));
    for kind in kinds {
        if due_since(state, kind, now, archived).is_none() {
            continue;
        }
        match state.jobs.taken_for(kind, worker, now) {
            None => return NextJob::Take(kind),
            Some(lease) => wait = wait.min(lease),
        }
    }
    if let Some((_, dead)) = state.segments.dead().get_min() {
        wait = wait.min(deletable_from(state, dead).since(now));
    }
    NextJob::Wait(wait)
}

/// What workers should be told of.
pub fn due_jobs(state: &State, now: Timestamp, archived: LogIndex) -> Vec<DueJob> {
    let due = JobKind::ALL.into_iter().filter(|kind| state.jobs.holder(*kind, now).is_none());
    due.filter_map(|kind| Some(DueJob { kind, since: due_since(state, kind, now, archived)? })).collect()
}

fn due_since(state: &State, kind: JobKind, now: Timestamp, archived: LogIndex) -> Option<Timestamp> {
    match kind {
        JobKind::CollectOrphans => state.jobs.due_since(&state.settings.typed, now),
        JobKind::CollectDead => {
            let (_, dead) = deletable(state, now, archived).next()?;
            Some(deletable_from(state, dead))
        }
        JobKind::Merge => {
            let run = mergeable(state).next()?;
            let last = state.segments.get(run.slices.last()?.segment)?;
            Some(last.append_time)
        }
        JobKind::CompactKeys => Some(compactable(state, now).next()?.since),
    }
}

/// Which objects may be deleted at a time.
///
/// # Errors
/// `invalid_value` for a limit that is none.
pub fn find_dead(
    state: &State,
    request: &FindDead,
    now: Timestamp,
    archived: LogIndex,
) -> Result<DeadObjects, Problem> {
    let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
    if !(1..=limits::FIND_DEAD_MAX).contains(&limit) {
        let detail = format_args!("an answer has 1 to {} dead objects", limits::FIND_DEAD_MAX);
        return Err(Problem::new(ErrorCode::InvalidValue, detail));
    }
    let objects = deletable(state, now, archived).take(limit).map(|((died_at, number), dead)| DeadObject {
        died_at: *died_at,
        number: *number,
        key: state.segments.key(*number, dead.incarnation, dead.id),
        size: u64::from(dead.size),
    });
    Ok(DeadObjects { objects: objects.collect(), dead: state.segments.dead().len() as u64 })
}

/// Dead objects that no reader can still need, and whose death is in the archive, in order of death.
fn deletable(
    state: &State,
    now: Timestamp,
    archived: LogIndex,
) -> impl Iterator<Item = (&(LogIndex, SegmentNumber), &DeadSegment)> {
    let dead = state.segments.dead().iter();
    dead.take_while(move |((died_at, _), dead)| *died_at <= archived && deletable_from(state, dead) <= now)
}

fn deletable_from(state: &State, dead: &DeadSegment) -> Timestamp {
    dead.died.saturating_add(state.settings.typed.delete_grace)
}
