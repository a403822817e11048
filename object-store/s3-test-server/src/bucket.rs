//! The objects, and what befalls requests for them.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use http::StatusCode;
use s3s::dto::{
    DeleteObjectsInput, DeleteObjectsOutput, DeletedObject, ETag, ETagCondition, GetObjectInput,
    GetObjectOutput, HeadObjectInput, HeadObjectOutput, ListObjectsV2Input, ListObjectsV2Output, Object,
    PutObjectInput, PutObjectOutput, StreamingBlob,
};
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use crate::{BUCKET, Fault, Operation};

/// The status of an answer that is not to be sent: the connection closes instead.
pub(crate) const VANISH: u16 = 599;

/// What server and handle share.
#[derive(Default)]
pub(crate) struct Shared {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Stored>,
    requests: BTreeMap<Operation, u64>,
    script: BTreeMap<Operation, VecDeque<Fault>>,
    latency: Duration,
    /// Of a hundred requests, how many are answered 503.
    slow_down: u64,
    slowed_down: u64,
    /// Requests that no script was for.
    unscripted: u64,
    /// Puts whose keys hold one of these are refused.
    refused: Vec<String>,
}

#[derive(Clone)]
struct Stored {
    bytes: Bytes,
    checksum: String,
    tag: String,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn script(&self, operation: Operation, faults: impl IntoIterator<Item = Fault>) {
        self.state().script.entry(operation).or_default().extend(faults);
    }

    pub(crate) fn set_latency(&self, latency: Duration) {
        self.state().latency = latency;
    }

    pub(crate) fn refuse_puts(&self, parts: Vec<String>) {
        self.state().refused = parts;
    }

    pub(crate) fn requests(&self, operation: Operation) -> u64 {
        self.state().requests.get(&operation).copied().unwrap_or(0)
    }

    pub(crate) fn slow_down(&self, percent: u64) {
        self.state().slow_down = percent;
    }

    pub(crate) fn slowed_down(&self) -> u64 {
        self.state().slowed_down
    }

    pub(crate) fn objects(&self) -> Vec<(String, u64)> {
        let state = self.state();
        state.objects.iter().map(|(key, stored)| (key.clone(), stored.bytes.len() as u64)).collect()
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        self.state().objects.keys().cloned().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What befalls a request that no script is for.
    fn weather(&mut self) -> Fault {
        self.unscripted += 1;
        // SplitMix64: chance that is the same each time.
        let mut mixed = self.unscripted.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        if (mixed ^ (mixed >> 31)) % 100 >= self.slow_down {
            return Fault::None;
        }
        self.slowed_down += 1;
        Fault::SlowDown
    }
}

/// The store behind the protocol.
pub(crate) struct Bucket {
    shared: Arc<Shared>,
}

impl Bucket {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Counts a request, waits as told, and meets the faults that come before the effect. Returns the one for after it.
    async fn enter(&self, operation: Operation, bucket: &str) -> S3Result<Fault> {
        let (fault, latency) = {
            let mut state = self.shared.state();
            *state.requests.entry(operation).or_default() += 1;
            let fault = state.script.get_mut(&operation).and_then(VecDeque::pop_front);
            let fault = fault.unwrap_or_else(|| state.weather());
            (fault, state.latency)
        };
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        if bucket != BUCKET {
            return Err(s3_error!(NoSuchBucket));
        }
        match fault {
            Fault::SlowDown => Err(s3_error!(SlowDown)),
            Fault::FailBefore => Err(s3_error!(InternalError)),
            Fault::Deny => Err(s3_error!(AccessDenied)),
            Fault::VanishBefore => Err(vanish()),
            Fault::Conflict => {
                let mut error = S3Error::new(S3ErrorCode::Custom("ConditionalRequestConflict".into()));
                error.set_status_code(StatusCode::CONFLICT);
                Err(error)
            }
            Fault::None | Fault::FailAfter | Fault::VanishAfter | Fault::HangAfter | Fault::ShortBody => {
                Ok(fault)
            }
        }
    }

    fn find(&self, key: &str) -> S3Result<Stored> {
        self.shared.state().objects.get(key).cloned().ok_or_else(|| s3_error!(NoSuchKey))
    }
}

/// Meets the faults that come after the effect.
async fn leave<T>(fault: Fault, output: T) -> S3Result<S3Response<T>> {
    match fault {
        Fault::FailAfter => Err(s3_error!(InternalError)),
        Fault::VanishAfter => Err(vanish()),
        Fault::HangAfter => futures::future::pending().await,
        _ => Ok(S3Response::new(output)),
    }
}

fn vanish() -> S3Error {
    let mut error = S3Error::new(S3ErrorCode::InternalError);
    if let Ok(status) = StatusCode::from_u16(VANISH) {
        error.set_status_code(status);
    }
    error
}

#[async_trait::async_trait]
impl S3 for Bucket {
    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let input = request.input;
        let fault = self.enter(Operation::Put, &input.bucket).await?;
        let bytes = collect(input.body).await?;
        // As base64, which is how it travels.
        let checksum = base64(crc32c::crc32c(&bytes).to_be_bytes());
        if input.checksum_crc32c.as_ref().is_some_and(|sent| *sent != checksum) {
            return Err(s3_error!(BadDigest));
        }
        // As Amazon's: equal bytes have equal tags.
        let tag = format!("{:08x}{:x}", crc32c::crc32c(&bytes), bytes.len());
        {
            let mut state = self.shared.state();
            if state.refused.iter().any(|part| input.key.contains(part.as_str())) {
                return Err(s3_error!(AccessDenied));
            }
            let current = state.objects.get(&input.key);
            match (&input.if_none_match, &input.if_match, current) {
                (Some(ETagCondition::Any), _, Some(_)) => return Err(s3_error!(PreconditionFailed)),
                (_, Some(_), None) => return Err(s3_error!(NoSuchKey)),
                (_, Some(ETagCondition::ETag(expected)), Some(stored)) if expected.value() != stored.tag => {
                    return Err(s3_error!(PreconditionFailed));
                }
                _ => {}
            }
            state.objects.insert(input.key, Stored { bytes, checksum: checksum.clone(), tag: tag.clone() });
        }
        let output = PutObjectOutput {
            e_tag: Some(ETag::Strong(tag)),
            checksum_crc32c: Some(checksum),
            ..PutObjectOutput::default()
        };
        leave(fault, output).await
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        let fault = self.enter(Operation::Get, &input.bucket).await?;
        let stored = self.find(&input.key)?;
        let size = stored.bytes.len();
        let (bytes, content_range) = match input.range {
            None => (stored.bytes, None),
            Some(range) => {
                let range = range.check(size as u64).map_err(|_| s3_error!(InvalidRange))?;
                let (start, end) = (position(range.start), position(range.end));
                let told = format!("bytes {start}-{}/{size}", end - 1);
                (stored.bytes.slice(start..end), Some(told))
            }
        };
        let output = GetObjectOutput {
            content_length: i64::try_from(bytes.len()).ok(),
            content_range,
            e_tag: Some(ETag::Strong(stored.tag)),
            body: Some(body(bytes, fault == Fault::ShortBody)),
            ..GetObjectOutput::default()
        };
        leave(fault, output).await
    }

    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = request.input;
        let fault = self.enter(Operation::Head, &input.bucket).await?;
        let stored = self.find(&input.key)?;
        let output = HeadObjectOutput {
            content_length: i64::try_from(stored.bytes.len()).ok(),
            checksum_crc32c: input.checksum_mode.is_some().then_some(stored.checksum),
            e_tag: Some(ETag::Strong(stored.tag)),
            ..HeadObjectOutput::default()
        };
        leave(fault, output).await
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        let fault = self.enter(Operation::List, &input.bucket).await?;
        let prefix = input.prefix.unwrap_or_default();
        let after = input.start_after.unwrap_or_default();
        let limit = usize::try_from(input.max_keys.unwrap_or(1_000)).unwrap_or(0).min(1_000);
        let from = if prefix > after { Bound::Included(prefix.clone()) } else { Bound::Excluded(after) };
        let output = {
            let state = self.shared.state();
            let mut found = state.objects.range((from, Bound::Unbounded));
            let mut found = found.by_ref().take_while(|(key, _)| key.starts_with(&prefix));
            let contents: Vec<Object> = found.by_ref().take(limit).map(listed).collect();
            ListObjectsV2Output {
                is_truncated: Some(found.next().is_some()),
                key_count: i32::try_from(contents.len()).ok(),
                contents: Some(contents),
                ..ListObjectsV2Output::default()
            }
        };
        leave(fault, output).await
    }

    async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let input = request.input;
        let fault = self.enter(Operation::Delete, &input.bucket).await?;
        if input.delete.objects.len() > 1_000 {
            return Err(s3_error!(MalformedXML));
        }
        let mut deleted = Vec::new();
        {
            let mut state = self.shared.state();
            for object in input.delete.objects {
                state.objects.remove(&object.key);
                deleted.push(DeletedObject { key: Some(object.key), ..DeletedObject::default() });
            }
        }
        leave(fault, DeleteObjectsOutput { deleted: Some(deleted), ..DeleteObjectsOutput::default() }).await
    }
}

fn listed((key, stored): (&String, &Stored)) -> Object {
    Object { key: Some(key.clone()), size: i64::try_from(stored.bytes.len()).ok(), ..Object::default() }
}

async fn collect(body: Option<StreamingBlob>) -> S3Result<Bytes> {
    let mut bytes = BytesMut::new();
    if let Some(mut body) = body {
        while let Some(chunk) = body.next().await {
            bytes.extend_from_slice(&chunk.map_err(|_| s3_error!(IncompleteBody))?);
        }
    }
    Ok(bytes.freeze())
}

fn body(bytes: Bytes, breaks_off: bool) -> StreamingBlob {
    if !breaks_off {
        return StreamingBlob::wrap(stream::iter([Ok::<_, std::io::Error>(bytes)]));
    }
    let half = bytes.slice(..bytes.len() / 2);
    StreamingBlob::wrap(stream::iter([Ok(half), Err(std::io::Error::other("told to break off"))]))
}

fn position(position: u64) -> usize {
    usize::try_from(position).unwrap_or(usize::MAX)
}

/// Base64 of a checksum (RFC 4648, with padding).
fn base64(bytes: [u8; 4]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits = u64::from(u32::from_be_bytes(bytes)) << 4;
    let digit = |place: u32| char::from(DIGITS[usize::try_from(bits >> (6 * place) & 63).unwrap_or(0)]);
    let mut text: String = (0..6).rev().map(digit).collect();
    text.push_str("==");
    text
}
