//! The contract of [`ObjectStore`] as a suite that any implementation can run: [`check`].
//!
//! It panics at the first promise that is broken. Every part uses keys of its own below a folder of its own, so a store may be
//! checked again in another run only if it is emptied, or opened under another prefix.

mod race;
mod single;

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::ObjectStoreError;
use crate::payload::Payload;
use crate::store::{GetRange, ObjectStore};

/// How much the suite does, for stores that are slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Rounds of each race.
    pub rounds: usize,
    /// Writers of each race.
    pub writers: usize,
    /// Bytes of the largest object.
    pub object_bytes_max: usize,
}

impl Default for Extent {
    fn default() -> Self {
        Self { rounds: 100, writers: 16, object_bytes_max: 9 * 1024 * 1024 + 1 }
    }
}

/// Checks the whole contract on an empty store.
///
/// # Panics
/// If the store breaks it.
pub async fn check(store: Arc<dyn ObjectStore>) {
    check_to(store, Extent::default()).await;
}

/// Checks the whole contract on an empty store, to a chosen extent.
///
/// # Panics
/// If the store breaks it.
pub async fn check_to(store: Arc<dyn ObjectStore>, extent: Extent) {
    single::an_object_is_put_once_and_read_back(&*store).await;
    single::ranges_are_exact_or_refused(&*store).await;
    single::a_swap_needs_the_version_that_it_expects(&*store).await;
    single::pages_follow_the_byte_order_of_keys(&*store).await;
    single::odd_keys_are_kept_and_bad_ones_refused(&*store).await;
    single::deleting_is_idempotent_and_answers_for_each_key(&*store).await;
    single::large_objects_are_whole(&*store, extent.object_bytes_max).await;
    race::of_many_writers_one_creates_the_object(&store, extent).await;
    race::of_many_swappers_one_moves_each_version(&store, extent).await;
    race::a_counter_loses_no_increment(&store, extent).await;
}

async fn put(store: &dyn ObjectStore, key: &str, bytes: &'static [u8]) {
    let put = store.put_if_absent(key, Payload::from(Bytes::from_static(bytes))).await;
    put.unwrap_or_else(|error| panic!("put {key:?}: {error:?}"));
}

async fn read(store: &dyn ObjectStore, key: &str) -> Bytes {
    let read = store.get(key, GetRange::WholeUpTo(u64::MAX)).await;
    read.unwrap_or_else(|error| panic!("get {key:?}: {error:?}")).0
}

fn assert_not_found<T: Debug>(result: &Result<T, ObjectStoreError>) {
    assert!(matches!(result, Err(ObjectStoreError::NotFound { .. })), "not found was expected: {result:?}");
}

fn assert_mismatch<T: Debug>(result: &Result<T, ObjectStoreError>) {
    assert!(
        matches!(result, Err(ObjectStoreError::VersionMismatch { .. })),
        "a mismatch was expected: {result:?}"
    );
}
