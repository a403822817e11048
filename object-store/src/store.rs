//! The contract between Carnax and whatever keeps its objects.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use carnax_core::offset::ByteRange;
use carnax_core::usage::StoreRequests;
use futures::future::BoxFuture;

use crate::error::ObjectStoreError;
use crate::key::Version;
use crate::payload::Payload;

/// Keys in one page of [`ObjectStore::list`] at most.
pub const LIST_PAGE_KEYS_MAX: usize = 1_000;
/// Keys that [`ObjectStore::delete_many`] sends in one request at most (S3's limit).
pub const DELETE_BATCH_KEYS_MAX: usize = 1_000;

/// What every verb returns.
pub type StoreFuture<'a, T> = BoxFuture<'a, Result<T, ObjectStoreError>>;

/// A flat map from keys to immutable byte strings, shared by every process that opens it.
///
/// # For those who implement it
///
/// - **Keys** are what [`check_key`](crate::check_key) accepts; anything else is
///   [`ObjectStoreError::Invalid`] before anything is done. Two keys of which one is a folder of the other (`a` and
///   `a/b`) are never both used by Carnax; a store may refuse the second as `Invalid`.
/// - **Consistency.** Each verb takes effect at one instant between its call and its return, for all processes (it is
///   linearizable per key). A [`list`](Self::list) that starts after a write has returned shows it.
/// - **Whole or not at all.** No reader ever sees a part of an object, also after a crash.
/// - **Durability.** When a write returns `Ok`, the object survives the loss of power of this machine (and, in S3, the loss
///   of a zone).
/// - **Unknown outcomes.** A write that may have happened, or may still happen, although its success is not known fails
///   with [`ObjectStoreError::OutcomeUnknown`], never with one that says that nothing was done. `Throttled`,
///   `Unavailable` and `Denied` promise that nothing was done and nothing will be.
/// - **Retries** of what is worth retrying happen inside, within bounds; callers do not repeat at once.
/// - **Cancellation.** Dropping the future of a read has no effect. Dropping the future of a write leaves its outcome
///   unknown: it may take effect at any later time.
/// - **Nothing between calls**: no timer, no request, no background work.
pub trait ObjectStore: fmt::Debug + Send + Sync {
    /// Writes an object under a key that has none.
    ///
    /// If the store had to repeat its own request and then finds an object there, it compares length and CRC32C with what
    /// it wanted to write: if they are equal, the object is the one it wrote and the call succeeds. A caller that repeats
    /// the call after `OutcomeUnknown` gets [`ObjectStoreError::AlreadyExists`] and compares by [`head`](Self::head).
    ///
    /// # Errors
    /// `AlreadyExists` if the key has an object, whoever wrote it. That object is then as durable as one's own would be.
    fn put_if_absent<'a>(&'a self, key: &'a str, payload: Payload) -> StoreFuture<'a, ()>;

    /// Replaces an object if it is still at `expected`, or creates it if `expected` is none and the key has none.
    ///
    /// For small objects with several writers. Returns the version of what was written.
    ///
    /// # Errors
    /// [`ObjectStoreError::VersionMismatch`] if the object is at another version, is absent, or exists although none was
    /// expected. A store that repeated its own request cannot always tell its own success from another's: then it fails
    /// with `OutcomeUnknown`, and the caller reads the object to see who wrote it.
    fn compare_and_swap<'a>(
        &'a self,
        key: &'a str,
        expected: Option<Version>,
        bytes: Bytes,
    ) -> StoreFuture<'a, Version>;

    /// Reads an object or a range of it, with the version that all the bytes belong to.
    ///
    /// The answer has exactly the length that was asked for.
    ///
    /// # Errors
    /// [`ObjectStoreError::NotFound`]; [`ObjectStoreError::ShortRead`] if the object ends before the range does;
    /// [`ObjectStoreError::TooLarge`] if the whole object was asked for and is larger than the bound; `Invalid` for an
    /// empty range, or one that ends beyond 2⁶⁴.
    fn get<'a>(&'a self, key: &'a str, range: GetRange) -> StoreFuture<'a, (Bytes, Version)>;

    /// Describes an object without reading it (a local folder reads it, to know its checksum).
    ///
    /// # Errors
    /// [`ObjectStoreError::NotFound`].
    fn head<'a>(&'a self, key: &'a str) -> StoreFuture<'a, ObjectHead>;

    /// Lists objects in the byte order of their keys.
    ///
    /// `prefix` is any text that keys begin with, not a folder; empty lists everything. `start_after` is a key or any text:
    /// only greater keys are listed; empty starts at the first. A page has at most `limit` objects, 1 to
    /// [`LIST_PAGE_KEYS_MAX`].
    ///
    /// # Errors
    /// `Invalid` for a limit outside these bounds.
    fn list<'a>(&'a self, prefix: &'a str, start_after: &'a str, limit: usize) -> StoreFuture<'a, ListPage>;

    /// Deletes objects: one result for each key, in the order of `keys`. A key without an object is a success.
    ///
    /// Sent in batches of [`DELETE_BATCH_KEYS_MAX`]. Deleting is idempotent, so a failed key may be deleted again, whatever
    /// its error was; a key that failed may be gone.
    fn delete_many<'a>(&'a self, keys: &'a [String]) -> BoxFuture<'a, Vec<Result<(), ObjectStoreError>>>;

    /// How many requests were sent since this was asked last, each try counted when it ends: of all who share this store,
    /// each is told once. A store that sends none counts what S3 would have been sent without failures.
    fn take_requests(&self) -> StoreRequests;
}

/// What to read of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GetRange {
    /// Exactly these bytes; at least one.
    Bytes(ByteRange),
    /// The whole object, if it has at most so many bytes.
    WholeUpTo(u64),
}

impl GetRange {
    /// Refuses ranges that no object has.
    pub(crate) fn check(self, key: &str) -> Result<(), ObjectStoreError> {
        match self {
            Self::Bytes(range) if range.length == 0 => {
                Err(ObjectStoreError::invalid(key, "a range has at least one byte"))
            }
            Self::Bytes(range) if range.end().is_none() => {
                Err(ObjectStoreError::invalid(key, "a range ends below 2^64"))
            }
            Self::Bytes(_) | Self::WholeUpTo(_) => Ok(()),
        }
    }

    /// The bytes to read of an object of that size.
    pub(crate) fn resolve(self, key: &str, size: u64) -> Result<ByteRange, ObjectStoreError> {
        match self {
            Self::Bytes(range) if range.end().is_none_or(|end| end > size) => {
                Err(ObjectStoreError::ShortRead { key: key.to_owned(), range, size })
            }
            Self::Bytes(range) => Ok(range),
            Self::WholeUpTo(limit) if size > limit => {
                Err(ObjectStoreError::TooLarge { key: key.to_owned(), size, limit })
            }
            Self::WholeUpTo(_) => Ok(ByteRange { start: 0, length: size }),
        }
    }
}

impl From<ByteRange> for GetRange {
    fn from(range: ByteRange) -> Self {
        Self::Bytes(range)
    }
}

/// What is known of an object without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectHead {
    /// Bytes of the object.
    pub size: u64,
    /// Its version.
    pub version: Version,
    /// CRC32C of all its bytes; none if the store keeps none for it (written by another program).
    pub crc32c: Option<u32>,
}

/// A part of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListPage {
    /// In the byte order of their keys; empty only if nothing is left.
    pub objects: Vec<ListedObject>,
    /// Whether greater keys with the prefix exist: the next page starts after the last of these.
    pub more: bool,
}

/// One object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedObject {
    /// Its key.
    pub key: String,
    /// Its bytes.
    pub size: u64,
}

/// Refuses page sizes that no store serves.
pub(crate) fn check_limit(prefix: &str, limit: usize) -> Result<(), ObjectStoreError> {
    match limit {
        1..=LIST_PAGE_KEYS_MAX => Ok(()),
        _ => Err(ObjectStoreError::invalid(prefix, "a page has 1 to 1000 keys")),
    }
}

/// Names the six verbs, in errors, counts and fault scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// [`ObjectStore::put_if_absent`]
    PutIfAbsent,
    /// [`ObjectStore::compare_and_swap`]
    CompareAndSwap,
    /// [`ObjectStore::get`]
    Get,
    /// [`ObjectStore::head`]
    Head,
    /// [`ObjectStore::list`]
    List,
    /// [`ObjectStore::delete_many`]
    DeleteMany,
}

impl Verb {
    /// All verbs.
    pub const ALL: [Self; 6] =
        [Self::PutIfAbsent, Self::CompareAndSwap, Self::Get, Self::Head, Self::List, Self::DeleteMany];

    /// Whether the verb changes the store.
    pub const fn writes(self) -> bool {
        matches!(self, Self::PutIfAbsent | Self::CompareAndSwap | Self::DeleteMany)
    }

    /// As it stands in messages and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PutIfAbsent => "put",
            Self::CompareAndSwap => "compare_and_swap",
            Self::Get => "get",
            Self::Head => "head",
            Self::List => "list",
            Self::DeleteMany => "delete",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<S: ObjectStore + ?Sized> ObjectStore for Arc<S> {
    fn put_if_absent<'a>(&'a self, key: &'a str, payload: Payload) -> StoreFuture<'a, ()> {
        (**self).put_if_absent(key, payload)
    }

    fn compare_and_swap<'a>(
        &'a self,
        key: &'a str,
        expected: Option<Version>,
        bytes: Bytes,
    ) -> StoreFuture<'a, Version> {
        (**self).compare_and_swap(key, expected, bytes)
    }

    fn get<'a>(&'a self, key: &'a str, range: GetRange) -> StoreFuture<'a, (Bytes, Version)> {
        (**self).get(key, range)
    }

    fn head<'a>(&'a self, key: &'a str) -> StoreFuture<'a, ObjectHead> {
        (**self).head(key)
    }

    fn list<'a>(&'a self, prefix: &'a str, start_after: &'a str, limit: usize) -> StoreFuture<'a, ListPage> {
        (**self).list(prefix, start_after, limit)
    }

    fn delete_many<'a>(&'a self, keys: &'a [String]) -> BoxFuture<'a, Vec<Result<(), ObjectStoreError>>> {
        (**self).delete_many(keys)
    }

    fn take_requests(&self) -> StoreRequests {
        (**self).take_requests()
    }
}
