//! What the codec promises: everything comes back, and nothing that is not a batch gets through.

use bytes::{Bytes, BytesMut};

use super::*;
use crate::offset::Offset;
use crate::time::Timestamp;

fn header(key: &'static str, value: Option<&'static str>) -> Header {
    Header {
        key: Bytes::from_static(key.as_bytes()),
        value: value.map(|text| Bytes::from_static(text.as_bytes())),
    }
}

/// Three records: a keyed one with a header that repeats, a tombstone, and an earlier one with an empty value.
fn sample(compression: Compression) -> Batch {
    let headers = [header("h", Some("1")), header("h", None), header("h", Some("1"))];
    let text = "a value that repeats itself ".repeat(20);
    let mut builder = BatchBuilder::new(1 << 20);
    for (millis, key, value, headers) in [
        (1_700_000_000_000, Some("UA"), Some(text.as_str()), headers.as_slice()),
        (1_700_000_000_500, Some("UA"), None, &[]),
        (1_699_999_999_000, None, Some(""), &[]),
    ] {
        let (key, value) = (key.map(str::as_bytes), value.map(str::as_bytes));
        let timestamp = Timestamp::from_millis(millis);
        builder.push(&NewRecord { timestamp, key, value, headers }).unwrap();
    }
    let mut bytes = builder.build(compression);
    Batch::parse_next(&mut bytes).unwrap().unwrap()
}

#[test]
fn records_come_back_from_every_codec_in_order_with_repeated_header_keys() {
    for compression in Compression::ALL {
        let batch = sample(compression);
        assert_eq!(batch.compression(), Ok(compression));
        assert_eq!(batch.verify_records(), Ok(()), "{compression}");
        assert_eq!(batch.offset_count(), 3);
        assert_eq!(batch.max_timestamp(), Timestamp::from_millis(1_700_000_000_500));
        let records: Vec<Record> = batch.records().unwrap().map(Result::unwrap).collect();
        assert_eq!(records.iter().map(|record| record.offset_delta).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(records[0].headers, [header("h", Some("1")), header("h", None), header("h", Some("1"))]);
        assert_eq!(records[1].value, None);
        assert_eq!((&records[2].key, &records[2].value), (&None, &Some(Bytes::new())));
        assert_eq!(records[2].timestamp, Timestamp::from_millis(1_699_999_999_000));
    }
}

#[test]
fn serving_sets_offset_and_epoch_under_the_same_checksum_and_append_time_under_a_new_one() {
    let batch = sample(Compression::Zstd);
    let mut bytes = BytesMut::from(batch.bytes().as_ref());
    set_base_offset(&mut bytes, Offset(41));
    set_leader_epoch(&mut bytes, 7);
    let served = Batch::parse_next(&mut bytes.clone().freeze()).unwrap().unwrap();
    assert_eq!((served.header().base_offset, served.header().partition_leader_epoch), (41, 7));
    assert_eq!(served.header().crc, batch.header().crc);
    assert_eq!(served.verify(), Ok(()));

    stamp_append_time(&mut bytes, Timestamp::from_millis(1_800_000_000_000));
    let stamped = Batch::parse_next(&mut bytes.freeze()).unwrap().unwrap();
    assert_eq!(stamped.verify_checksum(), Ok(()));
    assert!(stamped.header().attributes.is_log_append_time());
    let times = stamped.records().unwrap().map(|record| record.unwrap().timestamp.millis());
    assert_eq!(times.collect::<Vec<_>>(), [1_800_000_000_000; 3]);
    let kind = "stamped with a log append time";
    assert_eq!(stamped.verify(), Err(BatchError::NotAccepted { kind }), "producers do not stamp");
    assert_eq!(stamped.verify_stored(), Ok(()), "merges do");
}

#[test]
fn a_full_builder_refuses_and_says_whether_the_record_fits_elsewhere() {
    let mut builder = BatchBuilder::new(200);
    let value = [7u8; 60];
    let record = NewRecord { timestamp: Timestamp::EPOCH, key: None, value: Some(&value), headers: &[] };
    assert_eq!(builder.push(&record), Ok(()));
    assert_eq!(builder.push(&record), Ok(()));
    assert_eq!(builder.push(&record), Err(RecordRefused::Full));
    let long = [7u8; 200];
    let record = NewRecord { value: Some(&long), ..record };
    assert_eq!(builder.push(&record), Err(RecordRefused::TooLong { bytes: 270, bytes_max: 200 }));
    let expected = builder.batch_bytes();
    let bytes = builder.build(Compression::None);
    assert_eq!(bytes.len(), expected);
    assert!(bytes.len() <= 200);
    assert_eq!(Batch::parse_all(bytes).unwrap()[0].verify_records(), Ok(()));
}

#[test]
fn a_gap_takes_offsets_and_has_no_records() {
    for offsets in [1, 10_000, 1 << 31] {
        let gap = gap_batch(offsets);
        gap.verify_checksum().unwrap();
        assert_eq!((gap.offset_count(), gap.bytes().len()), (offsets, BATCH_HEADER_BYTES));
        assert_eq!(gap.records().unwrap().count(), 0);
        assert_eq!(gap.verify_stored(), Ok(()));
        assert!(gap.verify().is_err(), "nobody may send one");
    }
}

#[test]
fn a_batch_with_holes_keeps_the_offsets_of_its_records_and_spans_all() {
    for compression in [Compression::None, Compression::Zstd] {
        let mut builder = BatchBuilder::new(1 << 20);
        let record = NewRecord { timestamp: Timestamp::EPOCH, key: Some(b"k"), value: None, headers: &[] };
        for delta in [3, 4, 1_000_000, 1_999_999] {
            builder.push_at(delta, &record).unwrap();
        }
        let mut bytes = builder.build_spanning(compression, 3_000_000);
        let batch = Batch::parse_next(&mut bytes).unwrap().unwrap();
        batch.verify_checksum().unwrap();
        assert_eq!((batch.offset_count(), batch.header().record_count), (3_000_000, 4));
        assert_eq!(batch.verify_stored(), Ok(()));
        let deltas = batch.records().unwrap().map(|record| record.unwrap().offset_delta);
        assert_eq!(deltas.collect::<Vec<_>>(), [3, 4, 1_000_000, 1_999_999]);
        assert!(batch.verify().is_err(), "nobody may send one");
    }
}
