//! Where things lie in the bucket.
//!
//! ```text
//! cluster/bootstrap.json                                   who started the cluster; put once
//! cluster/incarnation                                      the incarnation that may write; compare-and-swapped
//! <incarnation>/segments/<two hex digits of hash>/<ULID>   what frontends write, and merges of several partitions
//! <incarnation>/merged/<topic id>/<partition>/<ULID>       what merges of one partition write
//! <incarnation>/manifests/<topic id>/<partition>/<ULID>    manifest pages: old slices of a partition
//! <incarnation>/archive/<first>-<last>                     the Raft log, from a first to a last index
//! <incarnation>/archive/off-<term>-<applied>               a leader deletes objects without an archive
//! <incarnation>/snapshots/<last>                           what makes the parts of a snapshot one
//! <incarnation>/snapshot-parts/<last>-<attempt>/<part>     the state after entry `last`, in parts
//! ```
//!
//! The two hex digits spread the load over the prefixes of S3; the age of an object is readable from its ULID.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::{Incarnation, PageId, PartitionIndex, SegmentId, TopicPartition};

mod backup;

pub use backup::{ArchiveKey, BackupOffKey, SnapshotKey, SnapshotPartKey};

/// Who started the cluster.
pub const BOOTSTRAP: &str = "cluster/bootstrap.json";
/// The incarnation that may write.
pub const INCARNATION: &str = "cluster/incarnation";

/// The folders over which the objects of frontends are spread.
pub const SEGMENT_FOLDERS: u32 = 256;

/// What the keys in one of the [`SEGMENT_FOLDERS`] begin with, up to the ULID.
pub fn segment_folder(incarnation: Incarnation, folder: u32) -> String {
    format!("{incarnation}/segments/{folder:02x}/")
}

/// What the keys of all merged objects begin with.
pub fn merged_folder(incarnation: Incarnation) -> String {
    format!("{incarnation}/merged/")
}

/// What the keys of the merged objects of one partition begin with.
pub fn merged_partition_folder(incarnation: Incarnation, on: TopicPartition) -> String {
    let TopicPartition { topic, partition } = on;
    format!("{}{topic}/{partition}/", merged_folder(incarnation))
}

/// What the keys of all manifest pages begin with.
pub fn page_folder(incarnation: Incarnation) -> String {
    format!("{incarnation}/manifests/")
}

/// What names a manifest page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PageKey {
    /// The incarnation under which the object was written.
    pub incarnation: Incarnation,
    /// Whose slices it holds.
    pub on: TopicPartition,
    /// The object's own id.
    pub page: PageId,
}

impl fmt::Display for PageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TopicPartition { topic, partition } = self.on;
        write!(f, "{}{topic}/{partition}/{}", page_folder(self.incarnation), self.page)
    }
}

impl FromStr for PageKey {
    type Err = InvalidSegmentKey;

    fn from_str(text: &str) -> Result<Self, InvalidSegmentKey> {
        let read = || {
            let parts: Vec<&str> = text.splitn(6, '/').collect();
            let [incarnation, "manifests", topic, partition, page] = parts[..] else { return None };
            let partition = PartitionIndex(partition.parse().ok()?);
            let on = TopicPartition { topic: topic.parse().ok()?, partition };
            Some(Self { incarnation: Incarnation(incarnation.parse().ok()?), on, page: page.parse().ok()? })
        };
        let key = read().filter(|key| key.to_string() == text);
        key.ok_or_else(|| InvalidSegmentKey(text.chars().take(300).collect()))
    }
}

/// What names a segment object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SegmentKey {
    /// The incarnation under which the object was written.
    pub incarnation: Incarnation,
    /// The object's own id.
    pub segment: SegmentId,
    /// The only partition of a merged object; none for what a frontend wrote for many partitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merged: Option<TopicPartition>,
}

/// A text that is no segment key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a segment key: {0:?}")]
pub struct InvalidSegmentKey(String);

/// A text that is no key of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a key of its kind: {0:?}")]
pub struct InvalidKey(String);

impl InvalidKey {
    /// What `parse` makes of a text, if that is how it would be written.
    fn unless_spelled<T: fmt::Display>(text: &str, parse: impl FnOnce() -> Option<T>) -> Result<T, Self> {
        let key = parse().filter(|key| key.to_string() == text);
        key.ok_or_else(|| Self(text.chars().take(300).collect()))
    }
}

impl SegmentKey {
    /// The key of a segment that a frontend writes.
    pub fn appended(incarnation: Incarnation, segment: SegmentId) -> Self {
        Self { incarnation, segment, merged: None }
    }

    /// The key of the object into which slices of one partition, or of several, are rewritten.
    pub fn rewritten(
        incarnation: Incarnation,
        segment: SegmentId,
        mut parts: impl Iterator<Item = TopicPartition>,
    ) -> Self {
        let only = parts.next().filter(|_| parts.next().is_none());
        Self { incarnation, segment, merged: only }
    }
}

impl fmt::Display for SegmentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.merged {
            None => {
                let folder = crc32c::crc32c(&self.segment.to_bytes()) % SEGMENT_FOLDERS;
                write!(f, "{}{}", segment_folder(self.incarnation, folder), self.segment)
            }
            Some(on) => {
                write!(f, "{}{}", merged_partition_folder(self.incarnation, on), self.segment)
            }
        }
    }
}

impl FromStr for SegmentKey {
    type Err = InvalidSegmentKey;

    fn from_str(text: &str) -> Result<Self, InvalidSegmentKey> {
        let key = parse(text).filter(|key| key.to_string() == text);
        key.ok_or_else(|| InvalidSegmentKey(text.chars().take(300).collect()))
    }
}

fn parse(text: &str) -> Option<SegmentKey> {
    let parts: Vec<&str> = text.splitn(6, '/').collect();
    let incarnation = Incarnation(parts.first()?.parse().ok()?);
    match parts[1..] {
        ["segments", _, segment] => Some(SegmentKey::appended(incarnation, segment.parse().ok()?)),
        ["merged", topic, partition, segment] => {
            let partition = PartitionIndex(partition.parse().ok()?);
            let merged = Some(TopicPartition { topic: topic.parse().ok()?, partition });
            Some(SegmentKey { incarnation, segment: segment.parse().ok()?, merged })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{PartitionIndex, TopicId};
    use crate::time::Timestamp;

    #[test]
    fn keys_are_read_back_and_only_in_their_one_spelling() {
        let segment = SegmentId::from_parts(Timestamp::from_millis(1_700_000_000_000), 42);
        let topic = TopicId::from_parts(Timestamp::from_millis(1_600_000_000_000), 7);
        let appended = SegmentKey::appended(Incarnation(1), segment);
        assert_eq!(appended.to_string(), "1/segments/2f/01HF7YAT00000000000000001A");
        let merged = Some(TopicPartition { topic, partition: PartitionIndex(3) });
        for key in [appended, SegmentKey { merged, ..appended }] {
            assert_eq!(key.to_string().parse(), Ok(key));
        }
        for wrong in [
            "",
            "1",
            "1/segments/00/01HF7YAT00000000000000001A",
            "01/segments/2f/01HF7YAT00000000000000001A",
            "x/y/z",
        ] {
            assert!(wrong.parse::<SegmentKey>().is_err(), "{wrong}");
        }
    }
}
