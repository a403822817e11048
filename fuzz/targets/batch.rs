//! Concatenated record batches, as they come from outside: parsed, verified, stamped.
#![no_main]

use bytes::{Bytes, BytesMut};
use carnax_core::offset::Offset;
use carnax_core::record::{Batch, set_base_offset, set_leader_epoch, stamp_append_time};
use carnax_core::time::Timestamp;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Bytes::copy_from_slice(data);
    let mut walked = 0;
    while let Ok(Some(batch)) = Batch::parse_next(&mut input) {
        walked += batch.bytes().len();
        let verified = batch.verify();
        let mut bytes = BytesMut::from(batch.bytes().as_ref());
        set_base_offset(&mut bytes, Offset(41));
        set_leader_epoch(&mut bytes, 7);
        let mut served = bytes.clone().freeze();
        let served = Batch::parse_next(&mut served).expect("still a batch").expect("still there");
        assert_eq!(served.verify(), verified, "offset and epoch are outside the checksum");
        stamp_append_time(&mut bytes, Timestamp::from_millis(1));
        let mut stamped = bytes.freeze();
        let stamped = Batch::parse_next(&mut stamped).expect("still a batch").expect("still there");
        stamped.verify_checksum().expect("stamping computes it anew");
    }
    assert_eq!(walked + input.len(), data.len(), "what is refused stays in the input");
});
