//! The third step: reads the planned bytes and finds the batches in them.
//!
//! A small slice is read as a whole and split by the lengths of its batches. In a large one the footer of the object says
//! where the wanted batch lies. When anything does not fit, the footer tells the good batches from the damaged one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use carnax_core::error_code::ErrorCode;
use carnax_core::id::TopicPartition;
use carnax_core::metadata::{FetchPlan, PlannedSlice};
use carnax_core::object_key::{PageKey, SegmentKey};
use carnax_core::offset::{ByteRange, Offset};
use carnax_core::problem::Problem;
use carnax_core::record::{Batch, BatchError};
use carnax_core::segment::{Footer, LocatedBatch, SegmentError};
use carnax_core::time::Timestamp;
use carnax_object_store::ObjectStoreError;
use futures::StreamExt;

use super::cache::{BLOCK_BYTES, ReadError, ReaderKind};
use super::pages::damaged_page;
use super::{Fetch, FetchRequest, FetchedBatch};

/// Slices that one fetch reads at the same time.
const SLICES_AT_ONCE: usize = 4;
/// Slices up to this size are read as a whole.
const SMALL_SLICE_BYTES: u64 = BLOCK_BYTES;
/// How much of the end of an object is read to find its footer.
const TAIL_BYTES: u64 = 64 * 1024;
/// Batches over all footers that are remembered.
const FOOTER_BATCHES_MAX: usize = 200_000;

/// Footers of objects that were searched lately.
#[derive(Debug, Default)]
pub(crate) struct Footers(Mutex<(usize, BTreeMap<SegmentKey, Arc<Footer>>)>);

/// Batches of one slice.
#[derive(Debug)]
pub(super) struct SliceRead {
    pub(super) batches: Vec<FetchedBatch>,
    /// One past what was looked at, up to the damage if there is some.
    pub(super) next_offset: Offset,
    pub(super) damage: Option<ReadFailure>,
}

/// Why planned bytes are not what they should be.
#[derive(Debug)]
pub(super) enum ReadFailure {
    /// The object is not there (any more).
    Gone(ReadError),
    /// The object store failed.
    Store(ReadError),
    /// Stored batches fail their checks.
    Damaged { on: TopicPartition, from: Offset, to: Offset, reason: String },
    /// A manifest page fails its checks.
    DamagedPage { page: PageKey, reason: String },
}

impl ReadFailure {
    pub(super) fn into_problem(self) -> Problem {
        match self {
            Self::Gone(error) => Problem::new(
                ErrorCode::DamagedBatch,
                format!("an object that holds these records is missing: {error}"),
            ),
            Self::Store(error) => {
                Problem::new(ErrorCode::ObjectStoreUnavailable, format!("records could not be read: {error}"))
                    .with(|facts| facts.retry_after_seconds = Some(1))
            }
            Self::DamagedPage { page, reason } => damaged_page(&page, &reason),
            Self::Damaged { on, from, to, reason } => {
                let detail = format!(
                    "the batch with offsets {from} to {} is damaged: {reason}",
                    to.0.saturating_sub(1)
                );
                Problem::new(ErrorCode::DamagedBatch, detail).with(|facts| {
                    facts.topic_id = Some(on.topic);
                    facts.partition = Some(on.partition);
                    facts.next_offset = Some(to);
                })
            }
        }
    }
}

impl From<ReadError> for ReadFailure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Store(ObjectStoreError::NotFound { .. } | ObjectStoreError::ShortRead { .. }) => {
                Self::Gone(error)
            }
            ReadError::Store(_) | ReadError::Late(_) => Self::Store(error),
        }
    }
}

/// A batch whose checksum is right and whose records are not.
pub(super) fn damaged_records(on: TopicPartition, fetched: &FetchedBatch, error: &BatchError) -> ReadFailure {
    ReadFailure::Damaged {
        on,
        from: fetched.base_offset,
        to: fetched.end_offset(),
        reason: error.to_string(),
    }
}

impl FetchedBatch {
    /// One past the offset of the last record.
    pub(crate) fn end_offset(&self) -> Offset {
        Offset(self.base_offset.0.saturating_add(self.batch.offset_count().into()))
    }

    /// How many records lie at or behind an offset; at most so many, where there are holes.
    fn records_from(&self, offset: Offset) -> u64 {
        let offsets = self.end_offset().since(self.base_offset.max(offset));
        offsets.min(self.batch.header().record_count.unsigned_abs().into())
    }
}

impl Fetch {
    /// Reads a plan until the limits of the request are reached; at least one batch, if there is one.
    ///
    /// # Errors
    /// Only if nothing good comes before the failure.
    pub(super) async fn read(
        &self,
        plan: &FetchPlan,
        request: &FetchRequest,
        log_append_time: bool,
    ) -> Result<SliceRead, ReadFailure> {
        let on = TopicPartition { topic: plan.topic_id, partition: request.partition };
        let kind = ReaderKind::of(plan);
        // A plan without slices: whatever lies up to the high watermark is a hole.
        let next_offset = if plan.slices.is_empty() { plan.high_watermark } else { plan.start };
        let mut all =
            SliceRead { batches: Vec::new(), next_offset: next_offset.max(plan.start), damage: None };
        let (mut bytes, mut records) = (0, 0);
        let (start, max_bytes) = (plan.start, request.max_bytes);
        let mut reads =
            futures::stream::iter(plan.slices.clone())
                .map(|slice| async move {
                    (slice, self.read_slice(&slice, on, start, max_bytes, None, kind).await)
                })
                .buffered(SLICES_AT_ONCE);
        while let Some((slice, read)) = reads.next().await {
            let read = match read {
                Ok(read) => read,
                Err(_) if !all.batches.is_empty() => return Ok(all),
                Err(failure) => return Err(failure),
            };
            for mut fetched in read.batches {
                let length = fetched.batch.bytes().len() as u64;
                let full = bytes + length > request.max_bytes || records >= u64::from(request.max_records);
                if full && !all.batches.is_empty() {
                    return Ok(all);
                }
                bytes += length;
                records += fetched.records_from(plan.start);
                fetched.append_time = (log_append_time && !slice.rewritten).then_some(slice.append_time);
                all.next_offset = fetched.end_offset();
                all.batches.push(fetched);
            }
            match read.damage {
                Some(_) if !all.batches.is_empty() => return Ok(all),
                Some(damage) => return Err(damage),
                None => all.next_offset = read.next_offset.max(all.next_offset),
            }
        }
        Ok(all)
    }

    /// Reads the batches of a slice from an offset on, at least one and no more than `max_bytes` by much; from the first
    /// one on that may have a record at or after `time`, if a time is given.
    ///
    /// # Errors
    /// The bytes cannot be had. Damage is part of the answer.
    pub(super) async fn read_slice(
        &self,
        slice: &PlannedSlice,
        on: TopicPartition,
        from: Offset,
        max_bytes: u64,
        time: Option<Timestamp>,
        kind: ReaderKind,
    ) -> Result<SliceRead, ReadFailure> {
        let wanted_whole = from <= slice.base_offset && slice.bytes.length <= max_bytes && time.is_none();
        if wanted_whole || slice.bytes.length <= SMALL_SLICE_BYTES {
            let bytes = self.cache.read(slice.segment, slice.segment_size, slice.bytes, kind).await?;
            if let Some(batches) = split(&bytes, slice, from) {
                return Ok(SliceRead { batches, next_offset: slice.end_offset, damage: None });
            }
            let footer = self.footer(slice, kind).await;
            return Ok(match footer.and_then(|footer| locate(&footer, slice, on, from, u64::MAX, None)) {
                Ok(located) => pick(&bytes, slice.bytes.start, &located, on),
                Err(error) => all_damaged(slice, on, from, &error),
            });
        }
        let located = match self.footer(slice, kind).await {
            Ok(footer) => locate(&footer, slice, on, from, max_bytes, time),
            Err(error) => Err(error),
        };
        let located = match located {
            Ok(located) => located,
            Err(FooterFailure::Read(error)) => return Err(error.into()),
            Err(error) => return Ok(all_damaged(slice, on, from, &error)),
        };
        let (Some(first), Some(last)) = (located.first(), located.last()) else {
            return Ok(SliceRead { batches: Vec::new(), next_offset: slice.end_offset, damage: None });
        };
        let start = first.bytes.start;
        let length = last.bytes.start + last.bytes.length - start;
        let range = ByteRange { start, length };
        let bytes = self.cache.read(slice.segment, slice.segment_size, range, kind).await?;
        Ok(pick(&bytes, start, &located, on))
    }

    async fn footer(&self, slice: &PlannedSlice, kind: ReaderKind) -> Result<Arc<Footer>, FooterFailure> {
        if let Some(footer) = self.footers.get(&slice.segment) {
            return Ok(footer);
        }
        let size = slice.segment_size;
        let mut tail_bytes = TAIL_BYTES.min(size);
        loop {
            let range = ByteRange { start: size - tail_bytes, length: tail_bytes };
            let tail = self.cache.read(slice.segment, size, range, kind).await?;
            match Footer::parse(&tail, size) {
                Ok(footer) => return Ok(self.footers.insert(slice.segment, footer)),
                Err(SegmentError::TailTooShort { needed }) if needed > tail_bytes && needed <= size => {
                    tail_bytes = needed;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum FooterFailure {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Footer(#[from] SegmentError),
}

/// Splits a whole slice by the lengths of its batches; none if anything is not as it should be.
fn split(bytes: &Bytes, slice: &PlannedSlice, from: Offset) -> Option<Vec<FetchedBatch>> {
    let mut rest = bytes.clone();
    let mut offset = slice.base_offset;
    let mut batches = Vec::new();
    while let Some(batch) = Batch::parse_next(&mut rest).ok()? {
        let fetched = FetchedBatch { base_offset: offset, batch, append_time: None };
        fetched.batch.verify_checksum().ok()?;
        offset = fetched.end_offset();
        if offset > from {
            batches.push(fetched);
        }
    }
    (offset == slice.end_offset).then_some(batches)
}

/// The batches from an offset (and time) on, until `max_bytes` are reached.
fn locate(
    footer: &Footer,
    slice: &PlannedSlice,
    on: TopicPartition,
    from: Offset,
    max_bytes: u64,
    time: Option<Timestamp>,
) -> Result<Vec<LocatedBatch>, FooterFailure> {
    let view = footer.view(on, slice.bytes, slice.base_offset)?;
    let mut located: Vec<LocatedBatch> = Vec::new();
    let mut bytes = 0;
    for batch in view.batches() {
        let wanted = batch.end_offset() > from && time.is_none_or(|time| batch.max_timestamp >= time);
        if located.is_empty() && !wanted {
            continue;
        }
        if !located.is_empty() && bytes + batch.bytes.length > max_bytes {
            break;
        }
        bytes += batch.bytes.length;
        located.push(batch);
    }
    Ok(located)
}

/// Takes located batches out of bytes that begin at `start` of the object; ends before the first damaged one.
fn pick(bytes: &Bytes, start: u64, located: &[LocatedBatch], on: TopicPartition) -> SliceRead {
    let mut read = SliceRead { batches: Vec::new(), next_offset: Offset::ZERO, damage: None };
    for place in located {
        read.next_offset = place.base_offset;
        match pick_one(bytes, start, place) {
            Ok(batch) => {
                read.batches.push(FetchedBatch { batch, base_offset: place.base_offset, append_time: None });
                read.next_offset = place.end_offset();
            }
            Err(reason) => {
                let (from, to) = (place.base_offset, place.end_offset());
                read.damage = Some(ReadFailure::Damaged { on, from, to, reason });
                return read;
            }
        }
    }
    read
}

fn pick_one(bytes: &Bytes, start: u64, place: &LocatedBatch) -> Result<Batch, String> {
    let index =
        |position: u64| usize::try_from(position).map_err(|_| "it lies outside of the object".to_owned());
    let from = index(place.bytes.start - start)?;
    let to = from + index(place.bytes.length)?;
    if to > bytes.len() {
        return Err("it ends behind the slice".to_owned());
    }
    let mut rest = bytes.slice(from..to);
    let batch = Batch::parse_next(&mut rest).map_err(|error| error.to_string())?;
    let batch = batch.filter(|_| rest.is_empty()).ok_or("its length is not that of the footer")?;
    batch.verify_checksum().map_err(|error| error.to_string())?;
    if batch.offset_count() == place.offset_count {
        Ok(batch)
    } else {
        Err("it has more or fewer offsets than the footer says".to_owned())
    }
}

fn all_damaged(slice: &PlannedSlice, on: TopicPartition, from: Offset, error: &FooterFailure) -> SliceRead {
    let from = from.max(slice.base_offset);
    let reason = format!("the segment's footer is of no use: {error}");
    let damage = ReadFailure::Damaged { on, from, to: slice.end_offset, reason };
    SliceRead { batches: Vec::new(), next_offset: from, damage: Some(damage) }
}

impl Footers {
    fn get(&self, key: &SegmentKey) -> Option<Arc<Footer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1.get(key).cloned()
    }

    fn insert(&self, key: SegmentKey, footer: Footer) -> Arc<Footer> {
        let footer = Arc::new(footer);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.0 += footer.batches().len();
        if known.0 > FOOTER_BATCHES_MAX {
            *known = (footer.batches().len(), BTreeMap::new());
        }
        known.1.insert(key, Arc::clone(&footer));
        footer
    }
}
