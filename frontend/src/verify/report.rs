//! What a verification found, for people and for programs.

use std::collections::BTreeMap;

use carnax_core::id::{Incarnation, PartitionIndex, TopicId, TopicPartition};
use carnax_core::metadata::Manifest;
use carnax_core::offset::Offset;
use carnax_core::time::Timestamp;
use serde::Serialize;

/// Problems that are told one by one; the others are only counted.
pub(super) const PROBLEMS_MAX: usize = 10_000;
/// Slices of one problem that are told.
const RECORDS_MAX: usize = 100;
/// Keys of each kind of object that nothing refers to that are told one by one.
const KEYS_MAX: usize = 1_000;

/// How closely objects are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Depth {
    /// Only whether they are there, with the right size.
    Listing,
    /// Their footers are held against the slices.
    Footers,
    /// Every byte is read, every checksum computed, every record decoded.
    Records,
}

/// What can be wrong with an object that the log needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// It is not there.
    Missing,
    /// It is longer or shorter than what was committed.
    WrongSize,
    /// The object store does not hand it out.
    Unreadable,
    /// It does not hold what its manifest says.
    Contradiction,
    /// Bytes are not those that were written, or no records.
    Damaged,
}

impl ProblemKind {
    /// Its name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::WrongSize => "wrong_size",
            Self::Unreadable => "unreadable",
            Self::Contradiction => "contradiction",
            Self::Damaged => "damaged",
        }
    }
}

/// Why an object is there that no live manifest refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unreferenced {
    /// It may still be committed.
    Young,
    /// It is no part of the log any more; a worker will delete it.
    Dead,
    /// It was never committed and never will be.
    Orphan,
    /// The cluster had another incarnation when it was written, and lost it in the restore.
    EarlierIncarnation,
    /// The cluster was restored elsewhere, and lives on there.
    LaterIncarnation,
    /// Carnax did not write it, or not under this key.
    NotOurs,
}

impl Unreferenced {
    /// Its name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Young => "young",
            Self::Dead => "dead",
            Self::Orphan => "orphan",
            Self::EarlierIncarnation => "earlier_incarnation",
            Self::LaterIncarnation => "later_incarnation",
            Self::NotOurs => "not_ours",
        }
    }
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What kind of thing.
    pub kind: ProblemKind,
    /// The object.
    pub key: String,
    /// A sentence for people.
    pub detail: String,
    /// The first of the records that it costs; empty if that is not known, or it costs none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<Records>,
}

impl Problem {
    /// A problem with a whole object.
    pub(super) fn of(manifest: &Manifest, kind: ProblemKind, detail: String) -> Self {
        let slices = manifest.slices.iter().take(RECORDS_MAX);
        let records = slices.map(|slice| Records::new(slice.on, slice.base_offset, slice.end_offset));
        Self { kind, key: manifest.key.to_string(), detail, records: records.collect() }
    }
}

/// Offsets of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Records {
    /// The topic's name; none if it was deleted meanwhile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// The topic.
    pub topic_id: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
    /// The first offset.
    pub base_offset: Offset,
    /// One past the last offset.
    pub end_offset: Offset,
}

impl Records {
    pub(super) fn new(on: TopicPartition, base_offset: Offset, end_offset: Offset) -> Self {
        let TopicPartition { topic: topic_id, partition } = on;
        Self { topic: None, topic_id, partition, base_offset, end_offset }
    }
}

/// How much was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Live segments that the metadata core knows.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Slices that were held against footers.
    pub slices: u64,
    /// Batches that were decoded.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
}

impl Checked {
    /// Adds what was seen in one object.
    pub(super) fn add(&mut self, other: Self) {
        self.slices += other.slices;
        self.batches += other.batches;
        self.records += other.records;
    }
}

/// Objects of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Heap {
    /// How many.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The first ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
}

impl Heap {
    pub(super) fn count(&mut self, bytes: u64) {
        self.objects += 1;
        self.bytes += bytes;
    }

    pub(super) fn put(&mut self, key: &str, bytes: u64) {
        self.count(bytes);
        if self.keys.len() < KEYS_MAX {
            self.keys.push(key.to_owned());
        }
    }
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The incarnation of the cluster.
    pub incarnation: Incarnation,
    /// Log time when the verification began, in milliseconds since 1970.
    pub log_time: Timestamp,
    /// How closely objects were looked at.
    pub depth: Depth,
    /// How much was looked at.
    pub checked: Checked,
    /// Everything in the bucket.
    pub bucket: Heap,
    /// Of it, what a restore reads.
    pub backup: Heap,
    /// How many things are wrong. The log is whole if it is 0.
    pub problem_count: u64,
    /// The first of them.
    pub problems: Vec<Problem>,
    /// Objects that no live manifest refers to, by why they are there. None of them is a problem of the log.
    pub unreferenced: BTreeMap<Unreferenced, Heap>,
}

impl Report {
    pub(super) fn new(incarnation: Incarnation, log_time: Timestamp, depth: Depth) -> Self {
        Self {
            incarnation,
            log_time,
            depth,
            checked: Checked::default(),
            bucket: Heap::default(),
            backup: Heap::default(),
            problem_count: 0,
            problems: Vec::new(),
            unreferenced: BTreeMap::new(),
        }
    }

    pub(super) fn add(&mut self, problem: Problem) {
        self.problem_count += 1;
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem);
        }
    }

    pub(super) fn put(&mut self, why: Unreferenced, key: &str, bytes: u64) {
        self.unreferenced.entry(why).or_default().put(key, bytes);
    }
}
