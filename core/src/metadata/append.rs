//! Sessions and segment commits: how records become part of the log.

use serde::{Deserialize, Serialize};

use crate::id::{
    CommitNumber, Incarnation, LogIndex, PartitionIndex, SegmentId, SessionId, TopicId, TopicPartition,
};
use crate::name::{FencingToken, GroupName, IdempotencyKey, MemberId, ProducerId};
use crate::offset::{ByteRange, Offset};
use crate::problem::Problem;
use crate::time::Timestamp;

/// Opens a session: the place from which a frontend sends numbered commits (Raft dissertation, 6.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenSession {
    /// Who opens it, for operators: the frontend's name or address.
    pub frontend: String,
}

/// A session is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionOpened {
    /// The session; its first commit has [`CommitNumber::FIRST`].
    pub session: SessionId,
    /// The incarnation under which objects are to be written.
    pub incarnation: Incarnation,
    /// The leader's clock: new segment ids take their time from here.
    pub log_time: Timestamp,
}

/// Makes uploaded segments part of the log, in this order, each unit decided alone.
///
/// A repeat under the same session and number gets the stored reply; an older number is refused with
/// `stale_commit_number`, a session that is not known with `session_expired`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitSegments {
    /// The incarnation that the sender believes in.
    pub incarnation: Incarnation,
    /// The sender's session.
    pub session: SessionId,
    /// One more than the session's last.
    pub number: CommitNumber,
    /// In the order of their closing; 1 to [`COMMIT_SEGMENTS_MAX`](crate::limits::COMMIT_SEGMENTS_MAX).
    pub segments: Vec<SegmentCommit>,
}

/// One uploaded segment object and the units in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentCommit {
    /// The object's id; its time must be within the commit deadline of log time.
    pub segment: SegmentId,
    /// Bytes of the whole object.
    pub size: u64,
    /// In the order in which they are to be decided.
    pub units: Vec<UnitCommit>,
}

/// An append unit: what is accepted as a whole or refused as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitCommit {
    /// The unit's bytes, per partition, at most one entry a partition and sorted by (topic, partition); at least one.
    pub slices: Vec<UnitSlice>,
    /// By how many partitions keyed records were routed; empty if nothing was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routing: Vec<Routing>,
    /// Deduplication by producer and sequence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub producer: Option<ProducerStamp>,
    /// Deduplication by key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency: Option<IdempotencyStamp>,
    /// All must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Group offsets that move with this unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupOffsets>,
}

/// The contiguous bytes of one unit that belong to one partition: whole record batches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitSlice {
    /// Where they go.
    pub topic: TopicId,
    /// Where they go.
    pub partition: PartitionIndex,
    /// Where they lie in the segment object.
    pub bytes: ByteRange,
    /// How many offsets they take: the sum of `lastOffsetDelta + 1` over the batches; at least 1.
    pub records: u32,
    /// The largest timestamp of their records.
    pub max_timestamp: Timestamp,
}

/// The partition count by which keyed records of a topic were routed; another count now refuses the unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routing {
    /// The topic.
    pub topic: TopicId,
    /// Its number of partitions, as the router knew it.
    pub partition_count: u32,
}

/// Deduplication by producer, as in Kafka, but one sequence per request over all its partitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProducerStamp {
    /// Chosen by the client.
    pub producer: ProducerId,
    /// A higher epoch fences the lower ones.
    pub epoch: u32,
    /// 0, 1, 2 … in `contiguous` mode, any larger one in `increasing` mode.
    pub sequence: u128,
    /// What may follow the last sequence.
    pub mode: SequenceMode,
    /// Hash of the request, to tell a repeat from another request under the same sequence.
    #[serde(with = "serde_bytes_16")]
    pub body_hash: [u8; 16],
}

/// What may follow a producer's last sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SequenceMode {
    /// Exactly one more.
    Contiguous,
    /// Anything larger (for sources that number with gaps, as SQS FIFO does).
    Increasing,
}

/// Deduplication by a key of the client's choice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdempotencyStamp {
    /// Who sent it: a key means something only to its principal. Empty for everybody, where there is no access control.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub principal: String,
    /// Chosen by the client.
    pub key: IdempotencyKey,
    /// Hash of the request.
    #[serde(with = "serde_bytes_16")]
    pub body_hash: [u8; 16],
}

/// Something that must be so for a unit to be accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Of which partition.
    pub on: TopicPartition,
    /// What.
    pub kind: ConditionKind,
}

/// What a condition asks of its partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConditionKind {
    /// The next offset to be given out.
    ExpectedNextOffset(Offset),
    /// The fencing token.
    FencingToken(FencingToken),
}

/// Group offsets that move in the same command as an append.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupOffsets {
    /// The group.
    pub group: GroupName,
    /// The member that must own the partitions, with its epoch; none for callers that are no members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<(MemberId, u32)>,
    /// The moves.
    pub offsets: Vec<GroupOffset>,
}

/// One group offset that moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupOffset {
    /// Of which partition.
    pub on: TopicPartition,
    /// What must be committed now; none if nothing may be.
    pub from: Option<Offset>,
    /// What is committed then.
    pub to: Offset,
}

/// What became of a commit: one outcome for each segment, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentsCommitted {
    /// The log time of the command that decided; new segment ids take their time from here.
    pub log_time: Timestamp,
    /// Where the command stands in the Raft log.
    pub applied: LogIndex,
    /// One for each segment, in order.
    pub outcomes: Vec<SegmentOutcome>,
}

/// What became of one segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SegmentOutcome {
    /// One outcome for each unit, in order.
    Decided(Vec<UnitOutcome>),
    /// No unit was looked at (`stale_segment`).
    Refused(Problem),
}

/// What became of one unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnitOutcome {
    /// Its records have offsets now: one entry for each slice of the unit, in order.
    Accepted {
        /// Where the records went.
        slices: Vec<AppendedSlice>,
        /// The log time of the command.
        append_time: Timestamp,
    },
    /// It was accepted before; the answer of that time (empty if it is no longer kept).
    Duplicate {
        /// Where the records went.
        slices: Vec<AppendedSlice>,
        /// The log time of the command that accepted it; a later one if its answer is no longer kept.
        append_time: Timestamp,
    },
    /// Nothing of it is in the log.
    Refused(Problem),
}

/// Offsets that were given out: `base_offset .. base_offset + records`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppendedSlice {
    /// Of which topic.
    pub topic: TopicId,
    /// Of which partition.
    pub partition: PartitionIndex,
    /// The offset of the first record.
    pub base_offset: Offset,
    /// How many.
    pub records: u32,
}

/// Hashes travel as bytes, not as sequences of numbers.
mod serde_bytes_16 {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8; 16], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 16], D::Error> {
        let bytes = bytes::Bytes::deserialize(deserializer)?;
        bytes.as_ref().try_into().map_err(|_| serde::de::Error::invalid_length(bytes.len(), &"16 bytes"))
    }
}
