//! A store in the memory of this process: for tests, simulation and `memory://` URLs.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use carnax_core::offset::ByteRange;
use carnax_core::usage::StoreRequests;
use futures::FutureExt;
use futures::future::{BoxFuture, ready};

use crate::error::ObjectStoreError;
use crate::key::{Version, check_key};
use crate::payload::Payload;
use crate::requests::RequestCounter;
use crate::store::{
    GetRange, ListPage, ListedObject, ObjectHead, ObjectStore, StoreFuture, Verb, check_limit,
};

/// Keeps objects in an ordered map. Every verb is done at once when it is called, in the order of the calls, and never
/// waits, so that a simulation on it is deterministic. Nothing survives the process.
#[derive(Default)]
pub struct MemoryStore {
    state: Mutex<State>,
    requests: RequestCounter,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Object>,
    writes: u64,
}

#[derive(Clone)]
struct Object {
    bytes: Bytes,
    crc32c: u32,
    version: Version,
}

/// Stores that `memory://name` URLs name, as long as somebody holds them.
static NAMED: Mutex<BTreeMap<String, Weak<MemoryStore>>> = Mutex::new(BTreeMap::new());

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// The store of that name in this process, made if nobody holds one now.
    pub fn named(name: &str) -> Arc<Self> {
        let mut named = NAMED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = named.get(name).and_then(Weak::upgrade) {
            return store;
        }
        named.retain(|_, store| store.strong_count() > 0);
        let store = Arc::new(Self::new());
        named.insert(name.to_owned(), Arc::downgrade(&store));
        store
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that may panic runs under this lock, so a poisoned state is still a whole one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, verb: Verb, key: &str) -> Result<Object, ObjectStoreError> {
        check_key(key)?;
        self.requests.count(verb);
        self.state().objects.get(key).cloned().ok_or_else(|| ObjectStoreError::not_found(key))
    }

    fn get_now(&self, key: &str, range: GetRange) -> Result<(Bytes, Version), ObjectStoreError> {
        check_key(key)?;
        range.check(key)?;
        let object = self.read(Verb::Get, key)?;
        let size = object.bytes.len() as u64;
        let ByteRange { start, length } = range.resolve(key, size)?;
        // Both fit in `usize`: they are bounded by the size of a value in memory.
        let (start, length) = (to_usize(start), to_usize(length));
        Ok((object.bytes.slice(start..start + length), object.version))
    }
}

impl State {
    fn insert(&mut self, key: &str, bytes: Bytes, crc32c: u32) -> Version {
        self.writes += 1;
        let version = Version::new(self.writes.to_string());
        self.objects.insert(key.to_owned(), Object { bytes, crc32c, version: version.clone() });
        version
    }

    fn page(&self, prefix: &str, start_after: &str, limit: usize) -> ListPage {
        let from = match prefix > start_after {
            true => Bound::Included(prefix),
            false => Bound::Excluded(start_after),
        };
        let mut found = self
            .objects
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, object)| ListedObject { key: key.clone(), size: object.bytes.len() as u64 });
        let objects = found.by_ref().take(limit).collect();
        ListPage { objects, more: found.next().is_some() }
    }
}

impl ObjectStore for MemoryStore {
    fn put_if_absent<'a>(&'a self, key: &'a str, payload: Payload) -> StoreFuture<'a, ()> {
        let put = || {
            check_key(key)?;
            self.requests.count(Verb::PutIfAbsent);
            let mut state = self.state();
            if state.objects.contains_key(key) {
                return Err(ObjectStoreError::already_exists(key));
            }
            state.insert(key, payload.to_bytes(), payload.crc32c());
            Ok(())
        };
        ready(put()).boxed()
    }

    fn compare_and_swap<'a>(
        &'a self,
        key: &'a str,
        expected: Option<Version>,
        bytes: Bytes,
    ) -> StoreFuture<'a, Version> {
        let swap = || {
            check_key(key)?;
            self.requests.count(Verb::CompareAndSwap);
            let mut state = self.state();
            if state.objects.get(key).map(|object| &object.version) != expected.as_ref() {
                return Err(ObjectStoreError::version_mismatch(key, expected));
            }
            let crc32c = crc32c::crc32c(&bytes);
            Ok(state.insert(key, bytes, crc32c))
        };
        ready(swap()).boxed()
    }

    fn get<'a>(&'a self, key: &'a str, range: GetRange) -> StoreFuture<'a, (Bytes, Version)> {
        ready(self.get_now(key, range)).boxed()
    }

    fn head<'a>(&'a self, key: &'a str) -> StoreFuture<'a, ObjectHead> {
        let head = self.read(Verb::Head, key).map(|object| ObjectHead {
            size: object.bytes.len() as u64,
            version: object.version,
            crc32c: Some(object.crc32c),
        });
        ready(head).boxed()
    }

    fn list<'a>(&'a self, prefix: &'a str, start_after: &'a str, limit: usize) -> StoreFuture<'a, ListPage> {
        let page = check_limit(prefix, limit).map(|()| {
            self.requests.count(Verb::List);
            self.state().page(prefix, start_after, limit)
        });
        ready(page).boxed()
    }

    fn delete_many<'a>(&'a self, keys: &'a [String]) -> BoxFuture<'a, Vec<Result<(), ObjectStoreError>>> {
        self.requests.count_deletions(keys.len());
        let mut state = self.state();
        let delete = |key: &String| check_key(key).map(|()| drop(state.objects.remove(key)));
        ready(keys.iter().map(delete).collect()).boxed()
    }

    fn take_requests(&self) -> StoreRequests {
        self.requests.take()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("objects", &self.state().objects.len()).finish()
    }
}

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_memory_store_keeps_the_contract() {
        crate::contract::check(Arc::new(MemoryStore::new())).await;
    }

    #[test]
    fn a_name_means_one_store_while_somebody_holds_it() {
        let first = MemoryStore::named("shared");
        assert!(Arc::ptr_eq(&first, &MemoryStore::named("shared")));
        assert!(!Arc::ptr_eq(&first, &MemoryStore::named("other")));
        first.state().insert("k", Bytes::new(), 0);
        drop(first);
        assert!(MemoryStore::named("shared").state().objects.is_empty());
    }
}
