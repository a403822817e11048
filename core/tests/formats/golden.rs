//! Batches and segments that were written once are read for ever.

use bytes::{Bytes, BytesMut};
use carnax_core::id::{PartitionIndex, TopicId, TopicPartition};
use carnax_core::offset::Offset;
use carnax_core::record::{Batch, Compression, set_leader_epoch};
use carnax_core::segment::{Footer, PartitionBatches, SegmentWriter};
use carnax_core::time::Timestamp;

use crate::{decode, encode, golden, sample_records};

fn read_one(mut bytes: Bytes) -> Batch {
    let batch = Batch::parse_next(&mut bytes).unwrap().unwrap();
    assert!(bytes.is_empty());
    assert_eq!(batch.verify_records(), Ok(()));
    batch
}

#[test]
fn batches_of_every_codec_are_read_and_uncompressed_ones_are_written_byte_for_byte() {
    for compression in Compression::ALL {
        let today = encode(&sample_records(), compression);
        let batch = read_one(golden(&format!("record-batch-v2/{compression}.bin"), today.bytes()));
        assert_eq!(batch.compression(), Ok(compression));
        assert_eq!(decode(&batch), sample_records(), "{compression}");
        if compression == Compression::None {
            assert_eq!(batch.bytes(), today.bytes());
        }
    }
}

/// The files `kafka-python-*` were written by the Python client of that name, version 3.0.12.
#[test]
fn batches_of_another_kafka_client_are_read_and_equal_ours_where_nothing_is_compressed() {
    for compression in Compression::ALL {
        let batch = read_one(golden(&format!("record-batch-v2/kafka-python-{compression}.bin"), &[]));
        assert_eq!(batch.compression(), Ok(compression));
        assert_eq!(decode(&batch), sample_records(), "{compression}");
        if compression == Compression::None {
            let mut ours = BytesMut::from(encode(&sample_records(), compression).bytes().as_ref());
            set_leader_epoch(&mut ours, 0);
            assert_eq!(batch.bytes(), &ours);
        }
    }
}

/// One record, set byte by byte from the tables of Kafka's protocol guide; the checksum was computed bit by bit.
#[test]
fn a_batch_written_by_hand_is_read_and_written() {
    let mut by_hand: Vec<u8> = Vec::new();
    for field in [
        b"\x00\x00\x00\x00\x00\x00\x00\x00".as_slice(), // base offset 0
        b"\x00\x00\x00\x3d",                            // batch length 61
        b"\xff\xff\xff\xff",                            // partition leader epoch -1
        b"\x02",                                        // magic
        b"\xec\xc4\x6c\x11",                            // CRC32C
        b"\x00\x00",                                    // attributes: no compression, create time
        b"\x00\x00\x00\x00",                            // last offset delta 0
        b"\x00\x00\x01\x8b\xcf\xe5\x68\x00",            // base timestamp 1,700,000,000,000
        b"\x00\x00\x01\x8b\xcf\xe5\x68\x00",            // max timestamp, the same
        b"\xff\xff\xff\xff\xff\xff\xff\xff",            // producer id -1
        b"\xff\xff",                                    // producer epoch -1
        b"\xff\xff\xff\xff",                            // base sequence -1
        b"\x00\x00\x00\x01",                            // one record
        b"\x16",                                        // of 11 bytes
        b"\x00",                                        // attributes
        b"\x00",                                        // timestamp delta 0
        b"\x00",                                        // offset delta 0
        b"\x02k",                                       // key of 1 byte
        b"\x02v",                                       // value of 1 byte
        b"\x02",                                        // one header
        b"\x02h",                                       // its key of 1 byte
        b"\x01",                                        // its value, null
    ] {
        by_hand.extend_from_slice(field);
    }
    let batch = read_one(by_hand.into());
    let records = decode(&batch);
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].timestamp, 1_700_000_000_000);
    assert_eq!((records[0].key.as_deref(), records[0].value.as_deref()), (Some(&b"k"[..]), Some(&b"v"[..])));
    assert_eq!(records[0].headers, [(b"h".to_vec(), None)]);
    assert_eq!(encode(&records, Compression::None).bytes(), batch.bytes());
}

#[test]
fn a_segment_of_version_1_is_read_and_written_byte_for_byte() {
    let on = |topic, partition| {
        let topic = TopicId::from_parts(Timestamp::from_millis(1_700_000_000_000), topic);
        TopicPartition { topic, partition: PartitionIndex(partition) }
    };
    let batch = || encode(&sample_records(), Compression::None);
    let mut writer = SegmentWriter::new();
    let json = PartitionBatches { on: on(2, 0), batches: vec![batch()], encoded_by_frontend: true };
    let raw = PartitionBatches { on: on(1, 7), batches: vec![batch(), batch()], encoded_by_frontend: false };
    writer.push_unit(vec![json, raw.clone()]).unwrap();
    writer.push_unit(vec![raw]).unwrap();
    let sealed = writer.seal();
    let object = golden("segment-v1.bin", &sealed.chunks.concat());
    assert_eq!(object, sealed.chunks.concat());

    let footer = Footer::verify_object(&object).unwrap();
    assert_eq!(footer.slices().iter().map(|slice| slice.on).collect::<Vec<_>>(), [on(1, 7), on(2, 0)]);
    let second_unit = footer.view(on(1, 7), sealed.units[1][0].bytes, Offset(6)).unwrap();
    assert_eq!(second_unit.end_offset(), Offset(12));
    let found = second_unit.at_offset(Offset(10)).unwrap();
    let range =
        usize::try_from(found.bytes.start).unwrap()..usize::try_from(found.bytes.end().unwrap()).unwrap();
    assert_eq!(decode(&read_one(object.slice(range))), sample_records());
    assert!(footer.batches_of(&footer.slices()[1])[0].encoded_by_frontend);
}
