//! The objects that hold some slices, each read once: as a whole where most of it is wanted, else in its wanted ranges.

use std::collections::BTreeMap;

use bytes::Bytes;
use carnax_core::id::TopicPartition;
use carnax_core::metadata::{PlannedSlice, SourceSlice};
use carnax_core::object_key::SegmentKey;
use carnax_core::offset::ByteRange;
use carnax_core::segment::{Footer, SegmentError};
use carnax_object_store::{GetRange, ObjectStoreError};
use futures::{StreamExt, TryStreamExt};

use super::{Maintenance, MaintenanceError};

/// Objects that are read at the same time.
const OBJECTS_AT_ONCE: usize = 4;
/// Objects up to this size are read as a whole.
const SMALL_OBJECT_BYTES: u64 = 1024 * 1024;
/// Ranges that are so near to each other are read as one.
const NEAR_BYTES: u64 = 64 * 1024;
/// How much of the end of an object is read to find its footer.
const TAIL_BYTES: u64 = 64 * 1024;

/// Bytes of objects, by where they begin.
pub(super) struct Sources(BTreeMap<SegmentKey, Source>);

struct Source {
    pieces: BTreeMap<u64, Bytes>,
    footer: Footer,
}

struct Wanted {
    key: SegmentKey,
    size: u64,
    /// Sorted, apart from each other.
    ranges: Vec<ByteRange>,
}

impl Sources {
    /// Reads the objects of these slices.
    pub(super) async fn read<'a>(
        maintenance: &Maintenance,
        slices: impl Iterator<Item = &'a SourceSlice>,
    ) -> Result<Self, MaintenanceError> {
        let read = futures::stream::iter(wanted(slices)).map(|wanted| read_object(maintenance, wanted));
        Ok(Self(read.buffer_unordered(OBJECTS_AT_ONCE).try_collect().await?))
    }

    #[cfg(test)]
    pub(super) fn of_objects(objects: impl Iterator<Item = (SegmentKey, Bytes)>) -> Self {
        let source = |object: Bytes| {
            let footer = Footer::parse(&object, object.len() as u64).expect("the test wrote it");
            Source { pieces: BTreeMap::from([(0, object)]), footer }
        };
        Self(objects.map(|(key, object)| (key, source(object))).collect())
    }

    /// The bytes of a slice, and which of its batches a frontend encoded.
    ///
    /// # Errors
    /// The footer knows no such slice.
    pub(super) fn slice(
        &self,
        on: TopicPartition,
        slice: &PlannedSlice,
    ) -> Result<(Bytes, Vec<bool>), String> {
        let source = self.0.get(&slice.segment).ok_or("its object was not read")?;
        let view =
            source.footer.view(on, slice.bytes, slice.base_offset).map_err(|error| error.to_string())?;
        let flags = view.batches().map(|batch| batch.encoded_by_frontend).collect();
        let (start, piece) =
            source.pieces.range(..=slice.bytes.start).next_back().ok_or("its bytes were not read")?;
        let index = |position: u64| usize::try_from(position - start).unwrap_or(usize::MAX);
        let (from, to) = (index(slice.bytes.start), index(slice.bytes.start + slice.bytes.length));
        if to > piece.len() {
            return Err("it ends behind what was read".to_owned());
        }
        Ok((piece.slice(from..to), flags))
    }
}

fn wanted<'a>(slices: impl Iterator<Item = &'a SourceSlice>) -> Vec<Wanted> {
    let mut objects: BTreeMap<SegmentKey, (u64, Vec<ByteRange>)> = BTreeMap::new();
    for source in slices {
        let PlannedSlice { segment, segment_size, bytes, .. } = source.slice;
        objects.entry(segment).or_insert((segment_size, Vec::new())).1.push(bytes);
    }
    objects
        .into_iter()
        .map(|(key, (size, ranges))| Wanted { key, size, ranges: joined(ranges, size) })
        .collect()
}

/// As few ranges as are worth a request each.
fn joined(mut ranges: Vec<ByteRange>, size: u64) -> Vec<ByteRange> {
    let bytes: u64 = ranges.iter().map(|range| range.length).sum();
    if size <= SMALL_OBJECT_BYTES || bytes >= size / 2 {
        return vec![ByteRange { start: 0, length: size }];
    }
    ranges.sort_unstable_by_key(|range| range.start);
    let mut joined: Vec<ByteRange> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.start + last.length + NEAR_BYTES => {
                last.length = last.length.max(range.start + range.length - last.start);
            }
            _ => joined.push(range),
        }
    }
    joined
}

async fn read_object(
    maintenance: &Maintenance,
    wanted: Wanted,
) -> Result<(SegmentKey, Source), MaintenanceError> {
    let Wanted { key, size, ranges } = wanted;
    let mut pieces = BTreeMap::new();
    for range in ranges {
        pieces.insert(range.start, get(maintenance, &key, range).await?);
    }
    let whole = pieces.get(&0).filter(|piece| piece.len() as u64 == size).cloned();
    let footer = match whole {
        Some(whole) => Footer::parse(&whole, size),
        None => read_footer(maintenance, &key, size).await?,
    };
    let footer = footer.map_err(|error| MaintenanceError::Plan(format!("object {key}: {error}")))?;
    Ok((key, Source { pieces, footer }))
}

async fn read_footer(
    maintenance: &Maintenance,
    key: &SegmentKey,
    size: u64,
) -> Result<Result<Footer, SegmentError>, ObjectStoreError> {
    let mut length = TAIL_BYTES.min(size);
    loop {
        let tail = get(maintenance, key, ByteRange { start: size - length, length }).await?;
        match Footer::parse(&tail, size) {
            Err(SegmentError::TailTooShort { needed }) if needed > length && needed <= size => {
                length = needed
            }
            footer => return Ok(footer),
        }
    }
}

async fn get(
    maintenance: &Maintenance,
    key: &SegmentKey,
    range: ByteRange,
) -> Result<Bytes, ObjectStoreError> {
    let key = key.to_string();
    let get = maintenance.object_store.get(&key, GetRange::Bytes(range));
    Ok(maintenance.pace.request(get).await?.0)
}
