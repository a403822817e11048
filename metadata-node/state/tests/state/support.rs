//! What the tests of the state machine share: short ways to write commands, and a cluster that is ready for appends.

use std::sync::Arc;

use carnax_core::error_code::ErrorCode;
use carnax_core::id::{
    ClusterId, CommitNumber, Incarnation, LogIndex, PartitionIndex, SegmentId, SessionId, TopicId,
};
use carnax_core::metadata::{
    CommitSegments, CreateTopic, DeleteTopic, FetchFrom, FetchPlan, OpenSession, PlanFetch, SegmentCommit,
    SegmentsCommitted, TopicRef, TrimPartition, UnitCommit, UnitOutcome, UnitSlice,
};
use carnax_core::offset::{ByteRange, Offset};
use carnax_core::problem::Problem;
use carnax_core::time::Timestamp;
use carnax_metadata_state::{
    Command, Entry, FeatureLevel, Outcome, Reply, State, answer, invariant, snapshot,
};

pub(crate) const INCARNATION: Incarnation = Incarnation(1);
pub(crate) const START: i64 = 1_700_000_000_000;

/// A state with its clock and log index, every step of which is checked.
pub(crate) struct Cluster {
    pub(crate) state: State,
    pub(crate) index: u64,
    pub(crate) now: i64,
    pub(crate) level: FeatureLevel,
}

impl Cluster {
    /// Bootstrapped, one voter wanted, so that appends are open.
    pub(crate) fn new() -> Self {
        Self::of_level(FeatureLevel::CURRENT)
    }

    /// The same, as builds of a feature level left it.
    pub(crate) fn of_level(level: FeatureLevel) -> Self {
        let mut cluster = Self { state: State::default(), index: 0, now: START, level };
        cluster.one(bootstrap(1)).unwrap();
        cluster
    }

    /// Applies commands as one entry and checks the invariants.
    pub(crate) fn apply(&mut self, commands: Vec<Command>) -> Vec<Outcome> {
        self.index += 1;
        let before = self.state.clone();
        let entry = Entry { level: self.level, log_time: Timestamp::from_millis(self.now), commands };
        let entry = Entry::decode(&entry.encode()).unwrap();
        let outcomes = self.state.apply(LogIndex(self.index), &entry);
        assert_eq!(outcomes.len(), entry.commands.len());
        assert_eq!(invariant::check(&self.state), Vec::<String>::new(), "{entry:?}");
        assert_eq!(invariant::check_step(&before, &self.state), Vec::<String>::new(), "{entry:?}");
        outcomes
    }

    pub(crate) fn one(&mut self, command: Command) -> Outcome {
        self.apply(vec![command]).remove(0)
    }

    pub(crate) fn open_session(&mut self) -> SessionId {
        match self.one(open_session()) {
            Ok(Reply::SessionOpened(opened)) => opened.session,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn create(&mut self, name: &str, id: u128, partitions: u32) -> TopicId {
        match self.one(create(name, topic_id(id), partitions, &[])) {
            Ok(Reply::TopicCreated(created)) => created.topic_id,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn segment(&self, random: u128) -> SegmentId {
        SegmentId::from_parts(Timestamp::from_millis(self.now), random)
    }

    pub(crate) fn commit(
        &mut self,
        session: SessionId,
        number: u64,
        segments: Vec<SegmentCommit>,
    ) -> Result<Arc<SegmentsCommitted>, Problem> {
        match self.one(commit(session, number, segments))? {
            Reply::SegmentsCommitted(reply) => Ok(reply),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn plan(&self, name: &str, partition: u32, from: FetchFrom) -> Result<FetchPlan, Problem> {
        answer::plan_fetch(&self.state, &plan(name, partition, from, u64::MAX, 1_000))
    }
}

pub(crate) fn bytes_of(state: &State) -> Vec<u8> {
    let mut bytes = Vec::new();
    snapshot::write(state, &mut bytes).unwrap();
    bytes
}

pub(crate) fn read_back(bytes: &[u8]) -> Result<State, snapshot::ReadError> {
    snapshot::read(&mut &bytes[..], snapshot::Limits { bytes_max: 1 << 30 })
}

pub(crate) fn bootstrap(voters_wanted: u32) -> Command {
    Command::Bootstrap {
        cluster: ClusterId::from_parts(Timestamp::from_millis(START), 1),
        incarnation: INCARNATION,
        voters_wanted,
        address: "127.0.0.1:7001".to_owned(),
        disk: u128::MAX - 6,
    }
}

pub(crate) fn open_session() -> Command {
    Command::OpenSession(OpenSession { frontend: "frontend-a".to_owned() })
}

pub(crate) fn topic_id(id: u128) -> TopicId {
    TopicId::from_parts(Timestamp::from_millis(START), id)
}

pub(crate) fn named(name: &str) -> TopicRef {
    TopicRef { name: name.parse().unwrap(), id: None }
}

pub(crate) fn create(name: &str, id: TopicId, partitions: u32, config: &[(&str, &str)]) -> Command {
    let config = config.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Command::CreateTopic { id, request: CreateTopic { name: name.parse().unwrap(), partitions, config } }
}

pub(crate) fn delete(name: &str) -> Command {
    Command::DeleteTopic(DeleteTopic { topic: named(name) })
}

pub(crate) fn trim(name: &str, partition: u32, before: u64) -> Command {
    let partition = PartitionIndex(partition);
    Command::TrimPartition(TrimPartition { topic: named(name), partition, before: Offset(before) })
}

pub(crate) fn commit(session: SessionId, number: u64, segments: Vec<SegmentCommit>) -> Command {
    let number = CommitNumber(number);
    Command::CommitSegments(CommitSegments { incarnation: INCARNATION, session, number, segments })
}

pub(crate) fn slice(
    topic: TopicId,
    partition: u32,
    start: u64,
    length: u64,
    records: u32,
    time: i64,
) -> UnitSlice {
    UnitSlice {
        topic,
        partition: PartitionIndex(partition),
        bytes: ByteRange { start, length },
        records,
        max_timestamp: Timestamp::from_millis(time),
    }
}

pub(crate) fn unit(slices: Vec<UnitSlice>) -> UnitCommit {
    UnitCommit { slices, ..UnitCommit::default() }
}

/// A segment with one unit for each slice.
pub(crate) fn segment(segment: SegmentId, slices: Vec<UnitSlice>) -> SegmentCommit {
    let units = slices.into_iter().map(|slice| unit(vec![slice])).collect();
    SegmentCommit { segment, size: 1_000_000, units }
}

pub(crate) fn plan(
    name: &str,
    partition: u32,
    from: FetchFrom,
    max_bytes: u64,
    max_slices: u32,
) -> PlanFetch {
    PlanFetch { topic: named(name), partition: PartitionIndex(partition), from, max_bytes, max_slices }
}

pub(crate) fn refusal(outcome: &UnitOutcome) -> ErrorCode {
    match outcome {
        UnitOutcome::Refused(problem) => problem.code,
        other => panic!("not refused: {other:?}"),
    }
}

pub(crate) fn code<T: std::fmt::Debug>(result: Result<T, Problem>) -> ErrorCode {
    result.unwrap_err().code
}
