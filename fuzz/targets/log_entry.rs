//! Entries of the log, as a restore takes them from the archive: each with a checksum that is right, applied one behind the other.
//!
//! The input is a row of entries, each behind its length as two bytes.
#![no_main]

use carnax_core::id::LogIndex;
use carnax_metadata_state::{Entry, State, snapshot};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = Entry::decode(data);
    let (mut state, mut rest) = (State::default(), data);
    for index in 1.. {
        let Some((length, behind)) = rest.split_first_chunk::<2>() else { break };
        let length = usize::from(u16::from_be_bytes(*length)).min(behind.len());
        let (content, behind) = behind.split_at(length);
        rest = behind;
        let mut bytes = vec![1];
        bytes.extend_from_slice(&crc32c::crc32c(content).to_be_bytes());
        bytes.extend_from_slice(content);
        let Ok(entry) = Entry::decode(&bytes) else { continue };
        assert_eq!(Entry::decode(&entry.encode()).expect("what was read can be written"), entry);
        state.apply(LogIndex(index), &entry);
    }
    let mut bytes = Vec::new();
    snapshot::write(&state, &mut bytes).expect("memory takes everything");
    let limits = snapshot::Limits { bytes_max: u64::MAX };
    let read = snapshot::read(&mut bytes.as_slice(), limits).expect("any state can be read back");
    let mut again = Vec::new();
    snapshot::write(&read, &mut again).expect("memory takes everything");
    assert_eq!(again, bytes);
});
