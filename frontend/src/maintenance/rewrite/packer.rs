//! Lays batches one behind the other, so that their offsets tile a range without a gap: records that are gone leave holes within
//! batches, and batches without records where no other batch reaches.

use bytes::Bytes;
use carnax_core::limits;
use carnax_core::offset::Offset;
use carnax_core::record::{
    Batch, BatchBuilder, Compression, NewRecord, Record, RecordRefused, gap_batch, set_base_offset,
};
use carnax_core::time::Timestamp;

/// Records are packed into batches of so many bytes, before compression.
const PACKED_BATCH_BYTES: usize = 256 * 1024;
/// Offsets that one batch may take.
const SPAN_MAX: u32 = 1 << 31;

/// Packs records into batches.
pub(super) struct Packer {
    /// With whether a frontend, or a worker, encoded it.
    batches: Vec<(Batch, bool)>,
    /// One past the offsets that the batches take.
    next: Offset,
    filling: Option<Filling>,
}

/// A batch that is being filled; it begins where the last one ended.
struct Filling {
    builder: BatchBuilder,
    compression: Compression,
    /// It has a record that is longer than a batch is filled to.
    is_long: bool,
}

impl Packer {
    pub(super) fn new(base: Offset) -> Self {
        Self { batches: Vec::new(), next: base, filling: None }
    }

    /// Adds a batch as it is, which begins at an offset above all before it.
    pub(super) fn put_whole(&mut self, bytes: Vec<u8>, base: Offset, encoded_by_frontend: bool) {
        self.reach(base);
        self.put(bytes.into(), encoded_by_frontend);
    }

    /// Adds a record, whose offset is above all before it.
    pub(super) fn pack(
        &mut self,
        record: &Record,
        timestamp: Timestamp,
        offset: Offset,
        compression: Compression,
    ) -> Result<(), String> {
        let too_far = offset.since(self.next) >= u64::from(SPAN_MAX);
        let other = self
            .filling
            .as_ref()
            .is_some_and(|filling| filling.compression != compression || filling.is_long);
        if too_far || other {
            self.reach(offset);
        }
        let record = NewRecord {
            timestamp,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &record.headers,
        };
        match self.push(&record, offset, compression, PACKED_BATCH_BYTES) {
            Ok(()) => return Ok(()),
            Err(RecordRefused::Full) => self.reach(offset),
            // It fits into a batch of its own.
            Err(RecordRefused::TooLong { .. }) => {
                self.reach(offset);
                let alone = self.push(&record, offset, compression, limits::BATCH_BYTES_MAX);
                return alone.map_err(|error| error.to_string());
            }
            Err(error) => return Err(error.to_string()),
        }
        self.push(&record, offset, compression, PACKED_BATCH_BYTES).map_err(|error| error.to_string())
    }

    /// All batches; behind the last record there is a hole up to `end`.
    pub(super) fn finish(mut self, end: Offset) -> Vec<(Batch, bool)> {
        self.reach(end);
        self.batches
    }

    fn push(
        &mut self,
        record: &NewRecord<'_>,
        offset: Offset,
        compression: Compression,
        bytes_max: usize,
    ) -> Result<(), RecordRefused> {
        let delta =
            u32::try_from(offset.since(self.next)).expect("a batch is ended before it spans too much");
        let new = || Filling {
            builder: BatchBuilder::new(bytes_max),
            compression,
            is_long: bytes_max > PACKED_BATCH_BYTES,
        };
        self.filling.get_or_insert_with(new).builder.push_at(delta, record)
    }

    /// Ends the batch that is being filled, and sees to it that the next one begins at `offset`.
    fn reach(&mut self, offset: Offset) {
        let span = |from: Offset| u32::try_from(offset.since(from)).unwrap_or(SPAN_MAX).min(SPAN_MAX);
        if let Some(Filling { builder, compression, .. }) =
            self.filling.take().filter(|filling| !filling.builder.is_empty())
        {
            let mut bytes = builder.build_spanning(compression, span(self.next)).to_vec();
            set_base_offset(&mut bytes, self.next);
            self.put(bytes.into(), true);
        }
        while self.next < offset {
            let mut bytes = gap_batch(span(self.next)).into_bytes().to_vec();
            set_base_offset(&mut bytes, self.next);
            self.put(bytes.into(), true);
        }
    }

    fn put(&mut self, mut bytes: Bytes, encoded_by_frontend: bool) {
        let batch = Batch::parse_next(&mut bytes).ok().flatten();
        let batch = batch.expect("a batch that was read or built is one");
        self.next = Offset(self.next.0.saturating_add(u64::from(batch.offset_count())));
        self.batches.push((batch, encoded_by_frontend));
    }
}
