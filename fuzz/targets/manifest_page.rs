//! A manifest page: as it comes, and with a checksum that is right.
#![no_main]

use carnax_core::manifest_page::ManifestPage;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    look_at(data);
    let mut whole = data.to_vec();
    if let Some((content, checksum)) = whole.split_last_chunk_mut::<4>() {
        *checksum = crc32c::crc32c(content).to_be_bytes();
    }
    look_at(&whole);
});

fn look_at(bytes: &[u8]) {
    let Ok(page) = ManifestPage::decode(bytes) else { return };
    assert_eq!(page.encode(), bytes, "a page has one spelling");
    assert_eq!(ManifestPage::object_bytes(page.slices().len()), bytes.len() as u64);
    for pair in page.slices().windows(2) {
        assert_eq!(pair[0].end_offset, pair[1].base_offset);
    }
    for slice in page.slices() {
        assert!(slice.base_offset < slice.end_offset);
        assert!(slice.bytes.end().is_some_and(|end| end <= slice.segment_size));
    }
}
