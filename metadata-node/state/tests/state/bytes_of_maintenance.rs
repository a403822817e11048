//! Golden files of what maintenance brought with level 5: replaced slices, retention, dead objects that are forgotten, workers at jobs
//! of each kind, key compaction.

use carnax_core::id::{LogIndex, PartitionIndex, SegmentNumber, TopicPartition};
use carnax_core::metadata::{
    AfterReport, CompactionRound, FinishCompaction, ForgetDead, JobKind, PlanCompaction, ReplaceSlices,
    ReplacedPart, ReportJob, TakeJob,
};
use carnax_core::offset::{ByteRange, Offset};
use carnax_core::time::Timestamp;
use carnax_metadata_state::{Command, Entry, FeatureLevel, answer, invariant};

use crate::bytes::{example_with_jobs, golden};
use crate::support::{
    Cluster, INCARNATION, START, bytes_of, create, read_back, segment, slice, topic_id, trim,
};
use crate::writer::set;

fn on(partition: u32) -> TopicPartition {
    TopicPartition { topic: topic_id(20), partition: PartitionIndex(partition) }
}

fn take(worker: &str, kind: JobKind) -> Command {
    Command::TakeJob(TakeJob { worker: worker.to_owned(), kind: Some(kind) })
}

fn replace(random: u128, at: i64, parts: Vec<ReplacedPart>) -> Command {
    let segment = carnax_core::id::SegmentId::from_parts(Timestamp::from_millis(at), random);
    Command::ReplaceSlices(ReplaceSlices { incarnation: INCARNATION, segment, size: 5_000, parts })
}

fn part(partition: u32, sources: Vec<SegmentNumber>, offsets: (u64, u64), start: u64) -> ReplacedPart {
    ReplacedPart {
        on: on(partition),
        base_offset: Offset(offsets.0),
        end_offset: Offset(offsets.1),
        sources,
        bytes: ByteRange { start, length: 100 },
        max_timestamp: Timestamp::from_millis(-1),
    }
}

fn finish(follows: LogIndex, clean_until: u64, tombstones_left: bool) -> Command {
    Command::FinishCompaction(FinishCompaction {
        incarnation: INCARNATION,
        on: on(0),
        follows,
        clean_until: Offset(clean_until),
        tombstones_until: Offset(0),
        tombstones_left,
    })
}

/// A state with something in every table of level 5 that speaks of merge, retention and key compaction.
pub(crate) fn example() -> Cluster {
    let mut cluster = example_with_jobs();
    cluster.level = FeatureLevel(5);
    cluster.one(set(&[("merge.slices", Some("4")), ("compact.interval.ms", Some("1000"))])).unwrap();
    let config = [("cleanup.policy", "compact,delete"), ("min.cleanable.dirty.ratio", "0.25")];
    cluster.one(create("table", topic_id(20), 2, &config)).unwrap();
    let session = cluster.open_session();
    let now = cluster.now;
    for number in 1..=4 {
        let both = vec![
            slice(topic_id(20), 0, 100, 80, 8, now),
            slice(topic_id(20), 1, 200, 50, 5, now - 1_000_000_000),
        ];
        let one = segment(cluster.segment(100 + u128::from(number)), both);
        cluster.commit(session, number, vec![one]).unwrap();
    }
    let plan = answer::plan_compaction(
        &cluster.state,
        &PlanCompaction { after: None },
        Timestamp::from_millis(cluster.now),
    );
    let CompactionRound { slices, follows, .. } = plan.unwrap().round.unwrap();
    let numbers: Vec<_> = slices.iter().map(|source| source.segment).collect();
    cluster.one(take("merger", JobKind::Merge)).unwrap();
    cluster.one(take("compactor", JobKind::CompactKeys)).unwrap();
    cluster.one(replace(1, now, vec![part(0, numbers[..2].to_vec(), (0, 16), 8)])).unwrap();
    let both =
        vec![part(0, numbers[2..].to_vec(), (16, 32), 8), part(1, numbers[..2].to_vec(), (0, 10), 200)];
    cluster.one(replace(2, now, both)).unwrap();
    cluster.one(finish(follows, 30, true)).unwrap();
    cluster.one(Command::Retain { partitions: vec![on(0), on(1)] }).unwrap();
    cluster.one(trim("table", 1, 20)).unwrap();
    let (kind, lease) = (JobKind::Merge, LogIndex(cluster.index - 6));
    let report = ReportJob { kind, lease, folders_done: 0, next: AfterReport::Finish };
    cluster.one(Command::ReportJob(report)).unwrap();
    cluster
}

fn example_entry() -> Entry {
    let number = SegmentNumber;
    let commands = vec![
        take("merger", JobKind::Merge),
        take("collector", JobKind::CollectDead),
        take("compactor", JobKind::CompactKeys),
        replace(
            1,
            START,
            vec![part(0, vec![number(0), number(3)], (0, 16), 8), part(1, vec![number(1)], (7, 9), 200)],
        ),
        Command::Retain { partitions: vec![on(0), on(1)] },
        Command::ForgetDead(ForgetDead {
            objects: vec![(LogIndex(3), number(1)), (LogIndex(u64::MAX), number(u64::MAX))],
            pages: Vec::new(),
        }),
        finish(LogIndex(9), u64::from(u32::MAX) + 1, true),
    ];
    Entry { level: FeatureLevel(5), log_time: Timestamp::from_millis(START), commands }
}

#[test]
fn golden_files_of_maintenance_are_read_and_written_alike() {
    let entry = std::fs::read(golden("entry-1-maintenance.bin")).unwrap();
    assert_eq!(Entry::decode(&entry).unwrap(), example_entry());
    assert!(example_entry().encode() == entry, "the encoding of an entry has changed");
    let bytes = std::fs::read(golden("snapshot-1-maintenance.bin")).unwrap();
    let state = read_back(&bytes).unwrap();
    assert_eq!(invariant::check(&state), Vec::<String>::new());
    assert!(bytes_of(&state) == bytes && bytes_of(&example().state) == bytes);
    let names = ["Rewritten", "Seats", "Compactions", "Dead"].map(str::to_lowercase);
    for name in names {
        assert!(bytes.windows(name.len()).any(|part| part == name.as_bytes()), "{name} has rows");
    }
}

#[test]
#[ignore = "writes the golden files; run it once for a new version"]
fn write_golden_files_of_maintenance() {
    std::fs::write(golden("entry-1-maintenance.bin"), example_entry().encode()).unwrap();
    std::fs::write(golden("snapshot-1-maintenance.bin"), bytes_of(&example().state)).unwrap();
}
