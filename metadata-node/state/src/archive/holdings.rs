//! What a bucket holds of one incarnation's log, what a restore would make of it, and what it no longer needs.

use std::collections::BTreeSet;

use carnax_core::id::LogIndex;

use super::{ArchiveRange, chain};

/// The snapshots that are complete, and the ranges of the archive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holdings {
    /// By the last entry in them.
    pub snapshots: BTreeSet<LogIndex>,
    /// In any number of overlaps.
    pub ranges: BTreeSet<ArchiveRange>,
}

/// What may be deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Superseded {
    /// Snapshots that end here.
    pub snapshots: Vec<LogIndex>,
    /// Ranges of the archive.
    pub ranges: Vec<ArchiveRange>,
    /// Parts of snapshots that end before this entry, whether or not they were ever complete; none if none may be.
    pub parts_before: Option<LogIndex>,
}

impl Holdings {
    /// The newest complete snapshot; 0, the empty state, if there is none.
    pub fn base(&self) -> LogIndex {
        self.snapshots.last().copied().unwrap_or(LogIndex(0))
    }

    /// The last entry that a restore brings back: 0 if there is nothing to restore.
    pub fn end(&self) -> LogIndex {
        let base = self.base();
        chain(base, self.ranges.iter().copied().collect()).last().map_or(base, |range| range.last)
    }

    /// What lies behind two later complete snapshots: should the newest one be damaged, the one before it and the archive behind that
    /// are still there.
    pub fn superseded(&self) -> Superseded {
        let Some(kept) = self.snapshots.iter().rev().nth(1).copied() else { return Superseded::default() };
        Superseded {
            snapshots: self.snapshots.range(..kept).copied().collect(),
            ranges: self.ranges.iter().copied().filter(|range| range.last <= kept).collect(),
            parts_before: Some(kept),
        }
    }
}
