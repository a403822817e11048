//! What lies in the bucket after writes that are repeated, cut off, or fail without saying whether they happened.

use std::sync::Arc;

use carnax_core::id::{ClusterId, Incarnation, LogIndex};
use carnax_core::metadata::OpenSession;
use carnax_core::time::Timestamp;
use carnax_metadata_state::archive::ArchivedEntry;
use carnax_metadata_state::{Command, Entry, FeatureLevel, State, snapshot};
use carnax_object_store::{Failure, Fault, FaultStore, MemoryStore, ObjectStore, Payload, Verb};

use super::*;

type Store = Arc<FaultStore<MemoryStore>>;

pub(crate) fn vault() -> (Store, Vault) {
    let store = Arc::new(FaultStore::new(MemoryStore::new()));
    let cluster = ClusterId::from_parts(Timestamp::from_millis(1_700_000_000_000), 1);
    let vault = Vault { store: Arc::clone(&store) as _, cluster, incarnation: Incarnation(1) };
    (store, vault)
}

/// A log: the bootstrap, then sessions; every third entry has no commands.
pub(crate) fn entry(index: u64) -> ArchivedEntry {
    let command = match index {
        1 => Command::Bootstrap {
            cluster: ClusterId::from_parts(Timestamp::from_millis(1_700_000_000_000), 1),
            incarnation: Incarnation(1),
            voters_wanted: 1,
            address: "a:1".to_owned(),
            disk: 1,
        },
        _ => Command::OpenSession(OpenSession { frontend: format!("frontend-{index}") }),
    };
    let log_time = Timestamp::from_millis(1_700_000_000_000 + i64::try_from(index).unwrap());
    let encoded = Entry { level: FeatureLevel::CURRENT, log_time, commands: vec![command] }.encode();
    let bytes = if index.is_multiple_of(3) { Vec::new() } else { encoded };
    ArchivedEntry { index: LogIndex(index), term: 1, bytes: bytes.into() }
}

pub(crate) fn entries(indexes: std::ops::RangeInclusive<u64>) -> Vec<ArchivedEntry> {
    indexes.map(entry).collect()
}

/// The state after the entries up to this one.
pub(crate) fn state(last: u64) -> State {
    let mut state = State::default();
    for entry in entries(1..=last).into_iter().filter(|entry| !entry.bytes.is_empty()) {
        state.apply(entry.index, &Entry::decode(&entry.bytes).unwrap());
    }
    state
}

pub(crate) fn bytes_of(state: &State) -> Vec<u8> {
    let mut bytes = Vec::new();
    snapshot::write(state, &mut bytes).unwrap();
    bytes
}

#[tokio::test]
async fn a_snapshot_in_parts_is_read_back_and_its_index_has_the_documented_form() {
    let (store, vault) = vault();
    vault.put_snapshot_in(100, LogIndex(20), state(20), 0xab).await.unwrap();
    let (found, bytes) = vault.snapshot(LogIndex(20)).await.unwrap();
    assert!(bytes_of(&found) == bytes_of(&state(20)) && bytes == bytes_of(&found).len() as u64);
    let parts = vault.list("1/snapshot-parts/").await.unwrap();
    assert!(parts.len() > 5, "{parts:?}");
    assert_eq!(parts[1].key, "1/snapshot-parts/00000000000000000020-00000000000000ab/000001");

    let (index, _) = store
        .get("1/snapshots/00000000000000000020", carnax_object_store::GetRange::WholeUpTo(10_000))
        .await
        .unwrap();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    assert_eq!(index["parts"].as_array().unwrap().len(), parts.len());
    assert_eq!(index["parts"][0]["bytes"], parts[0].size);
    let known = ["attempt", "cluster", "format_version", "incarnation", "last_index", "log_time", "parts"];
    assert_eq!(index.as_object().unwrap().keys().collect::<Vec<_>>(), known);
    assert_eq!((&index["attempt"], &index["format_version"]), (&"00000000000000ab".into(), &1.into()));
    assert_eq!(index["log_time"], 1_700_000_000_020_i64);
}

#[tokio::test]
async fn a_snapshot_counts_only_when_it_is_whole() {
    let (store, vault) = vault();
    // The last put is that of the index; the one before it is done and nobody knows.
    let puts = [Fault::default(), Fault::fail(Failure::Lost)];
    store.script(Verb::PutIfAbsent, puts);
    assert!(vault.put_snapshot(LogIndex(20), state(20), 1).await.is_err());
    assert_eq!(
        vault.inventory().await.unwrap().holdings.base(),
        LogIndex(0),
        "without its index it is nothing"
    );
    store.script(Verb::PutIfAbsent, [Fault::default(), Fault::fail(Failure::After)]);
    vault.put_snapshot(LogIndex(20), state(20), 2).await.unwrap();
    vault.put_snapshot(LogIndex(20), state(20), 3).await.expect("another leader wrote the same one");
    assert_eq!(vault.inventory().await.unwrap().holdings.base(), LogIndex(20));
    vault.snapshot(LogIndex(20)).await.unwrap();

    let part = "1/snapshot-parts/00000000000000000020-0000000000000002/000000".to_owned();
    store.delete_many(std::slice::from_ref(&part)).await.remove(0).unwrap();
    let missing = vault.snapshot(LogIndex(20)).await.unwrap_err();
    assert!(matches!(missing, VaultError::Snapshot { .. }), "{missing}");
    let wrong = bytes_of(&state(19));
    store.put_if_absent(&part, Payload::from(bytes::Bytes::from(wrong))).await.unwrap();
    let damaged = vault.snapshot(LogIndex(20)).await.unwrap_err();
    assert!(matches!(damaged, VaultError::Snapshot { .. }), "{damaged}");
}

#[tokio::test]
async fn entries_are_written_once_whatever_the_store_says() {
    let (store, vault) = vault();
    store.script(Verb::PutIfAbsent, [Fault::fail(Failure::After), Fault::fail(Failure::Lost)]);
    vault.put_entries(&entries(1..=5)).await.expect("it was done, although the store did not say so");
    assert!(vault.put_entries(&entries(6..=9)).await.is_err(), "it was not done");
    vault.put_entries(&entries(6..=9)).await.unwrap();
    vault.put_entries(&entries(6..=9)).await.expect("the same entries once more");
    let other = ArchivedEntry { index: LogIndex(6), ..entry(1) };
    let other = [other, entry(7), entry(8), entry(9)];
    let different = vault.put_entries(&other).await.unwrap_err();
    assert!(matches!(different, VaultError::Different { .. }), "{different}");
    let inventory = vault.inventory().await.unwrap();
    assert_eq!((inventory.holdings.end(), inventory.archive_objects), (LogIndex(9), 2));
}

#[tokio::test]
async fn what_lies_behind_two_later_snapshots_goes_and_a_cut_off_deletion_is_taken_up() {
    let (store, vault) = vault();
    for last in [4, 8, 12] {
        vault.put_entries(&entries(last - 3..=last)).await.unwrap();
        vault.put_snapshot(LogIndex(last), state(last), last).await.unwrap();
    }
    store.script(Verb::DeleteMany, [Fault::default(), Fault::fail(Failure::Lost)]);
    assert!(vault.prune().await.is_err());
    let holdings = vault.inventory().await.unwrap().holdings;
    assert_eq!(holdings.snapshots, [LogIndex(8), LogIndex(12)].into(), "the snapshot stops to count first");
    vault.prune().await.unwrap();
    let keys: Vec<_> = vault.list("1/").await.unwrap().into_iter().map(|object| object.key).collect();
    assert_eq!(
        keys,
        [
            "1/archive/00000000000000000009-00000000000000000012",
            "1/snapshot-parts/00000000000000000008-0000000000000008/000000",
            "1/snapshot-parts/00000000000000000012-000000000000000c/000000",
            "1/snapshots/00000000000000000008",
            "1/snapshots/00000000000000000012",
        ]
    );
}
