//! Maintenance jobs are announced while they are due and nobody is at them, whoever leads; asking in vain writes nothing.

use std::time::{Duration, Instant};

use carnax_core::error_code::ErrorCode;
use carnax_core::id::{Incarnation, SegmentId};
use carnax_core::metadata::{
    AfterReport, AlterSettings, DescribeMaintenance, FindOrphans, JobAnnouncement, JobKind, JobLease,
    ReportJob, TakeJob,
};
use carnax_core::object_key::SEGMENT_FOLDERS;
use carnax_core::time::Timestamp;
use carnax_platform::rpc::CallError;

use crate::cluster::{MAINTENANCE_QUEUE, PATIENCE, TestCluster};
use crate::writer::Writer;

fn take(worker: &str) -> TakeJob {
    TakeJob { worker: worker.to_owned(), kind: None }
}

async fn taken(cluster: &TestCluster, worker: &str) -> JobLease {
    let started = Instant::now();
    loop {
        if let Some(job) = cluster.call(take(worker)).await.unwrap().job {
            return job;
        }
        assert!(started.elapsed() < PATIENCE, "no job is to be had");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_are_told_of_a_job_whoever_leads_and_one_of_them_gets_it() {
    let mut cluster = TestCluster::start(3).await;
    let queue = cluster.queues.get(MAINTENANCE_QUEUE);
    let mut writer = Writer::open(&cluster, "t").await;
    writer.commit(&cluster).await;
    let committed = writer.last_segment();
    let left_behind = SegmentId::from_parts(committed.time(), 99);
    let young = SegmentId::from_parts(Timestamp::from_millis(committed.time().millis() + 3_600_000), 1);
    let candidates = vec![left_behind, committed, young];
    let question = FindOrphans { incarnation: Incarnation(1), candidates, on: None, pages: vec![] };
    assert_eq!(cluster.call(question.clone()).await.unwrap().orphans, [], "it may still be committed");
    assert_eq!(cluster.call(take("a")).await.unwrap().job, None);
    let applied = cluster.wait("quiet", |_| true).await.applied;
    assert!(cluster.call(take("a")).await.unwrap().ask_again_ms > 1_000_000);
    let now = cluster.wait("quiet", |_| true).await.applied;
    assert!(now.0 <= applied.0 + 1, "asking in vain writes nothing: {applied} to {now}");

    let settings =
        [("commit.deadline.ms", "1000"), ("orphan.age.ms", "1500"), ("orphan.scan.interval.ms", "1000")];
    let entries = settings.map(|(name, value)| (name.to_owned(), Some(value.to_owned()))).into();
    cluster.call(AlterSettings { entries }).await.unwrap();
    let JobAnnouncement { job, .. } = serde_json::from_str(&queue.next_body().await).unwrap();
    assert_eq!(job, JobKind::CollectOrphans);

    let leader = cluster.leader().await;
    cluster.kill_node(leader);
    let again: JobAnnouncement = serde_json::from_str(&queue.next_body().await).unwrap();
    assert_eq!(again.job, JobKind::CollectOrphans, "the next leader announces it too");
    let job = taken(&cluster, "a").await;
    assert_eq!(cluster.call(take("b")).await.unwrap().job, None, "a has it");
    assert_eq!(cluster.call(question.clone()).await.unwrap().orphans, [left_behind]);
    let wrong = FindOrphans { incarnation: Incarnation(2), ..question.clone() };
    let refused = cluster.channel((leader + 1) % 3).call(wrong, PATIENCE).await;
    let Err(CallError::Refused(problem)) = refused else { panic!("{refused:?}") };
    assert_eq!(problem.code, ErrorCode::StaleIncarnation);
    let (kind, lease) = (JobKind::CollectOrphans, job.lease);
    let done = ReportJob { kind, lease, folders_done: SEGMENT_FOLDERS, next: AfterReport::Finish };
    cluster.call(done.clone()).await.unwrap();
    assert_eq!(cluster.call(done).await.unwrap_err().code, ErrorCode::LeaseLost);
    let described = cluster.call(DescribeMaintenance {}).await.unwrap();
    let orphans = described.jobs.iter().find(|job| job.job == JobKind::CollectOrphans).unwrap();
    assert!(orphans.last_success.is_some(), "{described:?}");
}
