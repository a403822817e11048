//! Plans of fetches, and the feed of commits.

use serde::{Deserialize, Serialize};

use super::page::PlannedPage;
use crate::id::{LogIndex, PartitionIndex, TopicId};
use crate::object_key::SegmentKey;
use crate::offset::{ByteRange, Offset};
use crate::time::Timestamp;
use crate::topic::TopicName;

/// A topic by name, and by id where the caller knows it: another id under that name is `topic_recreated`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicRef {
    /// The name.
    pub name: TopicName,
    /// The id that the caller knows.
    #[serde(default)]
    pub id: Option<TopicId>,
}

/// Asks which bytes of which objects hold the records of a partition from a position on.
///
/// The answer comes from a state that holds everything acknowledged before the question arrived (a read index).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanFetch {
    /// Which topic.
    pub topic: TopicRef,
    /// Which partition.
    pub partition: PartitionIndex,
    /// From where on.
    pub from: FetchFrom,
    /// The plan ends with the slice that reaches so many bytes; at least one slice is planned if there is one.
    pub max_bytes: u64,
    /// The plan has at most so many slices, 1 to [`PLAN_SLICES_MAX`](crate::limits::PLAN_SLICES_MAX).
    pub max_slices: u32,
}

/// Where a fetch starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FetchFrom {
    /// At this offset: below the log start is `offset_below_log_start`, above the high watermark
    /// `offset_above_high_watermark`.
    Offset(Offset),
    /// At the log start.
    Earliest,
    /// At the high watermark.
    Latest,
    /// At the first slice that may hold a record with this timestamp or a later one; the high watermark if none does.
    Timestamp(Timestamp),
    /// So many records before the high watermark, or the log start.
    Last(u64),
}

/// Which bytes to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchPlan {
    /// The topic's id.
    pub topic_id: TopicId,
    /// The first readable offset.
    pub log_start: Offset,
    /// One past the last committed offset.
    pub high_watermark: Offset,
    /// Where the fetch starts: `from` as an offset. The first planned slice may begin before it (or, behind a hole,
    /// after it).
    pub start: Offset,
    /// In order of offsets, not overlapping.
    pub slices: Vec<PlannedSlice>,
    /// The manifest page that holds the slices from the start on; then the plan itself has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<PlannedPage>,
    /// Where the state that answered stands in the Raft log.
    pub applied: LogIndex,
}

/// Bytes of an object that hold the records `base_offset .. end_offset` of one partition: whole batches, offsets dense
/// from the base on unless the segment was key-compacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedSlice {
    /// The object.
    pub segment: SegmentKey,
    /// Bytes of the whole object, so that its footer can be found without asking.
    pub segment_size: u64,
    /// The slice in the object.
    pub bytes: ByteRange,
    /// The offset of the first record.
    pub base_offset: Offset,
    /// One past the offset of the last record.
    pub end_offset: Offset,
    /// The largest timestamp of the records.
    pub max_timestamp: Timestamp,
    /// Log time of the commit: the timestamp of records in a topic with `message.timestamp.type=LogAppendTime`.
    pub append_time: Timestamp,
    /// Whether a merge or a key compaction wrote it: its batches have their final timestamps, and may have holes between offsets.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rewritten: bool,
}

/// Follows what is committed, from now on.
///
/// The feed only wakes and pre-fills: it is no source of truth, may be behind, and may end at any time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchCommits {}

/// Something was committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitNotice {
    /// Where the command stands in the Raft log; goes up from notice to notice. The first notice of a stream has no
    /// partitions and says where the stream begins.
    pub applied: LogIndex,
    /// Notices were dropped before this one: everything may have changed.
    #[serde(default)]
    pub lagged: bool,
    /// The partitions that grew.
    pub partitions: Vec<PartitionNotice>,
}

/// A partition grew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionNotice {
    /// The topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
    /// One past the last committed offset.
    pub high_watermark: Offset,
}
