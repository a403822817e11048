//! The archive: entries of the Raft log as objects of the bucket, from which a state is made again.
//!
//! An object holds entries without a gap. All numbers are big-endian.
//!
//! | at | bytes | field |
//! |----|-------|-------|
//! | 0 | 8 | magic `CARNAXAR` |
//! | 8 | 4 | version = 1 |
//! | 12 | 16 | cluster id |
//! | 28 | 8 | incarnation |
//! | 36 | 8 | index of the first entry |
//! | 44 | 8 | index of the last entry |
//! | 52 | 4 | CRC32C of the bytes before |
//! | 56 | … | the entries, one behind the other |
//!
//! An entry:
//!
//! | at | bytes | field |
//! |----|-------|-------|
//! | 0 | 8 | term |
//! | 8 | 4 | length of its bytes; 0 for an entry without commands (a leader's first, a change of membership) |
//! | 12 | 4 | CRC32C of its index, its term and its bytes |
//! | 16 | … | its bytes, as [`Entry::encode`](crate::Entry::encode) wrote them |
//!
//! The same entries give the same bytes, whoever writes them: a second leader that writes a range once more writes the same object.

mod chain;
mod holdings;

use bytes::{Buf, Bytes};
use carnax_core::id::{ClusterId, Incarnation, LogIndex};
use carnax_core::limits::COMMAND_BYTES_MAX;

pub use chain::{ArchiveRange, chain};
pub use holdings::{Holdings, Superseded};

const MAGIC: [u8; 8] = *b"CARNAXAR";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 56;
const ENTRY_HEADER_BYTES: usize = 16;

/// An entry of the log that was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchivedEntry {
    /// Where it stands in the log.
    pub index: LogIndex,
    /// The term in which it was proposed.
    pub term: u64,
    /// The encoded [`Entry`](crate::Entry); empty for an entry without commands.
    pub bytes: Bytes,
}

/// Bytes that are no object of this archive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// The bytes do not begin as an object of an archive does.
    #[error("not an object of an archive")]
    NotAnArchive,
    /// A format that this build does not know: a newer build wrote it.
    #[error("archive object has the unknown version {version}")]
    UnknownVersion {
        /// The version it claims.
        version: u32,
    },
    /// Written by another cluster, or under another incarnation.
    #[error("archive object belongs to cluster {cluster} in incarnation {incarnation}")]
    OtherCluster {
        /// Whose it is.
        cluster: ClusterId,
        /// In which life of it.
        incarnation: Incarnation,
    },
    /// The bytes are not the ones that were written.
    #[error("archive object is damaged at byte {at}")]
    Damaged {
        /// Where.
        at: usize,
    },
}

/// Writes entries that follow each other without a gap.
///
/// # Panics
/// If there is none, or if they do not follow each other.
pub fn encode(cluster: ClusterId, incarnation: Incarnation, entries: &[ArchivedEntry]) -> Bytes {
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
        panic!("an archive object has at least one entry");
    };
    let bytes = entries.iter().map(|entry| ENTRY_HEADER_BYTES + entry.bytes.len()).sum::<usize>();
    let mut out = Vec::with_capacity(HEADER_BYTES + bytes);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_be_bytes());
    out.extend_from_slice(&cluster.to_bytes());
    for number in [incarnation.0, first.index.0, last.index.0] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    let checksum = crc32c::crc32c(&out);
    out.extend_from_slice(&checksum.to_be_bytes());
    let mut expected = first.index.0;
    for entry in entries {
        assert_eq!(entry.index.0, expected, "entries of an archive object follow each other");
        expected = expected.wrapping_add(1);
        let length = u32::try_from(entry.bytes.len()).expect("entries are bounded by their limit");
        out.extend_from_slice(&entry.term.to_be_bytes());
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&checksum_of(entry).to_be_bytes());
        out.extend_from_slice(&entry.bytes);
    }
    out.into()
}

/// Reads an object of this cluster and incarnation; its entries share its bytes.
///
/// # Errors
/// Any [`ArchiveError`]. Nothing is allocated by what a length claims.
pub fn decode(
    cluster: ClusterId,
    incarnation: Incarnation,
    object: &Bytes,
) -> Result<Vec<ArchivedEntry>, ArchiveError> {
    let header = object.get(..HEADER_BYTES).ok_or(ArchiveError::NotAnArchive)?;
    let mut fields = header.strip_prefix(&MAGIC).ok_or(ArchiveError::NotAnArchive)?;
    let version = fields.get_u32();
    if version != VERSION {
        return Err(ArchiveError::UnknownVersion { version });
    }
    let found = (ClusterId::from_bytes(fields.get_u128().to_be_bytes()), Incarnation(fields.get_u64()));
    let (first, last) = (fields.get_u64(), fields.get_u64());
    if crc32c::crc32c(&header[..HEADER_BYTES - 4]) != fields.get_u32() {
        return Err(ArchiveError::Damaged { at: 0 });
    }
    if found != (cluster, incarnation) {
        return Err(ArchiveError::OtherCluster { cluster: found.0, incarnation: found.1 });
    }
    let mut rest = object.slice(HEADER_BYTES..);
    let mut entries = Vec::new();
    let mut index = first;
    loop {
        let damaged = ArchiveError::Damaged { at: object.len() - rest.len() };
        let entry = next_entry(&mut rest, LogIndex(index)).ok_or(damaged.clone())?;
        entries.push(entry);
        if index >= last {
            return if index == last && rest.is_empty() { Ok(entries) } else { Err(damaged) };
        }
        index += 1;
    }
}

fn next_entry(rest: &mut Bytes, index: LogIndex) -> Option<ArchivedEntry> {
    if rest.len() < ENTRY_HEADER_BYTES {
        return None;
    }
    let (term, length, checksum) = (rest.get_u64(), rest.get_u32(), rest.get_u32());
    let length =
        usize::try_from(length).ok().filter(|length| *length <= rest.len().min(COMMAND_BYTES_MAX))?;
    let entry = ArchivedEntry { index, term, bytes: rest.split_to(length) };
    (checksum_of(&entry) == checksum).then_some(entry)
}

fn checksum_of(entry: &ArchivedEntry) -> u32 {
    let place =
        crc32c::crc32c_append(crc32c::crc32c(&entry.index.0.to_be_bytes()), &entry.term.to_be_bytes());
    crc32c::crc32c_append(place, &entry.bytes)
}
