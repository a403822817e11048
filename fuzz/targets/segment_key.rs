//! Keys of segment objects, as a listing of the bucket returns them.
#![no_main]

use carnax_core::object_key::SegmentKey;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(key) = text.parse::<SegmentKey>() {
        assert_eq!(key.to_string(), text, "a key has one spelling");
    }
});
