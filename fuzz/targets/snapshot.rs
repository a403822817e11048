//! A snapshot of the metadata core: as it comes, and with frames whose checksums are right and an end that counts them.
#![no_main]

use carnax_metadata_state::{invariant, restore, snapshot};
use libfuzzer_sys::fuzz_target;
use serde::Serialize;

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Frame {
    End { frames: u64, checksum: u32 },
}

fuzz_target!(|data: &[u8]| {
    look_at(data);
    look_at(&repaired(data));
});

fn look_at(bytes: &[u8]) {
    let limits = snapshot::Limits { bytes_max: 1 << 20 };
    let Ok(state) = snapshot::read(&mut &*bytes, limits) else { return };
    let mut written = Vec::new();
    snapshot::write(&state, &mut written).expect("memory takes everything");
    let read = snapshot::read(&mut written.as_slice(), snapshot::Limits { bytes_max: u64::MAX });
    let mut again = Vec::new();
    snapshot::write(&read.expect("what was read can be written"), &mut again)
        .expect("memory takes everything");
    assert_eq!(again, written);
    // What a restore looks at before it believes anything.
    let _ = (invariant::check(&state), restore::live_objects(&state), restore::known_pages(&state));
}

fn repaired(data: &[u8]) -> Vec<u8> {
    let mut whole = b"CARNAXST\x00\x00\x00\x01".to_vec();
    let (mut frames, mut checksum) = (0, 0);
    let mut rest = data.get(whole.len()..).unwrap_or_default();
    while let Some((header, behind)) = rest.split_first_chunk::<8>() {
        let length = u32::from_be_bytes(header[..4].try_into().expect("four bytes")) as usize;
        let (content, behind) = behind.split_at(length.min(behind.len()));
        rest = behind;
        // The end is ours.
        if content.starts_with(b"\x81\xa3end") {
            continue;
        }
        put(&mut whole, content);
        (frames, checksum) = (frames + 1, crc32c::crc32c_append(checksum, content));
    }
    let end = rmp_serde::to_vec_named(&Frame::End { frames, checksum }).expect("plain data");
    put(&mut whole, &end);
    whole
}

fn put(whole: &mut Vec<u8>, content: &[u8]) {
    let length = u32::try_from(content.len()).expect("inputs are small");
    whole.extend_from_slice(&length.to_be_bytes());
    whole.extend_from_slice(&crc32c::crc32c(content).to_be_bytes());
    whole.extend_from_slice(content);
}
