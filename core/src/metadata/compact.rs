//! Key compaction: of the records of a key only the newest stays.
//!
//! A worker asks for a round, reads what is new in it to know the newest record of each key, rewrites the slices of the round
//! ([`ReplaceSlices`](super::ReplaceSlices)), and says that the round is finished. Everything below [`CompactionRound::clean_until`]
//! was compacted before: no key has two records there.

use serde::{Deserialize, Serialize};

use super::replace::SourceSlice;
use crate::id::{Incarnation, LogIndex, TopicPartition};
use crate::offset::Offset;
use crate::time::Timestamp;

/// Asks what to compact next, by a linearizable read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanCompaction {
    /// Where the last plan was; partitions behind it come first, so that each has its turn.
    pub after: Option<TopicPartition>,
}

/// What to compact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompactionPlan {
    /// Log time: new objects get ids of this time and later.
    pub log_time: Timestamp,
    /// The incarnation under which they are written.
    pub incarnation: Incarnation,
    /// None if nothing is worth it.
    pub round: Option<CompactionRound>,
}

/// One partition from its log start on, up to where records are left alone (`min.compaction.lag.ms`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompactionRound {
    /// Whose.
    pub on: TopicPartition,
    /// Whether records have the time of their append: see [`MergePart::stamp`](super::MergePart::stamp).
    pub stamp: bool,
    /// The log index at which the round before was finished; 0 for the first.
    pub follows: LogIndex,
    /// No key has two records below.
    pub clean_until: Offset,
    /// Records from here on are too young and left alone, where a slice reaches beyond. Not less than `clean_until`.
    pub until: Offset,
    /// Tombstones below may go: nobody can still need them. Never more than `clean_until`.
    pub tombstones_until: Offset,
    /// In order of their offsets, without a gap; at least one.
    pub slices: Vec<SourceSlice>,
}

/// Says that a round is finished: below `clean_until` no key has two records any more.
///
/// Not idempotent, and decided against the round that it follows: what was planned before another round was finished is in vain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishCompaction {
    /// The incarnation of the plan.
    pub incarnation: Incarnation,
    /// Whose.
    pub on: TopicPartition,
    /// As it was planned.
    pub follows: LogIndex,
    /// Not less than it was planned with.
    pub clean_until: Offset,
    /// As it was planned: below it there are no tombstones any more.
    pub tombstones_until: Offset,
    /// Whether tombstones are left anywhere below `clean_until`.
    pub tombstones_left: bool,
}

/// Whether the round counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompactionFinished {
    /// False if another round was finished since it was planned, or the partition is gone.
    pub finished: bool,
}
