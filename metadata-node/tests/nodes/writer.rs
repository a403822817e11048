//! A client that appends, as a frontend does.

use carnax_core::error_code::ErrorCode;
use carnax_core::id::{CommitNumber, PartitionIndex, SegmentId, TopicId};
use carnax_core::metadata::{
    CommitSegments, CreateTopic, OpenSession, SegmentCommit, SegmentOutcome, SegmentsCommitted,
    SessionOpened, UnitCommit, UnitOutcome, UnitSlice,
};
use carnax_core::offset::{ByteRange, Offset};

use crate::cluster::TestCluster;

/// A writer with a session, as a frontend has one.
pub(crate) struct Writer {
    session: SessionOpened,
    number: CommitNumber,
    pub(crate) topic: TopicId,
    segments: u128,
    last: Option<SegmentId>,
}

impl Writer {
    pub(crate) async fn open(cluster: &TestCluster, topic: &str) -> Self {
        let create = CreateTopic { name: topic.parse().unwrap(), partitions: 1, config: Default::default() };
        let topic = cluster.call(create).await.unwrap().topic_id;
        let session = cluster.call(OpenSession { frontend: "test".to_owned() }).await.unwrap();
        Self { session, number: CommitNumber::FIRST, topic, segments: 0, last: None }
    }

    pub(crate) fn next_commit(&mut self) -> CommitSegments {
        self.next_commit_of(UnitCommit::default())
    }

    /// The next commit, of a unit with these stamps and ten records.
    fn next_commit_of(&mut self, unit: UnitCommit) -> CommitSegments {
        self.segments += 1;
        let segment = SegmentId::from_parts(self.session.log_time, self.segments);
        self.last = Some(segment);
        let slice = UnitSlice {
            topic: self.topic,
            partition: PartitionIndex(0),
            bytes: ByteRange { start: 8, length: 100 },
            records: 10,
            max_timestamp: self.session.log_time,
        };
        let unit = UnitCommit { slices: vec![slice], ..unit };
        let segments = vec![SegmentCommit { segment, size: 200, units: vec![unit] }];
        let (incarnation, session, number) = (self.session.incarnation, self.session.session, self.number);
        CommitSegments { incarnation, session, number, segments }
    }

    pub(crate) fn last_segment(&self) -> SegmentId {
        self.last.unwrap()
    }

    /// Commits ten records, repeating the same number until the outcome is known.
    pub(crate) async fn commit(&mut self, cluster: &TestCluster) -> Offset {
        let commit = self.next_commit();
        base_offset(&self.committed(cluster, commit).await)
    }

    /// As [`commit`](Self::commit), with stamps.
    pub(crate) async fn commit_unit(&mut self, cluster: &TestCluster, unit: UnitCommit) -> UnitOutcome {
        let commit = self.next_commit_of(unit);
        only_outcome(&self.committed(cluster, commit).await)
    }

    async fn committed(&mut self, cluster: &TestCluster, commit: CommitSegments) -> SegmentsCommitted {
        let committed = loop {
            match cluster.call(commit.clone()).await {
                Ok(committed) => break committed,
                Err(problem) if problem.code == ErrorCode::OutcomeUnknown => {}
                Err(problem) => panic!("{problem}"),
            }
        };
        self.number = self.number.next();
        committed
    }
}

fn only_outcome(committed: &SegmentsCommitted) -> UnitOutcome {
    let [SegmentOutcome::Decided(units)] = committed.outcomes.as_slice() else { panic!("{committed:?}") };
    let [outcome] = units.as_slice() else { panic!("{units:?}") };
    outcome.clone()
}

pub(crate) fn base_offset(committed: &SegmentsCommitted) -> Offset {
    let outcome = only_outcome(committed);
    let UnitOutcome::Accepted { slices, .. } = outcome else { panic!("{outcome:?}") };
    slices[0].base_offset
}
