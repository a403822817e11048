//! Keys of what a restore reads. Numbers are padded, so that a listing is in order of log indexes.

use std::fmt;
use std::str::FromStr;

use super::{Incarnation, InvalidKey};
use crate::id::LogIndex;

/// An object of the archive: the log entries from the first to the last one, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ArchiveKey {
    /// Whose log it is.
    pub incarnation: Incarnation,
    /// The first entry.
    pub first: LogIndex,
    /// The last entry, not before the first.
    pub last: LogIndex,
}

/// The object that makes the parts of a snapshot one: a snapshot counts only if it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SnapshotKey {
    /// Whose state it is.
    pub incarnation: Incarnation,
    /// The last entry that is in it.
    pub last: LogIndex,
}

/// A part of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SnapshotPartKey {
    /// The snapshot.
    pub snapshot: SnapshotKey,
    /// Tells apart those who wrote it at the same time.
    pub attempt: u64,
    /// Its place, from 0.
    pub part: u32,
}

/// Says that a leader deletes objects without waiting for the archive (`--backup off`): an archive from before may refer to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BackupOffKey {
    /// Whose archive it is about.
    pub incarnation: Incarnation,
    /// The term of that leader.
    pub term: u64,
    /// What it had applied when it began to.
    pub applied: LogIndex,
}

impl ArchiveKey {
    /// What the keys of an incarnation's archive begin with.
    pub fn folder(incarnation: Incarnation) -> String {
        format!("{incarnation}/archive/")
    }
}

impl SnapshotKey {
    /// What the keys of an incarnation's snapshots begin with.
    pub fn folder(incarnation: Incarnation) -> String {
        format!("{incarnation}/snapshots/")
    }
}

impl SnapshotPartKey {
    /// What the keys of the parts of an incarnation's snapshots begin with.
    pub fn folder(incarnation: Incarnation) -> String {
        format!("{incarnation}/snapshot-parts/")
    }
}

impl fmt::Display for ArchiveKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { incarnation, first, last } = self;
        write!(f, "{}{:020}-{:020}", Self::folder(*incarnation), first.0, last.0)
    }
}

impl BackupOffKey {
    /// What the keys of an incarnation's marks begin with: they lie among the archive.
    pub fn folder(incarnation: Incarnation) -> String {
        format!("{}off-", ArchiveKey::folder(incarnation))
    }
}

impl fmt::Display for BackupOffKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { incarnation, term, applied } = self;
        write!(f, "{}{term:020}-{:020}", Self::folder(*incarnation), applied.0)
    }
}

impl FromStr for BackupOffKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        InvalidKey::unless_spelled(text, || {
            let (incarnation, name) = split(text, "archive")?;
            let (term, applied) = name.strip_prefix("off-")?.split_once('-')?;
            Some(Self { incarnation, term: term.parse().ok()?, applied: LogIndex(applied.parse().ok()?) })
        })
    }
}

impl fmt::Display for SnapshotKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:020}", Self::folder(self.incarnation), self.last.0)
    }
}

impl fmt::Display for SnapshotPartKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SnapshotKey { incarnation, last } = self.snapshot;
        write!(f, "{}{:020}-{:016x}/{:06}", Self::folder(incarnation), last.0, self.attempt, self.part)
    }
}

impl FromStr for ArchiveKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        InvalidKey::unless_spelled(text, || {
            let (incarnation, name) = split(text, "archive")?;
            let (first, last) = name.split_once('-')?;
            let (first, last) = (LogIndex(first.parse().ok()?), LogIndex(last.parse().ok()?));
            (first <= last).then_some(Self { incarnation, first, last })
        })
    }
}

impl FromStr for SnapshotKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        InvalidKey::unless_spelled(text, || {
            let (incarnation, last) = split(text, "snapshots")?;
            Some(Self { incarnation, last: LogIndex(last.parse().ok()?) })
        })
    }
}

impl FromStr for SnapshotPartKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        InvalidKey::unless_spelled(text, || {
            let (incarnation, name) = split(text, "snapshot-parts")?;
            let (snapshot, part) = name.split_once('/')?;
            let (last, attempt) = snapshot.split_once('-')?;
            let snapshot = SnapshotKey { incarnation, last: LogIndex(last.parse().ok()?) };
            let attempt = u64::from_str_radix(attempt, 16).ok()?;
            Some(Self { snapshot, attempt, part: part.parse().ok()? })
        })
    }
}

/// The incarnation of a key in a folder, and the rest of the key.
fn split<'a>(text: &'a str, folder: &str) -> Option<(Incarnation, &'a str)> {
    let (incarnation, rest) = text.split_once('/')?;
    let rest = rest.strip_prefix(folder)?.strip_prefix('/')?;
    Some((Incarnation(incarnation.parse().ok()?), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_back_sort_by_index_and_have_one_spelling() {
        let incarnation = Incarnation(2);
        let archive = ArchiveKey { incarnation, first: LogIndex(9), last: LogIndex(10) };
        assert_eq!(archive.to_string(), "2/archive/00000000000000000009-00000000000000000010");
        let later = ArchiveKey { first: LogIndex(10), ..archive };
        assert!(archive.to_string() < later.to_string());
        let snapshot = SnapshotKey { incarnation, last: LogIndex(u64::MAX) };
        assert_eq!(snapshot.to_string(), "2/snapshots/18446744073709551615");
        let part = SnapshotPartKey { snapshot, attempt: 0xab, part: 7 };
        assert_eq!(part.to_string(), "2/snapshot-parts/18446744073709551615-00000000000000ab/000007");
        let off = BackupOffKey { incarnation, term: 3, applied: LogIndex(9) };
        assert_eq!(off.to_string(), "2/archive/off-00000000000000000003-00000000000000000009");
        assert_eq!(off.to_string().parse(), Ok(off));
        assert!(archive.to_string().parse::<BackupOffKey>().is_err());
        assert!(off.to_string().parse::<ArchiveKey>().is_err());
        assert_eq!(archive.to_string().parse(), Ok(archive));
        assert_eq!(snapshot.to_string().parse(), Ok(snapshot));
        assert_eq!(part.to_string().parse(), Ok(part));
        for wrong in [
            "",
            "2/archive/9-10",
            "2/archive/00000000000000000010-00000000000000000009",
            "02/archive/00000000000000000009-00000000000000000010",
            "2/snapshots/1",
            "2/snapshot-parts/00000000000000000009-00000000000000ab",
        ] {
            assert!(wrong.parse::<ArchiveKey>().is_err(), "{wrong}");
            assert!(wrong.parse::<SnapshotKey>().is_err(), "{wrong}");
            assert!(wrong.parse::<SnapshotPartKey>().is_err(), "{wrong}");
        }
    }
}
