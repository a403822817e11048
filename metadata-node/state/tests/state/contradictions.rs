//! Snapshots whose checksums are right and whose content cannot be: each is refused, whoever wrote it.

use std::collections::BTreeMap;

use carnax_core::name::{IdempotencyKey, ProducerId};
use carnax_metadata_state::snapshot::ReadError;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bytes::example_of_level_2;
use crate::support::{START, bytes_of, read_back};

type Answer = (u128, i64, Vec<(carnax_core::id::TopicId, u32, u64, u32)>);
type Epoch = (u32, Option<u128>, Vec<(u128, Answer)>);
type Producer = (ProducerId, Epoch, Option<Epoch>, i64);
type Key = (String, IdempotencyKey, Answer);
/// What is done to the rows of a frame, and why they cannot be so.
type Change<T> = (fn(&mut Vec<T>), &'static str);

/// The contents of all frames but the last.
fn frames_of(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut rest = &bytes[12..];
    while let Some((header, behind)) = rest.split_at_checked(8) {
        let length = u32::from_be_bytes(header[..4].try_into().unwrap()) as usize;
        frames.push(behind[..length].to_vec());
        rest = &behind[length..];
    }
    frames.pop();
    frames
}

/// A snapshot of these frames, sealed as the writer seals it.
fn sealed(frames: &[Vec<u8>]) -> Vec<u8> {
    #[derive(Serialize)]
    struct End {
        frames: u64,
        checksum: u32,
    }
    let checksum = frames.iter().fold(0, |sum, frame| crc32c::crc32c_append(sum, frame));
    let end = BTreeMap::from([("end", End { frames: frames.len() as u64, checksum })]);
    let end = rmp_serde::to_vec_named(&end).unwrap();
    let mut bytes = b"CARNAXST\0\0\0\x01".to_vec();
    for frame in frames.iter().chain([&end]) {
        bytes.extend(u32::try_from(frame.len()).unwrap().to_be_bytes());
        bytes.extend(crc32c::crc32c(frame).to_be_bytes());
        bytes.extend(frame);
    }
    bytes
}

fn place_of(frames: &[Vec<u8>], name: &str) -> usize {
    // A map of one entry, whose key is a short string.
    let is = |frame: &Vec<u8>| frame.get(2..2 + name.len()) == Some(name.as_bytes());
    frames.iter().position(is).unwrap_or_else(|| panic!("no frame {name}"))
}

fn assert_refused(frames: &[Vec<u8>], why: &str) {
    let read = read_back(&sealed(frames));
    assert!(matches!(read, Err(ReadError::Contradiction { .. })), "{why}: {:?}", read.map(|_| "was read"));
}

/// Refused when the rows of a frame are changed so.
fn assert_change_refused<T: Serialize + DeserializeOwned>(name: &str, change: fn(&mut Vec<T>), why: &str) {
    let mut frames = frames_of(&bytes_of(&example_of_level_2().state));
    let place = place_of(&frames, name);
    let mut rows: BTreeMap<String, Vec<T>> = rmp_serde::from_slice(&frames[place]).unwrap();
    let unchanged = rmp_serde::to_vec_named(&rows).unwrap();
    assert!(unchanged == frames[place], "the frame as it was");
    change(rows.get_mut(name).unwrap());
    frames[place] = rmp_serde::to_vec_named(&rows).unwrap();
    assert!(frames[place] != unchanged, "{why} changes something");
    assert_refused(&frames, why);
}

#[test]
fn frames_twice_or_in_the_wrong_place_are_refused() {
    let bytes = bytes_of(&example_of_level_2().state);
    let frames = frames_of(&bytes);
    assert!(sealed(&frames) == bytes, "sealed as the writer seals it");
    for name in ["head", "producers", "keys", "tokens", "sessions"] {
        let mut doubled = frames.clone();
        let place = place_of(&frames, name);
        doubled.insert(place, frames[place].clone());
        assert_refused(&doubled, name);
    }
    let mut early = frames.clone();
    let tokens = early.remove(place_of(&frames, "tokens"));
    early.insert(1, tokens);
    assert_refused(&early, "tokens before their topic");
    let mut without = frames.clone();
    without.remove(place_of(&frames, "settings"));
    without.retain(|frame| frame.get(2..11) != Some(b"producers"));
    let state = read_back(&sealed(&without)).unwrap();
    assert!(bytes_of(&state) == sealed(&without), "a table without rows has no frame");
}

#[test]
fn producers_that_cannot_be_are_refused() {
    let changes: [Change<Producer>; 9] = [
        (|rows| rows.reverse(), "not in order"),
        (|rows| rows[0].3 = START + 1_000_000, "seen after log time"),
        (|rows| rows[0].3 = 0, "expired"),
        (|rows| rows[1].1.1 = None, "answers without a last sequence"),
        (|rows| rows[1].1.1 = Some(7), "a last sequence that is not that of the last answer"),
        (|rows| rows[2].1.0 += 1, "an epoch that was not raised from the one before"),
        (|rows| rows[2].2 = None, "a raised epoch without one before"),
        (|rows| rows[2].2.as_mut().unwrap().2.reverse(), "answers out of order"),
        (
            |rows| {
                let first = rows[2].2.as_ref().unwrap().2[0].clone();
                rows[2].2.as_mut().unwrap().2.insert(0, (0, first.1));
            },
            "nine answers",
        ),
    ];
    for (change, why) in changes {
        assert_change_refused("producers", change, why);
    }
}

#[test]
fn idempotency_keys_that_cannot_be_are_refused() {
    let changes: [Change<Key>; 5] = [
        (|rows| rows.reverse(), "not in the order of their acceptance"),
        (|rows| rows[0].0 = "alice".to_owned(), "a key twice"),
        (|rows| rows[1].2.1 = START + 1_000_000, "accepted after log time"),
        (|rows| rows[0].2.1 = 0, "expired"),
        (|rows| rows[0].0 = "x".repeat(300), "a principal that is too long"),
    ];
    for (change, why) in changes {
        assert_change_refused("keys", change, why);
    }
    assert_change_refused::<(u32, String)>("tokens", |rows| rows[0].0 = 99, "a token of no partition");
}
