//! The records of one batch whose length and checksum are right, in every codec: what a hostile producer can send.
#![no_main]

use bytes::Bytes;
use carnax_core::record::{Batch, BatchBuilder, Compression, NewRecord, Record};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if data.len() < 61 {
        return;
    }
    let mut bytes = data.to_vec();
    bytes[8..12].copy_from_slice(&u32::try_from(data.len() - 12).expect("inputs are small").to_be_bytes());
    bytes[16] = 2;
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    let batch =
        Batch::parse_next(&mut Bytes::from(bytes)).expect("length and magic are right").expect("not empty");
    let verified = batch.verify_records();
    let Ok(records) = batch.records() else {
        assert!(verified.is_err());
        return;
    };
    let walked: Vec<Result<Record, _>> = records.collect();
    if verified.is_ok() {
        let walked: Vec<Record> = walked.into_iter().map(|record| record.expect("verified")).collect();
        assert_eq!(walked.len(), batch.offset_count() as usize);
        rewrite(&walked);
    }
});

/// Records that were read can be written and read again.
fn rewrite(records: &[Record]) {
    let mut builder = BatchBuilder::new(usize::MAX);
    for record in records {
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        let new = NewRecord { timestamp: record.timestamp, key, value, headers: &record.headers };
        if builder.push(&new).is_err() {
            return;
        }
    }
    let batch = Batch::parse_next(&mut builder.build(Compression::None)).expect("ours").expect("not empty");
    assert_eq!(batch.verify_records(), Ok(()));
    let again: Vec<Record> = batch.records().expect("ours").map(|record| record.expect("ours")).collect();
    assert_eq!(again, records);
}
