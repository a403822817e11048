//! Paging: old slices move out of the metadata core into objects, so that its memory depends on recent data, not on retention.

use serde::{Deserialize, Serialize};

use super::replace::SourceSlice;
use crate::id::{Incarnation, LogIndex, PageId, SegmentNumber, TopicPartition};
use crate::object_key::PageKey;
use crate::offset::Offset;
use crate::time::Timestamp;

/// Asks which slices to page out next, by a linearizable read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanPage {
    /// Where the last plan was; partitions behind it come first, so that each has its turn.
    pub after: Option<TopicPartition>,
}

/// Which slices to page out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PagePlan {
    /// Log time: that of the new page's id.
    pub log_time: Timestamp,
    /// The incarnation under which it is written.
    pub incarnation: Incarnation,
    /// The oldest slices of a partition; none if nothing is worth it.
    pub part: Option<PagePart>,
}

/// Slices of one partition that are to go into one page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PagePart {
    /// Whose.
    pub on: TopicPartition,
    /// In order of their offsets, without a gap, each of a merged object of its own.
    pub slices: Vec<SourceSlice>,
}

/// Puts a page into the place of the oldest slices of a partition, if they are still as they were planned. A repeat is
/// `outcome_unknown`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplaceByPage {
    /// The incarnation under which the page was written.
    pub incarnation: Incarnation,
    /// The page, whose time has to fit as that of every segment has.
    pub page: PageId,
    /// Its bytes.
    pub size: u64,
    /// Whose slices.
    pub on: TopicPartition,
    /// The first offset of the first slice.
    pub base_offset: Offset,
    /// One past the last offset of the last slice.
    pub end_offset: Offset,
    /// The segments of the slices, in order.
    pub sources: Vec<SegmentNumber>,
}

/// What became of a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageReplaced {
    /// Whether it is part of the log; if not, its object is dead.
    pub replaced: bool,
}

/// A manifest page that a fetch has to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedPage {
    /// The object.
    pub key: PageKey,
    /// Its bytes.
    pub size: u64,
}

/// A manifest page to be deleted, and with it every object that its slices lie in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadPage {
    /// The log index of its death.
    pub died_at: LogIndex,
    /// The object.
    pub key: PageKey,
    /// Its bytes.
    pub size: u64,
    /// Whether it ever was part of the log: if not, its slices belong to others.
    pub owns_slices: bool,
}
