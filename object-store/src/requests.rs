//! Counts requests where they are sent.

use std::sync::atomic::{AtomicU64, Ordering};

use carnax_core::usage::StoreRequests;

use crate::store::{DELETE_BATCH_KEYS_MAX, Verb};

/// Counts until the counts are taken. For implementations of [`ObjectStore`](crate::ObjectStore).
#[derive(Debug, Default)]
pub struct RequestCounter {
    put: AtomicU64,
    get: AtomicU64,
    head: AtomicU64,
    list: AtomicU64,
    delete: AtomicU64,
}

impl RequestCounter {
    /// Counts one request.
    pub fn count(&self, verb: Verb) {
        let counter = match verb {
            Verb::PutIfAbsent | Verb::CompareAndSwap => &self.put,
            Verb::Get => &self.get,
            Verb::Head => &self.head,
            Verb::List => &self.list,
            Verb::DeleteMany => &self.delete,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts the deletion of so many keys: a request for each batch of them.
    pub fn count_deletions(&self, keys: usize) {
        (0..keys.div_ceil(DELETE_BATCH_KEYS_MAX)).for_each(|_| self.count(Verb::DeleteMany));
    }

    /// What was counted since this was asked last.
    pub fn take(&self) -> StoreRequests {
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        StoreRequests {
            put: take(&self.put),
            get: take(&self.get),
            head: take(&self.head),
            list: take(&self.list),
            delete: take(&self.delete),
        }
    }
}
