//! Topics: create, change, delete, describe, trim.

use serde::{Deserialize, Serialize};

use super::fetch::TopicRef;
use crate::id::{PartitionIndex, TopicId};
use crate::offset::Offset;
use crate::time::Timestamp;
use crate::topic::{ConfigEntries, TopicName};

/// Creates a topic. Idempotent: an equal topic that exists is the answer, a different one is `topic_exists`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateTopic {
    /// The name.
    pub name: TopicName,
    /// How many partitions, from 1.
    pub partitions: u32,
    /// What differs from the defaults.
    #[serde(default)]
    pub config: ConfigEntries,
}

/// Changes a topic; what is absent stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlterTopic {
    /// Which topic.
    pub topic: TopicRef,
    /// The new number of partitions: at least as many as now.
    #[serde(default)]
    pub partitions: Option<u32>,
    /// Entries to set (a value) or to bring back to their default (none).
    #[serde(default)]
    pub config: std::collections::BTreeMap<String, Option<String>>,
}

/// Deletes a topic with all its records. Its id is never used again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteTopic {
    /// Which topic.
    pub topic: TopicRef,
}

/// A topic is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletedTopic {
    /// The id that it had.
    pub topic_id: TopicId,
}

/// Describes one topic, by a linearizable read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeTopic {
    /// Which topic.
    pub topic: TopicRef,
    /// Whether the offsets of all partitions are wanted; routing needs only the count.
    #[serde(default)]
    pub with_offsets: bool,
}

/// Lists topics in order of their names, by a linearizable read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListTopics {
    /// Only names that start with this.
    #[serde(default)]
    pub prefix: String,
    /// Only names after this one.
    #[serde(default)]
    pub after: Option<TopicName>,
    /// At most so many, 1 to 1,000.
    pub limit: u32,
}

/// A page of topics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicPage {
    /// In order of their names, without offsets.
    pub topics: Vec<TopicDescription>,
    /// Whether there are more behind the last one.
    pub more: bool,
}

/// A topic as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicDescription {
    /// The id, which no other topic ever has.
    pub topic_id: TopicId,
    /// The name.
    pub name: TopicName,
    /// How many partitions.
    pub partition_count: u32,
    /// What was set, without the defaults.
    pub config: ConfigEntries,
    /// Log time of the creation.
    pub created: Timestamp,
    /// One for each partition, in order; empty unless asked for.
    #[serde(default)]
    pub offsets: Vec<PartitionOffsets>,
    /// Whether a `CreateTopic` made it now (false: it was there).
    #[serde(default)]
    pub newly_created: bool,
}

/// The bounds of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionOffsets {
    /// The first readable offset.
    pub log_start: Offset,
    /// One past the last committed offset.
    pub high_watermark: Offset,
    /// Bytes of live slices.
    pub bytes: u64,
    /// Number of live slices.
    pub slices: u64,
}

/// Moves the log start of a partition up, so that earlier records can no longer be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrimPartition {
    /// Which topic.
    pub topic: TopicRef,
    /// Which partition.
    pub partition: PartitionIndex,
    /// The first offset that stays readable; at most the high watermark. A lower one than the log start changes nothing.
    pub before: Offset,
}

/// A partition has been trimmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrimmedPartition {
    /// The first readable offset now.
    pub log_start: Offset,
}
