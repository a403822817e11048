//! A restore goes as far as what is left of the backup leads.

use carnax_core::object_key::{ArchiveKey, SnapshotKey};
use carnax_object_store::{ObjectStore, Payload};

use super::*;
use crate::backup::tests::{bytes_of, entries, state, vault};

async fn damage(store: &dyn ObjectStore, key: &str) {
    store.delete_many(&[key.to_owned()]).await.remove(0).unwrap();
    store
        .put_if_absent(key, Payload::from(bytes::Bytes::from_static(b"not what was written")))
        .await
        .unwrap();
}

fn archive(vault: &Vault, first: u64, last: u64) -> String {
    ArchiveKey { incarnation: vault.incarnation, first: LogIndex(first), last: LogIndex(last) }.to_string()
}

#[tokio::test]
async fn snapshot_and_archive_give_the_state_whatever_overlaps() {
    let (_, vault) = vault();
    assert!(load(&vault).await.unwrap().is_none(), "there is nothing yet");
    for range in [1..=4, 3..=8, 5..=6, 9..=10] {
        vault.put_entries(&entries(range)).await.unwrap();
    }
    let loaded = load(&vault).await.unwrap().unwrap();
    assert_eq!((loaded.last, loaded.entries, loaded.archive_objects), (LogIndex(10), 10, 3));
    assert!(bytes_of(&loaded.state) == bytes_of(&state(10)));

    vault.put_snapshot(LogIndex(5), state(5), 1).await.unwrap();
    let loaded = load(&vault).await.unwrap().unwrap();
    assert_eq!((loaded.last, loaded.entries, loaded.archive_objects), (LogIndex(10), 5, 2));
    assert_eq!(loaded.snapshot.map(|(last, _)| last), Some(LogIndex(5)));
    assert!(bytes_of(&loaded.state) == bytes_of(&state(10)));

    vault.put_entries(&entries(12..=20)).await.unwrap();
    assert_eq!(load(&vault).await.unwrap().unwrap().last, LogIndex(10), "entry 11 is missing");
}

#[tokio::test]
async fn a_damaged_snapshot_is_replaced_by_the_one_before_and_a_damaged_object_by_another_one() {
    let (store, vault) = vault();
    for range in [1..=4, 5..=8, 7..=9, 9..=12] {
        vault.put_entries(&entries(range)).await.unwrap();
    }
    for last in [4, 10] {
        vault.put_snapshot(LogIndex(last), state(last), last).await.unwrap();
    }
    let newest = SnapshotKey { incarnation: vault.incarnation, last: LogIndex(10) };
    damage(&store, &newest.to_string()).await;
    let loaded = load(&vault).await.unwrap().unwrap();
    assert_eq!((loaded.snapshot.unwrap().0, loaded.last), (LogIndex(4), LogIndex(12)));
    assert_eq!(loaded.damaged.len(), 1, "{:?}", loaded.damaged);
    assert!(bytes_of(&loaded.state) == bytes_of(&state(12)));

    damage(&store, &archive(&vault, 9, 12)).await;
    let loaded = load(&vault).await.unwrap().unwrap();
    assert_eq!((loaded.last, loaded.damaged.len()), (LogIndex(9), 2));
    assert!(bytes_of(&loaded.state) == bytes_of(&state(9)));

    damage(&store, &archive(&vault, 1, 4)).await;
    damage(&store, &SnapshotKey { last: LogIndex(4), ..newest }.to_string()).await;
    let nothing = load(&vault).await.unwrap_err();
    assert!(matches!(&nothing, RestoreError::Unusable(damaged) if damaged.len() == 3), "{nothing}");
}
