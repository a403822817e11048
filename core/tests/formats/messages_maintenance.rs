//! The messages about what becomes of the log later, and about queues that are told of it: what was sent once is understood for ever.

use std::fmt::Debug;

use carnax_core::cluster_document::{self, Former, IncarnationDocument};
use carnax_core::id::{ClusterId, Incarnation, LogIndex, PageId, SegmentNumber};
use carnax_core::metadata::*;
use carnax_core::object_key::{PageKey, SegmentKey};
use carnax_core::offset::{ByteRange, Offset};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::golden;
use crate::messages::{check, on, segment, time, topic, topic_ref};

const INCARNATION: Incarnation = Incarnation(2);

fn page_id() -> PageId {
    PageId::from_parts(time(1_700_000_000_000), 43)
}

fn page() -> PlannedPage {
    PlannedPage { key: PageKey { incarnation: INCARNATION, on: on(), page: page_id() }, size: 32_808 }
}

fn merged() -> SegmentKey {
    SegmentKey { merged: Some(on()), ..SegmentKey::appended(INCARNATION, segment()) }
}

fn source() -> SourceSlice {
    let slice = PlannedSlice {
        segment: merged(),
        segment_size: 1_000,
        bytes: ByteRange { start: 8, length: 661 },
        base_offset: Offset(41),
        end_offset: Offset(44),
        max_timestamp: time(1_700_000_000_000),
        append_time: time(1_700_000_000_001),
        rewritten: true,
    };
    SourceSlice { segment: SegmentNumber(7), slice }
}

fn dead_object() -> DeadObject {
    DeadObject { died_at: LogIndex(99), number: SegmentNumber(7), key: merged(), size: 1_000 }
}

fn dead_page() -> DeadPage {
    DeadPage { died_at: LogIndex(99), key: page().key, size: 32_808, owns_slices: true }
}

/// As [`check`], for what is JSON.
fn check_json<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, document: &T) {
    let today = serde_json::to_vec_pretty(document).unwrap();
    let stored = golden(&format!("json-v1/{name}.json"), &today);
    assert_eq!(&serde_json::from_slice::<T>(&stored).unwrap(), document, "{name}");
    let newer = String::from_utf8(stored.to_vec()).unwrap().replacen('{', "{\"added_later\": [1],", 1);
    assert_eq!(
        &serde_json::from_str::<T>(&newer).unwrap(),
        document,
        "{name} with a field of a later version"
    );
}

#[test]
fn job_calls_are_understood_as_ever() {
    let worker = "frontend-1/17".to_owned();
    check("TakeJob", &TakeJob { worker: worker.clone(), kind: None });
    check("TakeJob-kind", &TakeJob { worker: worker.clone(), kind: Some(JobKind::Merge) });
    check("JobTaken-none", &JobTaken { job: None, ask_again_ms: 5_000 });
    let (from, until) = (time(1_600_000_000_000), time(1_700_000_000_000));
    for (name, task) in [
        ("collect_orphans", JobTask::CollectOrphans { from, until, folders_done: 12 }),
        ("collect_dead", JobTask::CollectDead),
        ("merge", JobTask::Merge),
        ("compact_keys", JobTask::CompactKeys),
        ("page_out", JobTask::PageOut),
    ] {
        let job = JobLease { lease: LogIndex(99), expires_in_ms: 60_000, incarnation: INCARNATION, task };
        check(&format!("JobTaken-{name}"), &JobTaken { job: Some(job), ask_again_ms: 0 });
    }
    for (name, next) in
        [("go_on", AfterReport::GoOn), ("lay_down", AfterReport::LayDown), ("finish", AfterReport::Finish)]
    {
        let report = ReportJob { kind: JobKind::CollectOrphans, lease: LogIndex(99), folders_done: 13, next };
        check(&format!("ReportJob-{name}"), &report);
    }
    check("JobReported", &JobReported { expires_in_ms: 60_000 });
    check("DescribeMaintenance", &DescribeMaintenance {});
    let described = |job| JobDescription {
        job,
        due_since: Some(from),
        last_success: Some(until),
        done_until: until,
        worker: Some(worker.clone()),
        progress_percent: Some(50),
        backlog: 3,
    };
    let jobs = JobKind::ALL.map(described).into();
    check("MaintenanceDescription", &MaintenanceDescription { log_time: until, jobs });
}

#[test]
fn calls_about_orphans_and_dead_objects_are_understood_as_ever() {
    let candidates = vec![segment()];
    let question = FindOrphans { incarnation: INCARNATION, candidates, on: None, pages: vec![] };
    check("FindOrphans", &question);
    check("FindOrphans-partition", &FindOrphans { on: Some(on()), pages: vec![page().key], ..question });
    let covering = vec![CoveringPage { page: page(), first: segment(), last: segment() }];
    check("Orphans", &Orphans { orphans: vec![segment()], orphan_pages: vec![page_id()], covering });
    check("FindDead", &FindDead { limit: 100 });
    check("DeadObjects", &DeadObjects { objects: vec![dead_object()], pages: vec![dead_page()], dead: 2 });
    let (objects, pages) = (vec![(LogIndex(99), SegmentNumber(7))], vec![(LogIndex(99), page_id())]);
    check("ForgetDead", &ForgetDead { objects, pages });
    check("DeadForgotten", &DeadForgotten { forgotten: 2, dead: 1 });
}

#[test]
fn calls_about_merges_and_key_compaction_are_understood_as_ever() {
    let (log_time, incarnation, slices) = (time(1_700_000_000_000), INCARNATION, vec![source()]);
    check("PlanMerge", &PlanMerge { after: Some(on()) });
    let part = MergePart { on: on(), stamp: true, slices: slices.clone() };
    check("MergePlan", &MergePlan { log_time, incarnation, parts: vec![part] });
    let part = ReplacedPart {
        on: on(),
        base_offset: Offset(41),
        end_offset: Offset(44),
        sources: vec![SegmentNumber(7), SegmentNumber(8)],
        bytes: ByteRange { start: 8, length: 661 },
        max_timestamp: log_time,
    };
    let parts = vec![part];
    check("ReplaceSlices", &ReplaceSlices { incarnation, segment: segment(), size: 1_000, parts });
    check("SlicesReplaced", &SlicesReplaced { replaced: vec![true, false] });

    check("PlanCompaction", &PlanCompaction { after: None });
    let round = CompactionRound {
        on: on(),
        stamp: false,
        follows: LogIndex(98),
        clean_until: Offset(10),
        until: Offset(44),
        tombstones_until: Offset(5),
        slices,
    };
    check("CompactionPlan", &CompactionPlan { log_time, incarnation, round: Some(round) });
    let finish = FinishCompaction {
        incarnation,
        on: on(),
        follows: LogIndex(98),
        clean_until: Offset(44),
        tombstones_until: Offset(10),
        tombstones_left: true,
    };
    check("FinishCompaction", &finish);
    check("CompactionFinished", &CompactionFinished { finished: true });
}

#[test]
fn calls_about_pages_and_plans_that_name_one_are_understood_as_ever() {
    let (log_time, incarnation) = (time(1_700_000_000_000), INCARNATION);
    check("PlanPage", &PlanPage { after: Some(on()) });
    let part = PagePart { on: on(), slices: vec![source()] };
    check("PagePlan", &PagePlan { log_time, incarnation, part: Some(part) });
    let replace = ReplaceByPage {
        incarnation,
        page: page_id(),
        size: 32_808,
        on: on(),
        base_offset: Offset(41),
        end_offset: Offset(44),
        sources: vec![SegmentNumber(7)],
    };
    check("ReplaceByPage", &replace);
    check("PageReplaced", &PageReplaced { replaced: true });
    let plan = FetchPlan {
        topic_id: topic(),
        log_start: Offset(0),
        high_watermark: Offset(44),
        start: Offset(42),
        slices: vec![],
        page: Some(page()),
        applied: LogIndex(99),
    };
    check("FetchPlan-page", &plan);
    check("ListPages", &ListPages { after: Some((on(), Offset(41))), limit: 100 });
    let (base_offset, end_offset) = (Offset(41), Offset(44));
    let listed = ListedPage { page: page(), base_offset, end_offset, slices: 1 };
    check("PageList", &PageList { pages: vec![listed], more: true });
}

#[test]
fn calls_about_manifests_are_understood_as_ever() {
    let log_time = time(1_700_000_000_000);
    check("ListManifests", &ListManifests { from: SegmentNumber(7), rows: 100, slices: true });
    let slice = ManifestSlice {
        on: on(),
        bytes: ByteRange { start: 8, length: 661 },
        base_offset: Offset(41),
        end_offset: Offset(44),
        max_timestamp: log_time,
    };
    let (number, key) = (SegmentNumber(7), merged());
    let manifest = Manifest { number, key, size: 1_000, rewritten: true, slices: vec![slice] };
    let (next, end) = (Some(SegmentNumber(8)), SegmentNumber(9));
    let list = ManifestList { log_time, incarnation: INCARNATION, manifests: vec![manifest], next, end };
    check("ManifestList", &list);
    check("ListDead", &ListDead { after: Some((LogIndex(99), SegmentNumber(7))), limit: 100 });
    check("DeadList", &DeadList { objects: vec![dead_object()], more: true, pages: vec![dead_page()] });
}

#[test]
fn wakeup_calls_are_understood_as_ever() {
    let (name, queue) = ("reports".parse().unwrap(), "https://queues.invalid/1/q".to_owned());
    let put = PutWakeup { topic: topic_ref(), name, queue, window_ms: 1_000 };
    check("PutWakeup", &put);
    let PutWakeup { name, queue, window_ms, .. } = put;
    check("DeleteWakeup", &DeleteWakeup { topic: topic_ref(), name: name.clone() });
    check("DeletedWakeup", &DeletedWakeup { topic_id: topic() });
    check("ListWakeups", &ListWakeups { topic: topic_ref() });
    let created = time(1_600_000_000_000);
    let wakeup = WakeupDescription { name: name.clone(), queue, window_ms, created, pending_records: 3 };
    check("WakeupDescription", &wakeup);
    check("WakeupList", &WakeupList { topic_id: topic(), wakeups: vec![wakeup] });

    let range = CommittedRange { partition: on().partition, from: Offset(41), to: Offset(44) };
    let (topic, topic_id) = (topic_ref().name, topic());
    let log_index = LogIndex(99);
    let event = CommitEvent { topic, topic_id, wakeup: name, log_index, partitions: vec![range] };
    check_json("CommitEvent", &event);
    let due_since = time(1_600_000_000_000);
    check_json("JobAnnouncement", &JobAnnouncement { job: JobKind::CollectDead, due_since });
}

#[test]
fn the_document_by_which_a_restore_shuts_others_out_is_understood_as_ever() {
    let cluster = |random| ClusterId::from_parts(time(1_600_000_000_000), random);
    let document = IncarnationDocument {
        format_version: cluster_document::FORMAT_VERSION,
        cluster: cluster(3),
        incarnation: Incarnation(3),
        former: vec![
            Former { cluster: cluster(2), incarnation: Incarnation(2) },
            Former { cluster: cluster(1), incarnation: Incarnation(1) },
        ],
    };
    check_json("cluster-incarnation", &document);
    let stored = golden("json-v1/cluster-incarnation.json", b"");
    assert_eq!(cluster_document::parse::<IncarnationDocument>(&stored), Ok(document));
}
