//! Goal: both log stores keep the contract of openraft, and after any crash everything that was acknowledged is there and
//! nothing is that was never written.
//! Method: openraft's own suite; then crashes: of the memory disk by its own means, of files by taking a copy of the
//! folder and tearing what no acknowledged fsync covers.

mod disk;
mod memory;

use std::io;

use bytes::Bytes;
use carnax_metadata_state::FeatureLevel;
use openraft::entry::RaftEntry as _;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt;
use openraft::type_config::alias::OneshotReceiverOf;
use openraft::{EntryPayload, RaftLogReader, StorageError};
use tempfile::TempDir;

use super::{DiskLog, Flushes, MemoryDisk, MemoryLog};
use crate::snapshot_store::SnapshotStore;
use crate::state_machine::StateMachine;
use crate::types::{EncodedEntry, LeaderId, LogId, RaftEntry, Types, Vote};

struct OnDisk;

impl StoreBuilder<Types, DiskLog, StateMachine, TempDir> for OnDisk {
    async fn build(&self) -> Result<(TempDir, DiskLog, StateMachine), StorageError<Types>> {
        let directory = tempfile::tempdir().unwrap();
        let log = DiskLog::open(&directory.path().join("log"), Flushes::default()).unwrap();
        let store = SnapshotStore::open(directory.path().join("snapshots")).unwrap();
        let (machine, _) = StateMachine::open(store, 0, FeatureLevel::CURRENT).unwrap();
        Ok((directory, log, machine))
    }
}

struct InMemory;

impl StoreBuilder<Types, MemoryLog, StateMachine> for InMemory {
    async fn build(&self) -> Result<((), MemoryLog, StateMachine), StorageError<Types>> {
        let disk = MemoryDisk::new();
        let (machine, _) =
            StateMachine::open(SnapshotStore::Memory(disk.clone()), 0, FeatureLevel::CURRENT).unwrap();
        Ok(((), MemoryLog::open(disk, Flushes::default()), machine))
    }
}

#[tokio::test]
async fn the_disk_passes_the_suite_of_openraft() {
    Suite::test_all(OnDisk).await.unwrap();
}

#[tokio::test]
async fn the_memory_disk_passes_the_suite_of_openraft() {
    Suite::test_all(InMemory).await.unwrap();
}

fn log_id(index: u64) -> LogId {
    LogId::new(LeaderId { term: 1, node_id: 1 }, index)
}

fn vote(term: u64) -> Vote {
    Vote { leader_id: LeaderId { term, node_id: 1 }, committed: false }
}

/// An entry whose bytes say where it stands.
fn entry(index: u64, bytes: usize) -> RaftEntry {
    let mut content = index.to_be_bytes().to_vec();
    content.resize(bytes.max(8), 0xa5);
    RaftEntry::new(log_id(index), EntryPayload::Normal(EncodedEntry(Bytes::from(content))))
}

fn entries(indexes: impl IntoIterator<Item = u64>, bytes: usize) -> Vec<RaftEntry> {
    indexes.into_iter().map(|index| entry(index, bytes)).collect()
}

/// Appends without waiting; the receiver hears of the fsync.
async fn append(
    log: &mut impl RaftLogStorage<Types>,
    entries: Vec<RaftEntry>,
) -> io::Result<OneshotReceiverOf<Types, io::Result<()>>> {
    let (done, flushed) = Types::oneshot();
    log.append(entries, IOFlushed::signal(done)).await?;
    Ok(flushed)
}

/// What the log holds, checked to be what was once written: dense from 0, each entry at its place.
async fn held(log: &mut impl RaftLogReader<Types>, bytes: usize) -> u64 {
    let found = log.try_get_log_entries(0..).await.unwrap();
    for (index, found) in (0..).zip(&found) {
        assert_eq!(*found, entry(index, bytes), "nothing is invented");
    }
    found.len() as u64
}
