//! The tail of a segment object: as it comes, and as a footer whose checksum and object size are right.
#![no_main]

use carnax_core::offset::{ByteRange, Offset};
use carnax_core::segment::{Footer, HEADER_BYTES, TRAILER_BYTES};
use carnax_core::time::Timestamp;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    for size in [data.len() as u64, data.len() as u64 + 1, u64::MAX] {
        if let Ok(footer) = Footer::parse(data, size) {
            look_around(&footer, size);
        }
    }
    // Past the checksum: the input is the footer itself, in an object that is as large as its batches say.
    let body = slice_bytes(data);
    let mut tail = data.to_vec();
    tail.extend_from_slice(&u32::try_from(data.len()).expect("inputs are small").to_be_bytes());
    let crc = crc32c::crc32c(&tail);
    tail.extend_from_slice(&crc.to_be_bytes());
    tail.extend_from_slice(b"CARNAX\x00\x01");
    let size = HEADER_BYTES as u64 + body + tail.len() as u64;
    if let Ok(footer) = Footer::parse(&tail, size) {
        look_around(&footer, size);
    }
});

/// The sum of the lengths of all batches, if the counts fit the input.
fn slice_bytes(footer: &[u8]) -> u64 {
    let slices = footer.get(..4).map_or(0, |count| u32::from_be_bytes(count.try_into().expect("four bytes")));
    let batches = usize::try_from(slices).ok().and_then(|slices| footer.get(8 + slices.checked_mul(44)?..));
    let lengths = batches.unwrap_or_default().chunks_exact(17);
    lengths.map(|batch| u64::from(u32::from_be_bytes(batch[..4].try_into().expect("four bytes")))).sum()
}

fn look_around(footer: &Footer, size: u64) {
    for slice in footer.slices() {
        let end = slice.bytes.end().expect("bounded");
        assert!(slice.bytes.start >= HEADER_BYTES as u64 && end <= size - TRAILER_BYTES as u64);
        for base in [Offset::ZERO, Offset::MAX, Offset(u64::MAX)] {
            let view = footer.view(slice.on, slice.bytes, base).expect("a slice is a view");
            assert_eq!(view.batches().len(), footer.batches_of(slice).len());
            for batch in view.batches() {
                assert!(batch.bytes.end().expect("bounded") <= end);
                if base == Offset::ZERO {
                    assert_eq!(view.at_offset(batch.base_offset), Some(batch));
                    let part = ByteRange { start: batch.bytes.start, length: end - batch.bytes.start };
                    let part =
                        footer.view(slice.on, part, batch.base_offset).expect("it begins with a batch");
                    assert_eq!(part.end_offset(), view.end_offset());
                }
            }
            let _ = (view.at_offset(Offset(u64::MAX)), view.at_timestamp(Timestamp::EPOCH));
        }
    }
}
