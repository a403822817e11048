//! From snapshot and archive to the state that the former cluster had at the end of the archive.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use carnax_core::id::LogIndex;
use carnax_metadata_state::archive::{ArchiveRange, chain};
use carnax_metadata_state::{Entry, State};
use carnax_object_store::ObjectStoreError;

use super::RestoreError;
use crate::backup::{Vault, VaultError};

/// What was read.
#[derive(Debug, Clone)]
pub(super) struct Loaded {
    pub(super) state: State,
    /// The last entry that was replayed, or that is in the snapshot.
    pub(super) last: LogIndex,
    /// The snapshot that it began with, and its bytes.
    pub(super) snapshot: Option<(LogIndex, u64)>,
    pub(super) archive_objects: u64,
    pub(super) archive_bytes: u64,
    pub(super) entries: u64,
    /// What could not be used, and why.
    pub(super) damaged: Vec<String>,
}

/// Reads the newest usable snapshot and all that follows it without a gap; nothing if there is no backup.
pub(super) async fn load(vault: &Vault) -> Result<Option<Loaded>, RestoreError> {
    let holdings = vault.inventory().await.map_err(VaultError::from)?.holdings;
    if holdings.end() == LogIndex(0) {
        return Ok(None);
    }
    let mut damaged = Vec::new();
    for last in holdings.snapshots.iter().rev().copied() {
        match vault.snapshot(last).await {
            Ok((state, bytes)) => {
                let loaded = Loaded { damaged, ..Loaded::new(state, last, Some((last, bytes))) };
                return replay(vault, holdings.ranges, loaded).await.map(Some);
            }
            Err(error @ VaultError::Snapshot { .. }) => note(&mut damaged, &error),
            Err(error) => return Err(error.into()),
        }
    }
    let nothing = Loaded { damaged, ..Loaded::new(State::default(), LogIndex(0), None) };
    let loaded = replay(vault, holdings.ranges, nothing).await?;
    if loaded.last == LogIndex(0) { Err(RestoreError::Unusable(loaded.damaged)) } else { Ok(Some(loaded)) }
}

async fn replay(
    vault: &Vault,
    mut ranges: BTreeSet<ArchiveRange>,
    mut loaded: Loaded,
) -> Result<Loaded, RestoreError> {
    loop {
        let Some(next) = chain(loaded.last, ranges.iter().copied().collect()).first().copied() else {
            return Ok(loaded);
        };
        let (entries, bytes) = match vault.entries(next).await {
            Ok(found) => found,
            // Another object may have these entries too.
            Err(error @ VaultError::Archive { .. }) => {
                note(&mut loaded.damaged, &error);
                ranges.remove(&next);
                continue;
            }
            Err(VaultError::ObjectStore(ObjectStoreError::NotFound { .. })) => {
                ranges.remove(&next);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        loaded.archive_objects += 1;
        loaded.archive_bytes += bytes;
        let begin = loaded.last;
        for entry in entries.into_iter().filter(|entry| entry.index > begin) {
            if !entry.bytes.is_empty() {
                let decoded = Entry::decode(&entry.bytes);
                let decoded = decoded.map_err(|source| RestoreError::Entry { index: entry.index, source })?;
                loaded.state.apply(entry.index, &decoded);
            }
            loaded.last = entry.index;
            loaded.entries += 1;
        }
        ranges.retain(|range| range.last > loaded.last);
    }
}

fn note(damaged: &mut Vec<String>, error: &VaultError) {
    let said = match error {
        VaultError::Archive { source, .. } => format!("{error}: {source}"),
        _ => error.to_string(),
    };
    tracing::error!(error = said, "a part of the backup cannot be used");
    damaged.push(said);
}

impl Loaded {
    fn new(state: State, last: LogIndex, snapshot: Option<(LogIndex, u64)>) -> Self {
        let (archive_objects, archive_bytes, entries) = (0, 0, 0);
        Self { state, last, snapshot, archive_objects, archive_bytes, entries, damaged: Vec::new() }
    }
}
