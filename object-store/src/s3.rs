//! A store in a bucket of Amazon S3, or of a server that speaks its protocol and honours conditional writes.
//!
//! A request is tried a few times with growing, jittered pauses, within a budget that all requests of the store share
//! (`retry`); the SDK's own retries are off, since they do not know what may have happened. What a failed try means is
//! decided in one place (`attempt`).

mod attempt;
mod body;
mod connect;
mod count;
mod read;
mod retry;
#[cfg(test)]
mod tests;
mod write;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::Client;
use bytes::Bytes;
use carnax_core::usage::StoreRequests;
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::error::ObjectStoreError;
use crate::key::{Version, check_key};
use crate::payload::Payload;
use crate::requests::RequestCounter;
use crate::store::{GetRange, ListPage, ObjectHead, ObjectStore, StoreFuture, Verb, check_limit};
use attempt::Failed;
pub use connect::S3Settings;
use retry::{Persistence, RetryBudget};

/// Keeps objects in a bucket, below an optional prefix.
///
/// Objects carry their CRC32C as S3's full-object checksum: it is sent with every put, checked by the store and told by
/// [`ObjectStore::head`]. Versions are entity tags.
#[derive(Debug)]
pub struct S3Store {
    client: Client,
    bucket: String,
    /// Empty, or ending with a slash.
    prefix: String,
    settings: S3Settings,
    budget: RetryBudget,
    requests: Arc<RequestCounter>,
}

impl S3Store {
    /// Makes a store with region, endpoint and credentials from where the AWS SDKs look for them: environment, shared
    /// files, web identity, container and instance roles. Sends nothing to the bucket.
    pub async fn open(bucket: &str, prefix: &str, settings: S3Settings) -> Self {
        let requests = Arc::<RequestCounter>::default();
        let client = connect::client(&settings, &requests).await;
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Self { client, bucket: bucket.to_owned(), prefix, settings, budget: RetryBudget::new(), requests }
    }

    fn full_key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// Tries until it works, it cannot work, or patience or budget end.
    ///
    /// `bytes` is how much one try moves, which bounds its time.
    async fn persist<T, F>(&self, bytes: u64, mut attempt: impl FnMut() -> F) -> Tried<T>
    where
        F: Future<Output = Result<T, Failed>>,
    {
        let limit = self.settings.try_time_max(bytes);
        let mut persistence = Persistence::new(self.settings.tries_max, &self.budget);
        let mut doubtful = false;
        loop {
            let result = match tokio::time::timeout(limit, Box::pin(attempt())).await {
                Ok(result) => result,
                Err(_) => Err(Failed::timed_out(limit)),
            };
            let failed = match result {
                Ok(value) => {
                    persistence.succeeded();
                    return Tried { result: Ok(value), doubtful };
                }
                Err(failed) => failed,
            };
            let pause = if failed.is_transient() { persistence.pause(failed.is_throttled()) } else { None };
            let Some(pause) = pause else {
                return Tried { doubtful: doubtful || failed.may_have_happened, result: Err(failed) };
            };
            doubtful |= failed.may_have_happened;
            tracing::debug!(%failed, ?pause, "an S3 request is tried again");
            tokio::time::sleep(pause).await;
        }
    }
}

/// How a request ended, over all its tries.
struct Tried<T> {
    result: Result<T, Failed>,
    /// Whether a try that failed may have happened all the same.
    doubtful: bool,
}

impl<T> Tried<T> {
    fn into_result(self, verb: Verb, key: &str) -> Result<T, ObjectStoreError> {
        let doubtful = self.doubtful;
        self.result.map_err(|failed| failed.into_error(verb, key, doubtful))
    }
}

impl ObjectStore for S3Store {
    fn put_if_absent<'a>(&'a self, key: &'a str, payload: Payload) -> StoreFuture<'a, ()> {
        async move {
            check_key(key)?;
            self.create(key, payload).await
        }
        .boxed()
    }

    fn compare_and_swap<'a>(
        &'a self,
        key: &'a str,
        expected: Option<Version>,
        bytes: Bytes,
    ) -> StoreFuture<'a, Version> {
        async move {
            check_key(key)?;
            self.swap(key, expected, Payload::from(bytes)).await
        }
        .boxed()
    }

    fn get<'a>(&'a self, key: &'a str, range: GetRange) -> StoreFuture<'a, (Bytes, Version)> {
        async move {
            check_key(key)?;
            range.check(key)?;
            self.read(key, range).await
        }
        .boxed()
    }

    fn head<'a>(&'a self, key: &'a str) -> StoreFuture<'a, ObjectHead> {
        async move {
            check_key(key)?;
            self.describe(key).await
        }
        .boxed()
    }

    fn list<'a>(&'a self, prefix: &'a str, start_after: &'a str, limit: usize) -> StoreFuture<'a, ListPage> {
        async move {
            check_limit(prefix, limit)?;
            self.page(prefix, start_after, limit).await
        }
        .boxed()
    }

    fn delete_many<'a>(&'a self, keys: &'a [String]) -> BoxFuture<'a, Vec<Result<(), ObjectStoreError>>> {
        self.delete(keys).boxed()
    }

    fn take_requests(&self) -> StoreRequests {
        self.requests.take()
    }
}

/// The slowest transfer that is waited for.
const BYTES_PER_SECOND_MIN: u64 = 1024 * 1024;

impl S3Settings {
    fn try_time_max(&self, bytes: u64) -> Duration {
        // A reader's bound may be far beyond what there is.
        let bytes = bytes.min(carnax_core::limits::SEGMENT_BYTES_MAX);
        self.try_time.saturating_add(Duration::from_secs(bytes / BYTES_PER_SECOND_MIN))
    }
}
