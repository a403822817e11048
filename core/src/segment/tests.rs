//! What the segment promises: what was pushed is found again, and nothing that is not a segment gets through.

use bytes::{Bytes, BytesMut};

use super::*;
use crate::id::{PartitionIndex, TopicId, TopicPartition};
use crate::offset::{ByteRange, Offset};
use crate::record::{Batch, BatchBuilder, Compression, NewRecord};
use crate::time::Timestamp;

fn on(topic: u128, partition: u32) -> TopicPartition {
    let topic = TopicId::from_parts(Timestamp::from_millis(1_700_000_000_000), topic);
    TopicPartition { topic, partition: PartitionIndex(partition) }
}

/// A batch of so many records, the last of which has the timestamp.
fn batch(records: u32, millis: i64) -> Batch {
    let mut builder = BatchBuilder::new(1 << 20);
    for before in (0..records).rev() {
        let timestamp = Timestamp::from_millis(millis - i64::from(before));
        builder.push(&NewRecord { timestamp, key: None, value: Some(b"v"), headers: &[] }).unwrap();
    }
    Batch::parse_next(&mut builder.build(Compression::None)).unwrap().unwrap()
}

fn part(on: TopicPartition, batches: Vec<Batch>) -> PartitionBatches {
    PartitionBatches { on, batches, encoded_by_frontend: false }
}

fn object(sealed: &SealedSegment) -> Bytes {
    let mut object = BytesMut::new();
    sealed.chunks.iter().for_each(|chunk| object.extend_from_slice(chunk));
    object.freeze()
}

#[test]
fn units_that_share_partitions_lie_behind_each_other_and_every_batch_is_found_by_offset_and_time() {
    let (a, b) = (on(1, 0), on(2, 5));
    let mut writer = SegmentWriter::new();
    writer.push_unit(vec![part(b, vec![batch(2, 100)]), part(a, vec![batch(1, 50), batch(3, 40)])]).unwrap();
    writer.push_unit(vec![part(a, vec![batch(5, 90)]), part(on(3, 3), vec![])]).unwrap();
    let announced = writer.size();
    let sealed = writer.seal();
    let object = object(&sealed);
    assert_eq!((sealed.size, object.len() as u64), (announced, announced));
    assert_eq!(sealed.crc32c, crc32c::crc32c(&object));

    let footer = Footer::verify_object(&object).unwrap();
    assert_eq!(Footer::parse(sealed.chunks.last().unwrap(), sealed.size).unwrap(), footer);
    assert_eq!(footer.slices().iter().map(|slice| slice.on).collect::<Vec<_>>(), [a, b]);
    assert_eq!(
        sealed.units[0].iter().map(|slice| (slice.topic, slice.records)).collect::<Vec<_>>(),
        [(a.topic, 4), (b.topic, 2)]
    );
    assert_eq!(sealed.units[1].len(), 1);
    assert_eq!(Some(sealed.units[1][0].bytes.start), sealed.units[0][0].bytes.end());

    let whole = footer.view(a, footer.slice(a).unwrap().bytes, Offset(10)).unwrap();
    assert_eq!(whole.batches().map(|batch| batch.base_offset.0).collect::<Vec<_>>(), [10, 11, 14]);
    assert_eq!(whole.end_offset(), Offset(19));
    for (offset, base) in
        [(9, None), (10, Some(10)), (11, Some(11)), (13, Some(11)), (18, Some(14)), (19, None)]
    {
        assert_eq!(whole.at_offset(Offset(offset)).map(|batch| batch.base_offset.0), base, "{offset}");
    }
    for (millis, base) in [(0, Some(10)), (50, Some(10)), (51, Some(14)), (90, Some(14)), (91, None)] {
        let found = whole.at_timestamp(Timestamp::from_millis(millis));
        assert_eq!(found.map(|batch| batch.base_offset.0), base, "{millis}");
    }
    // The first unit was refused: the manifest has only the second.
    let second = footer.view(a, sealed.units[1][0].bytes, Offset(10)).unwrap();
    let found = second.at_offset(Offset(12)).unwrap();
    assert_eq!(
        (found.base_offset, found.bytes, found.offset_count),
        (Offset(10), sealed.units[1][0].bytes, 5)
    );
}

#[test]
fn a_view_begins_and_ends_with_a_batch_of_its_partition() {
    let a = on(1, 0);
    let mut writer = SegmentWriter::new();
    writer
        .push_unit(vec![part(a, vec![batch(1, 1), batch(1, 2)]), part(on(1, 1), vec![batch(1, 1)])])
        .unwrap();
    let sealed = writer.seal();
    let footer = Footer::parse(&object(&sealed), sealed.size).unwrap();
    let ByteRange { start, length } = footer.slice(a).unwrap().bytes;
    for (start, length) in [
        (start, 0),
        (start, length - 1),
        (start, length + 1),
        (start + 1, length - 1),
        (start, u64::MAX),
        (0, length),
        (start, length + length / 2),
    ] {
        let bytes = ByteRange { start, length };
        let refused = footer.view(a, bytes, Offset::ZERO).unwrap_err();
        assert_eq!(refused, SegmentError::NoSuchRange { on: a, bytes });
    }
    assert!(footer.view(on(9, 9), ByteRange { start, length }, Offset::ZERO).is_err());
}

#[test]
fn a_tail_that_is_too_short_says_how_many_bytes_to_read() {
    let mut writer = SegmentWriter::new();
    writer.push_unit((0..100).map(|partition| part(on(1, partition), vec![batch(1, 1)])).collect()).unwrap();
    let sealed = writer.seal();
    let object = object(&sealed);
    let Err(SegmentError::TailTooShort { needed: 16 }) =
        Footer::parse(&object[object.len() - 15..], sealed.size)
    else {
        panic!("15 bytes hold no trailer");
    };
    let Err(SegmentError::TailTooShort { needed }) = Footer::parse(&object[object.len() - 16..], sealed.size)
    else {
        panic!("the trailer holds no footer");
    };
    let tail = object.slice(object.len() - usize::try_from(needed).unwrap()..);
    assert_eq!(Footer::parse(&tail, sealed.size).unwrap().slices().len(), 100);
    assert_eq!(Footer::parse(&tail[1..], sealed.size), Err(SegmentError::TailTooShort { needed }));
}
