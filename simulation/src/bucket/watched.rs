//! A store that notes what appears in it and what is deleted.

use std::time::Duration;

use bytes::Bytes;
use carnax_core::usage::StoreRequests;
use carnax_object_store::{
    GetRange, ListPage, MemoryStore, ObjectHead, ObjectStore, ObjectStoreError, Payload, StoreFuture, Version,
};
use carnax_platform::entropy::Entropy;
use futures::future::BoxFuture;

use crate::history::Recorder;
use crate::world::{SeededEntropy, SplitMix, now};

/// It lies below the faults, so that it knows what was done, whatever the caller was told.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) inner: MemoryStore,
    pub(crate) recorder: Recorder,
    /// How long it takes at most until what a merge wrote is there.
    pub(crate) merge_delay_max: Duration,
    pub(crate) entropy: SeededEntropy,
}

impl ObjectStore for Watched {
    fn put_if_absent<'a>(&'a self, key: &'a str, payload: Payload) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            if key.contains("/merged/") && !self.merge_delay_max.is_zero() {
                let mut random = SplitMix(self.entropy.next_u64());
                tokio::time::sleep(random.between(Duration::ZERO, self.merge_delay_max)).await;
            }
            self.inner.put_if_absent(key, payload).await?;
            self.recorder.lock().stored.insert(key.to_owned(), now());
            Ok(())
        })
    }

    fn compare_and_swap<'a>(
        &'a self,
        key: &'a str,
        expected: Option<Version>,
        bytes: Bytes,
    ) -> StoreFuture<'a, Version> {
        self.inner.compare_and_swap(key, expected, bytes)
    }

    fn get<'a>(&'a self, key: &'a str, range: GetRange) -> StoreFuture<'a, (Bytes, Version)> {
        self.inner.get(key, range)
    }

    fn head<'a>(&'a self, key: &'a str) -> StoreFuture<'a, ObjectHead> {
        self.inner.head(key)
    }

    fn list<'a>(&'a self, prefix: &'a str, start_after: &'a str, limit: usize) -> StoreFuture<'a, ListPage> {
        self.inner.list(prefix, start_after, limit)
    }

    fn delete_many<'a>(&'a self, keys: &'a [String]) -> BoxFuture<'a, Vec<Result<(), ObjectStoreError>>> {
        Box::pin(async move {
            let deleted = self.inner.delete_many(keys).await;
            let mut history = self.recorder.lock();
            for (key, _) in keys.iter().zip(&deleted).filter(|(_, deleted)| deleted.is_ok()) {
                if history.stored.contains_key(key) {
                    history.deleted.entry(key.clone()).or_insert_with(now);
                }
            }
            deleted
        })
    }

    fn take_requests(&self) -> StoreRequests {
        self.inner.take_requests()
    }
}
