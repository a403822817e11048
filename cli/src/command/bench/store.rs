//! The raw object store, with the sizes and the concurrency of the log.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use carnax_object_store::{GetRange, ObjectStore, ObjectStoreSettings, ObjectStoreUrl, Payload};

use super::Bench;
use super::load::{self, Measured, Moved, noise};
use crate::output::say;

/// Puts objects for a while, gets all of them, and deletes them.
pub(super) async fn measure(bench: &Bench, url: &ObjectStoreUrl) -> anyhow::Result<(Measured, Measured)> {
    let settings = ObjectStoreSettings { s3_path_style: bench.s3_path_style };
    let store = carnax_object_store::open(url, &settings).await?;
    let keys = Arc::new(Mutex::new(Vec::new()));
    say("measuring raw puts …");
    let put = put(bench, &store, &keys).await;
    let keys = keys.lock().unwrap_or_else(PoisonError::into_inner).clone();
    say("measuring raw gets …");
    let get = get(bench, &store, keys.clone()).await;
    for failed in store.delete_many(&keys).await.into_iter().filter_map(Result::err).take(1) {
        say(&format!("objects of the benchmark are left behind: {failed}"));
    }
    Ok((put?, get?))
}

async fn put(
    bench: &Bench,
    store: &Arc<dyn ObjectStore>,
    keys: &Arc<Mutex<Vec<String>>>,
) -> anyhow::Result<Measured> {
    let payload = Payload::from(Bytes::from(noise(bench.request_bytes, 1)));
    let end = Instant::now() + bench.duration;
    let prefix = format!("bench/{}-{}", super::millis(), std::process::id());
    let (store, keys) = (Arc::clone(store), Arc::clone(keys));
    load::run(bench.concurrency, move |caller, number| {
        let (store, keys, payload) = (Arc::clone(&store), Arc::clone(&keys), payload.clone());
        let key = format!("{prefix}/{caller}/{number}");
        async move {
            if Instant::now() >= end {
                return Ok(None);
            }
            let bytes = payload.length();
            store.put_if_absent(&key, payload).await?;
            keys.lock().unwrap_or_else(PoisonError::into_inner).push(key);
            Ok(Some(Moved { bytes, records: 0 }))
        }
    })
    .await
}

async fn get(bench: &Bench, store: &Arc<dyn ObjectStore>, keys: Vec<String>) -> anyhow::Result<Measured> {
    let next = Arc::new(AtomicUsize::new(0));
    let (store, keys) = (Arc::clone(store), Arc::new(keys));
    load::run(bench.concurrency, move |_, _| {
        let (store, keys, next) = (Arc::clone(&store), Arc::clone(&keys), Arc::clone(&next));
        async move {
            let Some(key) = keys.get(next.fetch_add(1, Ordering::Relaxed)) else { return Ok(None) };
            let (bytes, _) = store.get(key, GetRange::WholeUpTo(u64::MAX)).await?;
            Ok(Some(Moved { bytes: bytes.len() as u64, records: 0 }))
        }
    })
    .await
}
