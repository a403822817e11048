//! Segments under any input: every unit is found where the writer says, and nothing damaged is taken for a segment.

use bytes::Bytes;
use carnax_core::id::{PartitionIndex, TopicId, TopicPartition};
use carnax_core::offset::{ByteRange, Offset};
use carnax_core::record::{Batch, Compression};
use carnax_core::segment::{
    Footer, PartitionBatches, SealedSegment, SegmentError, SegmentWriter, TRAILER_BYTES,
};
use carnax_core::time::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::{OwnedRecord, encode};

/// A unit: for some partitions of two topics, the timestamps of the records of each batch.
type Unit = Vec<((u8, u8), Vec<Vec<i64>>)>;

fn units() -> impl Strategy<Value = Vec<Unit>> {
    let batches = vec(vec(0..1000i64, 1..4), 0..3);
    vec(vec(((0..2u8, 0..3u8), batches), 0..4), 1..6)
}

fn on((topic, partition): (u8, u8)) -> TopicPartition {
    let topic = TopicId::from_parts(Timestamp::from_millis(1_700_000_000_000), topic.into());
    TopicPartition { topic, partition: PartitionIndex(partition.into()) }
}

fn batch(timestamps: &[i64]) -> Batch {
    let record = |timestamp: &i64| OwnedRecord {
        timestamp: *timestamp,
        key: None,
        value: Some(timestamp.to_string().into_bytes()),
        headers: vec![],
    };
    encode(&timestamps.iter().map(record).collect::<Vec<_>>(), Compression::None)
}

fn seal(units: &[Unit]) -> SealedSegment {
    let mut writer = SegmentWriter::new();
    for unit in units {
        let parts = unit.iter().map(|(place, batches)| PartitionBatches {
            on: on(*place),
            batches: batches.iter().map(|timestamps| batch(timestamps)).collect(),
            encoded_by_frontend: place.0 == 0,
        });
        writer.push_unit(parts.collect()).unwrap();
    }
    writer.seal()
}

fn small() -> Vec<u8> {
    seal(&[vec![((0, 0), vec![vec![1], vec![2, 3]])], vec![((0, 0), vec![vec![4]]), ((1, 2), vec![vec![5]])]])
        .chunks
        .concat()
}

fn bytes_at(object: &Bytes, range: ByteRange) -> Bytes {
    let start = usize::try_from(range.start).unwrap();
    object.slice(start..start + usize::try_from(range.length).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) })]

    #[test]
    fn every_unit_lies_where_the_writer_says_and_lookups_agree_with_a_walk(units in units()) {
        let sealed = seal(&units);
        let object = Bytes::from(sealed.chunks.concat());
        prop_assert_eq!((object.len() as u64, crc32c::crc32c(&object)), (sealed.size, sealed.crc32c));
        let footer = Footer::verify_object(&object).unwrap();
        prop_assert_eq!(sealed.units.len(), units.len());
        for (unit, slices) in units.iter().zip(&sealed.units) {
            let mut expected = std::collections::BTreeMap::<TopicPartition, Vec<&Vec<i64>>>::new();
            for (place, batches) in unit.iter().filter(|(_, batches)| !batches.is_empty()) {
                expected.entry(on(*place)).or_default().extend(batches);
            }
            prop_assert_eq!(slices.len(), expected.len());
            for (slice, (on, batches)) in slices.iter().zip(expected) {
                prop_assert_eq!((slice.topic, slice.partition), (on.topic, on.partition));
                let wanted: Vec<Batch> = batches.iter().map(|timestamps| batch(timestamps)).collect();
                let found = Batch::parse_all(bytes_at(&object, slice.bytes)).unwrap();
                prop_assert_eq!(&found, &wanted);
                let timestamps: Vec<i64> = batches.iter().copied().flatten().copied().collect();
                prop_assert_eq!(slice.records as usize, timestamps.len());
                prop_assert_eq!(slice.max_timestamp.millis(), *timestamps.iter().max().unwrap());
                check_lookups(&footer, on, slice.bytes, &batches);
            }
        }
    }

    #[test]
    fn footers_with_noise_under_a_right_checksum_are_refused_or_stay_within_the_object(
        at in any::<prop::sample::Index>(),
        noise in vec(any::<u8>(), 1..9),
    ) {
        let mut object = small();
        let trailer = object.len() - TRAILER_BYTES;
        let length = u32::from_be_bytes(object[trailer..trailer + 4].try_into().unwrap());
        let start = trailer - usize::try_from(length).unwrap();
        let at = start + at.index(trailer - start);
        let end = (at + noise.len()).min(trailer);
        object[at..end].copy_from_slice(&noise[..end - at]);
        repair(&mut object, start);
        if let Ok(footer) = Footer::parse(&object, object.len() as u64) {
            let end = footer.batches().last().map_or(8, |batch| batch.position + u64::from(batch.length));
            prop_assert_eq!(end, start as u64);
        }
    }
}

/// Compares every lookup in a view with what a walk over the batches finds.
fn check_lookups(footer: &Footer, on: TopicPartition, bytes: ByteRange, batches: &[&Vec<i64>]) {
    let base = 1_000;
    let view = footer.view(on, bytes, Offset(base)).unwrap();
    let mut next = base;
    let mut starts = Vec::new();
    for timestamps in batches {
        starts.push(next);
        next += timestamps.len() as u64;
    }
    assert_eq!(view.end_offset(), Offset(next));
    assert_eq!(view.batches().map(|batch| batch.base_offset.0).collect::<Vec<_>>(), starts);
    for offset in base - 1..=next {
        let inside = (base..next).contains(&offset);
        let expected = starts.iter().rev().find(|start| **start <= offset).copied().filter(|_| inside);
        assert_eq!(view.at_offset(Offset(offset)).map(|batch| batch.base_offset.0), expected);
    }
    for timestamp in batches.iter().copied().flatten().flat_map(|timestamp| [*timestamp, timestamp + 1]) {
        let at = batches.iter().position(|batch| batch.iter().any(|other| *other >= timestamp));
        let found = view.at_timestamp(Timestamp::from_millis(timestamp));
        assert_eq!(found.map(|batch| batch.base_offset.0), at.map(|at| starts[at]));
    }
}

fn repair(object: &mut [u8], footer_start: usize) {
    let trailer = object.len() - TRAILER_BYTES;
    let crc = crc32c::crc32c(&object[footer_start..trailer + 4]);
    object[trailer + 4..trailer + 8].copy_from_slice(&crc.to_be_bytes());
}

#[test]
fn a_segment_cut_anywhere_or_with_any_bit_flipped_is_refused() {
    let object = Bytes::from(small());
    Footer::verify_object(&object).unwrap();
    for end in 0..object.len() {
        assert!(Footer::verify_object(&object.slice(..end)).is_err(), "cut at {end}");
    }
    for bit in 0..object.len() * 8 {
        let mut flipped = object.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(Footer::verify_object(&flipped.into()).is_err(), "bit {bit}");
    }
}

#[test]
fn a_footer_that_lies_is_refused_for_its_reason_before_anything_is_made_of_it() {
    let good = small();
    let size = good.len() as u64;
    let trailer = good.len() - TRAILER_BYTES;
    let length = u32::from_be_bytes(good[trailer..trailer + 4].try_into().unwrap());
    let start = trailer - usize::try_from(length).unwrap();
    let (first_slice, first_batch) = (start + 8, start + 8 + 2 * 44);
    let lie = |at: usize, field: &[u8]| {
        let mut object = good.clone();
        object[at..at + field.len()].copy_from_slice(field);
        repair(&mut object, start);
        match Footer::parse(&object, size).unwrap_err() {
            SegmentError::WrongFooter { problem } => problem,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(lie(start, &[255; 4]), "it has too many slices");
    assert_eq!(lie(start + 4, &[255; 4]), "it has too many batches");
    assert_eq!(lie(start, &[0, 0, 0, 1]), "its length does not fit its counts");
    assert_eq!(lie(first_slice, &[255; 16]), "its slices are not sorted");
    assert_eq!(lie(first_slice + 20, &[0; 8]), "a slice does not begin where the one before it ends");
    assert_eq!(lie(first_slice + 28, &[255; 8]), "a slice is not as long as its batches");
    assert_eq!(lie(first_slice + 36, &[255; 4]), "a slice has no batches, or more than there are");
    assert_eq!(lie(first_batch, &[0; 4]), "a batch is empty");
    assert_eq!(lie(first_batch + 4, &[0; 4]), "a batch is empty");
    assert_eq!(lie(first_batch + 16, &[2]), "a batch has unknown flags");

    let mut longer = good.clone();
    longer[trailer..trailer + 4].copy_from_slice(&[255; 4]);
    let wrong = SegmentError::WrongFooter { problem: "it is longer than the object" };
    assert_eq!(Footer::parse(&longer, size), Err(wrong));
    let filled = SegmentError::WrongFooter { problem: "its slices do not fill the object" };
    assert_eq!(Footer::parse(&good, size + 1), Err(filled));
    let mut later = good.clone();
    *later.last_mut().unwrap() = 2;
    assert_eq!(Footer::parse(&later, size), Err(SegmentError::UnknownVersion { version: 2 }));
}
