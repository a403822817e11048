//! What is promised of maintenance jobs: one worker at a time, nothing begun anew that was done, nothing due where nobody
//! writes; and that no orphan is, or will be, part of the log. Every step also checks all invariants.

use std::collections::BTreeSet;

use carnax_core::error_code::ErrorCode;
use carnax_core::id::{LogIndex, SegmentId};
use carnax_core::limits;
use carnax_core::metadata::{
    AfterReport, FindOrphans, JobDescription, JobKind, JobLease, JobReported, JobTask, ReportJob,
    SegmentOutcome, TakeJob,
};
use carnax_core::object_key::SEGMENT_FOLDERS;
use carnax_core::problem::Problem;
use carnax_core::time::Timestamp;
use carnax_metadata_state::{Command, Reply, State, answer};
use proptest::prelude::*;

use crate::support::{Cluster, INCARNATION, START, bytes_of, code, read_back, segment, slice, trim};
use crate::writer::{Writer, records, set};

const HOUR: i64 = 60 * 60 * 1_000;
/// The age of an orphan and the time between two passes, where nothing is set.
const DUE: i64 = 7 * HOUR;

/// The whole log is in the archive.
const EVERYTHING: LogIndex = LogIndex(u64::MAX);

/// Each command that there is for jobs, with the lease that the second one gives.
pub(crate) fn commands_of_jobs(lease: u64) -> Vec<Command> {
    let settings = [
        ("commit.deadline.ms", Some("1000")),
        ("orphan.age.ms", Some("1500")),
        ("orphan.scan.interval.ms", None),
    ];
    vec![
        set(&settings),
        take("a"),
        Command::ReportJob(ReportJob {
            kind: JobKind::CollectOrphans,
            lease: LogIndex(lease),
            folders_done: 7,
            next: AfterReport::GoOn,
        }),
    ]
}

fn take(worker: &str) -> Command {
    Command::TakeJob(TakeJob { worker: worker.to_owned(), kind: None })
}

/// A job, or how long to wait for one.
fn ask(cluster: &mut Cluster, worker: &str) -> Result<JobLease, u64> {
    match cluster.one(take(worker)) {
        Ok(Reply::JobTaken(taken)) => taken.job.ok_or(taken.ask_again_ms),
        other => panic!("{other:?}"),
    }
}

fn report(cluster: &mut Cluster, job: &JobLease, done: u32, next: AfterReport) -> Result<u64, Problem> {
    let (kind, lease) = (job.task.kind(), job.lease);
    match cluster.one(Command::ReportJob(ReportJob { kind, lease, folders_done: done, next }))? {
        Reply::JobReported(JobReported { expires_in_ms }) => Ok(expires_in_ms),
        other => panic!("{other:?}"),
    }
}

/// From, until, folders done.
fn task(job: &JobLease) -> (i64, i64, u32) {
    let JobTask::CollectOrphans { from, until, folders_done } = job.task else { panic!("{job:?}") };
    (from.millis() - START, until.millis() - START, folders_done)
}

fn described(cluster: &Cluster) -> JobDescription {
    let now = Timestamp::from_millis(cluster.now);
    answer::describe_job(&cluster.state, JobKind::CollectOrphans, now, EVERYTHING)
}

#[test]
fn a_pass_is_done_by_one_worker_at_a_time_and_goes_on_where_the_last_one_died() {
    let mut cluster = Cluster::new();
    cluster.open_session();
    assert_eq!(ask(&mut cluster, "a"), Err(u64::try_from(DUE).unwrap()), "nothing can be left behind yet");
    cluster.now += DUE - 1;
    assert_eq!(ask(&mut cluster, "a"), Err(1));
    assert_eq!(described(&cluster).due_since, None);
    cluster.now += 1;
    assert_eq!(answer::due_jobs(&cluster.state, Timestamp::from_millis(cluster.now), EVERYTHING).len(), 1);
    let job = ask(&mut cluster, "a").unwrap();
    assert_eq!(task(&job), (-24 * HOUR, DUE - HOUR, 0), "also what appeared late");
    assert_eq!(answer::due_jobs(&cluster.state, Timestamp::from_millis(cluster.now), EVERYTHING), []);
    assert_eq!(ask(&mut cluster, "a").unwrap(), job, "the answer was lost");

    let lease = i64::try_from(limits::JOB_LEASE.as_millis()).unwrap();
    cluster.now += lease - 10;
    assert_eq!(ask(&mut cluster, "b"), Err(10));
    assert_eq!(report(&mut cluster, &job, 100, AfterReport::GoOn), Ok(60_000));
    assert_eq!(described(&cluster).progress_percent, Some(39));
    cluster.now += lease - 1;
    assert_eq!(ask(&mut cluster, "b"), Err(1), "a reported");
    assert_eq!(described(&cluster).worker.as_deref(), Some("a"));
    cluster.now += 1;
    assert_eq!(described(&cluster).worker, None, "its time has run out");
    let second = ask(&mut cluster, "b").unwrap();
    assert_eq!(task(&second), (-24 * HOUR, DUE - HOUR, 100), "a was silent: b goes on");
    assert!(second.lease > job.lease);
    for next in [AfterReport::GoOn, AfterReport::LayDown, AfterReport::Finish] {
        assert_eq!(code(report(&mut cluster, &job, 256, next)), ErrorCode::LeaseLost);
    }
    assert_eq!(code(report(&mut cluster, &second, 99, AfterReport::GoOn)), ErrorCode::InvalidValue);
    assert_eq!(code(report(&mut cluster, &second, 257, AfterReport::GoOn)), ErrorCode::InvalidValue);
    assert_eq!(code(report(&mut cluster, &second, 255, AfterReport::Finish)), ErrorCode::InvalidValue);

    report(&mut cluster, &second, 200, AfterReport::LayDown).unwrap();
    let third = ask(&mut cluster, "a").unwrap();
    assert_eq!(task(&third), (-24 * HOUR, DUE - HOUR, 200));
    assert_eq!(described(&cluster).due_since, Some(Timestamp::from_millis(START + DUE)));
    assert_eq!(report(&mut cluster, &third, SEGMENT_FOLDERS, AfterReport::Finish), Ok(0));
    assert_eq!(
        code(report(&mut cluster, &third, SEGMENT_FOLDERS, AfterReport::Finish)),
        ErrorCode::LeaseLost
    );
    let done = described(&cluster);
    assert_eq!((done.due_since, done.progress_percent, done.worker), (None, None, None));
    assert_eq!(done.last_success, Some(Timestamp::from_millis(cluster.now)));
    assert_eq!(done.done_until, Timestamp::from_millis(START + DUE - HOUR));
    assert_eq!(code(cluster.one(take(&"w".repeat(513)))), ErrorCode::TooLarge);
}

#[test]
fn nothing_is_due_where_nobody_has_written_since() {
    let mut cluster = Cluster::new();
    cluster.now += 10 * DUE;
    assert_eq!(ask(&mut cluster, "a"), Err(u64::try_from(6 * HOUR).unwrap()), "no frontend ever came");
    cluster.open_session();
    let job = ask(&mut cluster, "a").unwrap();
    report(&mut cluster, &job, SEGMENT_FOLDERS, AfterReport::Finish).unwrap();
    cluster.now += DUE;
    let job = ask(&mut cluster, "a").expect("the session was too young for the first pass");
    report(&mut cluster, &job, SEGMENT_FOLDERS, AfterReport::Finish).unwrap();
    cluster.now += 100 * DUE;
    assert!(ask(&mut cluster, "a").is_err());
    cluster.open_session();
    assert!(ask(&mut cluster, "a").is_ok());
}

#[test]
fn clusters_of_earlier_builds_are_searched_from_the_beginning() {
    let mut cluster = Cluster::of_level(carnax_metadata_state::FeatureLevel(3));
    cluster.open_session();
    cluster.level = carnax_metadata_state::FeatureLevel(4);
    assert!(ask(&mut cluster, "a").is_err(), "once somebody writes");
    cluster.open_session();
    assert_eq!(task(&ask(&mut cluster, "a").unwrap()), (-START, -HOUR, 0));
}

#[test]
fn what_was_an_orphan_under_a_shorter_deadline_is_not_committed_under_a_longer_one() {
    let mut writer = Writer::new();
    let topic = writer.cluster.create("flights", 1, 1);
    let late = writer.cluster.segment(7);
    let both = [("commit.deadline.ms", Some("1000")), ("orphan.age.ms", Some("2000"))];
    assert_eq!(code(writer.set(&both[1..])), ErrorCode::InvalidValue, "segments may be 15 minutes old");
    writer.set(&both).unwrap();
    writer.wait(2_001);
    writer.accepted(records(topic, &[0]));
    assert_eq!(orphans(&writer.cluster.state, &[late]), [late]);
    assert_eq!(
        code(writer.set(&both[..1].iter().map(|(name, _)| (*name, None)).collect::<Vec<_>>())),
        ErrorCode::InvalidValue
    );
    writer.set(&both.map(|(name, _)| (name, None))).unwrap();
    let state = read_back(&bytes_of(&writer.cluster.state)).unwrap();
    writer.cluster.state = state;
    writer.number += 1;
    let commit = segment(late, vec![slice(topic, 0, 0, 10, 1, 5)]);
    let reply = writer.cluster.commit(writer.session, writer.number, vec![commit]).unwrap();
    let SegmentOutcome::Refused(problem) = &reply.outcomes[0] else { panic!("{reply:?}") };
    assert_eq!(problem.code, ErrorCode::StaleSegment);
}

fn orphans(state: &State, candidates: &[SegmentId]) -> Vec<SegmentId> {
    let candidates = candidates.to_vec();
    let request = FindOrphans { incarnation: INCARNATION, candidates, on: None, pages: Vec::new() };
    answer::find_orphans(state, &request).unwrap().orphans
}

/// What happens to the objects of a bucket.
#[derive(Debug, Clone)]
enum Step {
    /// Objects are uploaded, so many milliseconds early or late by their ids.
    Upload(i64, u8),
    /// One of those that were uploaded is committed, if that is still allowed; with records or without.
    Commit(prop::sample::Index, bool),
    /// Everything so far is trimmed: the objects are dead, and no orphans.
    Trim,
    Wait(i64),
    /// Another deadline, and an age a little above it.
    Deadline(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (-5_000..60_000_i64, 1..4_u8).prop_map(|(ahead, count)| Step::Upload(ahead, count)),
        8 => (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(which, live)| Step::Commit(which, live)),
        1 => Just(Step::Trim),
        4 => prop_oneof![0..5_000_i64, 0..1_000_000_i64].prop_map(Step::Wait),
        1 => (1_000..60_000_u16).prop_map(Step::Deadline),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// An object is an orphan exactly if it was never committed and is older than orphans are; and then it is refused
    /// for ever, whatever happens to the deadline.
    #[test]
    fn an_orphan_is_not_and_never_will_be_part_of_the_log(steps in prop::collection::vec(step(), 1..120)) {
        let mut writer = Writer::new();
        let topic = writer.cluster.create("flights", 1, 1);
        let (mut uploaded, mut committed, mut condemned) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        let mut age = HOUR;
        for step in steps {
            match step {
                Step::Upload(ahead, count) => for _ in 0..count {
                    let time = Timestamp::from_millis(writer.cluster.now + ahead);
                    uploaded.push(SegmentId::from_parts(time, uploaded.len() as u128));
                },
                Step::Commit(which, live) => {
                    if uploaded.is_empty() { continue; }
                    let id = *which.get(&uploaded);
                    writer.number += 1;
                    let slices = if live { vec![slice(topic, 0, 0, 10, 1, 5)] } else { vec![] };
                    let mut commit = segment(id, slices);
                    if !live { commit.units.push(records(topic, &[9])); }
                    let reply = writer.cluster.commit(writer.session, writer.number, vec![commit]);
                    // Sessions expire too.
                    let Ok(reply) = reply else {
                        writer.session = writer.cluster.open_session();
                        writer.number = 0;
                        continue;
                    };
                    if let SegmentOutcome::Decided(_) = &reply.outcomes[0] {
                        prop_assert!(committed.insert(id), "{id} was committed twice");
                        prop_assert!(!condemned.contains(&id), "{id} was deleted");
                    }
                }
                Step::Trim => {
                    let end = writer.cluster.plan("flights", 0, carnax_core::metadata::FetchFrom::Latest).unwrap();
                    writer.cluster.one(trim("flights", 0, end.high_watermark.0)).unwrap();
                }
                Step::Wait(millis) => writer.wait(millis),
                Step::Deadline(millis) => {
                    age = i64::from(millis) + 1;
                    let (deadline, old) = (millis.to_string(), age.to_string());
                    writer.set(&[("commit.deadline.ms", Some(&deadline)), ("orphan.age.ms", Some(&old))]).unwrap();
                }
            }
            let old = writer.cluster.state.log_time().millis() - age;
            let expected = uploaded.iter().filter(|id| id.time().millis() < old && !committed.contains(id));
            let expected: BTreeSet<_> = expected.copied().collect();
            let found: BTreeSet<_> = orphans(&writer.cluster.state, &uploaded).into_iter().collect();
            prop_assert_eq!(&found, &expected);
            condemned.extend(found);
        }
    }
}

#[test]
fn what_a_worker_left_behind_in_a_silent_cluster_is_looked_for() {
    for kind in JobKind::ALL {
        let mut cluster = Cluster::new();
        cluster.open_session();
        cluster.now += DUE;
        let pass = ask(&mut cluster, "a").unwrap();
        report(&mut cluster, &pass, SEGMENT_FOLDERS, AfterReport::Finish).unwrap();
        cluster.now += 3 * DUE;
        assert_eq!(described(&cluster).due_since, None, "nobody wrote");
        // It may have uploaded an object before it died: a merge, a round of key compaction, a page.
        if kind != JobKind::CollectOrphans {
            let taken = cluster.one(Command::TakeJob(TakeJob { worker: "b".to_owned(), kind: Some(kind) }));
            assert!(matches!(taken, Ok(Reply::JobTaken(taken)) if taken.job.is_some()), "{kind:?}");
        }
        cluster.now += DUE;
        let writes = matches!(kind, JobKind::Merge | JobKind::CompactKeys | JobKind::PageOut);
        assert_eq!(described(&cluster).due_since.is_some(), writes, "{kind:?}");
        let Ok(pass) = ask(&mut cluster, "a") else { continue };
        report(&mut cluster, &pass, SEGMENT_FOLDERS, AfterReport::Finish).unwrap();
        cluster.now += 3 * DUE;
        assert_eq!(described(&cluster).due_since, None, "once is enough");
    }
}
