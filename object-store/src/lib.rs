//! The object store: one narrow trait of six verbs and what implements it.
//!
//! | implementation | for | where the bytes lie |
//! |---|---|---|
//! | [`S3Store`] | production | a bucket of Amazon S3, or of a server that speaks its protocol |
//! | [`FolderStore`] | one machine | files below a folder, synced to the disk |
//! | [`MemoryStore`] | tests, simulation | this process |
//! | [`FaultStore`] | tests, simulation | another store, with scripted or seeded faults before it |
//!
//! [`open`] makes a store from an [`ObjectStoreUrl`]. The contract stands at [`ObjectStore`]; the module `contract`
//! (feature `contract`) checks it, and every implementation here passes it.
//!
//! Invariants: the crate knows nothing of segments, topics or offsets. An object that was put is never changed by
//! [`ObjectStore::put_if_absent`], and nothing is visible in parts. Nothing is cached: every read asks the store. Nothing
//! runs between calls, so that an idle store costs nothing.

#[cfg(any(test, feature = "contract"))]
pub mod contract;
mod error;
mod fault;
mod folder;
mod key;
mod memory;
mod open;
mod payload;
mod requests;
mod s3;
mod store;
mod url;

pub use error::{ObjectStoreError, SharedError};
pub use fault::{Failure, Fault, FaultRates, FaultStore};
pub use folder::FolderStore;
pub use key::{KEY_BYTES_MAX, KEY_SEGMENT_BYTES_MAX, Version, check_key};
pub use memory::MemoryStore;
pub use open::{ObjectStoreSettings, open};
pub use payload::Payload;
pub use requests::RequestCounter;
pub use s3::{S3Settings, S3Store};
pub use store::{
    DELETE_BATCH_KEYS_MAX, GetRange, LIST_PAGE_KEYS_MAX, ListPage, ListedObject, ObjectHead, ObjectStore,
    StoreFuture, Verb,
};
pub use url::{InvalidObjectStoreUrl, ObjectStoreUrl};
