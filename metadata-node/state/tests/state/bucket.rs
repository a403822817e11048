//! A bucket that is a map, and what workers write into it.

use std::collections::BTreeMap;

use carnax_core::id::{SegmentId, TopicPartition};
use carnax_core::metadata::{PlannedSlice, ReplaceSlices, ReplacedPart, SourceSlice};
use carnax_core::object_key::SegmentKey;
use carnax_core::offset::ByteRange;
use carnax_metadata_state::{Command, Reply};

use crate::support::{Cluster, INCARNATION};

/// `delete.grace.ms` of these worlds.
pub(crate) const GRACE: i64 = 60_000;
/// Bytes of a record in an object.
pub(crate) const RECORD: u64 = 10;
pub(crate) const HEADER: u64 = 8;

/// A record; one without a value is a tombstone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) offset: u64,
    pub(crate) key: u8,
    pub(crate) value: Option<u64>,
    pub(crate) timestamp: i64,
}

/// What the objects hold, record by record. A record that is none stands for a batch without records.
#[derive(Default)]
pub(crate) struct Bucket {
    pub(crate) objects: BTreeMap<SegmentKey, Vec<Option<Record>>>,
    made: u128,
}

/// What is to stand for some slices of a partition.
pub(crate) struct Rewritten {
    pub(crate) on: TopicPartition,
    pub(crate) slices: Vec<SourceSlice>,
    pub(crate) records: Vec<Option<Record>>,
}

impl Bucket {
    pub(crate) fn new_id(&mut self, cluster: &Cluster) -> SegmentId {
        self.made += 1;
        cluster.segment(self.made)
    }

    /// What a slice holds, if its object is there.
    pub(crate) fn read(&self, slice: &PlannedSlice) -> Option<&[Option<Record>]> {
        let from = usize::try_from((slice.bytes.start - HEADER) / RECORD).unwrap();
        let count = usize::try_from(slice.bytes.length / RECORD).unwrap();
        self.objects.get(&slice.segment)?.get(from..from + count)
    }

    /// What several slices hold, one behind the other.
    pub(crate) fn read_all(&self, slices: &[SourceSlice]) -> Option<Vec<Option<Record>>> {
        let read: Option<Vec<_>> = slices.iter().map(|source| self.read(&source.slice)).collect();
        Some(read?.concat())
    }

    /// Puts all parts into one object, and that into the places of their slices; says of which.
    pub(crate) fn replace(&mut self, cluster: &mut Cluster, rewritten: &[Rewritten]) -> Vec<bool> {
        let segment = self.new_id(cluster);
        let (mut object, mut parts) = (Vec::new(), Vec::new());
        for Rewritten { on, slices, records } in rewritten {
            let start = HEADER + object.len() as u64 * RECORD;
            object.extend_from_slice(records);
            let (first, last) = (slices.first().unwrap(), slices.last().unwrap());
            parts.push(ReplacedPart {
                on: *on,
                base_offset: first.slice.base_offset,
                end_offset: last.slice.end_offset,
                sources: slices.iter().map(|source| source.segment).collect(),
                bytes: ByteRange { start, length: records.len() as u64 * RECORD },
                max_timestamp: slices.iter().map(|source| source.slice.max_timestamp).max().unwrap(),
            });
        }
        let size = HEADER + object.len() as u64 * RECORD;
        let on = rewritten.iter().map(|part| part.on);
        self.objects.insert(SegmentKey::rewritten(INCARNATION, segment, on), object);
        let request = ReplaceSlices { incarnation: INCARNATION, segment, size, parts };
        match cluster.one(Command::ReplaceSlices(request)) {
            Ok(Reply::SlicesReplaced(reply)) => {
                assert_eq!(reply.replaced.len(), rewritten.len());
                reply.replaced
            }
            other => panic!("{other:?}"),
        }
    }
}
