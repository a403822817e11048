//! A restore compares what it restores with what the bucket holds: it names what is missing, and takes nothing away that may be needed.

use carnax_core::id::{
    Incarnation, PageId, PartitionIndex, SegmentId, SegmentNumber, TopicId, TopicPartition,
};
use carnax_core::manifest_page::ManifestPage;
use carnax_core::metadata::{
    AlterSettings, FetchFrom, FetchPlan, FindDead, ForgetDead, PlanFetch, PlannedSlice, ReplaceByPage,
    ReplaceSlices, ReplacedPart, TopicRef, TrimPartition,
};
use carnax_core::object_key::{BackupOffKey, PageKey, SegmentKey};
use carnax_core::offset::{ByteRange, Offset};
use carnax_core::time::Timestamp;
use carnax_metadata_node::{BackupSettings, RestoreSettings, Restored, WithoutBackup};
use carnax_object_store::{ObjectStore, Payload};

use crate::backup::{keys, often, put_object, start, wait_archived};
use crate::cluster::{PATIENCE, TestCluster};
use crate::writer::Writer;

const INCARNATION: Incarnation = Incarnation(1);
const BYTES: ByteRange = ByteRange { start: 8, length: 100 };

/// A cluster with a partition of six slices of ten records: two in a manifest page, two of merged objects, two as they were
/// committed. All their objects are in the bucket, though those of merges hold nothing of use.
struct Past {
    cluster: TestCluster,
    on: TopicPartition,
    time: Timestamp,
    merged: Vec<SegmentKey>,
    committed: SegmentKey,
    page: PageKey,
}

impl Past {
    async fn make() -> Self {
        let cluster = start(1, often()).await;
        let mut writer = Writer::open(&cluster, "t").await;
        let on = TopicPartition { topic: writer.topic, partition: PartitionIndex(0) };
        for _ in 0..6 {
            writer.commit(&cluster).await;
            put_object(&cluster, &writer).await;
        }
        let (time, last) = (writer.last_segment().time(), writer.last_segment());
        let committed = SegmentKey::appended(INCARNATION, last);
        let id = PageId::from_parts(time, 9_000);
        let page = PageKey { incarnation: INCARNATION, on, page: id };
        let mut past = Self { cluster, on, time, merged: Vec::new(), committed, page };
        for place in 0..4 {
            past.rewrite(place).await;
        }
        past.page_out().await;
        past
    }

    /// The key of a merged object; ids go up with `number`.
    fn merged_key(&self, number: u64) -> SegmentKey {
        let segment = SegmentId::from_parts(self.time, 1_000 + u128::from(number));
        SegmentKey { incarnation: INCARNATION, segment, merged: Some(self.on) }
    }

    async fn put(&self, key: impl ToString, bytes: Vec<u8>) {
        self.cluster
            .store
            .inner()
            .put_if_absent(&key.to_string(), Payload::from(bytes::Bytes::from(bytes)))
            .await
            .unwrap();
    }

    async fn delete(&self, key: impl ToString) {
        for deleted in self.cluster.store.inner().delete_many(&[key.to_string()]).await {
            deleted.unwrap();
        }
    }

    async fn has(&self, key: impl ToString) -> bool {
        self.cluster.store.inner().head(&key.to_string()).await.is_ok()
    }

    async fn rewrite(&mut self, place: u64) {
        let key = self.merged_key(place * 10);
        self.put(key, vec![0; 200]).await;
        let part = ReplacedPart {
            on: self.on,
            base_offset: Offset(place * 10),
            end_offset: Offset(place * 10 + 10),
            sources: vec![SegmentNumber(place)],
            bytes: BYTES,
            max_timestamp: self.time,
        };
        let (incarnation, segment) = (INCARNATION, key.segment);
        let request = ReplaceSlices { incarnation, segment, size: 200, parts: vec![part] };
        assert_eq!(self.cluster.call(request).await.unwrap().replaced, [true]);
        self.merged.push(key);
    }

    async fn page_out(&self) {
        let slice = |(base, key): (u64, &SegmentKey)| PlannedSlice {
            segment: *key,
            segment_size: 200,
            bytes: BYTES,
            base_offset: Offset(base * 10),
            end_offset: Offset(base * 10 + 10),
            max_timestamp: self.time,
            append_time: Timestamp::EPOCH,
            rewritten: true,
        };
        let slices = (0..).zip(&self.merged[..2]).map(slice).collect();
        let bytes = ManifestPage::new(self.on, slices).unwrap().encode();
        let request = ReplaceByPage {
            incarnation: INCARNATION,
            page: self.page.page,
            size: bytes.len() as u64,
            on: self.on,
            base_offset: Offset(0),
            end_offset: Offset(20),
            sources: vec![SegmentNumber(6), SegmentNumber(7)],
        };
        self.put(self.page, bytes).await;
        assert!(self.cluster.call(request).await.unwrap().replaced);
    }

    /// All disks are lost; the next restore goes back to the first incarnation, since no other ever ran.
    async fn restore(&mut self, adjust: impl FnOnce(&mut RestoreSettings)) -> Restored {
        if self.cluster.nodes[0].is_running() {
            wait_archived(&self.cluster, INCARNATION).await;
            self.cluster.kill_node(0);
        }
        self.cluster.wipe_disk(0);
        let restored = self.cluster.restore(0, adjust).await.unwrap();
        assert_eq!(restored.restored_from, INCARNATION, "{restored}");
        restored
    }

    async fn plan(&self, from: u64) -> FetchPlan {
        let topic = TopicRef { name: "t".parse().unwrap(), id: None };
        let (partition, from) = (PartitionIndex(0), FetchFrom::Offset(Offset(from)));
        let plan = PlanFetch { topic, partition, from, max_bytes: 1_000_000, max_slices: 1_000 };
        self.cluster.call(plan).await.unwrap()
    }
}

fn named(keys: &[&SegmentKey]) -> Vec<String> {
    let mut keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
    keys.sort();
    keys
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_names_the_live_objects_that_are_missing_and_no_others() {
    let mut past = Past::make().await;
    // An object that waits for its deletion: it may be gone.
    past.delete(SegmentKey::appended(INCARNATION, SegmentId::from_parts(past.time, 1))).await;
    let whole = past.restore(|_| ()).await;
    assert_eq!((whole.missing_objects.count, whole.unusable_pages.count), (0, 0), "{whole}");
    assert!(!whole.to_string().contains("missing"), "{whole}");

    // One of a page, one of a merge, one of a commit.
    let gone = [past.merged[1], past.merged[2], past.committed];
    for key in gone {
        past.delete(key).await;
    }
    let holed = past.restore(|_| ()).await;
    let mut said = holed.missing_objects.first.clone();
    said.sort();
    assert_eq!((holed.missing_objects.count, said), (3, named(&gone.each_ref())), "{holed}");
    assert!(holed.to_string().contains("missing    3 objects"), "{holed}");
    assert!(holed.to_string().contains(&past.committed.to_string()), "{holed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_merged_objects_and_pages_of_the_tail_are_deleted_if_that_is_wanted() {
    let mut past = Past::make().await;
    let elsewhere = TopicPartition { topic: TopicId::from_parts(past.time, 77), ..past.on };
    let lost = [
        past.merged_key(5).to_string(),
        SegmentKey { merged: Some(elsewhere), ..past.merged_key(6) }.to_string(),
        PageKey { page: PageId::from_parts(past.time, 9_001), ..past.page }.to_string(),
    ];
    for key in &lost {
        past.put(key, vec![0; 100]).await;
    }
    let kept = past.restore(|_| ()).await;
    assert_eq!((kept.unreferenced_merged_objects, kept.tail_objects_deleted), (3, 0), "{kept}");
    assert_eq!(kept.tail_records, 0, "they have copies of records, and no new ones: {kept}");
    let deleted = past.restore(|settings| settings.discard_tail = true).await;
    // And the gap of the restore before.
    assert_eq!((deleted.unreferenced_merged_objects, deleted.tail_objects_deleted), (3, 4), "{deleted}");
    for key in &lost {
        assert!(!past.has(key).await, "{key} is deleted");
    }
    let again = past.restore(|settings| settings.discard_tail = true).await;
    assert_eq!((again.missing_objects.count, again.unusable_pages.count), (0, 0), "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_cannot_be_read_costs_its_records_alone_and_protects_all_that_it_may_refer_to() {
    let mut past = Past::make().await;
    // One between the ids of the page's segments, one outside.
    let (inside, outside) = (past.merged_key(5), past.merged_key(500));
    for key in [inside, outside] {
        past.put(key, vec![0; 100]).await;
    }
    for damaged in [None, Some(vec![7; 200])] {
        past.delete(past.page).await;
        if let Some(bytes) = damaged {
            past.put(past.page, bytes).await;
        }
        let restored = past.restore(|settings| settings.discard_tail = true).await;
        assert_eq!((restored.missing_objects.count, restored.unusable_pages.count), (0, 1), "{restored}");
        assert!(restored.unusable_pages.first[0].starts_with(&past.page.to_string()), "{restored}");
        assert!(restored.to_string().contains("missing    1 manifest pages"), "{restored}");
        assert!(past.has(inside).await && past.has(past.merged[0]).await && past.has(past.merged[1]).await);
        assert!(!past.has(outside).await, "what no page can refer to is deleted");
    }

    past.cluster.start_node(0);
    past.cluster.wait_for_voters(1).await;
    assert_eq!(past.plan(0).await.page.map(|page| page.key), Some(past.page));
    let behind = past.plan(20).await;
    assert_eq!((behind.page, behind.slices.first().map(|slice| slice.segment)), (None, Some(past.merged[2])));
}

/// Turns the backup off, and deletes the objects of the last two slices as a worker does. Gives their keys.
async fn delete_without_backup(past: &mut Past) -> Vec<SegmentKey> {
    wait_archived(&past.cluster, INCARNATION).await;
    past.cluster.stop_node(0).await;
    past.cluster.backup = BackupSettings::off();
    past.cluster.start_node(0);
    past.cluster.wait_for_voters(1).await;
    let entries = [("delete.grace.ms".to_owned(), Some("1000".to_owned()))].into();
    past.cluster.call(AlterSettings { entries }).await.unwrap();
    let topic = TopicRef { name: "t".parse().unwrap(), id: None };
    let (partition, before) = (PartitionIndex(0), Offset(60));
    past.cluster.call(TrimPartition { topic, partition, before }).await.unwrap();
    let wanted = [past.merged[2], past.merged[3], past.committed];
    let found = async {
        loop {
            let dead = past.cluster.call(FindDead { limit: 100 }).await.unwrap().objects;
            if wanted.iter().all(|key| dead.iter().any(|dead| dead.key == *key)) {
                return dead;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let dead = tokio::time::timeout(PATIENCE, found).await.expect("they may be deleted in time");
    assert_eq!(keys(&past.cluster, &BackupOffKey::folder(INCARNATION)).await.len(), 1, "the bucket says so");
    for dead in &dead {
        past.delete(dead.key).await;
    }
    let objects = dead.iter().map(|dead| (dead.died_at, dead.number)).collect();
    past.cluster.call(ForgetDead { objects, pages: vec![] }).await.unwrap();
    dead.iter().map(|dead| dead.key).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_from_before_the_backup_was_off_is_called_broken_off_until_a_snapshot_is_behind_it() {
    for turned_on_again in [false, true] {
        let mut past = Past::make().await;
        let deleted = delete_without_backup(&mut past).await;
        past.cluster.stop_node(0).await;
        let marks = keys(&past.cluster, &BackupOffKey::folder(INCARNATION)).await;
        let mark: BackupOffKey = marks[0].parse().unwrap();
        if turned_on_again {
            past.cluster.backup = often();
            past.cluster.start_node(0);
            past.cluster.wait_for_voters(1).await;
            wait_archived(&past.cluster, INCARNATION).await;
            past.cluster.stop_node(0).await;
            assert_eq!(keys(&past.cluster, &BackupOffKey::folder(INCARNATION)).await, [""; 0]);
        }
        let restored = past.restore(|_| ()).await;
        let missing = restored.missing_objects.first.iter();
        assert!(missing.clone().all(|key| deleted.iter().any(|deleted| deleted.to_string() == *key)));
        if turned_on_again {
            assert_eq!((restored.missing_objects.count, restored.without_backup.len()), (0, 0), "{restored}");
            assert!(restored.snapshot_index.is_some_and(|index| index > mark.applied), "{restored}");
            assert!(restored.last_archived_index > mark.applied, "{restored}");
        } else {
            // Those of the last two slices that were committed and of the two merged ones; the others were dead before.
            assert_eq!(restored.missing_objects.count, 4, "{restored}");
            let without = WithoutBackup { incarnation: INCARNATION, since: mark.applied };
            assert_eq!(restored.without_backup, [without], "{restored}");
            assert!(restored.last_archived_index <= mark.applied, "{restored}");
            assert!(restored.to_string().contains("broken off"), "{restored}");
        }
    }
}
