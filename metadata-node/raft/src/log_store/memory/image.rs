//! What a log holds at one moment.

use std::collections::BTreeMap;

use openraft::entry::RaftEntry as _;

use crate::types::{LogId, RaftEntry, Vote};

#[derive(Debug, Clone, Default)]
pub(super) struct Image {
    pub(super) vote: Option<Vote>,
    pub(super) committed: Option<LogId>,
    pub(super) purged: Option<LogId>,
    pub(super) entries: BTreeMap<u64, RaftEntry>,
}

#[derive(Debug, Clone)]
pub(super) enum Write {
    Vote(Vote),
    Committed(LogId),
    Append(RaftEntry),
    TruncateAfter(Option<LogId>),
    Purge(LogId),
}

impl Image {
    pub(super) fn apply(&mut self, write: Write) {
        match write {
            Write::Vote(vote) => self.vote = Some(vote),
            Write::Committed(id) => self.committed = Some(id),
            Write::Append(entry) => drop(self.entries.insert(entry.index(), entry)),
            Write::TruncateAfter(keep) => {
                let from = keep.map_or(0, |id| id.index + 1);
                self.entries.split_off(&from);
            }
            Write::Purge(upto) => {
                self.entries = self.entries.split_off(&(upto.index + 1));
                self.purged = self.purged.max(Some(upto));
            }
        }
    }
}
