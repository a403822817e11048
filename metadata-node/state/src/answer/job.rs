//! What the state says of maintenance.

use std::collections::BTreeSet;
use std::time::Duration;

use carnax_core::error_code::ErrorCode;
use carnax_core::id::{LogIndex, PageId, SegmentId, TopicPartition};
use carnax_core::limits;
use carnax_core::metadata::{
    CoveringPage, DeadObject, DeadObjects, DeadPage, FindDead, FindOrphans, JobDescription, JobKind,
    MaintenanceDescription, Orphans,
};
use carnax_core::object_key::PageKey;
use carnax_core::problem::Problem;
use carnax_core::time::Timestamp;

use super::compact::compactable;
use super::merge::mergeable;
use super::page::pageable;
use crate::State;
use crate::deliberate_bugs::{self, DeliberateBug};
use crate::page::{self, Page};
use crate::partition::Slice;
use crate::segment::{DeadSegment, SegmentNumber};

/// Dead manifest pages in one answer: each may stand for thousands of objects.
const DEAD_PAGES_MAX: usize = 16;

/// A job that nobody is at, although it is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DueJob {
    /// Which kind.
    pub kind: JobKind,
    /// Since when.
    pub since: Timestamp,
}

/// Which of the candidates are orphans: no manifest refers to them, and they are too old to be committed any more. Manifest pages that
/// may refer to them have to be read by whoever asks.
///
/// The time it takes grows with the segments that were committed while the candidates were made, and with the pages of the
/// partition.
///
/// # Errors
/// `invalid_value` for too many candidates.
pub fn find_orphans(state: &State, request: &FindOrphans) -> Result<Orphans, Problem> {
    let FindOrphans { candidates, on, pages, .. } = request;
    if candidates.len().max(pages.len()) > limits::FIND_ORPHANS_MAX {
        let detail = format_args!("a question for orphans has at most {} objects", limits::FIND_ORPHANS_MAX);
        return Err(Problem::new(ErrorCode::InvalidValue, detail));
    }
    let old = state.log_time.saturating_sub(state.settings.typed.orphan_age);
    let mut orphan_pages: Vec<PageId> = pages
        .iter()
        .filter(|key| key.page.time() < old && !is_known(state, key))
        .map(|key| key.page)
        .collect();
    orphan_pages.sort_unstable();
    let mut orphans: BTreeSet<SegmentId> = candidates.iter().copied().filter(|id| id.time() < old).collect();
    let (Some(first), Some(last)) = (orphans.first().copied(), orphans.last().copied()) else {
        return Ok(Orphans { orphans: Vec::new(), orphan_pages, covering: Vec::new() });
    };
    let ids = first..=last;
    // The commit of a segment is hardly earlier than its id says, and not much later.
    let from = first.time().saturating_sub(limits::CLOCK_AHEAD_MAX);
    let to = last.time().saturating_add(limits::COMMIT_DEADLINE);
    for committed in state.segments.committed_between(from, to) {
        orphans.remove(&committed);
    }
    for dead in state.segments.dead().values().filter(|dead| ids.contains(&dead.id)) {
        orphans.remove(&dead.id);
    }
    let on = on.filter(|_| !deliberate_bugs::makes(DeliberateBug::CollectorForgetsPages));
    let covering = on.map_or_else(Vec::new, |on| covering(state, on, first, last));
    Ok(Orphans { orphans: orphans.into_iter().collect(), orphan_pages, covering })
}

/// Whether a page is part of the log, or dead.
fn is_known(state: &State, key: &PageKey) -> bool {
    pages_of(state, key.on).any(|page| page.id == key.page)
        || state.dead_pages.iter().any(|(_, dead)| dead.page.id == key.page)
}

/// The pages of a partition, live or dead, in which segments with ids of a range may be.
fn covering(state: &State, on: TopicPartition, first: SegmentId, last: SegmentId) -> Vec<CoveringPage> {
    let dead = state.dead_pages.iter().filter(|(_, dead)| dead.on == on && dead.owns_slices);
    let pages = pages_of(state, on).chain(dead.map(|(_, dead)| &dead.page));
    let pages = pages.filter(|page| page.may_hold(first, last));
    let describe = |page: &Page| {
        let (first, last) = page.segments;
        CoveringPage { page: page.planned(on), first, last }
    };
    pages.map(describe).collect()
}

fn pages_of(state: &State, on: TopicPartition) -> impl Iterator<Item = &Page> {
    let partition = state.topics.get(on.topic).and_then(|topic| topic.partition(on.partition).ok());
    partition.into_iter().flat_map(|partition| partition.pages.all())
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
        JobKind::CollectDead => {
            let pages = deletable_pages(state, now, archived).count();
            (deletable(state, now, archived).count() + pages) as u64
        }
        JobKind::Merge => mergeable(state).count() as u64,
        JobKind::PageOut => pageable(state).count() as u64,
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
    let segment = state.segments.dead().get_min().map(|(_, dead)| dead.died);
    let page = state.dead_pages.iter().next().map(|(_, dead)| dead.died);
    if let Some(died) = segment.into_iter().chain(page).min() {
        wait = wait.min(deletable_from(state, died).since(now));
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
            let segment = deletable(state, now, archived).next().map(|(_, dead)| dead.died);
            let page = deletable_pages(state, now, archived).next().map(|(_, dead)| dead.died);
            Some(deletable_from(state, segment.into_iter().chain(page).min()?))
        }
        JobKind::CompactKeys => Some(compactable(state, now).next()?.since),
        JobKind::Merge => Some(append_time(state, &mergeable(state).next()?.slices)),
        JobKind::PageOut => Some(append_time(state, &pageable(state).next()?)),
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
    let objects: Vec<DeadObject> = objects.collect();
    let room = (limit - objects.len()).min(DEAD_PAGES_MAX);
    let pages = deletable_pages(state, now, archived).take(room).map(|((died_at, _), dead)| DeadPage {
        died_at: *died_at,
        key: dead.page.key(dead.on),
        size: u64::from(dead.page.size),
        owns_slices: dead.owns_slices,
    });
    let dead = state.segments.dead().len() + state.dead_pages.len();
    Ok(DeadObjects { objects, pages: pages.collect(), dead: dead as u64 })
}

/// Dead objects that no reader can still need, and whose death is in the archive, in order of death.
fn deletable(
    state: &State,
    now: Timestamp,
    archived: LogIndex,
) -> impl Iterator<Item = (&(LogIndex, SegmentNumber), &DeadSegment)> {
    let dead = state.segments.dead().iter();
    dead.take_while(move |((died_at, _), dead)| {
        *died_at <= archived && deletable_from(state, dead.died) <= now
    })
}

/// The same of manifest pages.
fn deletable_pages(
    state: &State,
    now: Timestamp,
    archived: LogIndex,
) -> impl Iterator<Item = (&(LogIndex, PageId), &page::DeadPage)> {
    state.dead_pages.iter().take_while(move |((died_at, _), dead)| {
        *died_at <= archived && deletable_from(state, dead.died) <= now
    })
}

fn deletable_from(state: &State, died: Timestamp) -> Timestamp {
    if deliberate_bugs::makes(DeliberateBug::DeletesOneGraceEarly) {
        return died;
    }
    died.saturating_add(state.settings.typed.delete_grace)
}

/// When the newest of some slices was appended, or rewritten.
fn append_time(state: &State, slices: &[Slice]) -> Timestamp {
    let segments = slices.iter().filter_map(|slice| state.segments.get(slice.segment));
    segments.map(|segment| segment.append_time).max().unwrap_or(state.log_time)
}
