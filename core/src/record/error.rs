//! What can be wrong with a record batch.

use crate::error_code::ErrorCode;
use crate::limits;

use super::compression::Compression;

/// Bytes that are no acceptable record batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The bytes end before the batch does.
    #[error("record batch of {needed} bytes ends after {available}")]
    Truncated {
        /// How many bytes the batch takes, or at least its header.
        needed: usize,
        /// How many there are.
        available: usize,
    },
    /// A length shorter than a header.
    #[error("record batch claims a length of {length}, shorter than its header")]
    TooShort {
        /// The field `batchLength`.
        length: i32,
    },
    /// A batch longer than any may be.
    #[error("record batch of {bytes} bytes is longer than {limit}", limit = limits::BATCH_BYTES_MAX)]
    TooLong {
        /// The length of the whole batch.
        bytes: u64,
    },
    /// A format other than RecordBatch v2.
    #[error("record batch has magic {magic}, only 2 is understood")]
    Magic {
        /// The field `magic`.
        magic: i8,
    },
    /// The bytes are not those that were sent.
    #[error("record batch says checksum {stored:08x}, its bytes have {computed:08x}")]
    Checksum {
        /// The field `crc`.
        stored: u32,
        /// CRC32C of the bytes.
        computed: u32,
    },
    /// A compression codec that no version of Kafka has.
    #[error("record batch has unknown compression codec {codec}")]
    UnknownCodec {
        /// Bits 0–2 of the attributes.
        codec: u8,
    },
    /// A kind of batch that is not taken from outside.
    #[error("record batch is {kind}, which is not accepted")]
    NotAccepted {
        /// What kind.
        kind: &'static str,
    },
    /// The header's counts contradict each other.
    #[error("record batch of {records} records has last offset delta {last_offset_delta}")]
    RecordCount {
        /// The field `recordCount`.
        records: i32,
        /// The field `lastOffsetDelta`.
        last_offset_delta: i32,
    },
    /// More records than a batch may have.
    #[error("record batch of {records} records has more than {limit}", limit = limits::BATCH_RECORDS_MAX)]
    TooManyRecords {
        /// The field `recordCount`.
        records: i32,
    },
    /// The compressed bytes are not what the codec writes.
    #[error("cannot decompress record batch with {codec}: {reason}")]
    Decompress {
        /// The codec.
        codec: Compression,
        /// What the decompressor says.
        reason: String,
    },
    /// The records are longer than any may be once they are decompressed.
    #[error("record batch decompresses to more than {limit} bytes", limit = limits::BATCH_DECOMPRESSED_BYTES_MAX)]
    DecompressedTooLong,
    /// A record that is not what the format demands.
    #[error("record {index} of the batch {problem}")]
    Record {
        /// Which record, from 0.
        index: u32,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The largest timestamp of the records is not the one in the header.
    #[error("record batch says max timestamp {stored}, its records have {actual}")]
    MaxTimestamp {
        /// The field `maxTimestamp`.
        stored: i64,
        /// The largest timestamp of a record.
        actual: i64,
    },
}

impl BatchError {
    /// How a server answers a batch from outside that has this error.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Checksum { .. } => ErrorCode::CorruptBatch,
            Self::TooLong { .. } | Self::TooManyRecords { .. } | Self::DecompressedTooLong => {
                ErrorCode::TooLarge
            }
            Self::NotAccepted { .. } => ErrorCode::InvalidValue,
            Self::Truncated { .. }
            | Self::TooShort { .. }
            | Self::Magic { .. }
            | Self::UnknownCodec { .. }
            | Self::RecordCount { .. }
            | Self::Decompress { .. }
            | Self::Record { .. }
            | Self::MaxTimestamp { .. } => ErrorCode::Malformed,
        }
    }
}
