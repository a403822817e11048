//! A unit that is one request: it shares nothing with others and may touch many topics.

use carnax_core::limits;
use carnax_core::metadata::{ConditionKind, UnitCommit};
use carnax_core::record::Batch;
use carnax_core::segment::PartitionBatches;

use super::acknowledge::Place;

/// Upper bounds of what a unit, with one routing, and each of its slices add to the commit command.
pub(crate) const UNIT_COMMIT_BYTES: usize = 160;
pub(crate) const SLICE_COMMIT_BYTES: usize = 136;
/// Upper bounds of what everything else adds, without the texts in it.
const ROUTING_COMMIT_BYTES: usize = 64;
const PRODUCER_COMMIT_BYTES: usize = 128;
const KEY_COMMIT_BYTES: usize = 96;
const CONDITION_COMMIT_BYTES: usize = 96;
const GROUP_COMMIT_BYTES: usize = 80;
const GROUP_OFFSET_COMMIT_BYTES: usize = 88;

/// A unit of its own.
#[derive(Debug)]
pub(crate) struct Unit {
    /// Its batches, in order of topic id and partition, each once and with at least one batch.
    pub(crate) parts: Vec<PartitionBatches>,
    /// What its commit says of it, still without slices.
    pub(crate) commit: UnitCommit,
}

impl Unit {
    /// Bytes of its batches.
    pub(crate) fn bytes(&self) -> u64 {
        let batches = self.parts.iter().flat_map(|part| &part.batches);
        batches.map(|batch| batch.bytes().len() as u64).sum()
    }

    /// What it adds to the commit command at most.
    pub(crate) fn commit_bytes(&self) -> usize {
        SLICE_COMMIT_BYTES * self.parts.len() + terms_commit_bytes(&self.commit)
    }

    /// Whether a segment with nothing else in it can be committed.
    pub(crate) fn fits_a_segment(&self) -> bool {
        self.commit_bytes() <= limits::SEGMENT_COMMIT_BYTES_MAX
    }

    /// Where its records go.
    pub(crate) fn places(&self) -> Vec<Place> {
        let place = |part: &PartitionBatches| Place {
            on: part.on,
            start: 0,
            count: part.batches.iter().map(Batch::offset_count).fold(0, u32::saturating_add),
        };
        self.parts.iter().map(place).collect()
    }
}

/// What a unit adds to the commit command beside its slices.
fn terms_commit_bytes(commit: &UnitCommit) -> usize {
    let producer =
        commit.producer.as_ref().map_or(0, |stamp| PRODUCER_COMMIT_BYTES + stamp.producer.as_str().len());
    let idempotency = commit
        .idempotency
        .as_ref()
        .map_or(0, |stamp| KEY_COMMIT_BYTES + stamp.key.as_str().len() + stamp.principal.len());
    let conditions: usize = commit
        .conditions
        .iter()
        .map(|condition| match &condition.kind {
            ConditionKind::ExpectedNextOffset(_) => CONDITION_COMMIT_BYTES,
            ConditionKind::FencingToken(token) => CONDITION_COMMIT_BYTES + token.as_str().len(),
        })
        .sum();
    let group = commit.group.as_ref().map_or(0, |group| {
        let member = group.member.as_ref().map_or(0, |(member, _)| member.as_str().len());
        let names = group.group.as_str().len() + member;
        GROUP_COMMIT_BYTES + names + GROUP_OFFSET_COMMIT_BYTES * group.offsets.len()
    });
    let routing = ROUTING_COMMIT_BYTES * commit.routing.len().saturating_sub(1);
    UNIT_COMMIT_BYTES + routing + producer + idempotency + conditions + group
}

#[cfg(test)]
mod tests {
    use carnax_core::id::{PartitionIndex, TopicId, TopicPartition};
    use carnax_core::metadata::{
        Condition, GroupOffset, GroupOffsets, IdempotencyStamp, ProducerStamp, Routing, SequenceMode,
        UnitSlice,
    };
    use carnax_core::offset::{ByteRange, Offset};
    use carnax_core::time::Timestamp;

    use super::*;

    /// The largest unit of its kind: every number takes all its bytes.
    fn largest(count: usize) -> UnitCommit {
        let on =
            TopicPartition { topic: TopicId::from_bytes([255; 16]), partition: PartitionIndex(u32::MAX) };
        let slice = UnitSlice {
            topic: on.topic,
            partition: on.partition,
            bytes: ByteRange { start: u64::MAX, length: u64::MAX },
            records: u32::MAX,
            max_timestamp: Timestamp::from_millis(i64::MIN),
        };
        let offset = GroupOffset { on, from: Some(Offset::MAX), to: Offset::MAX };
        let token = "t".repeat(limits::FENCING_TOKEN_BYTES_MAX).parse().unwrap();
        UnitCommit {
            slices: vec![slice; count],
            routing: vec![Routing { topic: on.topic, partition_count: u32::MAX }; count],
            producer: Some(ProducerStamp {
                producer: "p".repeat(limits::PRODUCER_ID_BYTES_MAX).parse().unwrap(),
                epoch: u32::MAX,
                sequence: u128::MAX,
                mode: SequenceMode::Contiguous,
                body_hash: [255; 16],
            }),
            idempotency: Some(IdempotencyStamp {
                principal: "x".repeat(limits::PRINCIPAL_BYTES_MAX),
                key: "k".repeat(limits::IDEMPOTENCY_KEY_BYTES_MAX).parse().unwrap(),
                body_hash: [255; 16],
            }),
            conditions: [
                vec![Condition { on, kind: ConditionKind::ExpectedNextOffset(Offset::MAX) }; count],
                vec![Condition { on, kind: ConditionKind::FencingToken(token) }; count],
            ]
            .concat(),
            group: Some(GroupOffsets {
                group: "g".repeat(limits::GROUP_NAME_BYTES_MAX).parse().unwrap(),
                member: Some(("m".repeat(limits::MEMBER_ID_BYTES_MAX).parse().unwrap(), u32::MAX)),
                offsets: vec![offset; count],
            }),
        }
    }

    #[test]
    fn a_commit_is_never_longer_than_was_reckoned() {
        for count in [1, 16, 400] {
            let commit = largest(count);
            let reckoned = SLICE_COMMIT_BYTES * count + terms_commit_bytes(&commit);
            let written = rmp_serde::to_vec_named(&commit).unwrap().len();
            assert!(written <= reckoned, "{count}: {written} > {reckoned}");
            assert!(reckoned < written * 2, "{count}: {reckoned} is far from {written}");
        }
        let none = terms_commit_bytes(&UnitCommit::default());
        assert!(rmp_serde::to_vec_named(&UnitCommit::default()).unwrap().len() < none);
    }
}
