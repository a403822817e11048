//! Puts, swaps and deletes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use aws_sdk_s3::types::{ChecksumAlgorithm, Delete, Error as KeyError, ObjectIdentifier};

use super::S3Store;
use super::attempt::{Cause, Failed};
use super::body::ChunkBody;
use crate::error::{ObjectStoreError, Said, SharedError};
use crate::key::{Version, check_key};
use crate::payload::Payload;
use crate::store::{DELETE_BATCH_KEYS_MAX, GetRange, Verb};

impl S3Store {
    pub(super) async fn create(&self, key: &str, payload: Payload) -> Result<(), ObjectStoreError> {
        let tried = self.persist(payload.length(), || self.put_once(key, &payload, None)).await;
        match (&tried.result, tried.doubtful) {
            (Ok(_), _) => Ok(()),
            (Err(Failed { cause: Cause::ConditionFailed, .. }), false) => {
                Err(ObjectStoreError::already_exists(key))
            }
            (Err(Failed { cause: Cause::ConditionFailed, .. }), true) => self.recognize(key, &payload).await,
            (Err(_), _) => tried.into_result(Verb::PutIfAbsent, key).map(drop),
        }
    }

    /// Says whether the object that stands in the way is the one that an earlier try of ours wrote.
    async fn recognize(&self, key: &str, payload: &Payload) -> Result<(), ObjectStoreError> {
        let unknown = |error| {
            let cause: SharedError = Arc::new(error);
            ObjectStoreError::outcome_unknown(Verb::PutIfAbsent, key, cause)
        };
        let head = self.describe(key).await.map_err(unknown)?;
        let crc32c = match head.crc32c {
            _ if head.size != payload.length() => None,
            // A server that keeps no checksums: the bytes themselves tell.
            None => {
                let (bytes, _) = self.read(key, GetRange::WholeUpTo(head.size)).await.map_err(unknown)?;
                Some(crc32c::crc32c(&bytes))
            }
            stored => stored,
        };
        match crc32c == Some(payload.crc32c()) {
            true => Ok(()),
            false => Err(ObjectStoreError::already_exists(key)),
        }
    }

    pub(super) async fn swap(
        &self,
        key: &str,
        expected: Option<Version>,
        payload: Payload,
    ) -> Result<Version, ObjectStoreError> {
        let tried = self.persist(payload.length(), || self.put_once(key, &payload, expected.as_ref())).await;
        match &tried.result {
            // After a doubtful try the object may be at our own version. Equal bytes would prove nothing: another writer
            // may have swapped in the same.
            Err(Failed { cause: Cause::ConditionFailed | Cause::NotFound, .. }) if !tried.doubtful => {
                Err(ObjectStoreError::version_mismatch(key, expected))
            }
            _ => tried.into_result(Verb::CompareAndSwap, key),
        }
    }

    /// Sends one put on condition that the object is at `expected`; none: that there is no object.
    async fn put_once(
        &self,
        key: &str,
        payload: &Payload,
        expected: Option<&Version>,
    ) -> Result<Version, Failed> {
        let length = i64::try_from(payload.length())
            .map_err(|_| ObjectStoreError::invalid(key, "an object has less than 2^63 bytes"))?;
        let put = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(self.full_key(key))
            .content_length(length)
            // Given with its value, so that the SDK does not compute it again; some servers keep it only if it is also named.
            .checksum_algorithm(ChecksumAlgorithm::Crc32C)
            .checksum_crc32_c(aws_smithy_types::base64::encode(payload.crc32c().to_be_bytes()))
            .body(ByteStream::new(SdkBody::from_body_1_x(ChunkBody::new(payload.clone()))));
        let put = match expected {
            Some(version) => put.if_match(version.as_str()),
            None => put.if_none_match("*"),
        };
        let written = put.send().await?;
        written.e_tag.map(Version::new).ok_or_else(|| Failed::broken("the answer has no entity tag"))
    }

    pub(super) async fn delete(&self, keys: &[String]) -> Vec<Result<(), ObjectStoreError>> {
        let mut failures: BTreeMap<&str, ObjectStoreError> = BTreeMap::new();
        let mut good = BTreeSet::new();
        for key in keys {
            match check_key(key) {
                Ok(()) => drop(good.insert(key.as_str())),
                Err(error) => drop(failures.insert(key, error)),
            }
        }
        let good: Vec<&str> = good.into_iter().collect();
        for batch in good.chunks(DELETE_BATCH_KEYS_MAX) {
            failures.extend(self.delete_batch(batch).await);
        }
        keys.iter().map(|key| failures.get(key.as_str()).cloned().map_or(Ok(()), Err)).collect()
    }

    /// Deletes what can be deleted and returns the keys that failed.
    async fn delete_batch<'k>(&self, keys: &[&'k str]) -> BTreeMap<&'k str, ObjectStoreError> {
        // What is left to delete, from try to try; never held over a wait.
        let left = Mutex::new(keys.to_vec());
        let refused = Mutex::new(BTreeMap::new());
        let tried = self.persist(0, || self.delete_once(&left, &refused)).await;
        let mut failures = refused.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Err(failed) = tried.result {
            let left = left.into_inner().unwrap_or_else(PoisonError::into_inner);
            let error =
                failed.into_error(Verb::DeleteMany, left.first().copied().unwrap_or(""), tried.doubtful);
            failures.extend(left.into_iter().map(|key| (key, error.clone())));
        }
        failures
    }

    async fn delete_once<'k>(
        &self,
        left: &Mutex<Vec<&'k str>>,
        refused: &Mutex<BTreeMap<&'k str, ObjectStoreError>>,
    ) -> Result<(), Failed> {
        let keys = left.lock().map(|left| left.clone()).unwrap_or_default();
        let identify = |key: &&str| ObjectIdentifier::builder().key(self.full_key(key)).build();
        let objects: Result<Vec<_>, _> = keys.iter().map(identify).collect();
        let delete =
            objects.and_then(|objects| Delete::builder().set_objects(Some(objects)).quiet(true).build());
        let delete = delete.map_err(|error| Failed::broken(error.to_string()))?;
        let answer = self.client.delete_objects().bucket(&self.bucket).delete(delete).send().await?;

        let mut again = Vec::new();
        for error in answer.errors() {
            let named = error.key().and_then(|key| key.strip_prefix(&self.prefix));
            let Some(key) = named.and_then(|named| keys.iter().find(|key| **key == named)) else { continue };
            match error.code() {
                Some("NoSuchKey") => {}
                Some("InternalError" | "SlowDown" | "ServiceUnavailable") => again.push(*key),
                _ => {
                    let refusal =
                        ObjectStoreError::denied(Verb::DeleteMany, key, Said::shared(sentence(error)));
                    if let Ok(mut refused) = refused.lock() {
                        refused.insert(key, refusal);
                    }
                }
            }
        }
        let done = again.is_empty();
        if let Ok(mut left) = left.lock() {
            *left = again;
        }
        if done { Ok(()) } else { Err(Failed::throttled("some keys of the batch could not be deleted now")) }
    }
}

fn sentence(error: &KeyError) -> String {
    format!("{}: {}", error.code().unwrap_or("no code"), error.message().unwrap_or("no message"))
}
