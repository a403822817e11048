//! A frontend with one session, and short ways to write units with producers, keys and conditions.

use carnax_core::id::{PartitionIndex, SessionId, TopicId, TopicPartition};
use carnax_core::metadata::{
    AlterSettings, AppendedSlice, Condition, ConditionKind, IdempotencyStamp, ProducerDescription,
    ProducerStamp, RaiseProducerEpoch, SegmentCommit, SegmentOutcome, SequenceMode, SetFencingToken,
    TokenNow, UnitCommit, UnitOutcome,
};
use carnax_core::offset::Offset;
use carnax_core::problem::Problem;
use carnax_core::time::Timestamp;
use carnax_metadata_state::{Command, Outcome, Reply};

use crate::support::{Cluster, named, slice, unit};

/// Commits units, each call one segment.
pub(crate) struct Writer {
    pub(crate) cluster: Cluster,
    pub(crate) session: SessionId,
    pub(crate) number: u64,
}

impl Writer {
    pub(crate) fn new() -> Self {
        let mut cluster = Cluster::new();
        let session = cluster.open_session();
        Self { cluster, session, number: 0 }
    }

    /// The bytes of the units are put one behind the other.
    pub(crate) fn commit(&mut self, mut units: Vec<UnitCommit>) -> Vec<UnitOutcome> {
        for (place, unit) in (0_u64..).zip(&mut units) {
            unit.slices.iter_mut().for_each(|slice| slice.bytes.start += place * 10_000);
        }
        self.number += 1;
        // Unlike those of a test that makes its own.
        let segment = self.cluster.segment(u128::from(self.cluster.index) << 32);
        let whole = SegmentCommit { segment, size: 1_000_000, units };
        let reply = self.cluster.commit(self.session, self.number, vec![whole]).unwrap();
        match &reply.outcomes[0] {
            SegmentOutcome::Decided(outcomes) => outcomes.clone(),
            SegmentOutcome::Refused(problem) => panic!("{problem}"),
        }
    }

    pub(crate) fn append(&mut self, unit: UnitCommit) -> UnitOutcome {
        self.commit(vec![unit]).remove(0)
    }

    pub(crate) fn accepted(&mut self, unit: UnitCommit) -> (Vec<u64>, i64) {
        match self.append(unit) {
            UnitOutcome::Accepted { slices, append_time } => (offsets(&slices), append_time.millis()),
            other => panic!("not accepted: {other:?}"),
        }
    }

    pub(crate) fn duplicate(&mut self, unit: UnitCommit) -> (Vec<u64>, i64) {
        match self.append(unit) {
            UnitOutcome::Duplicate { slices, append_time } => (offsets(&slices), append_time.millis()),
            other => panic!("no duplicate: {other:?}"),
        }
    }

    pub(crate) fn refused(&mut self, unit: UnitCommit) -> Problem {
        match self.append(unit) {
            UnitOutcome::Refused(problem) => problem,
            other => panic!("not refused: {other:?}"),
        }
    }

    pub(crate) fn wait(&mut self, millis: i64) {
        self.cluster.now += millis;
    }

    pub(crate) fn raise(
        &mut self,
        producer: &str,
        from: Option<u32>,
    ) -> Result<ProducerDescription, Problem> {
        match self.cluster.one(raise(producer, from))? {
            Reply::ProducerEpochRaised(description) => Ok(description),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn set(&mut self, entries: &[(&str, Option<&str>)]) -> Outcome {
        self.cluster.one(set(entries))
    }
}

pub(crate) fn offsets(slices: &[AppendedSlice]) -> Vec<u64> {
    slices.iter().map(|slice| slice.base_offset.0).collect()
}

pub(crate) fn raise(producer: &str, from: Option<u32>) -> Command {
    Command::RaiseProducerEpoch(RaiseProducerEpoch { producer: producer.parse().unwrap(), from })
}

pub(crate) fn set(entries: &[(&str, Option<&str>)]) -> Command {
    let entries = entries.iter().map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned)));
    Command::AlterSettings(AlterSettings { entries: entries.collect() })
}

pub(crate) fn fence(topic: &str, partition: u32, token: Option<&str>, from: TokenNow) -> Command {
    let token = token.map(|token| token.parse().unwrap());
    let partition = PartitionIndex(partition);
    Command::SetFencingToken(SetFencingToken { topic: named(topic), partition, token, from })
}

/// One record to each of some partitions of a topic.
pub(crate) fn records(topic: TopicId, partitions: &[u32]) -> UnitCommit {
    let places = (0..).zip(partitions);
    unit(places.map(|(place, partition)| slice(topic, *partition, place * 10, 10, 1, 5)).collect())
}

/// The same as a request of a producer; the body is that of the sequence.
pub(crate) fn stamped(producer: &str, epoch: u32, sequence: u128, unit: UnitCommit) -> UnitCommit {
    let mode = SequenceMode::Contiguous;
    let producer = producer.parse().unwrap();
    let body_hash = [u8::try_from(sequence % 251).unwrap(); 16];
    UnitCommit { producer: Some(ProducerStamp { producer, epoch, sequence, mode, body_hash }), ..unit }
}

pub(crate) fn increasing(mut unit: UnitCommit) -> UnitCommit {
    unit.producer.as_mut().unwrap().mode = SequenceMode::Increasing;
    unit
}

/// The same with another body.
pub(crate) fn altered(mut unit: UnitCommit) -> UnitCommit {
    unit.producer.iter_mut().for_each(|stamp| stamp.body_hash = [255; 16]);
    unit.idempotency.iter_mut().for_each(|stamp| stamp.body_hash = [255; 16]);
    unit
}

pub(crate) fn keyed(principal: &str, key: &str, unit: UnitCommit) -> UnitCommit {
    let key = key.parse().unwrap();
    let idempotency = IdempotencyStamp { principal: principal.to_owned(), key, body_hash: [1; 16] };
    UnitCommit { idempotency: Some(idempotency), ..unit }
}

pub(crate) fn expecting(topic: TopicId, partition: u32, next: u64, mut unit: UnitCommit) -> UnitCommit {
    let on = TopicPartition { topic, partition: PartitionIndex(partition) };
    unit.conditions.push(Condition { on, kind: ConditionKind::ExpectedNextOffset(Offset(next)) });
    unit
}

pub(crate) fn holding(topic: TopicId, partition: u32, token: &str, mut unit: UnitCommit) -> UnitCommit {
    let on = TopicPartition { topic, partition: PartitionIndex(partition) };
    unit.conditions.push(Condition { on, kind: ConditionKind::FencingToken(token.parse().unwrap()) });
    unit
}

pub(crate) fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}
