//! The newest applied entries, in memory, for whoever archives them.
//!
//! Not read from the log store: that purges by its own rules, and a reader of it would hold up appends.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use carnax_core::id::LogIndex;
use carnax_metadata_state::archive::ArchivedEntry;
use carnax_metadata_state::{Command, Entry};
use tokio::sync::watch;

/// What an entry takes in memory beside its bytes.
const ENTRY_OVERHEAD_BYTES: u64 = 64;

/// How far the log has come, for whoever archives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveProgress {
    /// The last entry that says something worth an archive's while; 0 if there is none.
    pub worth: LogIndex,
    /// Bytes of all entries that this process has applied.
    pub bytes: u64,
}

/// The newest applied entries. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct AppliedLog {
    kept: Arc<Mutex<Kept>>,
    progress: Arc<watch::Sender<ArchiveProgress>>,
    bytes_max: u64,
}

#[derive(Debug)]
struct Kept {
    entries: VecDeque<ArchivedEntry>,
    bytes: u64,
    /// The last entry that is not kept, or that was never here.
    before: LogIndex,
}

impl AppliedLog {
    /// For a state that holds everything up to `applied`; keeps about so many bytes, or nothing.
    pub(crate) fn new(applied: LogIndex, bytes_max: u64) -> Self {
        let worth = if bytes_max == 0 { LogIndex(0) } else { applied };
        let progress = ArchiveProgress { worth, bytes: 0 };
        let kept = Kept { entries: VecDeque::new(), bytes: 0, before: applied };
        Self { kept: Arc::new(Mutex::new(kept)), progress: Arc::new(watch::Sender::new(progress)), bytes_max }
    }

    /// Entries were applied, in this order.
    pub(crate) fn push(&self, entries: Vec<ArchivedEntry>, worth: Option<LogIndex>) {
        if self.bytes_max == 0 {
            return;
        }
        let mut bytes = 0;
        {
            let mut kept = self.kept();
            for entry in entries {
                // openraft begins with entry 0, which no state knows of.
                if entry.index <= kept.last() {
                    continue;
                }
                bytes += entry.bytes.len() as u64 + ENTRY_OVERHEAD_BYTES;
                kept.entries.push_back(entry);
            }
            kept.bytes += bytes;
            kept.shrink(self.bytes_max);
        }
        self.progress.send_modify(|progress| {
            progress.worth = worth.unwrap_or(progress.worth).max(progress.worth);
            progress.bytes += bytes;
        });
    }

    /// A snapshot has taken the place of the entries up to `applied`; what was worth archiving is among them.
    pub(crate) fn restart(&self, applied: LogIndex) {
        *self.kept() = Kept { entries: VecDeque::new(), bytes: 0, before: applied };
        if self.bytes_max > 0 {
            self.progress.send_modify(|progress| progress.worth = applied.max(progress.worth));
        }
    }

    pub(crate) fn progress(&self) -> watch::Receiver<ArchiveProgress> {
        self.progress.subscribe()
    }

    /// The entries behind `after`, at least one and no more than `bytes_max` by much; none if there is none yet. No answer if the
    /// first of them is not kept any more.
    pub(crate) fn after(&self, after: LogIndex, bytes_max: u64) -> Option<Vec<ArchivedEntry>> {
        let kept = self.kept();
        let skipped = usize::try_from(after.0.checked_sub(kept.before.0)?).unwrap_or(usize::MAX);
        let mut bytes = 0;
        let behind = kept.entries.iter().skip(skipped);
        let taken = behind.take_while(|entry| {
            let fits = bytes < bytes_max;
            bytes += entry.bytes.len() as u64 + ENTRY_OVERHEAD_BYTES;
            fits
        });
        Some(taken.cloned().collect())
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn last(&self) -> LogIndex {
        self.entries.back().map_or(self.before, |entry| entry.index)
    }

    fn shrink(&mut self, bytes_max: u64) {
        while self.bytes > bytes_max
            && let Some(oldest) = self.entries.pop_front()
        {
            self.bytes = self.bytes.saturating_sub(oldest.bytes.len() as u64 + ENTRY_OVERHEAD_BYTES);
            self.before = oldest.index;
        }
    }
}

/// Whether an entry is a reason to archive: a tick only forgets what a restored cluster forgets as well, and a report of usage would
/// make the next one: to archive it takes requests, which are used.
pub(crate) fn is_worth_archiving(entry: &Entry) -> bool {
    entry.commands.iter().any(|command| !matches!(command, Command::ExpireSessions | Command::ReportUsage(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(indexes: std::ops::RangeInclusive<u64>) -> Vec<ArchivedEntry> {
        let entry = |index| ArchivedEntry { index: LogIndex(index), term: 1, bytes: vec![0; 36].into() };
        indexes.map(entry).collect()
    }

    fn indexes(log: &AppliedLog, after: u64, bytes_max: u64) -> Option<Vec<u64>> {
        Some(log.after(LogIndex(after), bytes_max)?.iter().map(|entry| entry.index.0).collect())
    }

    #[test]
    fn the_newest_entries_are_kept_and_a_gap_is_never_hidden() {
        let log = AppliedLog::new(LogIndex(0), 350);
        log.push(entries(0..=2), Some(LogIndex(2)));
        assert_eq!(indexes(&log, 0, 1_000), Some(vec![1, 2]));
        assert_eq!(indexes(&log, 0, 1), Some(vec![1]), "one at least");
        assert_eq!(indexes(&log, 2, 1_000), Some(vec![]));
        log.push(entries(3..=5), None);
        assert_eq!(indexes(&log, 2, 1_000), Some(vec![3, 4, 5]));
        assert_eq!(indexes(&log, 1, 1_000), None, "entry 2 is gone");
        assert_eq!(*log.progress().borrow(), ArchiveProgress { worth: LogIndex(2), bytes: 500 });
        log.restart(LogIndex(9));
        assert_eq!((indexes(&log, 8, 1_000), indexes(&log, 9, 1_000)), (None, Some(vec![])));
        assert_eq!(log.progress().borrow().worth, LogIndex(9));
    }
}
