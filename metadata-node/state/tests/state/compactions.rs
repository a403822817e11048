//! What is promised of key compaction: any interleaving of appends, slow readers, rounds that are carried out late, in part or beside
//! each other, merges, trims, collection and restarts, on a bucket that is a map, against a naive model.
//!
//! Promised: a reader who begins at the log start and gets to the end within `delete.retention.ms` knows of each key what was
//! said last; whatever is there is at its offset; in the end every key has one record, and nothing that was deleted is left. Beside retention,
//! pages and other partitions it is seen in `lifetimes`; here rounds, readers and tombstones meet in more ways.

use std::collections::BTreeMap;

use carnax_core::id::{LogIndex, PartitionIndex, SessionId, TopicPartition};
use carnax_core::metadata::{
    FetchFrom, FindDead, FinishCompaction, ForgetDead, JobKind, MergePlan, PlanMerge,
};
use carnax_core::object_key::SegmentKey;
use carnax_core::offset::Offset;
use carnax_core::time::Timestamp;
use carnax_metadata_state::{Command, Reply, answer};
use proptest::prelude::*;

use crate::bucket::{Bucket, GRACE, HEADER, RECORD, Record, Rewritten};
use crate::rounds::{LAG, Rounds};
use crate::support::{
    Cluster, INCARNATION, bytes_of, code, create, read_back, segment, slice, topic_id, trim,
};
use crate::writer::set;

const TOMBSTONES: i64 = 30_000;
const READERS: usize = 4;

#[derive(Debug, Clone)]
enum Step {
    /// Keys, and whether the record is a tombstone.
    Append(Vec<(u8, bool)>),
    /// One more round is planned, of which one object takes so many slices.
    PlanRound(usize),
    /// A round is planned and carried out at once.
    Round(usize),
    /// The next part of the oldest round is carried out, however much has happened since.
    Compact,
    /// The oldest round dies.
    Die,
    PlanMerge,
    Merge,
    Trim(u64),
    /// A reader reads the next slice.
    Read(usize),
    Collect,
    Restart,
    Wait(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let records = proptest::collection::vec((0..3_u8, proptest::bool::weighted(0.4)), 1..4);
    let step = prop_oneof![
        6 => records.prop_map(Step::Append),
        2 => (1..5_usize).prop_map(Step::PlanRound),
        5 => Just(Step::Compact),
        8 => (1..3_usize).prop_map(Step::Round),
        1 => Just(Step::Die),
        1 => Just(Step::PlanMerge),
        2 => Just(Step::Merge),
        1 => (0..=40_u64).prop_map(Step::Trim),
        12 => (0..READERS).prop_map(Step::Read),
        1 => Just(Step::Collect),
        1 => Just(Step::Restart),
        8 => (500..6_000_i64).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 1..300)
}

/// What a reader knows.
#[derive(Default, Clone)]
struct Reader {
    next: u64,
    started: i64,
    table: BTreeMap<u8, Record>,
}

struct World {
    cluster: Cluster,
    session: SessionId,
    commits: u64,
    bucket: Bucket,
    model: Vec<Record>,
    rounds: Rounds,
    merges: Vec<(MergePlan, i64)>,
    readers: Vec<Reader>,
}

impl World {
    fn new() -> Self {
        let mut cluster = Cluster::new();
        let settings = [
            ("merge.slices", Some("6")),
            ("delete.grace.ms", Some("60000")),
            ("compact.interval.ms", Some("1000")),
        ];
        cluster.one(set(&settings)).unwrap();
        let config = [
            ("cleanup.policy", "compact"),
            ("delete.retention.ms", "30000"),
            ("min.compaction.lag.ms", "500"),
            ("min.cleanable.dirty.ratio", "0.0001"),
        ];
        cluster.one(create("t", topic_id(7), 1, &config)).unwrap();
        let session = cluster.open_session();
        let started = cluster.now;
        Self {
            cluster,
            session,
            commits: 0,
            bucket: Bucket::default(),
            model: Vec::new(),
            rounds: Rounds::default(),
            merges: Vec::new(),
            readers: vec![Reader { started, ..Reader::default() }; READERS],
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.cluster.now)
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Append(records) => self.append(records),
            Step::PlanRound(per_object) => self.plan_round(*per_object),
            Step::Round(per_object) => {
                self.rounds.under_way.clear();
                self.plan_round(*per_object);
                while !self.rounds.under_way.is_empty() {
                    self.compact();
                }
            }
            Step::Compact => self.compact(),
            Step::Die if self.rounds.under_way.is_empty() => {}
            Step::Die => drop(self.rounds.under_way.remove(0)),
            Step::PlanMerge => {
                let plan = answer::plan_merge(&self.cluster.state, &PlanMerge { after: None }, self.now());
                let plan = plan.unwrap();
                if !plan.parts.is_empty() {
                    self.merges.push((plan, self.cluster.now));
                }
            }
            Step::Merge => self.merge(),
            Step::Trim(percent) => {
                let before = self.model.len() as u64 * percent / 200;
                self.cluster.one(trim("t", 0, before)).unwrap();
            }
            Step::Read(reader) => self.read_on(*reader),
            Step::Collect => self.collect(),
            Step::Restart => self.cluster.state = read_back(&bytes_of(&self.cluster.state)).unwrap(),
            Step::Wait(millis) => self.cluster.now += millis,
        }
    }

    fn append(&mut self, records: &[(u8, bool)]) {
        let first = self.model.len() as u64;
        let record = |(offset, (key, tombstone)): (u64, &(u8, bool))| Record {
            offset,
            key: *key,
            value: (!tombstone).then_some(offset),
            timestamp: self.cluster.now,
        };
        let records: Vec<Record> = (first..).zip(records).map(record).collect();
        let id = self.bucket.new_id(&self.cluster);
        let count = u32::try_from(records.len()).unwrap();
        let part = slice(topic_id(7), 0, HEADER, u64::from(count) * RECORD, count, self.cluster.now);
        self.bucket
            .objects
            .insert(SegmentKey::appended(INCARNATION, id), records.iter().copied().map(Some).collect());
        self.model.extend(records);
        self.commits += 1;
        self.cluster.commit(self.session, self.commits, vec![segment(id, vec![part])]).unwrap();
    }

    fn plan_round(&mut self, per_object: usize) {
        self.rounds.plan(&self.cluster, &self.bucket, per_object);
    }

    fn compact(&mut self) {
        self.rounds.compact(&mut self.cluster, &mut self.bucket);
    }

    fn merge(&mut self) {
        let Some((plan, planned)) = (!self.merges.is_empty()).then(|| self.merges.remove(0)) else { return };
        for part in plan.parts {
            let Some(records) = self.bucket.read_all(&part.slices) else {
                assert!(self.cluster.now - planned >= GRACE);
                return;
            };
            let rewritten = Rewritten { on: part.on, slices: part.slices, records };
            self.bucket.replace(&mut self.cluster, &[rewritten]);
        }
    }

    fn collect(&mut self) {
        let everything = LogIndex(u64::MAX);
        let dead = answer::find_dead(&self.cluster.state, &FindDead { limit: 1_000 }, self.now(), everything)
            .unwrap();
        for object in &dead.objects {
            assert!(self.bucket.objects.remove(&object.key).is_some(), "{object:?}");
        }
        let objects = dead.objects.iter().map(|object| (object.died_at, object.number)).collect();
        self.cluster.one(Command::ForgetDead(ForgetDead { objects, pages: Vec::new() })).unwrap();
    }

    /// A reader takes in the next slice. At the end it has to know what was said last of each key, if it was not too slow.
    fn read_on(&mut self, which: usize) {
        let mut reader = self.readers[which].clone();
        let Ok(plan) = self.cluster.plan("t", 0, FetchFrom::Offset(Offset(reader.next))) else {
            // A trim was faster.
            let started = self.cluster.now;
            let next = self.cluster.plan("t", 0, FetchFrom::Earliest).unwrap().start.0;
            self.readers[which] = Reader { next, started, ..Reader::default() };
            return;
        };
        if let Some(slice) = plan.slices.first() {
            let records = self.bucket.read(slice).expect("what was just planned is there");
            for record in records.iter().flatten().filter(|record| record.offset >= reader.next) {
                assert_eq!(*record, self.model[usize::try_from(record.offset).unwrap()]);
                assert!(slice.base_offset.0 <= record.offset && record.offset < slice.end_offset.0);
                let before = reader.table.insert(record.key, *record);
                assert!(before.is_none_or(|before| before.offset < record.offset));
            }
            reader.next = slice.end_offset.0;
        }
        if reader.next == plan.high_watermark.0 {
            if self.cluster.now - reader.started < TOMBSTONES {
                self.check_table(&reader, plan.log_start.0);
            }
            reader = Reader { next: plan.log_start.0, started: self.cluster.now, ..Reader::default() };
        }
        self.readers[which] = reader;
    }

    fn check_table(&self, reader: &Reader, log_start: u64) {
        for (key, last) in self.last() {
            let known = reader.table.get(&key).filter(|record| record.value.is_some());
            if last.offset >= log_start {
                assert_eq!(known, Some(&last).filter(|last| last.value.is_some()), "key {key}");
            }
        }
    }

    /// What was said last of each key.
    fn last(&self) -> BTreeMap<u8, Record> {
        self.model.iter().map(|record| (record.key, *record)).collect()
    }

    /// Everything that a reader finds now.
    fn all(&self) -> Vec<Record> {
        let plan = self.cluster.plan("t", 0, FetchFrom::Earliest).unwrap();
        let slices =
            plan.slices.iter().flat_map(|slice| self.bucket.read(slice).expect("what is live is there"));
        slices.flatten().copied().filter(|record| record.offset >= plan.log_start.0).collect()
    }

    fn check(&self) {
        let all = self.all();
        assert!(all.is_sorted_by(|a, b| a.offset < b.offset));
        let log_start = self.cluster.plan("t", 0, FetchFrom::Earliest).unwrap().log_start.0;
        let mut seen: BTreeMap<u8, Record> = BTreeMap::new();
        for record in all {
            assert_eq!(record, self.model[usize::try_from(record.offset).unwrap()]);
            seen.insert(record.key, record);
        }
        for (key, last) in self.last().into_iter().filter(|(_, last)| last.offset >= log_start) {
            let found = seen.get(&key);
            // A tombstone may be gone, and then with all that it speaks of.
            let gone = last.value.is_none() && found.is_none();
            assert!(found == Some(&last) || gone, "key {key}: {found:?} instead of {last:?}");
        }
    }

    /// Quiet: rounds are carried out until there is nothing left to do.
    fn settle(&mut self) {
        self.rounds.under_way.clear();
        self.merges.clear();
        for _ in 0..100 {
            self.cluster.now += GRACE.max(2 * TOMBSTONES);
            self.plan_round(2);
            if self.rounds.under_way.is_empty() {
                break;
            }
            while !self.rounds.under_way.is_empty() {
                self.compact();
            }
            self.check();
        }
        let job =
            answer::describe_job(&self.cluster.state, JobKind::CompactKeys, self.now(), LogIndex(u64::MAX));
        assert_eq!((job.due_since, job.backlog), (None, 0));
        let log_start = self.cluster.plan("t", 0, FetchFrom::Earliest).unwrap().log_start.0;
        let last = self.last().into_values();
        let mut last: Vec<Record> =
            last.filter(|last| last.offset >= log_start && last.value.is_some()).collect();
        last.sort_unstable_by_key(|record| record.offset);
        assert_eq!(self.all(), last);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn readers_know_what_was_said_last_of_each_key(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            world.check();
        }
        world.settle();
    }
}

#[test]
fn a_round_counts_only_after_the_one_that_it_was_planned_after() {
    let mut world = World::new();
    world.append(&[(1, false), (1, false), (2, true)]);
    assert!(world.rounds.under_way.is_empty());
    world.plan_round(9);
    assert!(world.rounds.under_way.is_empty(), "everything is young");
    world.cluster.now += LAG;
    world.plan_round(9);
    world.plan_round(9);
    world.compact();
    world.compact();
    assert_eq!((world.rounds.finished, world.rounds.under_way.len()), (1, 1));
    world.compact();
    assert_eq!(world.rounds.under_way.len(), 0, "the second one finds other slices");
    let on = TopicPartition { topic: topic_id(7), partition: PartitionIndex(0) };
    let request = FinishCompaction {
        incarnation: INCARNATION,
        on,
        follows: LogIndex(0),
        clean_until: Offset(3),
        tombstones_until: Offset(0),
        tombstones_left: false,
    };
    let finish = |request| Command::FinishCompaction(request);
    match world.cluster.one(finish(request.clone())) {
        Ok(Reply::CompactionFinished(reply)) => assert!(!reply.finished),
        other => panic!("{other:?}"),
    }
    let above = FinishCompaction { follows: LogIndex(world.cluster.index), ..request };
    let follows = LogIndex(world.cluster.index - 2);
    let above = FinishCompaction { follows, clean_until: Offset(4), ..above };
    assert_eq!(code(world.cluster.one(finish(above))), carnax_core::error_code::ErrorCode::InvalidValue);
    // A topic that is gone takes its compactions with it.
    world.cluster.one(crate::support::delete("t")).unwrap();
    world.cluster.one(create("t", topic_id(8), 1, &[])).unwrap();
}
