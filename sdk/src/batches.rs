//! From records to concatenated record batches.

use bytes::{Bytes, BytesMut};
use carnax_core::record::{BatchBuilder, Compression, NewRecord, RecordRefused};

/// Collects the records of one partition in batches of at most `batch_bytes` before compression.
#[derive(Debug)]
pub(crate) struct Batches {
    batch_bytes: usize,
    compression: Compression,
    builder: BatchBuilder,
    full: BytesMut,
}

impl Batches {
    pub(crate) fn new(batch_bytes: usize, compression: Compression) -> Self {
        let builder = BatchBuilder::new(batch_bytes);
        Self { batch_bytes, compression, builder, full: BytesMut::new() }
    }

    /// Adds a record at the end. One that fits into no batch is refused, and all others stay.
    pub(crate) fn push(&mut self, record: &NewRecord<'_>) -> Result<(), RecordRefused> {
        let pushed = self.builder.push(record);
        if pushed != Err(RecordRefused::Full) {
            return pushed;
        }
        let full = std::mem::replace(&mut self.builder, BatchBuilder::new(self.batch_bytes));
        self.full.extend_from_slice(&full.build(self.compression));
        self.builder.push(record)
    }

    /// The batches; empty if no record was taken.
    pub(crate) fn finish(mut self) -> Bytes {
        if !self.builder.is_empty() {
            self.full.extend_from_slice(&self.builder.build(self.compression));
        }
        self.full.freeze()
    }
}
