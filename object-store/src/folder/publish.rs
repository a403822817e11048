//! Writing: how bytes become an object of the folder, and how objects go.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;

use super::incoming::{Incoming, clean};
use super::version_of;
use crate::error::{ObjectStoreError, Said};
use crate::key::{Version, check_key};
use crate::store::Verb;

/// Within the root; no key can name it.
const OWN_FOLDER: &str = ".carnax";
/// How long a change waits for those of other processes.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(10);
/// Folders remembered as synced; beyond it they are forgotten and synced again.
const SYNCED_FOLDERS_MAX: usize = 100_000;

/// The folder, open for writing.
#[derive(Debug)]
pub(super) struct Publisher {
    root: PathBuf,
    incoming: PathBuf,
    changing: PathBuf,
    /// Folders whose own entry, and those of all folders above up to the root, are on the disk.
    synced: Mutex<BTreeSet<PathBuf>>,
    /// Says to other processes that files in `incoming` may be alive.
    _in_use: File,
}

impl Publisher {
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let root = std::path::absolute(root)?;
        let own = root.join(OWN_FOLDER);
        let incoming = own.join("incoming");
        let created: Vec<PathBuf> =
            incoming.ancestors().take_while(|path| !path.is_dir()).map(Path::to_owned).collect();
        fs::create_dir_all(&incoming)?;
        for path in created.iter().filter_map(|path| path.parent()) {
            sync_folder(path)?;
        }
        let changing = own.join("changing");
        open_lock(&changing)?;
        let in_use = open_lock(&own.join("in-use"))?;
        let alone = in_use.try_lock().is_ok();
        clean(&incoming, alone)?;
        if alone {
            in_use.unlock()?;
        }
        lock_within(&in_use, File::try_lock_shared)?;
        Ok(Self { root, incoming, changing, synced: Mutex::default(), _in_use: in_use })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Makes an object under a key that has none.
    pub(super) fn create(
        &self,
        verb: Verb,
        key: &str,
        chunks: &[Bytes],
    ) -> Result<Version, ObjectStoreError> {
        let before = |error| failed_write(verb, key, error);
        let target = self.root.join(key);
        self.prepare_folder(&target).map_err(before)?;
        let incoming = Incoming::write(&self.incoming, chunks, SystemTime::now()).map_err(before)?;
        match fs::hard_link(&incoming.path, &target) {
            Ok(()) => {
                self.sync_parent(&target).map_err(|error| unknown(verb, key, &error))?;
                Ok(incoming.version.clone())
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !target.is_dir() => {
                // Whoever is told that the object exists may act on it, so it has to be there after a loss of power too.
                self.sync_parent(&target).map_err(before)?;
                Err(match verb {
                    Verb::CompareAndSwap => ObjectStoreError::version_mismatch(key, None),
                    _ => ObjectStoreError::already_exists(key),
                })
            }
            Err(error) => {
                // Somebody may have removed the folder: the next put makes it anew.
                self.synced().clear();
                Err(before(error))
            }
        }
    }

    /// Replaces an object that is at a version.
    pub(super) fn replace(
        &self,
        key: &str,
        expected: Version,
        chunks: &[Bytes],
    ) -> Result<Version, ObjectStoreError> {
        let verb = Verb::CompareAndSwap;
        let before = |error| failed_write(verb, key, error);
        let target = self.root.join(key);
        let _lock = self.lock_changes().map_err(before)?;
        let current = match fs::metadata(&target) {
            Ok(metadata) if metadata.is_file() && version_of(&metadata) == expected => metadata,
            Ok(_) => return Err(ObjectStoreError::version_mismatch(key, Some(expected))),
            Err(error) if is_absent(&error) => {
                return Err(ObjectStoreError::version_mismatch(key, Some(expected)));
            }
            Err(error) => return Err(before(error)),
        };
        let later = current.modified().map_err(before)? + Duration::from_micros(1);
        let mut incoming =
            Incoming::write(&self.incoming, chunks, later.max(SystemTime::now())).map_err(before)?;
        fs::rename(&incoming.path, &target).map_err(before)?;
        incoming.published = true;
        self.sync_parent(&target).map_err(|error| unknown(verb, key, &error))?;
        Ok(incoming.version.clone())
    }

    /// Deletes objects; one result for each key, in order.
    pub(super) fn delete(&self, keys: &[String]) -> Vec<Result<(), ObjectStoreError>> {
        let mut results = Vec::with_capacity(keys.len());
        for batch in keys.chunks(crate::store::DELETE_BATCH_KEYS_MAX) {
            let lock = self.lock_changes();
            let failed = |key: &str, error| Err(failed_write(Verb::DeleteMany, key, error));
            match lock {
                Ok(_lock) => results.extend(self.delete_batch(batch)),
                Err(error) => {
                    let kind = error.kind();
                    results
                        .extend(batch.iter().map(|key| failed(key, io::Error::new(kind, error.to_string()))));
                }
            }
        }
        results
    }

    fn delete_batch(&self, keys: &[String]) -> Vec<Result<(), ObjectStoreError>> {
        let mut folders = BTreeSet::new();
        let mut delete = |key: &String| {
            check_key(key)?;
            let target = self.root.join(key);
            match fs::remove_file(&target) {
                Ok(()) => folders.extend(target.parent().map(Path::to_owned)),
                Err(error) if is_absent(&error) => {}
                // Where a folder stands there is no object; some systems call unlinking it a lack of permission.
                Err(_) if target.is_dir() => {}
                Err(error) => return Err(failed_write(Verb::DeleteMany, key, error)),
            }
            Ok(())
        };
        let mut results: Vec<_> = keys.iter().map(&mut delete).collect();
        for folder in folders {
            let Err(error) = sync_folder(&folder) else { continue };
            let cause: Arc<io::Error> = Arc::new(error);
            for (key, result) in keys.iter().zip(&mut results) {
                if result.is_ok() && self.root.join(key).parent() == Some(&folder) {
                    *result = Err(ObjectStoreError::outcome_unknown(
                        Verb::DeleteMany,
                        key,
                        cause.clone() as Arc<_>,
                    ));
                }
            }
        }
        results
    }

    /// Creates the folders above an object, and syncs each into the one above it.
    ///
    /// A folder that another process has just created may not be on the disk yet, so the first use here syncs it anyway.
    fn prepare_folder(&self, target: &Path) -> io::Result<()> {
        let Some(folder) = target.parent() else { return Ok(()) };
        if folder == self.root || self.synced().contains(folder) {
            return Ok(());
        }
        fs::create_dir_all(folder)?;
        for path in folder.ancestors().take_while(|path| *path != self.root) {
            if let Some(above) = path.parent() {
                sync_folder(above)?;
            }
        }
        let mut synced = self.synced();
        if synced.len() >= SYNCED_FOLDERS_MAX {
            synced.clear();
        }
        synced.insert(folder.to_owned());
        Ok(())
    }

    fn sync_parent(&self, target: &Path) -> io::Result<()> {
        sync_folder(target.parent().unwrap_or(&self.root))
    }

    fn synced(&self) -> std::sync::MutexGuard<'_, BTreeSet<PathBuf>> {
        self.synced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps replacing and deleting apart, also between processes. The lock ends with the returned file, or the process.
    fn lock_changes(&self) -> io::Result<File> {
        // A file of its own for each change: locks of one open file do not exclude each other.
        let file = open_lock(&self.changing)?;
        lock_within(&file, File::try_lock)?;
        Ok(file)
    }
}

fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

/// Tries until the lock is had. Not by the blocking call: a stopped process would hold up every thread for ever.
fn lock_within(file: &File, try_lock: fn(&File) -> Result<(), TryLockError>) -> io::Result<()> {
    let deadline = Instant::now() + LOCK_WAIT_MAX;
    let mut pause = Duration::from_micros(50);
    loop {
        match try_lock(file) {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "another process holds the folder's lock",
                ));
            }
            Err(TryLockError::WouldBlock) => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(5));
            }
        }
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// A failure before anything was visible.
fn failed_write(verb: Verb, key: &str, error: io::Error) -> ObjectStoreError {
    match error.kind() {
        // A file stands where the key needs a folder.
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists | io::ErrorKind::IsADirectory => {
            ObjectStoreError::invalid(key, "one key is a folder of another")
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            ObjectStoreError::denied(verb, key, Arc::new(error) as Arc<_>)
        }
        io::ErrorKind::Unsupported => ObjectStoreError::Misconfigured {
            detail: "the folder's file system has no hard links".to_owned(),
            source: Some(Arc::new(error)),
        },
        _ => ObjectStoreError::unavailable(verb, key, Arc::new(error) as Arc<_>),
    }
}

/// A failure after the object was visible.
fn unknown(verb: Verb, key: &str, error: &io::Error) -> ObjectStoreError {
    ObjectStoreError::outcome_unknown(verb, key, Said::shared(format!("the folder was not synced: {error}")))
}
