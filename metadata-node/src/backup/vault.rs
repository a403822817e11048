//! The part of the bucket that a restore reads: archive and snapshots of one incarnation.

use std::sync::Arc;

use bytes::Bytes;
use carnax_core::id::{ClusterId, Incarnation, LogIndex};
use carnax_core::object_key::{ArchiveKey, BackupOffKey, SnapshotKey, SnapshotPartKey};
use carnax_metadata_state::archive::{self, ArchiveError, ArchiveRange, ArchivedEntry, Holdings};
use carnax_object_store::{
    GetRange, LIST_PAGE_KEYS_MAX, ListedObject, ObjectStore, ObjectStoreError, Payload,
};

/// Bytes of one archive object: far above what a leader puts into one.
const ARCHIVE_OBJECT_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Where one incarnation's backup lies. Clones share the store.
#[derive(Debug, Clone)]
pub(crate) struct Vault {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) cluster: ClusterId,
    pub(crate) incarnation: Incarnation,
}

/// What does not work with a backup.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The object store failed.
    #[error("the backup cannot be reached")]
    ObjectStore(#[from] ObjectStoreError),
    /// An object of the archive is not what was written.
    #[error("{key} cannot be used")]
    Archive {
        /// Its key.
        key: String,
        /// Why.
        source: ArchiveError,
    },
    /// An object that must be the same, whoever writes it, is another one.
    #[error(
        "{key} exists and holds something else: two clusters write to one bucket, or the object is damaged"
    )]
    Different {
        /// Its key.
        key: String,
    },
    /// A snapshot is not what was written.
    #[error("snapshot {key} cannot be used: {reason}")]
    Snapshot {
        /// Its key.
        key: String,
        /// Why.
        reason: String,
    },
}

/// What lies there, by its names.
#[derive(Debug, Clone, Default)]
pub(crate) struct Inventory {
    pub(crate) holdings: Holdings,
    /// Bytes of the archive objects that a restore reads, and how many there are.
    pub(crate) archive_bytes: u64,
    pub(crate) archive_objects: usize,
    /// Leaders that deleted objects without waiting for the archive, the first one first.
    pub(crate) marks: Vec<BackupOffKey>,
}

impl Vault {
    pub(crate) async fn inventory(&self) -> Result<Inventory, ObjectStoreError> {
        let mut holdings = Holdings::default();
        for object in self.list(&SnapshotKey::folder(self.incarnation)).await? {
            holdings.snapshots.extend(object.key.parse::<SnapshotKey>().ok().map(|key| key.last));
        }
        let base = holdings.base();
        let (mut archive_bytes, mut archive_objects) = (0, 0);
        let mut marks = Vec::new();
        for object in self.list(&ArchiveKey::folder(self.incarnation)).await? {
            marks.extend(object.key.parse::<BackupOffKey>());
            let Ok(ArchiveKey { first, last, .. }) = object.key.parse() else { continue };
            holdings.ranges.insert(ArchiveRange { first, last });
            if last > base {
                archive_bytes += object.size;
                archive_objects += 1;
            }
        }
        Ok(Inventory { holdings, archive_bytes, archive_objects, marks })
    }

    /// Writes entries that follow each other; says how many bytes they took. Durable when it returns; repeating it does no harm.
    pub(crate) async fn put_entries(&self, entries: &[ArchivedEntry]) -> Result<u64, VaultError> {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Ok(0) };
        let range = ArchiveRange { first: first.index, last: last.index };
        let key = self.archive_key(range).to_string();
        let bytes = archive::encode(self.cluster, self.incarnation, entries);
        let length = bytes.len() as u64;
        let refused = match self.store.put_if_absent(&key, Payload::from(bytes.clone())).await {
            Ok(()) => return Ok(length),
            Err(refused) => refused,
        };
        match refused {
            ObjectStoreError::AlreadyExists { .. } | ObjectStoreError::OutcomeUnknown { .. } => {}
            error => return Err(error.into()),
        }
        // The same entries are the same bytes, so that whoever wrote it does not matter.
        match self.store.get(&key, GetRange::WholeUpTo(ARCHIVE_OBJECT_BYTES_MAX)).await {
            Ok((found, _)) if found == bytes => Ok(length),
            Ok(_) | Err(ObjectStoreError::TooLarge { .. }) => Err(VaultError::Different { key }),
            Err(ObjectStoreError::NotFound { .. }) => Err(refused.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// The entries of an archive object, and its bytes.
    pub(crate) async fn entries(&self, range: ArchiveRange) -> Result<(Vec<ArchivedEntry>, u64), VaultError> {
        let key = self.archive_key(range).to_string();
        let (bytes, _) = self.store.get(&key, GetRange::WholeUpTo(ARCHIVE_OBJECT_BYTES_MAX)).await?;
        match archive::decode(self.cluster, self.incarnation, &bytes) {
            Ok(entries) => Ok((entries, bytes.len() as u64)),
            Err(source) => Err(VaultError::Archive { key, source }),
        }
    }

    /// Deletes what lies behind two later complete snapshots. A snapshot stops to count before its parts go.
    pub(crate) async fn prune(&self) -> Result<usize, ObjectStoreError> {
        let gone = self.inventory().await?.holdings.superseded();
        let Some(parts_before) = gone.parts_before else { return Ok(0) };
        let snapshots = gone.snapshots.iter().map(|last| self.snapshot_key(*last).to_string()).collect();
        let mut deleted = self.delete(snapshots).await?;
        let parts = self.list(&SnapshotPartKey::folder(self.incarnation)).await?;
        let is_old = |object: &ListedObject| {
            object.key.parse::<SnapshotPartKey>().is_ok_and(|key| key.snapshot.last < parts_before)
        };
        let parts = parts.into_iter().filter(is_old).map(|object| object.key);
        let ranges = gone.ranges.iter().map(|range| self.archive_key(*range).to_string());
        deleted += self.delete(ranges.chain(parts).collect()).await?;
        Ok(deleted)
    }

    /// The marks of leaders that deleted objects without waiting for the archive, the first one first.
    pub(crate) async fn marks(&self) -> Result<Vec<BackupOffKey>, ObjectStoreError> {
        let found = self.list(&BackupOffKey::folder(self.incarnation)).await?;
        Ok(found.iter().filter_map(|object| object.key.parse().ok()).collect())
    }

    /// Leaves a mark. Repeating it does no harm.
    pub(super) async fn put_mark(&self, mark: BackupOffKey) -> Result<(), ObjectStoreError> {
        let key = mark.to_string();
        match self.store.put_if_absent(&key, Payload::from(Bytes::from_static(b"--backup off"))).await {
            Err(ObjectStoreError::AlreadyExists { .. }) => Ok(()),
            Err(unknown @ ObjectStoreError::OutcomeUnknown { .. }) => {
                self.store.head(&key).await.map(drop).map_err(|_| unknown)
            }
            put => put,
        }
    }

    pub(super) async fn delete_marks(&self, marks: &[BackupOffKey]) -> Result<(), ObjectStoreError> {
        self.delete(marks.iter().map(ToString::to_string).collect()).await.map(drop)
    }

    /// All objects whose keys begin with a text.
    pub(crate) async fn list(&self, prefix: &str) -> Result<Vec<ListedObject>, ObjectStoreError> {
        list_all(&*self.store, prefix).await
    }

    pub(crate) fn snapshot_key(&self, last: LogIndex) -> SnapshotKey {
        SnapshotKey { incarnation: self.incarnation, last }
    }

    fn archive_key(&self, range: ArchiveRange) -> ArchiveKey {
        let ArchiveRange { first, last } = range;
        ArchiveKey { incarnation: self.incarnation, first, last }
    }

    async fn delete(&self, keys: Vec<String>) -> Result<usize, ObjectStoreError> {
        if keys.is_empty() {
            return Ok(0);
        }
        self.store.delete_many(&keys).await.into_iter().collect::<Result<Vec<()>, _>>().map(|all| all.len())
    }
}

/// All objects whose keys begin with a text, in the order of their keys.
async fn list_all(store: &dyn ObjectStore, prefix: &str) -> Result<Vec<ListedObject>, ObjectStoreError> {
    let mut all = Vec::new();
    list_each(store, prefix, &mut |object| all.push(object)).await?;
    Ok(all)
}

/// Tells of all objects whose keys begin with a text, in the order of their keys. One page of the listing is in memory.
pub(crate) async fn list_each(
    store: &dyn ObjectStore,
    prefix: &str,
    each: &mut (dyn FnMut(ListedObject) + Send),
) -> Result<(), ObjectStoreError> {
    let mut after = String::new();
    loop {
        let page = store.list(prefix, &after, LIST_PAGE_KEYS_MAX).await?;
        after = page.objects.last().map_or(after, |object| object.key.clone());
        page.objects.into_iter().for_each(&mut *each);
        if !page.more {
            return Ok(());
        }
    }
}

/// The whole of a small object, or nothing if there is none.
pub(crate) async fn get_small(
    store: &dyn ObjectStore,
    key: &str,
    bytes_max: u64,
) -> Result<Option<Bytes>, ObjectStoreError> {
    match store.get(key, GetRange::WholeUpTo(bytes_max)).await {
        Ok((bytes, _)) => Ok(Some(bytes)),
        Err(ObjectStoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
