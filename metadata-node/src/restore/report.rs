//! What a restore did, in figures.

use std::fmt;

use carnax_core::id::{ClusterId, Incarnation, LogIndex, NodeId, TopicId};
use carnax_core::offset::Offset;
use carnax_core::time::Timestamp;
use carnax_core::topic::TopicName;
use serde::Serialize;

/// What was restored, and what is lost.
#[derive(Debug, Clone, Serialize)]
pub struct Restored {
    /// The new cluster.
    pub cluster: ClusterId,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// Its only node so far.
    pub node: NodeId,
    /// Where that node will be reached.
    pub address: String,
    /// Nodes that are to vote before it takes appends.
    pub voters_wanted: u32,
    /// The incarnation whose backup was read.
    pub restored_from: Incarnation,
    /// The snapshot that it began with; none if the archive reached back to the first entry.
    pub snapshot_index: Option<LogIndex>,
    /// Bytes of that snapshot.
    pub snapshot_bytes: u64,
    /// Objects of the archive that were read.
    pub archive_objects: u64,
    /// Their bytes.
    pub archive_bytes: u64,
    /// Entries behind the snapshot.
    pub entries_replayed: u64,
    /// The last entry that was archived: what came behind it is lost.
    pub last_archived_index: LogIndex,
    /// Log time at that entry.
    pub last_archived_log_time: Timestamp,
    /// How long ago that was.
    pub last_archived_age_seconds: u64,
    /// Topics of the new cluster.
    pub topics: u64,
    /// Their partitions.
    pub partitions: u64,
    /// Their objects.
    pub segments: u64,
    /// Objects with records that were written behind the end of the archive.
    pub tail_objects: u64,
    /// Their bytes.
    pub tail_bytes: u64,
    /// Their records: at most so many acknowledged records are lost.
    pub tail_records: u64,
    /// Those of topics that the archive does not know.
    pub tail_records_of_unknown_topics: u64,
    /// Objects behind the end of the archive that are not whole.
    pub tail_unreadable: Vec<String>,
    /// Merged objects and manifest pages of single partitions that nothing refers to, from merges that the tail may have had.
    pub unreferenced_merged_objects: u64,
    /// Objects that the new cluster refers to and that are not in the bucket: their records cannot be read.
    pub missing_objects: Named,
    /// Manifest pages that are not there, or not as they were written: the records behind them cannot be read, and nothing that
    /// they may refer to is deleted.
    pub unusable_pages: Named,
    /// Since when leaders ran with `--backup off` and deleted objects that what was restored may refer to; empty if none did, or if a
    /// later snapshot has what they did.
    pub without_backup: Vec<WithoutBackup>,
    /// Objects that were deleted, since they are a part of the tail.
    pub tail_objects_deleted: u64,
    /// Offsets that are skipped in each partition, so that none is given out twice.
    pub skipped: Vec<SkippedOffsets>,
    /// Parts of the backup that could not be used.
    pub damaged: Vec<String>,
}

/// Leaders of an incarnation that deleted objects without waiting for an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct WithoutBackup {
    /// Theirs.
    pub incarnation: Incarnation,
    /// The log entry behind which the first of them began to.
    pub since: LogIndex,
}

/// How many there are, of which the first are named.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Named {
    /// All of them.
    pub count: u64,
    /// The first ones, at most [`Named::FIRST_MAX`].
    pub first: Vec<String>,
}

impl Named {
    /// So many are named.
    pub const FIRST_MAX: usize = 100;

    pub(super) fn add(&mut self, what: impl fmt::Display) {
        self.count += 1;
        if self.first.len() < Self::FIRST_MAX {
            self.first.push(what.to_string());
        }
    }
}

/// Offsets of a partition that no record will ever have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SkippedOffsets {
    /// The topic.
    pub topic: TopicName,
    /// Its id.
    pub topic_id: TopicId,
    /// The partition.
    pub partition: u32,
    /// The first one.
    pub from: Offset,
    /// One past the last one: where appends go on.
    pub to: Offset,
    /// Records for this partition in objects behind the end of the archive.
    pub tail_records: u64,
}

impl fmt::Display for Restored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, incarnation, node, address, restored_from, .. } = self;
        writeln!(f, "restored incarnation {restored_from} as incarnation {incarnation}, cluster {cluster}")?;
        let from = match self.snapshot_index {
            Some(index) => format!("snapshot {index} ({} bytes)", self.snapshot_bytes),
            None => "the beginning of the log".to_owned(),
        };
        let (entries, objects, bytes) = (self.entries_replayed, self.archive_objects, self.archive_bytes);
        writeln!(f, "  read       {from}, then {entries} entries in {objects} objects ({bytes} bytes)")?;
        let (topics, partitions, segments) = (self.topics, self.partitions, self.segments);
        writeln!(f, "  holds      {topics} topics, {partitions} partitions, {segments} objects")?;
        let (last, time, age) =
            (self.last_archived_index, self.last_archived_log_time, self.last_archived_age_seconds);
        writeln!(f, "  ends at    log entry {last}, {time}, {age} s ago")?;
        writeln!(
            f,
            "  lost       at most {} records in {} objects ({} bytes) behind that, {} of them of topics that are unknown",
            self.tail_records, self.tail_objects, self.tail_bytes, self.tail_records_of_unknown_topics
        )?;
        let kept = if self.tail_objects_deleted > 0 { "deleted" } else { "kept in the bucket" };
        writeln!(f, "  their objects are {kept}")?;
        let offsets: u64 = self.skipped.iter().map(|skipped| skipped.to.since(skipped.from)).sum();
        writeln!(f, "  skipped    {offsets} offsets in {} partitions", self.skipped.len())?;
        for skipped in self.skipped.iter().filter(|skipped| skipped.tail_records > 0) {
            let SkippedOffsets { topic, partition, from, to, tail_records, .. } = skipped;
            writeln!(
                f,
                "    {topic}/{partition}: {from} to {to}, for {tail_records} records that may be lost"
            )?;
        }
        for WithoutBackup { incarnation, since } in &self.without_backup {
            writeln!(
                f,
                "  broken off the archive does not have what incarnation {incarnation} did behind log entry {since}, with --backup off: \
                 objects that this cluster refers to may be deleted"
            )?;
        }
        for (named, what) in [
            (&self.missing_objects, "objects, whose records cannot be read"),
            (&self.unusable_pages, "manifest pages, behind which records cannot be read"),
        ] {
            if named.count > 0 {
                writeln!(f, "  missing    {} {what}", named.count)?;
                named.first.iter().try_for_each(|name| writeln!(f, "    {name}"))?;
            }
        }
        for damaged in self.damaged.iter().chain(&self.tail_unreadable) {
            writeln!(f, "  not usable {damaged}")?;
        }
        write!(
            f,
            "start node {node} at {address} with this folder; further nodes join with empty folders until {} vote",
            self.voters_wanted
        )
    }
}
