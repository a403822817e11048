//! Rewriting of what is in the log: a worker reads slices, writes their records into a new object, and has the metadata core
//! put the new slices into the places of the old ones, if those are still as they were planned (compare-and-swap).
//!
//! And what comes after it: objects that nothing refers to any more are deleted when the last reader may have gone.

use serde::{Deserialize, Serialize};

use super::fetch::PlannedSlice;
use super::page::DeadPage;
use crate::id::{Incarnation, LogIndex, PageId, SegmentId, SegmentNumber, TopicPartition};
use crate::object_key::SegmentKey;
use crate::offset::{ByteRange, Offset};
use crate::time::Timestamp;

/// Asks what to merge next, by a linearizable read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanMerge {
    /// Where the last plan ended; partitions behind it come first, so that each has its turn.
    pub after: Option<TopicPartition>,
}

/// What to merge: all parts go into one new object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergePlan {
    /// Log time: that of the new object's id.
    pub log_time: Timestamp,
    /// The incarnation under which it is written.
    pub incarnation: Incarnation,
    /// In order of their partitions, one a partition; empty if nothing is worth it.
    pub parts: Vec<MergePart>,
}

/// Neighbouring slices of one partition that are to become one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergePart {
    /// Whose.
    pub on: TopicPartition,
    /// Whether records have the time of their append (`message.timestamp.type=LogAppendTime`): the merge writes it into the
    /// batches, since afterwards nobody knows it.
    #[serde(default)]
    pub stamp: bool,
    /// In order of their offsets, at least one, without a gap.
    pub slices: Vec<SourceSlice>,
}

/// A slice that is to be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceSlice {
    /// The number of its segment.
    pub segment: SegmentNumber,
    /// Where its bytes lie.
    pub slice: PlannedSlice,
}

/// Puts slices of a new object into the places of others. Each part is decided alone: it is refused if the slices that it
/// means are not all there any more, next to each other.
///
/// Not idempotent: a repeat is `outcome_unknown`. Whoever does not know the outcome plans anew; the object is then part of the log,
/// or is collected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplaceSlices {
    /// The incarnation under which the object was written.
    pub incarnation: Incarnation,
    /// The new object, whose time has to fit as that of every segment has.
    pub segment: SegmentId,
    /// Its bytes, header and footer included.
    pub size: u64,
    /// In order of their partitions, one a partition. The object of a single part lies under
    /// [`merged`](SegmentKey::merged), others among the objects of frontends.
    pub parts: Vec<ReplacedPart>,
}

/// One partition's new slice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplacedPart {
    /// Whose.
    pub on: TopicPartition,
    /// The offset of the first record of the first source.
    pub base_offset: Offset,
    /// One past the last offset of the last source.
    pub end_offset: Offset,
    /// The segments of the sources, in order, one for each slice.
    pub sources: Vec<SegmentNumber>,
    /// The new slice in the object.
    pub bytes: ByteRange,
    /// The largest timestamp of its records.
    pub max_timestamp: Timestamp,
}

/// What became of the parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlicesReplaced {
    /// For each part in order: whether it was replaced. If none was, the object is dead from the start.
    pub replaced: Vec<bool>,
}

/// Asks which objects may be deleted, by a linearizable read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindDead {
    /// At most so many, 1 to [`FIND_DEAD_MAX`](crate::limits::FIND_DEAD_MAX).
    pub limit: u32,
}

/// Objects that nothing refers to, that no reader needs any more, and whose death is in the archive, if there is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadObjects {
    /// Those that died first come first.
    pub objects: Vec<DeadObject>,
    /// The same of manifest pages.
    #[serde(default)]
    pub pages: Vec<DeadPage>,
    /// How many objects are dead, those that may not be deleted yet included.
    pub dead: u64,
}

/// An object to be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadObject {
    /// The log index of its death.
    pub died_at: LogIndex,
    /// The number of the segment.
    pub number: SegmentNumber,
    /// The object.
    pub key: SegmentKey,
    /// Its bytes.
    pub size: u64,
}

/// Says that dead objects are deleted. Idempotent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgetDead {
    /// Those that are gone: log index of the death, number. At most [`FIND_DEAD_MAX`](crate::limits::FIND_DEAD_MAX).
    pub objects: Vec<(LogIndex, SegmentNumber)>,
    /// The same of manifest pages, whose slices' objects are deleted too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pages: Vec<(LogIndex, PageId)>,
}

/// They are forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadForgotten {
    /// How many of them were known.
    pub forgotten: u64,
    /// How many objects are dead still.
    pub dead: u64,
}
