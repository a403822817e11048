//! Bodies with the batches of several partitions.
#![no_main]

use bytes::{Bytes, BytesMut};
use carnax_core::http::{read_frames, write_frame};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(frames) = read_frames(Bytes::copy_from_slice(data)) {
        let mut body = BytesMut::new();
        frames.iter().for_each(|frame| write_frame(&mut body, frame));
        assert_eq!(body, data, "frames are written as they were read");
    }
});
