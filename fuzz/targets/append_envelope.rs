//! An HTTP body as an atomic append.

#![no_main]

use bytes::Bytes;
use carnax_core::http::{read_envelope, write_envelope};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok((head, batches)) = read_envelope(Bytes::copy_from_slice(data)) else { return };
    let written = write_envelope(head.clone(), &batches).expect("what was read fits");
    assert_eq!(read_envelope(written), Ok((head, batches)));
});
