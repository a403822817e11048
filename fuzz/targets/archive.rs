//! An object of the archive: as it comes, and with a header and entries whose checksums are right.
#![no_main]

use bytes::Bytes;
use carnax_core::id::{ClusterId, Incarnation};
use carnax_metadata_state::archive;
use libfuzzer_sys::fuzz_target;

const HEADER_BYTES: usize = 56;
const INCARNATION: Incarnation = Incarnation(1);

fuzz_target!(|data: &[u8]| {
    look_at(&Bytes::copy_from_slice(data));
    look_at(&repaired(data).into());
});

fn cluster() -> ClusterId {
    ClusterId::from_bytes([7; 16])
}

fn look_at(object: &Bytes) {
    let Ok(entries) = archive::decode(cluster(), INCARNATION, object) else { return };
    assert_eq!(archive::encode(cluster(), INCARNATION, &entries), object, "an object has one spelling");
}

/// The same with whose it is, and with all checksums; the last index stays as it is.
fn repaired(data: &[u8]) -> Vec<u8> {
    let mut object = data.to_vec();
    if object.len() < HEADER_BYTES {
        return object;
    }
    let (header, mut entries) = object.split_at_mut(HEADER_BYTES);
    header[..12].copy_from_slice(b"CARNAXAR\x00\x00\x00\x01");
    header[12..28].copy_from_slice(&cluster().to_bytes());
    header[28..36].copy_from_slice(&INCARNATION.0.to_be_bytes());
    let checksum = crc32c::crc32c(&header[..52]);
    header[52..].copy_from_slice(&checksum.to_be_bytes());
    let mut index = u64::from_be_bytes(header[36..44].try_into().expect("eight bytes"));
    while entries.len() >= 16 {
        let length = u32::from_be_bytes(entries[8..12].try_into().expect("four bytes")) as usize;
        let (head, rest) = entries.split_at_mut(16);
        let Some((bytes, rest)) = rest.split_at_mut_checked(length) else { break };
        let mut checksum = crc32c::crc32c(&index.to_be_bytes());
        for part in [&head[..8], bytes] {
            checksum = crc32c::crc32c_append(checksum, part);
        }
        head[12..].copy_from_slice(&checksum.to_be_bytes());
        (entries, index) = (rest, index.wrapping_add(1));
    }
    object
}
