//! What the metadata core says of all objects that it knows, page by page, for whoever compares that with the bucket.

use serde::{Deserialize, Serialize};

use super::page::{DeadPage, PlannedPage};
use super::replace::DeadObject;
use crate::id::{Incarnation, LogIndex, SegmentNumber, TopicPartition};
use crate::object_key::SegmentKey;
use crate::offset::{ByteRange, Offset};
use crate::time::Timestamp;

/// Asks for the manifests of a run of live segments, by a linearizable read.
///
/// With slices it takes time for every slice of the cluster, whatever the page holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListManifests {
    /// The first number that is wanted.
    pub from: SegmentNumber,
    /// The page ends before it has more segments and slices than this, 1 to
    /// [`MANIFEST_ROWS_MAX`](crate::limits::MANIFEST_ROWS_MAX); it has one segment at least, if there is one.
    pub rows: u32,
    /// Whether the slices that refer to the segments are wanted.
    pub slices: bool,
}

/// Live segments, all as they are at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestList {
    /// Log time.
    pub log_time: Timestamp,
    /// The incarnation under which segments are committed now.
    pub incarnation: Incarnation,
    /// In order of their numbers.
    pub manifests: Vec<Manifest>,
    /// Where the next page begins; none if there are no more segments.
    pub next: Option<SegmentNumber>,
    /// The number that the next segment to be committed gets.
    pub end: SegmentNumber,
}

/// What the metadata core knows of a live segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Its number.
    pub number: SegmentNumber,
    /// Its object.
    pub key: SegmentKey,
    /// Bytes of the object.
    pub size: u64,
    /// Whether a merge or a key compaction wrote it: its batches have their final offsets.
    pub rewritten: bool,
    /// What refers to it, in order of partition and offset; empty if slices were not wanted.
    pub slices: Vec<ManifestSlice>,
}

/// A slice that refers to a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestSlice {
    /// Whose it is.
    pub on: TopicPartition,
    /// Where it lies in the object.
    pub bytes: ByteRange,
    /// The offset of its first record.
    pub base_offset: Offset,
    /// One past the offset of its last record.
    pub end_offset: Offset,
    /// The largest timestamp of its records.
    pub max_timestamp: Timestamp,
}

/// Asks for dead objects that are not forgotten yet, whether or not they may be deleted, by a linearizable read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListDead {
    /// The death and the number of the last one of the page before.
    pub after: Option<(LogIndex, SegmentNumber)>,
    /// At most so many, 1 to [`MANIFEST_ROWS_MAX`](crate::limits::MANIFEST_ROWS_MAX).
    pub limit: u32,
}

/// Dead objects, in order of their deaths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadList {
    /// They may be in the bucket still, or gone.
    pub objects: Vec<DeadObject>,
    /// Whether there are more.
    pub more: bool,
    /// All dead manifest pages, with the first page of the list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pages: Vec<DeadPage>,
}

/// Asks for live manifest pages, by a linearizable read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListPages {
    /// The partition and the first offset of the last one before.
    pub after: Option<(TopicPartition, Offset)>,
    /// At most so many, 1 to [`MANIFEST_ROWS_MAX`](crate::limits::MANIFEST_ROWS_MAX).
    pub limit: u32,
}

/// Live manifest pages, in order of partition and offset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageList {
    /// The pages.
    pub pages: Vec<ListedPage>,
    /// Whether there are more.
    pub more: bool,
}

/// A live manifest page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedPage {
    /// The object.
    pub page: PlannedPage,
    /// The first offset of its first slice.
    pub base_offset: Offset,
    /// One past the last offset of its last slice.
    pub end_offset: Offset,
    /// How many slices it has.
    pub slices: u32,
}
