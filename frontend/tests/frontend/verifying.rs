//! Goal: a verification names every object that is missing, cut, damaged or left over, and what it costs, and finds nothing wrong
//! with a log that is whole, whatever was merged, trimmed or deleted, or goes on meanwhile. Method: a frontend and workers, an
//! object store in memory whose objects are harmed one by one, and the state machine itself behind the metadata node.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use carnax_core::id::{Incarnation, LogIndex, PageId, SegmentId};
use carnax_core::manifest_page::ManifestPage;
use carnax_core::object_key::{ArchiveKey, PageKey, SegmentKey};
use carnax_core::segment::Footer;
use carnax_core::time::Timestamp;
use carnax_frontend::verify::{
    Depth, Problem, ProblemKind, Progress, Report, Step, Unreferenced, VerifySettings, verify,
};
use carnax_object_store::{Failure, Fault, GetRange, ObjectStore, Verb};
use carnax_platform::network::TcpNetwork;
use http::StatusCode;
use serde_json::json;

use super::fake_metadata::START;
use super::maintenance::{keys, worker};
use super::paging;
use super::support::{Frontend, start};

async fn verified(frontend: &Frontend, depth: Depth) -> Report {
    verified_while(frontend, depth, &|_| {}).await
}

async fn verified_while(
    frontend: &Frontend,
    depth: Depth,
    tell: &(dyn Fn(Progress) + Send + Sync),
) -> Report {
    let metadata = vec![frontend.metadata.address.clone()];
    let settings = VerifySettings { metadata, depth, concurrency: 8 };
    verify(&settings, Arc::new(TcpNetwork), Arc::clone(&frontend.store) as _, tell).await.unwrap()
}

/// Two topics with records of several kinds in twelve segments, some merged, some dead.
async fn with_history() -> Frontend {
    let frontend = start().await;
    for (topic, config) in
        [("flights", json!({})), ("stamped", json!({"message.timestamp.type": "LogAppendTime"}))]
    {
        let body = json!({"partitions": 2, "config": config}).to_string();
        let created = frontend.call("PUT", &format!("/v1/topics/{topic}"), &[], body).await;
        assert_eq!(created.status, StatusCode::CREATED, "{created:?}");
    }
    append(&frontend, 40).await;
    let work = worker(&frontend).work().await.unwrap();
    assert!(work.merged > 0, "{work:?}");
    append(&frontend, 4).await;
    let trimmed = frontend.call("DELETE", "/v1/topics/flights/partitions/0/records?before=3", &[], "").await;
    assert_eq!(trimmed.status, StatusCode::OK, "{trimmed:?}");
    frontend
}

async fn append(frontend: &Frontend, requests: usize) {
    for number in 0..requests {
        for topic in ["flights", "stamped"] {
            let record =
                |partition| json!({"partition": partition, "value": format!("{number}"), "timestamp": 5});
            let body = json!({"records": [record(0), record(1), record(1)]}).to_string();
            let answer = frontend.call("POST", &format!("/v1/topics/{topic}/records"), &[], body).await;
            assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        }
    }
}

fn heaps(report: &Report) -> Vec<(Unreferenced, u64)> {
    report.unreferenced.iter().map(|(why, heap)| (*why, heap.objects)).collect()
}

async fn read(frontend: &Frontend, key: &str) -> Vec<u8> {
    frontend.store.inner().get(key, GetRange::WholeUpTo(1 << 20)).await.unwrap().0.to_vec()
}

async fn delete(frontend: &Frontend, key: &str) {
    frontend.store.inner().delete_many(&[key.to_owned()]).await.remove(0).unwrap();
}

async fn put(frontend: &Frontend, key: &str, bytes: Vec<u8>) {
    frontend.store.inner().put_if_absent(key, bytes::Bytes::from(bytes).into()).await.unwrap();
}

async fn replace(frontend: &Frontend, key: &str, bytes: Vec<u8>) {
    delete(frontend, key).await;
    put(frontend, key, bytes).await;
}

/// The keys of live objects: those that a merge wrote come last.
async fn live(frontend: &Frontend) -> Vec<String> {
    let report = verified(frontend, Depth::Listing).await;
    let dead = &report.unreferenced[&Unreferenced::Dead].keys;
    let mut live: Vec<String> =
        keys(&frontend.store).await.into_iter().filter(|key| !dead.contains(key)).collect();
    let mut sizes = std::collections::BTreeMap::new();
    for key in &live {
        sizes.insert(key.clone(), read(frontend, key).await.len());
    }
    live.sort_by_key(|key| sizes[key]);
    live
}

#[tokio::test]
async fn a_log_that_is_whole_has_no_problems_however_it_came_to_be() {
    let frontend = with_history().await;
    let (calls, puts) = (frontend.store.calls(Verb::Get), frontend.store.calls(Verb::PutIfAbsent));
    let listing = verified(&frontend, Depth::Listing).await;
    assert_eq!(frontend.store.calls(Verb::Get), calls, "nothing is read");
    for depth in [Depth::Footers, Depth::Records] {
        let report = verified(&frontend, depth).await;
        assert_eq!((report.problem_count, &report.problems), (0, &vec![]), "{report:?}");
        assert_eq!(report.checked.segments, listing.checked.segments);
        assert!(report.checked.slices >= report.checked.segments, "{:?}", report.checked);
        assert_eq!(report.checked.records > 0, depth == Depth::Records);
        assert_eq!(heaps(&report), [(Unreferenced::Dead, 80)], "what was merged");
        assert_eq!(report.bucket.objects, report.checked.segments + 80 + 1, "and whose bucket it is");
    }
    // Each record once, and those below the log start in slices that are not wholly below it.
    let deep = verified(&frontend, Depth::Records).await;
    assert_eq!(deep.checked.records, 2 * 44 * 3);
    assert_eq!(frontend.store.calls(Verb::PutIfAbsent), puts, "a verification writes nothing");
    frontend.stop().await;
}

fn only(report: &Report) -> &Problem {
    assert_eq!(report.problem_count, 1, "{:#?}", report.problems);
    &report.problems[0]
}

#[tokio::test]
async fn an_object_that_is_missing_or_cut_is_named_with_the_records_that_it_costs() {
    let frontend = with_history().await;
    let key = live(&frontend).await.remove(0);
    let whole = read(&frontend, &key).await;
    for depth in [Depth::Listing, Depth::Footers, Depth::Records] {
        delete(&frontend, &key).await;
        let report = verified(&frontend, depth).await;
        let problem = only(&report);
        assert_eq!((problem.kind, &problem.key), (ProblemKind::Missing, &key));
        let records: Vec<_> = problem.records.iter().map(|r| (r.topic.as_deref(), r.partition.0)).collect();
        assert!(
            [[(Some("flights"), 0), (Some("flights"), 1)], [(Some("stamped"), 0), (Some("stamped"), 1)]]
                .contains(&[records[0], records[1]]),
            "{problem:?}"
        );
        assert!(problem.records[1].base_offset.0 >= 80, "{problem:?}");

        for wrong in [whole[..whole.len() - 1].to_vec(), [&whole[..], b"x"].concat()] {
            put(&frontend, &key, wrong).await;
            let report = verified(&frontend, depth).await;
            assert_eq!((only(&report).kind, &only(&report).key), (ProblemKind::WrongSize, &key));
            delete(&frontend, &key).await;
        }
        put(&frontend, &key, whole.clone()).await;
        assert_eq!(verified(&frontend, depth).await.problem_count, 0);
    }
    frontend.stop().await;
}

#[tokio::test]
async fn every_flipped_bit_is_found_and_damaged_batches_are_named_by_their_offsets() {
    let frontend = with_history().await;
    let live = live(&frontend).await;
    for key in [&live[0], &live[live.len() - 1]] {
        let whole = read(&frontend, key).await;
        let footer = Footer::parse(&whole, whole.len() as u64).unwrap();
        let batches_end = footer.batches().last().unwrap().end();
        for at in (0..whole.len()).step_by(23) {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x20;
            replace(&frontend, key, flipped).await;
            let report = verified(&frontend, Depth::Records).await;
            assert!(report.problems.iter().all(|problem| problem.key == *key), "{report:?}");
            assert!(report.problem_count > 0, "flipped at {at}");
            if at as u64 >= batches_end {
                let report = verified(&frontend, Depth::Footers).await;
                assert_eq!(only(&report).kind, ProblemKind::Damaged, "flipped at {at}");
            }
        }
        // In the records of the first batch.
        let mut flipped = whole.clone();
        flipped[8 + 61 + 2] ^= 1;
        replace(&frontend, key, flipped).await;
        let report = verified(&frontend, Depth::Records).await;
        let named: Vec<_> = report.problems.iter().flat_map(|problem| &problem.records).collect();
        assert_eq!((named.len(), named[0].partition.0), (1, 0), "{report:#?}");
        assert!(named[0].end_offset > named[0].base_offset);
        replace(&frontend, key, whole).await;
    }
    assert_eq!(verified(&frontend, Depth::Records).await.problem_count, 0);
    frontend.stop().await;
}

#[tokio::test]
async fn an_object_of_other_batches_contradicts_its_manifest() {
    let frontend = with_history().await;
    let live = live(&frontend).await;
    let (first, second) = (&live[0], &live[1]);
    let (bytes, other) = (read(&frontend, first).await, read(&frontend, second).await);
    if bytes.len() == other.len() {
        // Of the same size, whole in itself, and of another topic or other offsets.
        replace(&frontend, first, other).await;
        let report = verified(&frontend, Depth::Footers).await;
        let topics: Vec<_> = report.problems.iter().map(|problem| (problem.kind, &problem.key)).collect();
        assert!(topics.iter().all(|found| *found == (ProblemKind::Contradiction, first)), "{report:#?}");
    }
    frontend.stop().await;
}

#[tokio::test]
async fn objects_that_nothing_refers_to_are_told_apart() {
    let frontend = with_history().await;
    frontend.metadata.pass(Duration::from_secs(2 * 60 * 60));
    append(&frontend, 1).await;
    append(&frontend, 1).await;
    let at = |hours: u64, random| {
        let time = Timestamp::from_millis(START).saturating_add(Duration::from_secs(60 * 60 * hours));
        SegmentKey::appended(Incarnation(1), SegmentId::from_parts(time, random))
    };
    let archive = ArchiveKey { incarnation: Incarnation(1), first: LogIndex(1), last: LogIndex(2) };
    let before = heaps(&verified(&frontend, Depth::Listing).await);
    let count = |why| before.iter().find(|(known, _)| *known == why).map_or(0, |(_, count)| *count);
    let dead_key =
        verified(&frontend, Depth::Listing).await.unreferenced[&Unreferenced::Dead].keys[0].clone();
    for key in [
        at(0, 1).to_string(),
        at(2, 2).to_string(),
        SegmentKey { incarnation: Incarnation(9), ..at(0, 3) }.to_string(),
        "1/segments/zz/notes.txt".to_owned(),
        "1/segments/2g/notes.txt".to_owned(),
        format!("{dead_key}.bak"),
        archive.to_string(),
    ] {
        put(&frontend, &key, b"left".to_vec()).await;
    }
    let report = verified(&frontend, Depth::Footers).await;
    assert_eq!(report.problem_count, 0, "{:?}", report.problems);
    let expected = [
        (Unreferenced::Young, count(Unreferenced::Young) + 1),
        (Unreferenced::Dead, count(Unreferenced::Dead)),
        (Unreferenced::Orphan, count(Unreferenced::Orphan) + 1),
        (Unreferenced::LaterIncarnation, 1),
        (Unreferenced::NotOurs, 3),
    ];
    assert_eq!(heaps(&report), expected);
    assert!(report.unreferenced[&Unreferenced::Orphan].keys.contains(&at(0, 1).to_string()));
    assert_eq!((report.backup.objects, report.backup.bytes), (1, 4));
    frontend.stop().await;
}

#[tokio::test]
async fn what_is_merged_and_deleted_meanwhile_is_no_problem() {
    let frontend = with_history().await;
    append(&frontend, 40).await;
    // As soon as it is known what there should be, all of it is merged, and what was merged is deleted.
    let (known, merged) = (AtomicBool::new(false), tokio::sync::Notify::new());
    let worker = worker(&frontend);
    let meanwhile = async {
        merged.notified().await;
        assert!(worker.work().await.unwrap().merged > 0);
        frontend.metadata.pass(Duration::from_secs(16 * 60));
        assert!(worker.work().await.unwrap().deleted > 80);
    };
    let tell = |progress: Progress| {
        if progress.step == Step::Listing && !known.swap(true, Ordering::SeqCst) {
            merged.notify_one();
        }
    };
    let slow = Fault::delay(Duration::from_millis(5));
    frontend.store.script(Verb::List, std::iter::repeat_n(slow, 400));
    let (report, ()) = tokio::join!(verified_while(&frontend, Depth::Records, &tell), meanwhile);
    assert_eq!((report.problem_count, &report.problems), (0, &vec![]));
    let after = verified(&frontend, Depth::Records).await;
    assert_eq!((after.problem_count, heaps(&after)), (0, vec![]));
    frontend.stop().await;
}

#[tokio::test]
async fn a_bucket_that_fails_for_a_moment_is_no_problem_of_the_log() {
    let frontend = with_history().await;
    frontend.store.script(Verb::Get, [Fault::fail(Failure::Before), Fault::fail(Failure::Before)]);
    let report = verified(&frontend, Depth::Records).await;
    assert_eq!(report.problem_count, 0, "{:?}", report.problems);
    frontend.stop().await;
}

#[tokio::test]
async fn manifest_pages_and_the_objects_that_only_they_know_are_verified_too() {
    let frontend = paging::with_history().await;
    let page = paging::pages(&frontend).await.remove(0);
    let whole_page = read(&frontend, &page).await;
    let decoded = ManifestPage::decode(&whole_page).unwrap();
    let object = decoded.slices()[0].segment.to_string();
    let whole_object = read(&frontend, &object).await;
    // Long enough for a collector that forgot the page to call its objects orphans.
    frontend.metadata.pass(Duration::from_secs(9 * 60 * 60));
    let settings = json!({"settings": {"merge.slices": "12"}}).to_string();
    assert_eq!(frontend.call("PATCH", "/v1/cluster/settings", &[], settings).await.status, StatusCode::OK);
    for depth in [Depth::Listing, Depth::Footers, Depth::Records] {
        let report = verified(&frontend, depth).await;
        assert_eq!((report.problem_count, &report.problems), (0, &vec![]), "{depth:?}");
        assert!(!report.unreferenced.contains_key(&Unreferenced::Orphan), "{report:?}");
        assert!(!report.unreferenced.contains_key(&Unreferenced::NotOurs), "{report:?}");
        if depth == Depth::Records {
            assert_eq!(report.checked.records, 48);
        }
        for (key, whole) in [(&page, &whole_page), (&object, &whole_object)] {
            delete(&frontend, key).await;
            let report = verified(&frontend, depth).await;
            assert_eq!((only(&report).kind, &only(&report).key), (ProblemKind::Missing, key), "{depth:?}");
            assert_eq!(only(&report).records[0].base_offset.0, 0);
            assert!(!report.unreferenced.contains_key(&Unreferenced::Orphan), "{report:?}");
            put(&frontend, key, whole[..whole.len() - 1].to_vec()).await;
            let report = verified(&frontend, depth).await;
            assert_eq!((only(&report).kind, &only(&report).key), (ProblemKind::WrongSize, key), "{depth:?}");
            let mut flipped = whole.clone();
            flipped[80] ^= 1;
            replace(&frontend, key, flipped).await;
            let report = verified(&frontend, depth).await;
            let seen = *key == page || depth == Depth::Records;
            assert_eq!(report.problem_count > 0, seen, "{depth:?} {:?}", report.problems);
            replace(&frontend, key, whole.clone()).await;
        }
    }
    let orphan =
        PageKey { page: PageId::from_parts(Timestamp::from_millis(START), 5), ..page.parse().unwrap() };
    put(&frontend, &orphan.to_string(), b"left".to_vec()).await;
    let report = verified(&frontend, Depth::Footers).await;
    assert_eq!(report.unreferenced[&Unreferenced::Orphan].keys, [orphan.to_string()]);
    frontend.stop().await;
}
