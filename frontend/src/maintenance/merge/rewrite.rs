//! The batches of neighbouring slices as those of one: with their final offsets and timestamps, and small ones packed into larger
//! ones where a frontend made them. What a producer's own batches hold is not touched.

use bytes::Bytes;
use carnax_core::metadata::{MergePart, SourceSlice};
use carnax_core::offset::Offset;
use carnax_core::record::{
    Batch, BatchBuilder, Compression, NewRecord, RecordRefused, set_base_offset, stamp_append_time,
};
use carnax_core::segment::PartitionBatches;

use super::sources::Sources;

/// Batches that a frontend made and that are smaller are packed together.
const SMALL_BATCH_BYTES: usize = 32 * 1024;
/// Into batches of so many bytes, before compression.
const PACKED_BATCH_BYTES: usize = 256 * 1024;

/// The batches of a part, in order, as one unit of a new segment.
///
/// # Errors
/// What is wrong with the first source that is not what it should be.
pub(super) fn rewrite(part: &MergePart, sources: &Sources) -> Result<Vec<PartitionBatches>, String> {
    let mut packer = Packer::default();
    for source in &part.slices {
        let read = sources.slice(part.on, &source.slice);
        let added = read.and_then(|(bytes, flags)| add_slice(&mut packer, part, source, bytes, &flags));
        added.map_err(|reason| {
            let (slice, key) = (&source.slice, &source.slice.segment);
            format!("offsets {} to {} in {key}: {reason}", slice.base_offset, slice.end_offset)
        })?;
    }
    packer.flush();
    let batches = packer.batches.into_iter().map(|(batch, encoded_by_frontend)| PartitionBatches {
        on: part.on,
        batches: vec![batch],
        encoded_by_frontend,
    });
    Ok(batches.collect())
}

fn add_slice(
    packer: &mut Packer,
    part: &MergePart,
    source: &SourceSlice,
    mut bytes: Bytes,
    flags: &[bool],
) -> Result<(), String> {
    let slice = &source.slice;
    let stamp = (part.stamp && !slice.rewritten).then_some(slice.append_time);
    let mut offset = slice.base_offset;
    let mut flags = flags.iter();
    while let Some(batch) = Batch::parse_next(&mut bytes).map_err(|error| error.to_string())? {
        batch.verify_checksum().map_err(|error| error.to_string())?;
        let by_frontend = *flags.next().ok_or("it has more batches than its footer")?;
        let end = Offset(offset.0 + u64::from(batch.offset_count()));
        let dense = batch.header().record_count.unsigned_abs() == batch.offset_count();
        if by_frontend && dense && stamp.is_none() && batch.bytes().len() < SMALL_BATCH_BYTES {
            packer.pack(&batch, offset)?;
        } else {
            packer.flush();
            let mut whole = batch.into_bytes().to_vec();
            set_base_offset(&mut whole, offset);
            if let Some(append_time) = stamp {
                stamp_append_time(&mut whole, append_time);
            }
            packer.put(whole.into(), by_frontend);
        }
        offset = end;
    }
    if offset == slice.end_offset { Ok(()) } else { Err(format!("its batches end at offset {offset}")) }
}

/// Packs records of small batches into larger ones.
#[derive(Default)]
struct Packer {
    batches: Vec<(Batch, bool)>,
    filling: Option<(BatchBuilder, Offset, Compression)>,
}

impl Packer {
    /// Takes the records of a batch whose offsets are dense from `base` on.
    fn pack(&mut self, batch: &Batch, base: Offset) -> Result<(), String> {
        let compression = batch.compression().map_err(|error| error.to_string())?;
        if self.filling.as_ref().is_some_and(|(_, _, filling)| *filling != compression) {
            self.flush();
        }
        for record in batch.records().map_err(|error| error.to_string())? {
            let record = record.map_err(|error| error.to_string())?;
            let new = NewRecord {
                timestamp: record.timestamp,
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                headers: &record.headers,
            };
            self.push(&new, Offset(base.0 + u64::from(record.offset_delta)), compression)?;
        }
        Ok(())
    }

    fn push(
        &mut self,
        record: &NewRecord<'_>,
        offset: Offset,
        compression: Compression,
    ) -> Result<(), String> {
        let new = || (BatchBuilder::new(PACKED_BATCH_BYTES), offset, compression);
        match self.filling.get_or_insert_with(new).0.push(record) {
            Ok(()) => Ok(()),
            Err(RecordRefused::Full) => {
                self.flush();
                let (builder, ..) = self.filling.insert(new());
                builder.push(record).map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// Ends the batch that is being filled.
    fn flush(&mut self) {
        if let Some((builder, base, compression)) = self.filling.take() {
            let mut bytes = builder.build(compression).to_vec();
            set_base_offset(&mut bytes, base);
            self.put(bytes.into(), true);
        }
    }

    fn put(&mut self, mut bytes: Bytes, encoded_by_frontend: bool) {
        let batch = Batch::parse_next(&mut bytes).ok().flatten();
        self.batches.push((batch.expect("a batch that was read or built is one"), encoded_by_frontend));
    }
}
