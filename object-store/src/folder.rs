//! A store in a local folder, shared by all processes of one machine that open it.
//!
//! ```text
//! DIR/1/segments/cb/01HF…          one file an object, at its key
//! DIR/.carnax/in-use               locked (shared) by every process that has the folder open
//! DIR/.carnax/changing             locked (exclusive) while objects are replaced or deleted
//! DIR/.carnax/incoming/<pid>-<n>   bytes that are not yet published
//! ```
//!
//! A write fills a file under `incoming`, syncs it, gives it its name in one step (a hard link, which never replaces; a
//! rename under the lock, which does) and syncs the folders on the way. A reader therefore never sees a part of an object, and
//! what is acknowledged survives a loss of power. Files under `incoming` that no process can be writing any more are removed
//! when the folder is opened.

mod incoming;
mod listing;
mod publish;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use carnax_core::offset::ByteRange;
use carnax_core::usage::StoreRequests;
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::error::ObjectStoreError;
use crate::key::{Version, check_key};
use crate::payload::Payload;
use crate::requests::RequestCounter;
use crate::store::{GetRange, ListPage, ObjectHead, ObjectStore, StoreFuture, Verb, check_limit};
use publish::Publisher;

/// Keeps objects as files below a folder of a local file system that has hard links.
///
/// A verb runs on a blocking thread and goes on to its end there if its future is dropped. Keys that differ only in case
/// are one on file systems that ignore it. The folder is not for network file systems: their locks and syncs promise less.
#[derive(Debug, Clone)]
pub struct FolderStore {
    folder: Arc<Publisher>,
    requests: Arc<RequestCounter>,
}

impl FolderStore {
    /// Opens the folder, creating it if it is absent, and removes what dead writers left behind.
    ///
    /// # Errors
    /// [`ObjectStoreError::Misconfigured`] if the folder cannot be created, written or locked.
    pub async fn open(root: impl Into<PathBuf>) -> Result<Self, ObjectStoreError> {
        let root = root.into();
        blocking(move || {
            let folder = Publisher::open(&root).map_err(|error| ObjectStoreError::Misconfigured {
                detail: format!("the folder {} cannot be opened for writing", root.display()),
                source: Some(Arc::new(error)),
            })?;
            Ok(Self { folder: Arc::new(folder), requests: Arc::default() })
        })
        .await
    }

    /// Counts a verb, and runs it to its end on a thread that may block.
    fn run<'a, T: Send + 'static>(
        &self,
        verb: Verb,
        work: impl FnOnce(&Publisher) -> Result<T, ObjectStoreError> + Send + 'static,
    ) -> StoreFuture<'a, T> {
        if verb != Verb::DeleteMany {
            self.requests.count(verb);
        }
        let folder = Arc::clone(&self.folder);
        blocking(move || work(&folder)).boxed()
    }
}

impl ObjectStore for FolderStore {
    fn put_if_absent<'a>(&'a self, key: &'a str, payload: Payload) -> StoreFuture<'a, ()> {
        let key = key.to_owned();
        self.run(Verb::PutIfAbsent, move |folder| {
            check_key(&key)?;
            folder.create(Verb::PutIfAbsent, &key, payload.chunks()).map(drop)
        })
    }

    fn compare_and_swap<'a>(
        &'a self,
        key: &'a str,
        expected: Option<Version>,
        bytes: Bytes,
    ) -> StoreFuture<'a, Version> {
        let key = key.to_owned();
        self.run(Verb::CompareAndSwap, move |folder| {
            check_key(&key)?;
            match expected {
                Some(expected) => folder.replace(&key, expected, &[bytes]),
                None => folder.create(Verb::CompareAndSwap, &key, &[bytes]),
            }
        })
    }

    fn get<'a>(&'a self, key: &'a str, range: GetRange) -> StoreFuture<'a, (Bytes, Version)> {
        let key = key.to_owned();
        self.run(Verb::Get, move |folder| {
            check_key(&key)?;
            range.check(&key)?;
            let (file, metadata) = open_object(folder.root(), Verb::Get, &key)?;
            let range = range.resolve(&key, metadata.size())?;
            let bytes = read_range(&file, range).map_err(|error| failed_read(Verb::Get, &key, error))?;
            Ok((bytes.into(), version_of(&metadata)))
        })
    }

    fn head<'a>(&'a self, key: &'a str) -> StoreFuture<'a, ObjectHead> {
        let key = key.to_owned();
        self.run(Verb::Head, move |folder| {
            check_key(&key)?;
            let (file, metadata) = open_object(folder.root(), Verb::Head, &key)?;
            let crc32c = checksum(&file).map_err(|error| failed_read(Verb::Head, &key, error))?;
            Ok(ObjectHead { size: metadata.size(), version: version_of(&metadata), crc32c: Some(crc32c) })
        })
    }

    fn list<'a>(&'a self, prefix: &'a str, start_after: &'a str, limit: usize) -> StoreFuture<'a, ListPage> {
        let (prefix, start_after) = (prefix.to_owned(), start_after.to_owned());
        self.run(Verb::List, move |folder| {
            check_limit(&prefix, limit)?;
            listing::page(folder.root(), &prefix, &start_after, limit)
                .map_err(|error| failed_read(Verb::List, &prefix, error))
        })
    }

    fn delete_many<'a>(&'a self, keys: &'a [String]) -> BoxFuture<'a, Vec<Result<(), ObjectStoreError>>> {
        self.requests.count_deletions(keys.len());
        let keys = keys.to_vec();
        async move {
            let count = keys.len();
            match self.run(Verb::DeleteMany, move |folder| Ok(folder.delete(&keys))).await {
                Ok(results) => results,
                Err(error) => vec![Err(error); count],
            }
        }
        .boxed()
    }

    fn take_requests(&self) -> StoreRequests {
        self.requests.take()
    }
}

/// Runs file system calls where they may block. Dropping the future does not stop them.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ObjectStoreError> + Send + 'static,
) -> Result<T, ObjectStoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that shuts down cancels a blocking task, and then before it has begun.
            Err(cancelled) => Err(ObjectStoreError::Misconfigured {
                detail: "the runtime is shutting down".to_owned(),
                source: Some(Arc::new(cancelled)),
            }),
        },
    }
}

fn open_object(root: &Path, verb: Verb, key: &str) -> Result<(File, fs::Metadata), ObjectStoreError> {
    let opened = File::open(root.join(key)).and_then(|file| {
        let metadata = file.metadata()?;
        Ok((file, metadata))
    });
    let (file, metadata) = opened.map_err(|error| failed_read(verb, key, error))?;
    // A folder on the way to other objects is no object.
    if metadata.is_file() { Ok((file, metadata)) } else { Err(ObjectStoreError::not_found(key)) }
}

/// Reads a range that lies within the file.
fn read_range(file: &File, range: ByteRange) -> io::Result<Vec<u8>> {
    let length = usize::try_from(range.length).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    bytes.resize(length, 0);
    file.read_exact_at(&mut bytes, range.start)?;
    Ok(bytes)
}

fn checksum(file: &File) -> io::Result<u32> {
    let mut buffer = vec![0; 256 * 1024];
    let (mut position, mut crc) = (0, 0);
    loop {
        match file.read_at(&mut buffer, position)? {
            0 => return Ok(crc),
            read => {
                crc = crc32c::crc32c_append(crc, &buffer[..read]);
                position += read as u64;
            }
        }
    }
}

/// Every published file gets a later time than the one that it replaces, so that versions do not depend on how coarse the
/// file system's clock is.
fn version_of(metadata: &fs::Metadata) -> Version {
    let (seconds, nanos) = (metadata.mtime(), metadata.mtime_nsec());
    Version::new(format!("{:x}-{seconds:x}.{nanos:x}-{:x}", metadata.ino(), metadata.size()))
}

fn failed_read(verb: Verb, key: &str, error: io::Error) -> ObjectStoreError {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
            ObjectStoreError::not_found(key)
        }
        io::ErrorKind::PermissionDenied => ObjectStoreError::denied(verb, key, Arc::new(error) as Arc<_>),
        _ => ObjectStoreError::unavailable(verb, key, Arc::new(error) as Arc<_>),
    }
}

#[cfg(test)]
mod crash_test;
#[cfg(test)]
mod tests;
