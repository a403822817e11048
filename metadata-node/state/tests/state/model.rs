//! Random commands, some of them wrong, against a naive model: a list of records for each partition. After every entry the
//! invariants hold and the answers are the model's; the same entries give the same bytes, also from a snapshot in the middle.

use std::collections::BTreeMap;

use carnax_core::error_code::ErrorCode;
use carnax_core::id::{SegmentId, SessionId, TopicId};
use carnax_core::metadata::{AlterTopic, FetchFrom, SegmentOutcome, UnitOutcome};
use carnax_core::offset::Offset;
use carnax_core::time::Timestamp;
use carnax_metadata_state::{Command, Outcome, Reply, State};
use proptest::prelude::*;

use crate::support::{
    Cluster, bytes_of, commit, create, delete, named, open_session, read_back, segment, slice, topic_id, trim,
};

const NAMES: [&str; 3] = ["a", "b", "c"];

#[derive(Debug, Clone)]
enum Step {
    Create { name: usize, partitions: u32 },
    Alter { name: usize, partitions: u32 },
    Delete { name: usize },
    Trim { name: usize, partition: u32, percent: u64 },
    Commit { session: usize, turn: Turn, appends: Vec<Append> },
    Open,
    Tick,
    Wait { millis: i64 },
}

#[derive(Debug, Clone, Copy)]
enum Turn {
    Next,
    Repeat,
    Skip,
}

#[derive(Debug, Clone)]
struct Append {
    /// Which of all topics that ever were, counted from the newest.
    topic: usize,
    partition: u32,
    records: u32,
    time: i64,
    /// Whether it leaves a byte between itself and the append before it.
    apart: bool,
}

#[derive(Default)]
struct Model {
    topics: BTreeMap<&'static str, Topic>,
    /// All ids that ever were, with their names.
    ids: Vec<(TopicId, &'static str)>,
    /// The last number of each session.
    sessions: Vec<(SessionId, u64)>,
    segments: u128,
}

struct Topic {
    id: TopicId,
    partitions: Vec<Partition>,
}

#[derive(Clone, Default)]
struct Partition {
    log_start: usize,
    /// The timestamp and the segment of each record since offset 0.
    records: Vec<(i64, SegmentId)>,
}

/// What a command must answer.
#[derive(Debug)]
enum Expected {
    Done,
    Refused(ErrorCode),
    Session,
    /// For each unit its base offset, or why it is refused.
    Units(Vec<Result<u64, ErrorCode>>),
}

impl Model {
    fn step(&mut self, step: &Step, cluster: &Cluster) -> Option<(Command, Expected)> {
        Some(match step {
            Step::Wait { .. } => return None,
            Step::Open => (open_session(), Expected::Session),
            Step::Tick => (Command::ExpireSessions, Expected::Done),
            Step::Create { name, partitions } => self.create(NAMES[*name], *partitions),
            Step::Alter { name, partitions } => {
                let partitions = *partitions;
                let topic = named(NAMES[*name]);
                let request = AlterTopic { topic, partitions: Some(partitions), config: BTreeMap::new() };
                let expected = match self.topics.get_mut(NAMES[*name]) {
                    None => Expected::Refused(ErrorCode::TopicNotFound),
                    Some(topic) if topic.partitions.len() > partitions as usize => {
                        Expected::Refused(ErrorCode::InvalidValue)
                    }
                    Some(topic) => {
                        topic.partitions.resize(partitions as usize, Partition::default());
                        Expected::Done
                    }
                };
                (Command::AlterTopic(request), expected)
            }
            Step::Delete { name } => {
                let gone = self.topics.remove(NAMES[*name]);
                let missing = || Expected::Refused(ErrorCode::TopicNotFound);
                (delete(NAMES[*name]), gone.map_or_else(missing, |_| Expected::Done))
            }
            Step::Trim { name, partition, percent } => self.trim(NAMES[*name], *partition, *percent),
            Step::Commit { session, turn, appends } => self.commit(*session, *turn, appends, cluster)?,
        })
    }

    fn create(&mut self, name: &'static str, partitions: u32) -> (Command, Expected) {
        let id = topic_id(self.ids.len() as u128);
        let command = create(name, id, partitions, &[]);
        if let Some(topic) = self.topics.get(name) {
            let same = topic.partitions.len() == partitions as usize;
            let expected = if same { Expected::Done } else { Expected::Refused(ErrorCode::TopicExists) };
            return (command, expected);
        }
        self.ids.push((id, name));
        let partitions = vec![Partition::default(); partitions as usize];
        self.topics.insert(name, Topic { id, partitions });
        (command, Expected::Done)
    }

    fn trim(&mut self, name: &str, partition: u32, percent: u64) -> (Command, Expected) {
        let Some(topic) = self.topics.get_mut(name) else {
            return (trim(name, partition, 0), Expected::Refused(ErrorCode::TopicNotFound));
        };
        let Some(found) = topic.partitions.get_mut(partition as usize) else {
            return (trim(name, partition, 0), Expected::Refused(ErrorCode::PartitionNotFound));
        };
        let before = found.records.len() as u64 * percent / 100;
        let command = trim(name, partition, before);
        if percent > 100 && before > found.records.len() as u64 {
            return (command, Expected::Refused(ErrorCode::OffsetAboveHighWatermark));
        }
        found.log_start = found.log_start.max(before as usize);
        (command, Expected::Done)
    }

    fn commit(
        &mut self,
        session: usize,
        turn: Turn,
        appends: &[Append],
        cluster: &Cluster,
    ) -> Option<(Command, Expected)> {
        let count = self.sessions.len().max(1);
        let (session, last) = self.sessions.get_mut(session % count)?;
        let number = match turn {
            Turn::Next => *last + 1,
            Turn::Repeat => *last,
            Turn::Skip => *last + 2,
        };
        let mut start = 0;
        let mut slices = Vec::new();
        for append in appends {
            let known = self.ids.len().max(1);
            let (topic, _) = *self.ids.iter().rev().nth(append.topic % known)?;
            start += u64::from(append.apart);
            slices.push(slice(topic, append.partition, start, 10, append.records, append.time));
            start += 10;
        }
        self.segments += 1;
        let id = cluster.segment(self.segments);
        let command = commit(*session, number, vec![segment(id, slices.clone())]);
        if !matches!(turn, Turn::Next) {
            let repeated = matches!(turn, Turn::Repeat) && *last > 0;
            let expected =
                if repeated { Expected::Done } else { Expected::Refused(ErrorCode::StaleCommitNumber) };
            return Some((command, expected));
        }
        *last = number;
        let decide = |slice: &carnax_core::metadata::UnitSlice| {
            self.append(slice.topic, slice.partition.0, slice.records, slice.max_timestamp.millis(), id)
        };
        Some((command, Expected::Units(slices.iter().map(decide).collect())))
    }

    fn append(
        &mut self,
        topic: TopicId,
        partition: u32,
        records: u32,
        time: i64,
        segment: SegmentId,
    ) -> Result<u64, ErrorCode> {
        let (_, name) = self.ids.iter().find(|(id, _)| *id == topic).unwrap();
        let found = self.topics.get_mut(name).ok_or(ErrorCode::TopicNotFound)?;
        if found.id != topic {
            return Err(ErrorCode::StaleRouting);
        }
        let partition = found.partitions.get_mut(partition as usize).ok_or(ErrorCode::PartitionNotFound)?;
        if records == 0 {
            return Err(ErrorCode::InvalidValue);
        }
        let base = partition.records.len() as u64;
        partition.records.extend((0..records).map(|_| (time, segment)));
        Ok(base)
    }

    fn note(&mut self, outcome: &Outcome, expected: &Expected) {
        match (outcome, expected) {
            (Err(problem), Expected::Refused(code)) => assert_eq!(problem.code, *code),
            (Ok(Reply::SessionOpened(opened)), Expected::Session) => self.sessions.push((opened.session, 0)),
            (Ok(Reply::SegmentsCommitted(reply)), Expected::Units(expected)) => {
                let SegmentOutcome::Decided(units) = &reply.outcomes[0] else { panic!("{reply:?}") };
                let seen: Vec<_> = units.iter().map(result_of).collect();
                assert_eq!(seen, *expected);
            }
            (Ok(_), Expected::Done) => {}
            other => panic!("{other:?}"),
        }
    }

    /// The state's answers are the model's.
    fn compare(&self, cluster: &Cluster) {
        for (name, topic) in &self.topics {
            for (index, partition) in (0..).zip(&topic.partitions) {
                let start = |from| cluster.plan(name, index, from).unwrap();
                let plan = start(FetchFrom::Earliest);
                let (log_start, end) = (partition.log_start, partition.records.len());
                assert_eq!((plan.log_start.0, plan.high_watermark.0), (log_start as u64, end as u64));
                for (offset, (time, segment)) in partition.records.iter().enumerate().skip(log_start) {
                    let offset = offset as u64;
                    let holds = |s: &&carnax_core::metadata::PlannedSlice| {
                        s.base_offset.0 <= offset && offset < s.end_offset.0
                    };
                    let found: Vec<_> = plan.slices.iter().filter(holds).collect();
                    assert_eq!(found.len(), 1);
                    assert_eq!(found[0].segment.segment, *segment);
                    assert!(found[0].max_timestamp.millis() >= *time);
                }
                let last = start(FetchFrom::Last(3)).start.0;
                assert_eq!(last, end.saturating_sub(3).max(log_start) as u64);
                for time in [-10, 0, 10, 20] {
                    let found = start(FetchFrom::Timestamp(Timestamp::from_millis(time)));
                    let first = partition.records.iter().skip(log_start).position(|(at, _)| *at >= time);
                    let first = first.map_or(end, |place| place + log_start) as u64;
                    assert!(found.start.0 <= first, "never behind the first record of that time");
                    let slice = found.slices.first();
                    assert!(
                        slice.is_none_or(|slice| slice.max_timestamp.millis() >= time),
                        "never without reason"
                    );
                }
            }
        }
    }
}

fn result_of(outcome: &UnitOutcome) -> Result<u64, ErrorCode> {
    match outcome {
        UnitOutcome::Accepted { slices, .. } => Ok(slices[0].base_offset.0),
        UnitOutcome::Refused(problem) => Err(problem.code),
        UnitOutcome::Duplicate { .. } => panic!("nothing is deduplicated yet"),
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let append = (0..4_usize, 0..4_u32, 0..4_u32, -20..20_i64, any::<bool>()).prop_map(
        |(topic, partition, records, time, apart)| Append {
            topic: topic / 2,
            partition,
            records,
            time,
            apart,
        },
    );
    let turn = prop_oneof![8 => Just(Turn::Next), 1 => Just(Turn::Repeat), 1 => Just(Turn::Skip)];
    let appends = proptest::collection::vec(append, 0..6);
    let name = 0..NAMES.len();
    let step = prop_oneof![
        3 => (name.clone(), 1..4_u32).prop_map(|(name, partitions)| Step::Create { name, partitions }),
        1 => (name.clone(), 1..5_u32).prop_map(|(name, partitions)| Step::Alter { name, partitions }),
        1 => name.clone().prop_map(|name| Step::Delete { name }),
        2 => (name, 0..4_u32, 0..120_u64)
            .prop_map(|(name, partition, percent)| Step::Trim { name, partition, percent }),
        9 => (0..3_usize, turn, appends)
            .prop_map(|(session, turn, appends)| Step::Commit { session, turn, appends }),
        1 => Just(Step::Open),
        1 => Just(Step::Tick),
        2 => (-100_000..200_000_i64).prop_map(|millis| Step::Wait { millis }),
    ];
    proptest::collection::vec(step, 1..80)
}

/// Runs the steps, some of them in one entry; `restart` is the entry after which the state is written and read back.
fn run(steps: &[Step], restart: Option<usize>) -> State {
    let mut cluster = Cluster::new();
    let mut model = Model::default();
    model.note(&cluster.one(open_session()), &Expected::Session);
    for (number, some) in steps.chunks(3).enumerate() {
        for step in some {
            // A clock that goes back changes log time as little as one that stands still; ids take their time from the
            // highest, as a frontend does.
            if let Step::Wait { millis } = step {
                cluster.now = (cluster.now + millis).max(cluster.state.log_time().millis());
            }
        }
        let (commands, expected): (Vec<_>, Vec<_>) =
            some.iter().filter_map(|step| model.step(step, &cluster)).unzip();
        let outcomes = cluster.apply(commands);
        outcomes.iter().zip(&expected).for_each(|(outcome, expected)| model.note(outcome, expected));
        model.compare(&cluster);
        if restart == Some(number) {
            cluster.state = read_back(&bytes_of(&cluster.state)).unwrap();
        }
    }
    cluster.state
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_state_does_what_a_naive_model_does(steps in steps(), restart in 0..30_usize) {
        let state = run(&steps, None);
        let bytes = bytes_of(&state);
        prop_assert!(bytes_of(&run(&steps, None)) == bytes, "the same commands, the same bytes");
        prop_assert!(bytes_of(&run(&steps, Some(restart))) == bytes, "also from a snapshot in the middle");
        prop_assert!(bytes_of(&read_back(&bytes).unwrap()) == bytes);
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut sealed = vec![1];
        sealed.extend(crc32c::crc32c(&bytes).to_be_bytes());
        sealed.extend(&bytes);
        prop_assert!(carnax_metadata_state::Entry::decode(&sealed).is_err());
        prop_assert!(read_back(&bytes).is_err());
    }

    /// Numbers at the ends of their types in every field of a commit.
    #[test]
    fn extreme_numbers_do_no_harm(
        records in proptest::collection::vec(prop_oneof![Just(0_u32), Just(1), Just(u32::MAX)], 1..8),
        start in prop_oneof![Just(0_u64), Just(u64::MAX), Just(u64::from(u32::MAX)), 0..2_000_000_u64],
        length in prop_oneof![Just(0_u64), Just(u64::MAX), Just(1), 0..2_000_000_u64],
        size in prop_oneof![Just(0_u64), Just(u64::MAX), Just(1_000_000)],
        time in prop_oneof![Just(i64::MIN), Just(i64::MAX), Just(0)],
        log_time in prop_oneof![Just(i64::MIN), Just(i64::MAX), Just(0)],
        number in prop_oneof![Just(0_u64), Just(u64::MAX), Just(1)],
    ) {
        let mut cluster = Cluster::new();
        let topic = cluster.create("a", 1, 1);
        let session = cluster.open_session();
        let slices = records.iter().map(|records| slice(topic, 0, start, length, *records, time)).collect();
        let mut whole = segment(cluster.segment(1), slices);
        whole.size = size;
        cluster.now = log_time;
        let _any = cluster.one(commit(session, number, vec![whole]));
        cluster.plan("a", 0, FetchFrom::Timestamp(Timestamp::from_millis(time))).unwrap();
        let _any = cluster.plan("a", 0, FetchFrom::Offset(Offset(start)));
    }
}
