//! The bytes of an object that is to be written.

use std::sync::Arc;

use bytes::Bytes;

/// The bytes of one object in chunks, with their length and checksum. Cheap to clone: a retry sends the same chunks.
///
/// The checksum is computed once, here or by whoever produced the bytes, and travels to the store, so that bytes which
/// change in between are refused there.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload {
    chunks: Arc<[Bytes]>,
    length: u64,
    crc32c: u32,
}

impl Payload {
    /// From chunks in order; computes the checksum.
    pub fn new(chunks: Vec<Bytes>) -> Self {
        let crc32c = chunks.iter().fold(0, |crc, chunk| crc32c::crc32c_append(crc, chunk));
        Self::with_checksum(chunks, crc32c)
    }

    /// From chunks in order whose CRC32C the caller knows. A wrong one is refused by S3, not by other stores.
    pub fn with_checksum(chunks: Vec<Bytes>, crc32c: u32) -> Self {
        let length = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        Self { chunks: chunks.into(), length, crc32c }
    }

    /// The chunks, in order.
    pub fn chunks(&self) -> &[Bytes] {
        &self.chunks
    }

    /// Bytes over all chunks.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// CRC32C of all bytes.
    pub fn crc32c(&self) -> u32 {
        self.crc32c
    }

    /// All bytes in one piece; copies unless there is only one chunk.
    pub fn to_bytes(&self) -> Bytes {
        match &*self.chunks {
            [only] => only.clone(),
            chunks => chunks.concat().into(),
        }
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self::new(vec![bytes])
    }
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Payload")
            .field("chunks", &self.chunks.len())
            .field("length", &self.length)
            .field("crc32c", &self.crc32c)
            .finish()
    }
}
