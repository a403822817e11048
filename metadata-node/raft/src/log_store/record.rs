//! How votes, log ids and payloads look in the log on disk. `raft-log` adds a checksum to each record.
//!
//! All numbers are big-endian.
//!
//! | log id | at | bytes | | vote | at | bytes | | payload | at | bytes |
//! |--|--|--|--|--|--|--|--|--|--|--|
//! | term | 0 | 8 | | term | 0 | 8 | | version, 1 | 0 | 1 |
//! | node | 8 | 8 | | node | 8 | 8 | | kind: 0 blank, 1 entry, 2 membership | 1 | 1 |
//! | index | 16 | 8 | | committed, 0 or 1 | 16 | 1 | | length | 2 | 4 |
//! | | | | | | | | | the entry, or the membership as MessagePack | 6 | … |

use std::io::{self, Read, Write};

use bytes::Bytes;
use carnax_core::limits::COMMAND_BYTES_MAX;
use openraft::EntryPayload;
use raft_log::codeq::{Decode, Encode};

use super::disk::FlushCallback;
use crate::types::{EncodedEntry, LeaderId, LogId, RaftPayload, Vote, invalid_data};

const VERSION: u8 = 1;
const BLANK: u8 = 0;
const ENTRY: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// What `raft-log` is told to work with.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct WalTypes;

impl raft_log::Types for WalTypes {
    type LogId = WalLogId;
    type LogPayload = WalPayload;
    type Vote = WalVote;
    type Callback = FlushCallback;
    type UserData = ();

    fn log_index(log_id: &WalLogId) -> u64 {
        log_id.index
    }

    fn payload_size(payload: &WalPayload) -> u64 {
        payload_bytes(&payload.0) as u64
    }
}

/// About how many bytes a payload takes.
pub(super) fn payload_bytes(payload: &RaftPayload) -> usize {
    match payload {
        EntryPayload::Normal(entry) => entry.0.len() + 64,
        EntryPayload::Blank | EntryPayload::Membership(_) => 256,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WalLogId {
    term: u64,
    node: u64,
    index: u64,
}

impl From<&LogId> for WalLogId {
    fn from(id: &LogId) -> Self {
        Self { term: id.leader_id.term, node: id.leader_id.node_id, index: id.index }
    }
}

impl From<WalLogId> for LogId {
    fn from(id: WalLogId) -> Self {
        Self::new(LeaderId { term: id.term, node_id: id.node }, id.index)
    }
}

impl Encode for WalLogId {
    fn encode<W: Write>(&self, mut to: W) -> io::Result<usize> {
        for number in [self.term, self.node, self.index] {
            to.write_all(&number.to_be_bytes())?;
        }
        Ok(24)
    }
}

impl Decode for WalLogId {
    fn decode<R: Read>(mut from: R) -> io::Result<Self> {
        Ok(Self { term: read_u64(&mut from)?, node: read_u64(&mut from)?, index: read_u64(&mut from)? })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WalVote {
    term: u64,
    node: u64,
    committed: bool,
}

impl From<&Vote> for WalVote {
    fn from(vote: &Vote) -> Self {
        Self { term: vote.leader_id.term, node: vote.leader_id.node_id, committed: vote.committed }
    }
}

impl From<WalVote> for Vote {
    fn from(vote: WalVote) -> Self {
        let leader_id = LeaderId { term: vote.term, node_id: vote.node };
        Self { leader_id, committed: vote.committed }
    }
}

impl Encode for WalVote {
    fn encode<W: Write>(&self, mut to: W) -> io::Result<usize> {
        to.write_all(&self.term.to_be_bytes())?;
        to.write_all(&self.node.to_be_bytes())?;
        to.write_all(&[u8::from(self.committed)])?;
        Ok(17)
    }
}

impl Decode for WalVote {
    fn decode<R: Read>(mut from: R) -> io::Result<Self> {
        let (term, node) = (read_u64(&mut from)?, read_u64(&mut from)?);
        let [committed] = read_bytes(&mut from)?;
        match committed {
            0 | 1 => Ok(Self { term, node, committed: committed == 1 }),
            other => Err(invalid_data(format!("a vote is committed or not, not {other}"))),
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct WalPayload(pub(super) RaftPayload);

impl Encode for WalPayload {
    fn encode<W: Write>(&self, mut to: W) -> io::Result<usize> {
        let membership;
        let (kind, body): (u8, &[u8]) = match &self.0 {
            EntryPayload::Blank => (BLANK, &[]),
            EntryPayload::Normal(entry) => (ENTRY, &entry.0),
            EntryPayload::Membership(members) => {
                membership = rmp_serde::to_vec_named(members).map_err(invalid_data)?;
                (MEMBERSHIP, &membership)
            }
        };
        if body.len() > COMMAND_BYTES_MAX {
            return Err(invalid_data(format!("entry of {} bytes is too large", body.len())));
        }
        let length = u32::try_from(body.len()).map_err(invalid_data)?;
        to.write_all(&[VERSION, kind])?;
        to.write_all(&length.to_be_bytes())?;
        to.write_all(body)?;
        Ok(6 + body.len())
    }
}

impl Decode for WalPayload {
    fn decode<R: Read>(mut from: R) -> io::Result<Self> {
        let [version, kind] = read_bytes(&mut from)?;
        if version != VERSION {
            return Err(invalid_data(format!(
                "log record has version {version}, this build reads {VERSION}"
            )));
        }
        let length = u32::from_be_bytes(read_bytes(&mut from)?);
        if length as usize > COMMAND_BYTES_MAX {
            return Err(invalid_data(format!("log record claims {length} bytes")));
        }
        let mut body = Vec::new();
        if from.take(length.into()).read_to_end(&mut body)? != length as usize {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match kind {
            BLANK => Ok(Self(EntryPayload::Blank)),
            ENTRY => Ok(Self(EntryPayload::Normal(EncodedEntry(Bytes::from(body))))),
            MEMBERSHIP => {
                rmp_serde::from_slice(&body).map(|m| Self(EntryPayload::Membership(m))).map_err(invalid_data)
            }
            other => Err(invalid_data(format!("log record has unknown kind {other}"))),
        }
    }
}

fn read_u64(from: &mut impl Read) -> io::Result<u64> {
    read_bytes(from).map(u64::from_be_bytes)
}

fn read_bytes<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(record: &impl Encode) -> Vec<u8> {
        let mut bytes = Vec::new();
        assert_eq!(record.encode(&mut bytes).unwrap(), bytes.len());
        bytes
    }

    #[test]
    fn records_have_the_bytes_of_the_tables() {
        let id = WalLogId { term: 1, node: 2, index: 0x0304 };
        let vote = WalVote { term: 5, node: 6, committed: true };
        let entry = WalPayload(EntryPayload::Normal(EncodedEntry(Bytes::from_static(b"abc"))));
        assert_eq!(bytes(&id), [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 3, 4]);
        assert_eq!(bytes(&vote), [0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 6, 1]);
        assert_eq!(bytes(&entry), *b"\x01\x01\0\0\0\x03abc");
        assert_eq!(bytes(&WalPayload(EntryPayload::Blank)), [1, 0, 0, 0, 0, 0]);

        assert_eq!(WalLogId::decode(&bytes(&id)[..]).unwrap(), id);
        assert_eq!(WalVote::decode(&bytes(&vote)[..]).unwrap(), vote);
        assert_eq!(WalPayload::decode(&bytes(&entry)[..]).unwrap().0, entry.0);
    }

    #[test]
    fn bytes_that_are_no_record_are_an_error() {
        let entry = bytes(&WalPayload(EntryPayload::Normal(EncodedEntry(Bytes::from_static(b"abc")))));
        for length in 0..entry.len() {
            assert!(WalPayload::decode(&entry[..length]).is_err(), "cut after {length}");
        }
        let hostile: [&[u8]; 4] = [
            &[2, 1, 0, 0, 0, 0],
            &[1, 3, 0, 0, 0, 0],
            &[1, 1, 0xff, 0xff, 0xff, 0xff],
            &[1, 2, 0, 0, 0, 1, 0xc1],
        ];
        for bytes in hostile {
            assert!(WalPayload::decode(bytes).is_err(), "{bytes:?}");
        }
        assert!(WalVote::decode(&[0; 16][..]).is_err());
        assert!(WalVote::decode(&[2; 17][..]).is_err());
    }
}
