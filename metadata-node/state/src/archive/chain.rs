//! Which objects of an archive lead from a snapshot as far as possible.
//!
//! Several leaders may have written ranges that overlap, none knowing of the others. Only entries that were applied are archived, so
//! that under one index all of them wrote the same: any object that has the next entry will do, and the one that reaches
//! furthest is taken.

use carnax_core::id::LogIndex;

/// The entries of one object, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ArchiveRange {
    /// The first entry.
    pub first: LogIndex,
    /// The last entry.
    pub last: LogIndex,
}

/// The objects to read, in order, so that every entry behind `behind` follows without a gap, as far as there are any. Each takes
/// the chain further; what it repeats of the one before is to be skipped.
pub fn chain(behind: LogIndex, mut ranges: Vec<ArchiveRange>) -> Vec<ArchiveRange> {
    ranges.sort_unstable();
    let mut chain = Vec::new();
    let mut reached = behind;
    let mut best: Option<ArchiveRange> = None;
    for range in ranges {
        if range.first.0 > reached.0.saturating_add(1) {
            // What comes now does not go on from here, but perhaps from the end of the best one.
            let Some(taken) = best.take() else { break };
            reached = taken.last;
            chain.push(taken);
            if range.first.0 > reached.0.saturating_add(1) {
                break;
            }
        }
        let further = best.map_or(reached, |best| best.last);
        if range.last > further {
            best = Some(range);
        }
    }
    chain.extend(best);
    chain
}
