//! Random logs of a few keys, compacted round by round, against a map of what each key was last.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use bytes::Bytes;
use carnax_core::id::{Incarnation, PartitionIndex, SegmentId, SegmentNumber, TopicId, TopicPartition};
use carnax_core::metadata::{PlannedSlice, SourceSlice};
use carnax_core::object_key::SegmentKey;
use carnax_core::offset::Offset;
use carnax_core::record::{Batch, BatchBuilder, Compression, NewRecord, Record};
use carnax_core::segment::SegmentWriter;
use carnax_core::time::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::maintenance::compact::newest::{Judge, Newest};

const KEYS: u8 = 6;

/// Key (none for a record without), value (none for a tombstone).
type New = (Option<u8>, Option<u16>);

/// A slice with its object.
#[derive(Clone)]
struct Stored {
    slice: PlannedSlice,
    object: Bytes,
}

/// Offset, timestamp, key, value.
type Seen = (u64, i64, Option<Bytes>, Option<Bytes>);

fn record() -> impl Strategy<Value = New> {
    let key = prop_oneof![9 => (0..KEYS).prop_map(Some), 1 => Just(None)];
    let value = prop_oneof![3 => any::<u16>().prop_map(Some), 1 => Just(None)];
    (key, value)
}

fn on() -> TopicPartition {
    TopicPartition { topic: TopicId::from_bytes([7; 16]), partition: PartitionIndex(0) }
}

/// Slices of batches of records, and of each batch whether a producer made it.
fn log() -> impl Strategy<Value = Vec<Vec<(bool, Vec<New>)>>> {
    let batch = (any::<bool>(), proptest::collection::vec(record(), 1..12));
    proptest::collection::vec(proptest::collection::vec(batch, 1..5), 1..8)
}

fn store(unit: Vec<PartitionBatches>, base: Offset, end: Offset, rewritten: bool) -> Stored {
    let mut writer = SegmentWriter::new();
    writer.push_unit(unit).unwrap();
    let sealed = writer.seal();
    let object: Vec<u8> = sealed.chunks.iter().flat_map(|chunk| chunk.to_vec()).collect();
    let new = &sealed.units[0][0];
    assert_eq!(u64::from(new.records), end.since(base), "batches tile the offsets");
    let id = SegmentId::from_parts(Timestamp::from_millis(1), base.0.into());
    let slice = PlannedSlice {
        segment: SegmentKey::appended(Incarnation(1), id),
        segment_size: object.len() as u64,
        bytes: new.bytes,
        base_offset: base,
        end_offset: end,
        max_timestamp: new.max_timestamp,
        append_time: Timestamp::from_millis(9_000),
        rewritten,
    };
    Stored { slice, object: object.into() }
}

fn append(log: &[Vec<(bool, Vec<New>)>]) -> Vec<Stored> {
    let mut next = 0;
    let slices = log.iter().map(|batches| {
        let base = next;
        let unit = batches.iter().map(|(by_producer, records)| {
            let mut builder = BatchBuilder::new(1 << 20);
            for (key, value) in records {
                let timestamp = Timestamp::from_millis(1_000 + next);
                next += 1;
                let (key, value) = (key.map(|key| [key]), value.map(u16::to_be_bytes));
                let (key, value) = (key.as_ref().map(|key| &key[..]), value.as_ref().map(|value| &value[..]));
                builder.push(&NewRecord { timestamp, key, value, headers: &[] }).unwrap();
            }
            let compression = if *by_producer { Compression::Zstd } else { Compression::None };
            let batch = Batch::parse_all(builder.build(compression)).unwrap();
            PartitionBatches { on: on(), batches: batch, encoded_by_frontend: !by_producer }
        });
        let unit = unit.collect();
        store(unit, offset(base), offset(next), false)
    });
    slices.collect()
}

fn offset(number: i64) -> Offset {
    Offset(u64::try_from(number).unwrap())
}

fn read_all(slices: &[Stored]) -> Vec<Seen> {
    let mut seen = Vec::new();
    for Stored { slice, object } in slices {
        let start = usize::try_from(slice.bytes.start).unwrap();
        let bytes = object.slice(start..start + usize::try_from(slice.bytes.length).unwrap());
        let see = |offset: Offset, record: &Record| {
            seen.push((offset.0, record.timestamp.millis(), record.key.clone(), record.value.clone()));
            true
        };
        for_each_record(slice, bytes, see).unwrap();
    }
    seen
}

/// One round over slices, of which some become one object.
fn round(
    slices: &[Stored],
    Range { start: clean_until, end: limit }: Range<Offset>,
    tombstones_until: Offset,
    keys_max: usize,
) -> (Vec<Stored>, Offset, bool) {
    let mut newest = Newest::bounded(3, clean_until..limit, keys_max);
    'learning: for stored in slices.iter().filter(|stored| stored.slice.end_offset > clean_until) {
        let mut room = true;
        let sources = sources(std::slice::from_ref(stored));
        let (bytes, _) = sources.slice(on(), &stored.slice).unwrap();
        for_each_record(&stored.slice, bytes, |offset, record| {
            room = newest.learn(offset, record);
            room
        })
        .unwrap();
        if !room {
            break 'learning;
        }
        newest.learned_until(stored.slice.end_offset);
    }
    let mut judge = Judge { newest: &newest, tombstones_until, tombstones_left: false };
    let mut after = Vec::new();
    for group in slices.chunks(3) {
        let all: Vec<SourceSlice> = group
            .iter()
            .map(|stored| SourceSlice { segment: SegmentNumber(0), slice: stored.slice })
            .collect();
        let (base, end) = (group[0].slice.base_offset, group[group.len() - 1].slice.end_offset);
        if base >= newest.until() {
            after.extend_from_slice(group);
            continue;
        }
        let mut stays = |offset: Offset, record: &Record| judge.stays(offset, record);
        let part = Part { on: on(), stamp: false, slices: &all };
        let rewritten = rewrite(part, &sources(group), Keep::Where(&mut stays)).unwrap();
        let stored = store(rewritten.unit, base, end, true);
        assert_eq!(stored.slice.max_timestamp, rewritten.max_timestamp);
        after.push(stored);
    }
    (after, newest.until(), judge.tombstones_left)
}

fn sources(stored: &[Stored]) -> Sources {
    Sources::of_objects(stored.iter().map(|stored| (stored.slice.segment, stored.object.clone())))
}

/// The newest offset of each key, of those below.
fn newest(records: &[Seen], until: Offset) -> BTreeMap<Bytes, u64> {
    let below = records.iter().filter(|record| record.0 < until.0);
    below.filter_map(|record| Some((record.2.clone()?, record.0))).collect()
}

proptest! {
    #[test]
    fn what_stays_is_the_newest_of_each_key_in_its_place(
        log in log(),
        keys_max in 1..=usize::from(KEYS),
        border in 0..100_usize,
        young in 0..5_u64,
    ) {
        let stored = append(&log);
        let appended = read_all(&stored);
        // The tail is left alone: the first round sees the slices before it, later ones all.
        let (mut slices, tail) = (stored.clone(), border % stored.len() + 1);
        let tail_slices = slices.split_off(tail);
        let (mut clean_until, mut rounds) = (Offset::ZERO, 0);
        let mut first = true;
        loop {
            let end = slices.last().unwrap().slice.end_offset;
            // A slice may reach into what is too young.
            let limit = if first { Offset((clean_until.0 + 1).max(end.0 - young.min(end.0))) } else { end };
            let (after, until, tombstones_left) = round(&slices, clean_until..limit, Offset::ZERO, keys_max);
            prop_assert!(until > clean_until && until <= limit);
            let seen = read_all(&after);
            let newest = newest(&appended, until);
            let expected: Vec<Seen> = appended
                .iter()
                .filter(|(offset, _, key, _)| {
                    *offset < end.0
                        && (*offset >= until.0 || key.as_ref().is_none_or(|key| newest[key] == *offset))
                })
                .cloned()
                .collect();
            prop_assert_eq!(&seen, &expected, "clean until {}", until);
            let tombstone = |(offset, _, key, value): &Seen| {
                *offset < until.0 && key.is_some() && value.is_none()
            };
            prop_assert_eq!(tombstones_left, seen.iter().any(tombstone));
            (slices, clean_until, rounds) = (after, until, rounds + 1);
            if until < limit {
                prop_assert!(rounds < 200, "each round makes progress");
                continue;
            }
            if !std::mem::take(&mut first) {
                break;
            }
            slices.extend_from_slice(&tail_slices);
            if clean_until == slices.last().unwrap().slice.end_offset {
                break;
            }
        }
        // Once more: nothing is new. Then the tombstones go, and nothing else does.
        let before = read_all(&slices);
        let (again, ..) = round(&slices, clean_until..clean_until, Offset::ZERO, keys_max);
        prop_assert_eq!(&read_all(&again), &before);
        let ripe = Offset(clean_until.0 / 2);
        let (without, _, left) = round(&again, clean_until..clean_until, ripe, keys_max);
        let stays = |(offset, _, key, value): &&Seen| {
            *offset >= ripe.0 || key.is_none() || value.is_some()
        };
        let expected: Vec<Seen> = before.iter().filter(stays).cloned().collect();
        prop_assert_eq!(read_all(&without), expected);
        prop_assert_eq!(left, before.iter().any(|(offset, _, key, value)| {
            *offset >= ripe.0 && key.is_some() && value.is_none()
        }));
    }
}

#[test]
fn long_holes_become_batches_without_records_and_long_records_keep_theirs() {
    let long = Bytes::from(vec![7; 300 * 1024]);
    let record = |value: Bytes| Record {
        offset_delta: 0,
        timestamp: Timestamp::from_millis(5),
        key: Some(Bytes::from_static(b"k")),
        value: Some(value),
        headers: Vec::new(),
    };
    let mut packer = Packer::new(Offset(10));
    let far = Offset(10 + 5 * (1 << 31));
    let pack = |packer: &mut Packer, value: Bytes, offset: Offset| {
        packer.pack(&record(value), Timestamp::from_millis(5), offset, Compression::None).unwrap();
    };
    pack(&mut packer, Bytes::from_static(b"a"), Offset(12));
    pack(&mut packer, long.clone(), Offset(13));
    pack(&mut packer, long, Offset(14));
    pack(&mut packer, Bytes::from_static(b"b"), Offset(15));
    pack(&mut packer, Bytes::from_static(b"c"), far);
    let batches = packer.finish(Offset(far.0 + 7));
    let (mut next, mut offsets, mut empty) = (10, BTreeSet::new(), 0);
    for (batch, by_frontend) in batches {
        assert!(by_frontend);
        assert_eq!(batch.header().base_offset, i64::try_from(next).unwrap());
        empty += u32::from(batch.header().record_count == 0);
        offsets.extend(batch.records().unwrap().map(|record| next + u64::from(record.unwrap().offset_delta)));
        next += u64::from(batch.offset_count());
    }
    assert_eq!(next, far.0 + 7);
    assert_eq!(offsets.into_iter().collect::<Vec<_>>(), [12, 13, 14, 15, far.0]);
    assert!(empty >= 3, "{empty}");
}
