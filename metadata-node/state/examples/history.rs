//! Measures a partition with a long history: a million merged slices, kept in memory or paged out into manifest pages. Memory, snapshot,
//! and what a fetch costs at the start, in the middle and at the end: the plan, and the reading of the page that it names.
//!
//! `cargo run --release -p carnax-metadata-state --example history` (Linux: it reads `/proc/self/statm`). Each way runs in a process of its
//! own, with `-- memory` or `-- pages`.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a measurement needs clocks, files and processes"
)]
#![allow(clippy::print_stdout, reason = "it prints what it measures")]

use std::collections::BTreeMap;
use std::time::Instant;

use carnax_core::id::{
    ClusterId, CommitNumber, Incarnation, LogIndex, PageId, PartitionIndex, SegmentId, SegmentNumber,
    SessionId, TopicId, TopicPartition,
};
use carnax_core::manifest_page::ManifestPage;
use carnax_core::metadata::{
    CommitSegments, CreateTopic, FetchFrom, FindDead, ForgetDead, OpenSession, PlanFetch, PlanPage,
    ReplaceByPage, ReplaceSlices, ReplacedPart, SegmentCommit, TopicRef, UnitCommit, UnitSlice,
};
use carnax_core::object_key::PageKey;
use carnax_core::offset::{ByteRange, Offset};
use carnax_core::time::Timestamp;
use carnax_metadata_state::{Command, Entry, FeatureLevel, Reply, State, answer, snapshot};

const SLICES: u64 = 1_000_000;
const RECORDS: u64 = 10;
const BYTES: u64 = 1_000;
const START: i64 = 1_700_000_000_000;
const EVERYTHING: LogIndex = LogIndex(u64::MAX);

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("memory") => measure(false),
        Some("pages") => measure(true),
        _ => {
            let program = std::env::current_exe().expect("the path of this program is known");
            for way in ["memory", "pages"] {
                let status = std::process::Command::new(&program).arg(way).status();
                assert!(status.is_ok_and(|status| status.success()), "a measurement failed");
            }
        }
    }
}

struct Log {
    state: State,
    index: u64,
    now: i64,
    session: SessionId,
    pages: BTreeMap<PageKey, Vec<u8>>,
    page_bytes: u64,
}

fn measure(paged: bool) {
    println!(
        "{SLICES} merged slices of one partition, {}",
        if paged { "in manifest pages" } else { "in memory" }
    );
    let before = resident_bytes();
    let mut log = begin();
    for slice in 0..SLICES {
        log.append_and_merge(slice);
        if slice % 1_000 == 999 {
            log.collect();
            while paged && log.page_out() {}
        }
    }
    // Once the last commits cannot be repeated any more, their ids are forgotten.
    log.now += 20 * 60 * 1_000;
    log.apply(Command::ExpireSessions);
    log.collect();
    let used = resident_bytes().saturating_sub(before);
    let kept: u64 = log.pages.values().map(|page| page.len() as u64).sum();
    let status = answer::status(&log.state);
    println!(
        "  memory          {} KiB ({} slices, {} pages)",
        used.saturating_sub(kept) / 1024,
        status.slices,
        status.pages
    );
    let mut bytes = Vec::new();
    snapshot::write(&log.state, &mut bytes).expect("memory takes every write");
    println!("  snapshot        {} KiB; {} KiB of pages", bytes.len() / 1024, log.page_bytes / 1024);
    for (place, offset) in [("start", 0), ("middle", SLICES / 2 * RECORDS), ("end", SLICES * RECORDS - 1)] {
        log.measure_fetch(place, Offset(offset));
    }
}

fn begin() -> Log {
    let (session, index) = (SessionId(0), 0);
    let mut log =
        Log { state: State::default(), index, now: START, session, pages: BTreeMap::new(), page_bytes: 0 };
    log.apply(Command::Bootstrap {
        cluster: ClusterId::from_parts(Timestamp::from_millis(START), 1),
        incarnation: Incarnation(1),
        voters_wanted: 1,
        address: "127.0.0.1:7001".to_owned(),
        disk: 1,
    });
    let open = Command::OpenSession(OpenSession { frontend: "measure".to_owned() });
    if let Reply::SessionOpened(opened) = log.apply(open) {
        log.session = opened.session;
    }
    let config = [("retention.ms".to_owned(), "-1".to_owned())].into();
    let request = CreateTopic { name: topic().name, partitions: 1, config };
    log.apply(Command::CreateTopic { id: on().topic, request });
    log
}

impl Log {
    fn apply(&mut self, command: Command) -> Reply {
        self.index += 1;
        let log_time = Timestamp::from_millis(self.now);
        let entry = Entry { level: FeatureLevel::CURRENT, log_time, commands: vec![command] };
        let outcome = self.state.apply(LogIndex(self.index), &entry).remove(0);
        outcome.expect("every command here is right")
    }

    fn id(&mut self) -> SegmentId {
        self.now += 10;
        SegmentId::from_parts(Timestamp::from_millis(self.now), u128::from(self.index) + 1)
    }

    /// One segment, and a merge of it alone: as if it had been many.
    fn append_and_merge(&mut self, slice: u64) {
        let TopicPartition { topic, partition } = on();
        let max_timestamp = Timestamp::from_millis(self.now);
        let bytes = ByteRange { start: 8, length: BYTES };
        let records = u32::try_from(RECORDS).expect("a small number");
        let slices = vec![UnitSlice { topic, partition, bytes, records, max_timestamp }];
        let (segment, size) = (self.id(), BYTES + 100);
        let units = vec![UnitCommit { slices, ..UnitCommit::default() }];
        let (session, number) = (self.session, CommitNumber(slice + 1));
        let segments = vec![SegmentCommit { segment, size, units }];
        self.apply(Command::CommitSegments(CommitSegments {
            incarnation: Incarnation(1),
            session,
            number,
            segments,
        }));
        let part = ReplacedPart {
            on: on(),
            base_offset: Offset(slice * RECORDS),
            end_offset: Offset((slice + 1) * RECORDS),
            sources: vec![SegmentNumber(slice * 2)],
            bytes,
            max_timestamp,
        };
        let segment = self.id();
        let request = ReplaceSlices { incarnation: Incarnation(1), segment, size, parts: vec![part] };
        self.apply(Command::ReplaceSlices(request));
    }

    fn collect(&mut self) {
        let late = Timestamp::from_millis(self.now + 24 * 60 * 60 * 1_000);
        loop {
            let found = answer::find_dead(&self.state, &FindDead { limit: 1_000 }, late, EVERYTHING);
            let objects: Vec<_> = found
                .expect("the limit is right")
                .objects
                .iter()
                .map(|dead| (dead.died_at, dead.number))
                .collect();
            if objects.is_empty() {
                return;
            }
            self.apply(Command::ForgetDead(ForgetDead { objects, pages: Vec::new() }));
        }
    }

    fn page_out(&mut self) -> bool {
        let now = Timestamp::from_millis(self.now);
        let plan = answer::plan_page(&self.state, &PlanPage { after: None }, now)
            .expect("the cluster is bootstrapped");
        let Some(part) = plan.part else { return false };
        let page = PageId::from_bytes(self.id().to_bytes());
        let sources = part.slices.iter().map(|source| source.segment).collect();
        let slices = part.slices.iter().map(|source| source.slice).collect();
        let written = ManifestPage::new(on(), slices).expect("a plan makes a page");
        let (first, last) = (written.slices()[0], written.slices()[written.slices().len() - 1]);
        let bytes = written.encode();
        let request = ReplaceByPage {
            incarnation: Incarnation(1),
            page,
            size: bytes.len() as u64,
            on: on(),
            base_offset: first.base_offset,
            end_offset: last.end_offset,
            sources,
        };
        self.page_bytes += bytes.len() as u64;
        self.apply(Command::ReplaceByPage(request));
        self.pages.insert(PageKey { incarnation: Incarnation(1), on: on(), page }, bytes);
        true
    }

    fn measure_fetch(&self, place: &str, offset: Offset) {
        const FETCHES: u32 = 1_000;
        let from = FetchFrom::Offset(offset);
        let request =
            PlanFetch { topic: topic(), partition: PartitionIndex(0), from, max_bytes: 1, max_slices: 10 };
        let start = Instant::now();
        let mut page = None;
        for _ in 0..FETCHES {
            let plan = answer::plan_fetch(&self.state, &request).expect("the partition exists");
            assert!(plan.page.is_some() || plan.slices.len() == 1, "something holds the offset");
            page = plan.page;
        }
        let planned = start.elapsed() / FETCHES;
        let Some(page) = page else { return println!("  fetch at {place:<6} plan {planned:?}") };
        let bytes = &self.pages[&page.key];
        let start = Instant::now();
        for _ in 0..FETCHES {
            let read = ManifestPage::decode(bytes).expect("it was written as it is");
            assert!(read.slices().iter().any(|slice| slice.end_offset > offset), "the page holds the offset");
        }
        let read = start.elapsed() / FETCHES;
        println!(
            "  fetch at {place:<6} plan {planned:?}; page of {} KiB decoded in {read:?}, once",
            page.size / 1024
        );
    }
}

fn on() -> TopicPartition {
    TopicPartition {
        topic: TopicId::from_parts(Timestamp::from_millis(START), 7),
        partition: PartitionIndex(0),
    }
}

fn topic() -> TopicRef {
    TopicRef { name: "history".parse().expect("a topic name"), id: None }
}

fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("Linux has it");
    pages.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("pages") * 4_096
}
