//! What was archived is restored from the bucket alone, and whoever belongs to the former cluster finds out.

use std::collections::BTreeMap;
use std::time::Duration;

use carnax_core::error_code::ErrorCode;
use carnax_core::id::{Incarnation, LogIndex, PartitionIndex, TopicPartition};
use carnax_core::metadata::{AlterSettings, FetchFrom, PlanFetch, TopicRef};
use carnax_core::object_key::{ArchiveKey, SegmentKey, SnapshotKey};
use carnax_core::offset::Offset;
use carnax_core::record::{Batch, BatchBuilder, Compression, NewRecord};
use carnax_core::segment::{PartitionBatches, SegmentWriter};
use carnax_core::time::Timestamp;
use carnax_metadata_node::{BackupMode, BackupSettings, RestoreError, RunError};
use carnax_object_store::{Failure, Fault, FaultRates, ObjectStore, Payload, Verb};
use carnax_platform::rpc::CallError;

use crate::cluster::{PATIENCE, TestCluster};
use crate::writer::Writer;

pub(crate) fn often() -> BackupSettings {
    BackupSettings { backup: BackupMode::On, backup_interval_ms: 20, ..BackupSettings::off() }
}

pub(crate) async fn start(count: usize, backup: BackupSettings) -> TestCluster {
    let mut cluster = TestCluster::new(count);
    cluster.backup = backup;
    for node in 0..count {
        cluster.start_node(node);
    }
    cluster.wait_for_voters(count).await;
    cluster
}

pub(crate) async fn keys(cluster: &TestCluster, folder: &str) -> Vec<String> {
    let page = cluster.store.inner().list(folder, "", 1_000).await.unwrap();
    page.objects.into_iter().map(|object| object.key).collect()
}

/// The last entry in the archive or in a snapshot, by the names of the objects.
async fn archived(cluster: &TestCluster, incarnation: Incarnation) -> LogIndex {
    let archive = keys(cluster, &ArchiveKey::folder(incarnation)).await;
    let archive = archive.iter().filter_map(|key| key.parse::<ArchiveKey>().ok()).map(|key| key.last);
    let snapshots = keys(cluster, &SnapshotKey::folder(incarnation)).await;
    let snapshots = snapshots.iter().map(|key| key.parse::<SnapshotKey>().unwrap().last);
    archive.chain(snapshots).max().unwrap_or(LogIndex(0))
}

/// Waits until everything that is committed now is in the archive.
pub(crate) async fn wait_archived(cluster: &TestCluster, incarnation: Incarnation) {
    let waiting = async {
        loop {
            let applied =
                cluster.wait("a leader", |s| s.leader.is_some() && s.leader == s.answered_by).await.applied;
            let soon = tokio::time::Instant::now() + Duration::from_secs(2);
            while tokio::time::Instant::now() < soon {
                if archived(cluster, incarnation).await >= applied {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            // A report of usage that came last waits for an entry that is worth archiving.
            cluster.call(AlterSettings { entries: BTreeMap::new() }).await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("the log is archived in time");
}

/// Puts the object of the writer's last commit into the bucket: ten records.
pub(crate) async fn put_object(cluster: &TestCluster, writer: &Writer) {
    let mut batch = BatchBuilder::new(10_000);
    for _ in 0..10 {
        let record = NewRecord { timestamp: Timestamp::EPOCH, key: None, value: Some(b"x"), headers: &[] };
        batch.push(&record).unwrap();
    }
    let on = TopicPartition { topic: writer.topic, partition: PartitionIndex(0) };
    let batches = Batch::parse_all(batch.build(Compression::None)).unwrap();
    let mut segment = SegmentWriter::new();
    segment.push_unit(vec![PartitionBatches { on, batches, encoded_by_frontend: false }]).unwrap();
    let key = SegmentKey::appended(Incarnation(1), writer.last_segment()).to_string();
    cluster.store.inner().put_if_absent(&key, Payload::new(segment.seal().chunks)).await.unwrap();
}

async fn slices(cluster: &TestCluster) -> Vec<(u64, u64, u64)> {
    let topic = TopicRef { name: "t".parse().unwrap(), id: None };
    let (partition, from) = (PartitionIndex(0), FetchFrom::Earliest);
    let plan = PlanFetch { topic, partition, from, max_bytes: 1_000_000, max_slices: 1_000 };
    let plan = cluster.call(plan).await.unwrap();
    let slices = plan.slices.iter();
    slices.map(|s| (s.base_offset.0, s.end_offset.0, s.segment.incarnation.0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bucket_holds_the_log_through_changes_of_the_leader_and_is_left_alone_when_idle() {
    let mut cluster = start(3, BackupSettings { backup_snapshot_bytes: 8_000, ..often() }).await;
    let mut writer = Writer::open(&cluster, "t").await;
    for round in 0..3 {
        for _ in 0..20 {
            writer.commit(&cluster).await;
            wait_archived(&cluster, Incarnation(1)).await;
        }
        let leader = cluster.leader().await;
        if round < 2 {
            cluster.stop_node(leader).await;
            cluster.start_node(leader);
            cluster.wait_for_voters(3).await;
        }
    }
    let snapshots = keys(&cluster, &SnapshotKey::folder(Incarnation(1))).await;
    assert_eq!(snapshots.len(), 2, "older ones are deleted: {snapshots:?}");
    let first: ArchiveKey = keys(&cluster, &ArchiveKey::folder(Incarnation(1))).await[0].parse().unwrap();
    assert!(first.last > snapshots[0].parse::<SnapshotKey>().unwrap().last, "and the archive behind them");

    wait_archived(&cluster, Incarnation(1)).await;
    // The write that was seen has its second look at the incarnation before it, or the deletion of what is old.
    let settled = async {
        loop {
            let before = cluster.store.calls_total();
            tokio::time::sleep(Duration::from_secs(1)).await;
            if cluster.store.calls_total() == before {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, settled).await.expect("an idle cluster asks nothing of the bucket");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_restored_without_its_disks_and_gives_no_offset_out_twice() {
    let mut cluster = start(3, often()).await;
    let mut writer = Writer::open(&cluster, "t").await;
    for _ in 0..5 {
        writer.commit(&cluster).await;
    }
    wait_archived(&cluster, Incarnation(1)).await;
    // From now on nothing reaches the archive.
    cluster.store.set_rates(FaultRates { before_per_mille: 1_000, ..FaultRates::default() });
    assert_eq!(writer.commit(&cluster).await, Offset(50));
    put_object(&cluster, &writer).await;
    for node in 0..3 {
        cluster.kill_node(node);
        cluster.wipe_disk(node);
    }
    cluster.store.set_rates(FaultRates::default());

    let restored = cluster.restore(0, |_| ()).await.unwrap();
    let said = restored.to_string();
    assert_eq!((restored.incarnation, restored.restored_from), (Incarnation(2), Incarnation(1)), "{said}");
    assert_eq!((restored.tail_objects, restored.tail_records), (1, 10), "{said}");
    assert_eq!(restored.missing_objects.count, 5, "only the last commit here has an object: {said}");
    let [skipped] = restored.skipped.as_slice() else { panic!("{said}") };
    assert_eq!((skipped.from, skipped.to, skipped.tail_records), (Offset(50), Offset(160), 10), "{said}");
    assert!(said.contains("t/0: 50 to 160, for 10 records that may be lost"), "{said}");

    for node in 0..3 {
        cluster.start_node(node);
    }
    cluster.wait_for_voters(3).await;
    let leader = cluster.leader().await;
    let stale = cluster.channel(leader).call(writer.next_commit(), Duration::from_secs(5)).await;
    let stale = stale.expect_err("a commit of a former session");
    assert!(
        matches!(&stale, CallError::Refused(problem) if problem.code == ErrorCode::StaleIncarnation),
        "{stale}"
    );
    let mut writer = Writer::open(&cluster, "t").await;
    assert_eq!(writer.commit(&cluster).await, Offset(160));
    let found = slices(&cluster).await;
    assert_eq!(found[..5], [(0, 10, 1), (10, 20, 1), (20, 30, 1), (30, 40, 1), (40, 50, 1)]);
    assert_eq!(found[5..], [(50, 160, 2), (160, 170, 2)]);
    wait_archived(&cluster, Incarnation(2)).await;

    // What was restored can be lost and restored again.
    for node in 0..3 {
        cluster.kill_node(node);
        cluster.wipe_disk(node);
    }
    let restored = cluster.restore(1, |settings| settings.discard_tail = true).await.unwrap();
    assert_eq!((restored.incarnation, restored.restored_from), (Incarnation(3), Incarnation(2)));
    assert_eq!((restored.tail_objects, restored.tail_objects_deleted), (0, 0), "{restored}");
    for node in 0..3 {
        cluster.start_node(node);
    }
    cluster.wait_for_voters(3).await;
    assert_eq!(Writer::open(&cluster, "t").await.commit(&cluster).await, Offset(270));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leaders_of_a_former_cluster_stop_when_they_write_to_the_archive() {
    let mut former = start(3, often()).await;
    let mut writer = Writer::open(&former, "t").await;
    writer.commit(&former).await;
    wait_archived(&former, Incarnation(1)).await;
    let mut new = TestCluster::new(1);
    (new.store, new.backup) = (former.store.clone(), often());
    let restored = new.restore(0, |settings| settings.voters = Some(1)).await.unwrap();
    assert_eq!(restored.last_archived_index, archived(&former, Incarnation(1)).await);
    new.start_node(0);
    new.wait_for_voters(1).await;

    for _ in 0..2 {
        let leader = former.leader().await;
        // One that was elected just now and led nobody's commit yet may have found out already.
        if !former.has_ended(leader) {
            let commit = writer.next_commit();
            let _ = former.channel(leader).call(commit, Duration::from_secs(5)).await;
        }
        let stopped = former.ended(leader).await;
        assert!(matches!(stopped, RunError::Bootstrap(_)), "{stopped}");
        assert!(stopped.to_string().contains("wipe the disk to join"), "{stopped}");
    }
    assert_eq!(Writer::open(&new, "t").await.commit(&new).await, Offset(110), "the new cluster goes on");
    let left = former.nodes.iter().position(|node| node.is_running()).unwrap();
    former.stop_node(left).await;
    former.start_node(left);
    let refused = former.ended(left).await;
    assert!(refused.to_string().contains("wipe the disk to join"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_was_cut_short_is_run_again_and_a_used_folder_is_refused() {
    let mut cluster = start(1, often()).await;
    let mut writer = Writer::open(&cluster, "t").await;
    writer.commit(&cluster).await;
    wait_archived(&cluster, Incarnation(1)).await;
    cluster.stop_node(0).await;
    let used = cluster.restore(0, |_| ()).await.unwrap_err();
    assert!(matches!(used, RestoreError::NotEmpty), "{used}");

    cluster.wipe_disk(0);
    // The incarnation is taken; the bootstrap document is not replaced.
    cluster.store.script(Verb::CompareAndSwap, [Fault::default(), Fault::fail(Failure::Before)]);
    let cut = cluster.restore(0, |_| ()).await.unwrap_err();
    assert!(matches!(cut, RestoreError::ObjectStore(_)), "{cut}");
    cluster.start_node(0);
    let half = cluster.ended(0).await;
    assert!(matches!(half, RunError::HalfRestored), "{half}");
    let restored = cluster.restore(0, |_| ()).await.unwrap();
    assert_eq!((restored.incarnation, restored.restored_from), (Incarnation(3), Incarnation(1)));
    // The gap of the first try is an object that nothing refers to.
    assert_eq!((restored.tail_objects, restored.skipped[0].to), (1, Offset(210)), "{restored}");
    cluster.start_node(0);
    cluster.wait_for_voters(1).await;
    assert_eq!(Writer::open(&cluster, "t").await.commit(&cluster).await, Offset(210));
}
