//! Records on their way into batches.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use carnax_core::id::{PartitionIndex, TopicId, TopicPartition};
use carnax_core::limits;
use carnax_core::record::{Batch, BatchBuilder, Compression, Header, NewRecord, RecordRefused};
use carnax_core::segment::PartitionBatches;
use carnax_core::time::Timestamp;

use crate::metadata_client::topics::Topic;

/// A record and where it goes. It fits into a batch of its topic.
#[derive(Debug, Clone)]
pub(crate) struct RoutedRecord {
    /// None: to any partition.
    pub(crate) partition: Option<PartitionIndex>,
    pub(crate) timestamp: Timestamp,
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Vec<Header>,
}

/// The batches of one unit in one topic, while they are filled.
#[derive(Debug, Default)]
pub(crate) struct Filling {
    parts: BTreeMap<PartitionIndex, FillingPartition>,
    /// Which partition records go to that may go to any, until its batch is full.
    sticky: Option<PartitionIndex>,
}

/// Where a record went.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Added {
    pub(crate) partition: PartitionIndex,
    /// How many records of the unit were there before.
    pub(crate) start: u32,
    /// By how many bytes the batches grew.
    pub(crate) bytes: u64,
}

#[derive(Debug)]
struct FillingPartition {
    full: Vec<Bytes>,
    filling: BatchBuilder,
    records: u32,
}

impl RoutedRecord {
    pub(crate) fn as_new(&self) -> NewRecord<'_> {
        NewRecord {
            timestamp: self.timestamp,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: &self.headers,
        }
    }
}

impl Filling {
    /// How many partitions have records.
    pub(crate) fn partition_count(&self) -> usize {
        self.parts.len()
    }

    /// Whether records for these partitions, and some that may go anywhere, stay within the limit of a unit.
    pub(crate) fn has_room_for(&self, named: &BTreeSet<PartitionIndex>) -> bool {
        let new = named.iter().filter(|partition| !self.parts.contains_key(*partition)).count();
        self.parts.len() + new < limits::UNIT_PARTITIONS_MAX
    }

    /// Adds one record; `spread` decides where it goes if it may go anywhere.
    pub(crate) fn add(&mut self, topic: &Topic, record: &RoutedRecord, spread: &mut u64) -> Added {
        let partition = record.partition.or(self.sticky).unwrap_or_else(|| {
            *spread = spread.wrapping_add(1);
            let chosen = *spread % u64::from(topic.partition_count);
            PartitionIndex(u32::try_from(chosen).expect("smaller than a 32-bit number"))
        });
        let bytes_max = topic.message_bytes_max;
        let part = self.parts.entry(partition).or_insert_with(|| FillingPartition::new(bytes_max));
        let (bytes, filled) = part.push(record, bytes_max);
        let start = part.records;
        part.records += 1;
        if record.partition.is_none() {
            // A unit over very many partitions stays where it is: it must not grow beyond its limit.
            let may_move = filled && self.parts.len() + 1 < limits::UNIT_PARTITIONS_MAX;
            self.sticky = (!may_move).then_some(partition);
        }
        Added { partition, start, bytes }
    }

    /// Ends the last batches.
    pub(crate) fn finish(self, topic: TopicId) -> Vec<PartitionBatches> {
        let finish = |(partition, part): (PartitionIndex, FillingPartition)| PartitionBatches {
            on: TopicPartition { topic, partition },
            batches: part.into_batches(),
            encoded_by_frontend: true,
        };
        self.parts.into_iter().map(finish).collect()
    }
}

impl FillingPartition {
    fn new(bytes_max: usize) -> Self {
        Self { full: Vec::new(), filling: BatchBuilder::new(bytes_max), records: 0 }
    }

    /// Adds a record; says by how many bytes the partition grew, and whether a batch was filled before.
    fn push(&mut self, record: &RoutedRecord, bytes_max: usize) -> (u64, bool) {
        let new = record.as_new();
        let before = if self.filling.is_empty() { 0 } else { self.filling.batch_bytes() };
        match self.filling.push(&new) {
            Ok(()) => ((self.filling.batch_bytes() - before) as u64, false),
            Err(RecordRefused::Full) => {
                let full = std::mem::replace(&mut self.filling, BatchBuilder::new(bytes_max));
                self.full.push(full.build(Compression::None));
                self.filling.push(&new).expect("accepting checked that each record fits into a batch");
                (self.filling.batch_bytes() as u64, true)
            }
            Err(refused) => unreachable!("accepting checked that each record fits into a batch: {refused}"),
        }
    }

    fn into_batches(mut self) -> Vec<Batch> {
        if !self.filling.is_empty() {
            self.full.push(self.filling.build(Compression::None));
        }
        let parse = |mut bytes: Bytes| {
            Batch::parse_next(&mut bytes).ok().flatten().expect("a batch that was just built is one")
        };
        self.full.into_iter().map(parse).collect()
    }
}
