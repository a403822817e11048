//! Record batches under any input: whatever was put in comes back, and whatever was changed is found or harmless.

use bytes::Bytes;
use carnax_core::limits;
use carnax_core::record::{Batch, BatchError, Compression};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::{OwnedRecord, decode, encode, sample_records};

fn records() -> impl Strategy<Value = Vec<OwnedRecord>> {
    let bytes = || option::of(vec(any::<u8>(), 0..40));
    let headers = vec((vec(any::<u8>(), 0..5), bytes()), 0..4);
    let timestamp = prop_oneof![any::<i64>(), 1_700_000_000_000..1_700_000_100_000i64];
    let record = (timestamp, bytes(), bytes(), headers);
    let record =
        record.prop_map(|(timestamp, key, value, headers)| OwnedRecord { timestamp, key, value, headers });
    vec(record, 1..20)
}

fn parse(bytes: Vec<u8>) -> Result<Batch, BatchError> {
    Batch::parse_next(&mut Bytes::from(bytes)).map(|batch| batch.expect("there are bytes"))
}

/// Puts other records behind a header, with a length and a checksum that are right.
fn with_records(batch: &Batch, records: &[u8]) -> Vec<u8> {
    let bytes = [&batch.bytes()[..61], records].concat();
    repaired(bytes)
}

fn repaired(mut bytes: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(bytes.len() - 12).unwrap();
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes
}

fn put(bytes: &[u8], at: usize, field: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + field.len()].copy_from_slice(field);
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(100) })]

    #[test]
    fn any_records_come_back_from_any_codec(records in records()) {
        for compression in Compression::ALL {
            let batch = encode(&records, compression);
            prop_assert_eq!(batch.verify_records(), Ok(()));
            prop_assert_eq!(decode(&batch), records.clone());
        }
    }

    #[test]
    fn concatenated_batches_are_walked_one_by_one(first in records(), second in records()) {
        let batches = [encode(&first, Compression::None), encode(&second, Compression::Zstd)];
        let together = [batches[0].bytes().as_ref(), batches[1].bytes().as_ref()].concat();
        prop_assert_eq!(Batch::parse_all(together.into()), Ok(batches.to_vec()));
    }

    #[test]
    fn hostile_records_under_a_right_checksum_end_in_an_error_or_the_promised_number(
        records in records(),
        codec in 0..5usize,
        at in any::<prop::sample::Index>(),
        noise in vec(any::<u8>(), 1..8),
    ) {
        let batch = encode(&records, Compression::ALL[codec]);
        let mut inside = batch.bytes()[61..].to_vec();
        let at = at.index(inside.len());
        inside.splice(at..(at + noise.len()).min(inside.len()), noise);
        let hostile = parse(with_records(&batch, &inside)).unwrap();
        prop_assert_eq!(hostile.verify(), Ok(()));
        if let Ok(walk) = hostile.records() {
            let walked: Vec<_> = walk.collect();
            let failed = walked.iter().filter(|record| record.is_err()).count();
            prop_assert!(failed <= 1);
            prop_assert!(failed == 1 || walked.len() == records.len());
        }
    }
}

#[test]
fn a_batch_cut_anywhere_is_truncated_and_its_records_cut_anywhere_are_wrong() {
    for compression in Compression::ALL {
        let batch = encode(&sample_records(), compression);
        for end in 1..batch.bytes().len() {
            let cut = parse(batch.bytes()[..end].to_vec());
            assert!(matches!(cut, Err(BatchError::Truncated { available, .. }) if available == end), "{end}");
        }
        let records = &batch.bytes()[61..];
        for end in 0..records.len() {
            let cut = parse(with_records(&batch, &records[..end])).unwrap();
            match cut.verify_records() {
                Err(
                    BatchError::Record { .. }
                    | BatchError::Decompress { .. }
                    | BatchError::RecordCount { .. },
                ) => {}
                // An lz4 frame without its end mark, which holds nothing.
                Ok(()) if compression == Compression::Lz4 => assert_eq!(decode(&cut), sample_records()),
                other => panic!("{compression} cut at {end}: {other:?}"),
            }
        }
    }
}

#[test]
fn every_flipped_bit_is_found_except_in_the_two_fields_that_are_set_when_serving() {
    for compression in Compression::ALL {
        let batch = encode(&sample_records(), compression);
        for bit in 0..batch.bytes().len() * 8 {
            let mut flipped = batch.bytes().to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let found = parse(flipped).and_then(|flipped| flipped.verify().map(|()| decode(&flipped)));
            if (0..8).contains(&(bit / 8)) || (12..16).contains(&(bit / 8)) {
                assert_eq!(found.unwrap(), sample_records(), "{compression}, bit {bit}");
            } else {
                assert!(found.is_err(), "{compression}, bit {bit}");
            }
        }
    }
}

#[test]
fn headers_that_lie_are_refused_each_for_its_reason() {
    let good = encode(&sample_records(), Compression::None);
    let good = good.bytes();
    let minus_one = (-1i32).to_be_bytes();
    let too_many = (limits::BATCH_RECORDS_MAX + 1).to_be_bytes();
    let verify = |bytes: Vec<u8>| parse(repaired(bytes)).unwrap().verify().unwrap_err();

    assert_eq!(parse(put(good, 16, &[1])), Err(BatchError::Magic { magic: 1 }));
    assert_eq!(parse(put(good, 8, &48u32.to_be_bytes())), Err(BatchError::TooShort { length: 48 }));
    assert_eq!(parse(put(good, 8, &minus_one)), Err(BatchError::TooShort { length: -1 }));
    let claim = i32::MAX.to_be_bytes();
    assert_eq!(parse(put(good, 8, &claim)), Err(BatchError::TooLong { bytes: (1 << 31) + 11 }));
    assert!(matches!(parse(put(good, 57, &minus_one)).unwrap().verify(), Err(BatchError::Checksum { .. })));
    assert_eq!(verify(put(good, 21, &[0, 5])), BatchError::UnknownCodec { codec: 5 });
    for (attributes, kind) in [
        ([0, 0x20], "a control batch"),
        ([0, 0x10], "part of a transaction"),
        ([0, 0x08], "stamped with a log append time"),
        ([0, 0x40], "marked with attributes of a later format"),
        ([0x80, 0], "marked with attributes of a later format"),
    ] {
        assert_eq!(verify(put(good, 21, &attributes)), BatchError::NotAccepted { kind });
    }
    for (records, last_offset_delta) in [(0, -1), (-1, 2), (2, 2), (4, 2), (i32::MIN, i32::MAX)] {
        let lie = put(&put(good, 57, &i32::to_be_bytes(records)), 23, &i32::to_be_bytes(last_offset_delta));
        assert_eq!(verify(lie), BatchError::RecordCount { records, last_offset_delta });
    }
    let lie = put(&put(good, 57, &too_many), 23, &limits::BATCH_RECORDS_MAX.to_be_bytes());
    assert_eq!(verify(lie.clone()), BatchError::TooManyRecords { records: 1_000_001 });
    assert!(parse(lie).unwrap().records().is_err(), "and nothing is made of what was not verified");
    let lie = put(&put(good, 57, &1000u32.to_be_bytes()), 23, &999u32.to_be_bytes());
    assert_eq!(verify(lie), BatchError::RecordCount { records: 1000, last_offset_delta: 999 });
    let lie = parse(repaired(put(good, 35, &0u64.to_be_bytes()))).unwrap();
    assert_eq!(lie.verify(), Ok(()));
    let mismatch = BatchError::MaxTimestamp { stored: 0, actual: 1_700_000_000_500 };
    assert_eq!(lie.verify_records(), Err(mismatch));
}

#[test]
fn lengths_inside_records_that_claim_more_than_there_is_are_refused() {
    let record = OwnedRecord { timestamp: 0, key: None, value: None, headers: vec![] };
    let batch = encode(std::slice::from_ref(&record), Compression::None);
    let huge = [0xfe, 0xff, 0xff, 0xff, 0x0f]; // 2³¹ − 1
    let inside = |body: &[u8]| {
        let length = u8::try_from(body.len() * 2).unwrap();
        let bytes = [&[length], body].concat();
        parse(with_records(&batch, &bytes)).unwrap().verify_records()
    };
    let problem = |result| match result {
        Err(BatchError::Record { index: 0, problem }) => problem,
        other => panic!("{other:?}"),
    };
    assert_eq!(inside(&[0, 0, 0, 1, 1, 0]), Ok(()));
    assert_eq!(problem(inside(&[&[0, 0, 0], &huge[..], &[1, 0]].concat())), "ends in its key");
    assert_eq!(problem(inside(&[&[0, 0, 0, 1], &huge[..], &[0]].concat())), "ends in its value");
    assert_eq!(problem(inside(&[0, 0, 0, 3, 1, 0])), "ends in its key");
    assert_eq!(problem(inside(&[&[0, 0, 0, 1, 1], &huge[..]].concat())), "has too many headers");
    assert_eq!(problem(inside(&[0, 0, 0, 1, 1, 1])), "has a negative number of headers");
    assert_eq!(problem(inside(&[0, 0, 0, 1, 1, 4, 0, 1])), "ends in its headers");
    assert_eq!(problem(inside(&[0, 0, 0, 1, 1, 2, 1, 1])), "has a header without a key");
    assert_eq!(problem(inside(&[0, 0, 0, 1, 1, 0, 9])), "is shorter than its length");
    assert_eq!(problem(inside(&[0, 0, 2, 1, 1, 0])), "has an offset out of order");
    assert_eq!(problem(inside(&[0, 0, 1, 1, 1, 0])), "has a negative offset");
    let claim = with_records(&batch, &[&huge[..], &[0, 0, 0, 1, 1, 0]].concat());
    assert_eq!(problem(parse(claim).unwrap().verify_records()), "is longer than what is left of the batch");
    let twice = with_records(&batch, &[&[12, 0, 0, 0, 1, 1, 0][..]; 2].concat());
    let uncounted = BatchError::Record { index: 1, problem: "is not counted by the header" };
    assert_eq!(parse(twice).unwrap().verify_records(), Err(uncounted));
}

/// A mebibyte of zeros in each codec, so often that the whole is just too long once decompressed.
#[test]
fn a_few_kilobytes_that_decompress_to_more_than_the_limit_are_refused() {
    let batch = encode(&sample_records(), Compression::None);
    let zeros = vec![0u8; 1 << 20];
    let times = limits::BATCH_DECOMPRESSED_BYTES_MAX / zeros.len() + 1;
    for (codec, bomb) in [
        (1u8, gzip(&zeros).repeat(times)),
        (2, [b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec(), snappy_block(&zeros).repeat(times)].concat()),
        (3, lz4(&zeros, times)),
        (4, zstd::bulk::compress(&zeros, 3).unwrap().repeat(times)),
    ] {
        assert!(bomb.len() < 4 << 20);
        let bytes = put(&with_records(&batch, &bomb), 21, &[0, codec]);
        let bomb = parse(repaired(bytes)).unwrap();
        assert_eq!(bomb.verify(), Ok(()));
        assert_eq!(bomb.records().map(|_| ()), Err(BatchError::DecompressedTooLong), "codec {codec}");
    }
    // A raw snappy block that claims 4 GiB − 1 in five bytes.
    let claim = put(&with_records(&batch, b"\xff\xff\xff\xff\x0f"), 21, &[0, 2]);
    let claim = parse(repaired(claim)).unwrap().records().map(|_| ());
    assert!(matches!(claim, Err(BatchError::Decompress { codec: Compression::Snappy, .. })), "{claim:?}");
}

fn gzip(input: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(input).unwrap();
    encoder.finish().unwrap()
}

fn snappy_block(input: &[u8]) -> Vec<u8> {
    let block = snap::raw::Encoder::new().compress_vec(input).unwrap();
    [&u32::try_from(block.len()).unwrap().to_be_bytes()[..], &block].concat()
}

fn lz4(input: &[u8], times: usize) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
    for _ in 0..times {
        encoder.write_all(input).unwrap();
    }
    encoder.finish().unwrap()
}
