//! Measures the state machine alone: memory per slice at a million slices, snapshots, the rate of `apply`, fetch plans.
//!
//! `cargo run --release -p carnax-metadata-state --example measure` (Linux: it reads `/proc/self/statm`). Each layout runs on its own with
//! `-- PARTITIONS SLICES_PER_SEGMENT`; without arguments several run one after the other, each in a process of its own.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a measurement needs clocks, files and processes"
)]
#![allow(clippy::print_stdout, reason = "it prints what it measures")]

use std::time::{Duration, Instant};

use carnax_core::id::{
    ClusterId, CommitNumber, Incarnation, LogIndex, PartitionIndex, SegmentId, SessionId, TopicId,
};
use carnax_core::metadata::{
    CommitSegments, CreateTopic, DeleteTopic, FetchFrom, OpenSession, PlanFetch, SegmentCommit, TopicRef,
    UnitCommit, UnitSlice,
};
use carnax_core::offset::{ByteRange, Offset};
use carnax_core::time::Timestamp;
use carnax_metadata_state::{Command, Entry, FeatureLevel, Reply, State, answer, invariant, snapshot};

const SLICES: u32 = 1_000_000;
const PARTITIONS_PER_TOPIC: u32 = 1_000;
const START: i64 = 1_700_000_000_000;
/// Commits in one entry, as the proposer would group them.
const GROUP: usize = 16;

fn main() {
    let arguments: Vec<u32> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    if let [partitions, per_segment] = arguments[..] {
        return measure(partitions, per_segment);
    }
    let program = std::env::current_exe().expect("the path of this program is known");
    for (partitions, per_segment) in [(1_000, 100), (100_000, 100), (1, 1), (1_000, 1)] {
        let arguments = [partitions.to_string(), per_segment.to_string()];
        let status = std::process::Command::new(&program).args(arguments).status();
        assert!(status.is_ok_and(|status| status.success()), "a measurement failed");
    }
}

struct Log {
    state: State,
    index: u64,
    now: i64,
    session: SessionId,
    number: u64,
}

fn measure(partitions: u32, per_segment: u32) {
    println!("{SLICES} slices in {partitions} partitions, {per_segment} slices a segment");
    let before = resident_bytes();
    let mut log = begin(partitions);
    let mut applying = Duration::ZERO;
    let mut next = 0;
    while next < SLICES {
        let commits: Vec<Command> = (0..GROUP)
            .map_while(|_| (next < SLICES).then(|| commit(&mut log, &mut next, partitions, per_segment)))
            .collect();
        let entry = log.entry(commits);
        let start = Instant::now();
        let _outcomes = log.state.apply(LogIndex(log.index), &entry);
        applying += start.elapsed();
    }
    // Once the last commits cannot be repeated any more, their ids are forgotten.
    log.now += 20 * 60 * 1_000;
    log.apply(vec![Command::ExpireSessions]);
    let status = answer::status(&log.state);
    let used = resident_bytes().saturating_sub(before);
    println!("  memory          {} B a slice ({} segments)", used / status.slices.max(1), status.segments);
    let per_second = |count: u64| u128::from(count) * 1_000_000 / applying.as_micros().max(1);
    println!(
        "  apply           {} commits/s, {} slices/s",
        per_second(status.segments),
        per_second(status.slices)
    );
    measure_clone(&mut log, partitions);
    measure_snapshot(&log.state);
    measure_plans(&log.state, partitions);
    measure_delete(log.state.clone());
    println!("  invariants      {} broken", invariant::check(&log.state).len());
}

fn begin(partitions: u32) -> Log {
    let mut log = Log { state: State::default(), index: 0, now: START, session: SessionId(0), number: 0 };
    let bootstrap = Command::Bootstrap {
        cluster: ClusterId::from_parts(Timestamp::from_millis(START), 1),
        incarnation: Incarnation(1),
        voters_wanted: 1,
        address: "127.0.0.1:7001".to_owned(),
        disk: 1,
    };
    let open = Command::OpenSession(OpenSession { frontend: "measure".to_owned() });
    for reply in log.apply(vec![bootstrap, open]) {
        if let Reply::SessionOpened(opened) = reply {
            log.session = opened.session;
        }
    }
    for topic in 0..partitions.div_ceil(PARTITIONS_PER_TOPIC) {
        let name = topic_name(topic).name;
        let count = PARTITIONS_PER_TOPIC.min(partitions);
        let request = CreateTopic { name, partitions: count, config: std::collections::BTreeMap::new() };
        log.apply(vec![Command::CreateTopic { id: topic_id(topic), request }]);
    }
    log
}

/// One segment: its slices go to partitions in turn, which is the most scattered that a log can be.
fn commit(log: &mut Log, next: &mut u32, partitions: u32, per_segment: u32) -> Command {
    log.number += 1;
    log.now += 10;
    let segment = SegmentId::from_parts(
        Timestamp::from_millis(log.now),
        u128::from(log.number).wrapping_mul(0x9e37_79b9_7f4a_7c15),
    );
    let slice = |place: u32, number: u32| UnitSlice {
        topic: topic_id(number % partitions / PARTITIONS_PER_TOPIC),
        partition: PartitionIndex(number % partitions % PARTITIONS_PER_TOPIC),
        bytes: ByteRange { start: u64::from(place) * 1_001, length: 1_000 },
        records: 10,
        max_timestamp: Timestamp::from_millis(
            START + i64::from(number.wrapping_mul(2_654_435_761) % 1_000_000),
        ),
    };
    let units = (0..per_segment)
        .map(|place| UnitCommit { slices: vec![slice(place, *next + place)], ..UnitCommit::default() });
    let units = units.collect();
    *next += per_segment;
    let segments = vec![SegmentCommit { segment, size: u64::from(per_segment) * 1_001, units }];
    let (session, number) = (log.session, CommitNumber(log.number));
    Command::CommitSegments(CommitSegments { incarnation: Incarnation(1), session, number, segments })
}

/// What a held snapshot costs: taking it, and the first commits after it.
fn measure_clone(log: &mut Log, partitions: u32) {
    let start = Instant::now();
    let held = log.state.clone();
    let taken = start.elapsed();
    let mut worst = Duration::ZERO;
    for _ in 0..1_000 {
        let mut next = 0;
        let command = commit(log, &mut next, partitions, 1);
        let entry = log.entry(vec![command]);
        let start = Instant::now();
        let _outcomes = log.state.apply(LogIndex(log.index), &entry);
        worst = worst.max(start.elapsed());
    }
    println!("  clone           {taken:?}; the slowest of 1000 commits while it is held {worst:?}");
    log.state = held;
}

/// How long everything else waits when a large topic is deleted.
fn measure_delete(mut state: State) {
    let commands = vec![Command::DeleteTopic(DeleteTopic { topic: topic_name(0) })];
    let log_time = answer::status(&state).log_time;
    let entry = Entry { level: FeatureLevel::CURRENT, log_time, commands };
    let before = answer::status(&state).slices;
    let start = Instant::now();
    let _outcomes = state.apply(state.applied(), &entry);
    let dropped = before - answer::status(&state).slices;
    println!("  delete          a topic of {dropped} slices in {:?}", start.elapsed());
}

fn measure_snapshot(state: &State) {
    let mut bytes = Vec::new();
    let start = Instant::now();
    snapshot::write(state, &mut bytes).expect("memory takes every write");
    let written = start.elapsed();
    let start = Instant::now();
    let limits = snapshot::Limits { bytes_max: u64::MAX };
    let read = snapshot::read(&mut bytes.as_slice(), limits).expect("what was written can be read");
    println!(
        "  snapshot        {} MiB, written in {written:?}, read in {:?}",
        bytes.len() >> 20,
        start.elapsed()
    );
    drop(read);
}

fn measure_plans(state: &State, partitions: u32) {
    let records = u64::from(SLICES / partitions) * 10;
    for what in ["offset", "timestamp"] {
        let start = Instant::now();
        const PLANS: u32 = 100_000;
        for number in 0..PLANS {
            let place = number.wrapping_mul(2_654_435_761);
            let from = match what {
                "offset" => FetchFrom::Offset(Offset(u64::from(place) % records)),
                _ => FetchFrom::Timestamp(Timestamp::from_millis(START + i64::from(place % 1_000_000))),
            };
            let topic = topic_name(place % partitions / PARTITIONS_PER_TOPIC);
            let partition = PartitionIndex(place % partitions % PARTITIONS_PER_TOPIC);
            let request = PlanFetch { topic, partition, from, max_bytes: 1, max_slices: 10 };
            let plan = answer::plan_fetch(state, &request).expect("the partition exists");
            assert!(plan.slices.len() <= 1, "one slice is enough for one byte");
        }
        println!("  plan by {what:<9} {:?} each", start.elapsed() / PLANS);
    }
}

impl Log {
    fn entry(&mut self, commands: Vec<Command>) -> Entry {
        self.index += 1;
        Entry { level: FeatureLevel::CURRENT, log_time: Timestamp::from_millis(self.now), commands }
    }

    fn apply(&mut self, commands: Vec<Command>) -> Vec<Reply> {
        let entry = self.entry(commands);
        let outcomes = self.state.apply(LogIndex(self.index), &entry);
        outcomes.into_iter().map(|outcome| outcome.expect("every command here is right")).collect()
    }
}

fn topic_id(topic: u32) -> TopicId {
    TopicId::from_parts(Timestamp::from_millis(START), u128::from(topic))
}

fn topic_name(topic: u32) -> TopicRef {
    TopicRef { name: format!("topic-{topic}").parse().expect("a topic name"), id: None }
}

fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("Linux has it");
    pages.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("pages") * 4_096
}
