//! Entries of the Raft log as bytes.
//!
//! | at | bytes | field |
//! |----|-------|-------|
//! | 0 | 1 | version = 1 |
//! | 1 | 4 | CRC32C of everything from byte 5 on, big-endian |
//! | 5 | … | the [`Entry`] as MessagePack with named fields |
//!
//! A node that meets a version, a feature level or a command that it does not know must stop: an entry that is skipped by
//! one node and applied by another is a forked log.

use std::fmt;

use carnax_core::limits;
use carnax_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::command::Command;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 5;

/// What a node must know to apply an entry. New commands and fields raise it; they are proposed only when every node of
/// the cluster has reached their level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FeatureLevel(pub u32);

impl FeatureLevel {
    /// The highest level that this build applies.
    ///
    /// | level | brought |
    /// |---|---|
    /// | 1 | topics, segments, sessions, nodes |
    /// | 2 | producers, idempotency keys, conditions, fencing tokens, groups, settings |
    /// | 3 | wake-ups |
    /// | 4 | maintenance jobs, settings of commit deadline and orphans |
    /// | 5 | merge, retention, paging, collection of dead objects |
    /// | 6 | access tokens, usage, prices, quotas of topics; the level of a cluster is part of its state |
    pub const CURRENT: Self = Self(6);
    /// The level of a cluster that says nothing of its level: the last one before clusters did.
    pub const UNRECORDED: Self = Self(5);
    /// The level that brought producers, idempotency keys, conditions and group offsets of append units.
    pub(crate) const GUARANTEES: Self = Self(2);
    /// The level that brought access tokens.
    pub const TOKENS: Self = Self(6);
    /// The level that brought maintenance jobs.
    pub(crate) const JOBS: Self = Self(4);
}

/// One Raft log entry: commands that the proposer grouped; each is decided on its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What a node must know to apply this entry.
    pub level: FeatureLevel,
    /// The leader's clock. A time before the state's log time counts as the state's: log time never goes back.
    pub log_time: Timestamp,
    /// In the order in which they are decided; may be empty.
    pub commands: Vec<Command>,
}

impl fmt::Display for FeatureLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Bytes that are no entry, or none that this build may apply.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// Fewer bytes than the header has.
    #[error("log entry is cut short: {bytes} bytes")]
    Truncated {
        /// How many there are.
        bytes: usize,
    },
    /// More bytes than an entry may have.
    #[error("log entry is too large: {bytes} bytes")]
    TooLarge {
        /// How many there are.
        bytes: usize,
    },
    /// An encoding that this build does not know: a newer build wrote it.
    #[error("log entry has the unknown version {version}")]
    UnknownVersion {
        /// The version it claims.
        version: u8,
    },
    /// The bytes are not the ones that were written.
    #[error("log entry fails its checksum")]
    Checksum,
    /// A level that this build does not know: a newer build wrote it.
    #[error(
        "log entry needs feature level {level}, and this build knows up to {max}: the cluster was upgraded; run this node with the version \
         that the others run, levels are never lowered"
    )]
    UnknownLevel {
        /// The level it needs.
        level: FeatureLevel,
        /// What this build knows.
        max: FeatureLevel,
    },
    /// The checksum is right but the content is not understood, for instance an unknown command.
    #[error("log entry is not understood")]
    Content(#[source] rmp_serde::decode::Error),
    /// Bytes remain behind the content.
    #[error("log entry has bytes behind its content")]
    TrailingBytes,
}

impl Entry {
    /// The entry as bytes. The same entry always gives the same bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION, 0, 0, 0, 0];
        rmp_serde::encode::write_named(&mut bytes, self)
            .expect("commands have no map keys or types that fail");
        let checksum = crc32c::crc32c(&bytes[HEADER_BYTES..]);
        bytes[1..HEADER_BYTES].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// Any: the node that has to apply these bytes must stop.
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        Self::decode_up_to(bytes, FeatureLevel::CURRENT)
    }

    /// The same, as a build that knows less does it.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    pub fn decode_up_to(bytes: &[u8], max: FeatureLevel) -> Result<Self, EntryError> {
        if bytes.len() > limits::COMMAND_BYTES_MAX {
            return Err(EntryError::TooLarge { bytes: bytes.len() });
        }
        let Some((header, content)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Err(EntryError::Truncated { bytes: bytes.len() });
        };
        let [version, checksum @ ..] = *header;
        if version != VERSION {
            return Err(EntryError::UnknownVersion { version });
        }
        if crc32c::crc32c(content) != u32::from_be_bytes(checksum) {
            return Err(EntryError::Checksum);
        }
        // The level first: an entry of a higher one may well hold commands that are not understood.
        let Leveled { level } = rmp_serde::from_slice(content).map_err(EntryError::Content)?;
        if level > max {
            return Err(EntryError::UnknownLevel { level, max });
        }
        let mut rest = content;
        let entry: Self = rmp_serde::from_read(&mut rest).map_err(EntryError::Content)?;
        if !rest.is_empty() {
            return Err(EntryError::TrailingBytes);
        }
        // Raised at the level before: from then on this build could not go on.
        let raised = entry.commands.iter().filter_map(|command| match command {
            Command::RaiseLevel { to } => Some(*to),
            _ => None,
        });
        match raised.max() {
            Some(level) if level > max => Err(EntryError::UnknownLevel { level, max }),
            _ => Ok(entry),
        }
    }
}

/// As much of an entry as says whether the rest can be read.
#[derive(Deserialize)]
struct Leveled {
    level: FeatureLevel,
}
