//! Puts a sealed segment into the object store, under an id that no other object has.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use carnax_core::error_code::ErrorCode;
use carnax_core::id::{Incarnation, SegmentId};
use carnax_core::object_key::SegmentKey;
use carnax_core::problem::Problem;
use carnax_core::time::Timestamp;
use carnax_object_store::{ObjectStore, ObjectStoreError};
use carnax_platform::clock::Clock;

use super::AppendContext;
use super::accumulate::UnitContent;
use super::seal::{SealedObject, seal};

const BACK_OFF_MIN: Duration = Duration::from_millis(20);
const BACK_OFF_MAX: Duration = Duration::from_secs(1);

/// Under which incarnation, and at what time of the metadata core, segments are written now.
///
/// The time is what the metadata core told last, and this machine's monotonic clock since: its wall clock plays no part.
#[derive(Debug, Clone, Default)]
pub(crate) struct Epoch(Arc<Mutex<Option<Told>>>);

#[derive(Debug, Clone, Copy)]
struct Told {
    incarnation: Incarnation,
    log_time: Timestamp,
    at: Duration,
}

/// What to upload.
#[derive(Debug)]
pub(crate) enum Upload {
    /// Not sealed yet.
    Closed(Vec<UnitContent>),
    /// Again, since the metadata core found its id too old.
    Again(SealedObject),
}

/// An object that is in the store and in no manifest yet.
#[derive(Debug, Clone)]
pub(crate) struct UploadedSegment {
    pub(crate) key: SegmentKey,
    pub(crate) object: SealedObject,
}

impl Epoch {
    /// Takes in what the metadata core said. Log time never goes back.
    pub(crate) fn tell(&self, incarnation: Incarnation, log_time: Timestamp, clock: &dyn Clock) {
        let at = clock.monotonic();
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let earlier = told.filter(|told| told.incarnation == incarnation);
        let log_time = earlier.map_or(log_time, |told| told.log_time.max(log_time));
        *told = Some(Told { incarnation, log_time, at });
    }

    /// Whether it is known.
    pub(crate) fn is_known(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Forgets it: the metadata core has to be asked before the next upload.
    pub(crate) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn now(&self, clock: &dyn Clock) -> Option<(Incarnation, Timestamp)> {
        let told = (*self.0.lock().unwrap_or_else(PoisonError::into_inner))?;
        let since = clock.monotonic().saturating_sub(told.at);
        Some((told.incarnation, told.log_time.saturating_add(since)))
    }
}

/// Seals if needed, and uploads until the deadline of the settings. Dropping the future may leave an object that nobody
/// refers to.
///
/// # Errors
/// `object_store_unavailable`: no manifest refers to the object and none will.
pub(crate) async fn upload(
    context: &AppendContext,
    epoch: &Epoch,
    what: Upload,
) -> Result<UploadedSegment, Problem> {
    let started = tokio::time::Instant::now();
    let object = match what {
        Upload::Closed(units) => seal(units)?,
        Upload::Again(object) => object,
    };
    let limit = context.settings.upload_deadline;
    let key = tokio::time::timeout(limit, put(context, epoch, &object))
        .await
        .unwrap_or_else(|_| Err(unavailable(&format!("the upload took longer than {limit:?}"))))?;
    context.metrics.upload_seconds.observe(started.elapsed().as_secs_f64());
    context.cache.insert_object(key, object.payload.to_bytes());
    tracing::debug!(segment = %key.segment, bytes = object.payload.length(), "segment uploaded");
    Ok(UploadedSegment { key, object })
}

async fn put(context: &AppendContext, epoch: &Epoch, object: &SealedObject) -> Result<SegmentKey, Problem> {
    let mut pause = BACK_OFF_MIN;
    let mut key = new_key(context, epoch)?;
    loop {
        match context.object_store.put_if_absent(&key.to_string(), object.payload.clone()).await {
            Ok(()) => return Ok(key),
            Err(ObjectStoreError::AlreadyExists { .. }) => {
                match is_ours(context.object_store.as_ref(), &key.to_string(), object).await {
                    Some(true) => return Ok(key),
                    Some(false) => key = new_key(context, epoch)?,
                    None => {}
                }
            }
            Err(error) if error.is_transient() => {
                tracing::debug!(%error, segment = %key.segment, "upload failed, it is tried again");
            }
            Err(error) => {
                tracing::warn!(%error, segment = %key.segment, "upload failed for good");
                return Err(unavailable(&error.to_string()));
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(BACK_OFF_MAX);
    }
}

/// Whether the object under our key has our bytes; none if the store does not say.
async fn is_ours(store: &dyn ObjectStore, key: &str, object: &SealedObject) -> Option<bool> {
    match store.head(key).await {
        Ok(head) => {
            let same = head.size == object.payload.length() && head.crc32c == Some(object.payload.crc32c());
            Some(same)
        }
        Err(ObjectStoreError::NotFound { .. }) => Some(false),
        Err(_) => None,
    }
}

/// A key with fresh randomness: a virtual machine that was restored from a snapshot repeats everything else.
fn new_key(context: &AppendContext, epoch: &Epoch) -> Result<SegmentKey, Problem> {
    let (incarnation, time) = epoch
        .now(context.clock.as_ref())
        .ok_or_else(|| Problem::new(ErrorCode::StaleIncarnation, "the cluster was restored meanwhile"))?;
    Ok(SegmentKey::appended(incarnation, SegmentId::from_parts(time, context.entropy.next_u128())))
}

fn unavailable(reason: &str) -> Problem {
    Problem::new(ErrorCode::ObjectStoreUnavailable, format!("records could not be stored: {reason}"))
        .with(|facts| facts.retry_after_seconds = Some(1))
}
