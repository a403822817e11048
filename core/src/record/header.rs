//! The fixed part of a batch.

use bytes::Buf;

use crate::time::Timestamp;

use super::compression::Compression;

/// Bytes of a batch before its records.
pub const BATCH_HEADER_BYTES: usize = 61;
/// Bytes up to and with the batch length field, which counts only what comes after it.
pub(super) const LENGTH_END: usize = 12;
/// Where the checksum lies.
pub(super) const CRC_AT: usize = 17;
/// Where the bytes begin that the checksum covers: the attributes.
pub(super) const CRC_COVERS_FROM: usize = 21;
/// Where the max timestamp lies.
pub(super) const MAX_TIMESTAMP_AT: usize = 35;
/// The only magic that is understood.
pub(super) const MAGIC: i8 = 2;

/// The fields of a batch's header, as they stand there: a header that was not verified may say anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// The offset of the first record; set when serving.
    pub base_offset: i64,
    /// How many bytes come after this field.
    pub batch_length: i32,
    /// Set when serving.
    pub partition_leader_epoch: i32,
    /// Always 2 in a batch that was parsed.
    pub magic: i8,
    /// CRC32C of everything from the attributes on.
    pub crc: u32,
    /// Codec, timestamp type and kind.
    pub attributes: Attributes,
    /// The offset of the last record, counted from the first.
    pub last_offset_delta: i32,
    /// What the timestamps of the records are counted from.
    pub base_timestamp: Timestamp,
    /// The largest timestamp of the records, or with log append time that of all of them.
    pub max_timestamp: Timestamp,
    /// −1 for none.
    pub producer_id: i64,
    /// −1 for none.
    pub producer_epoch: i16,
    /// −1 for none.
    pub base_sequence: i32,
    /// How many records are in the batch: fewer than offsets once key compaction removed some.
    pub record_count: i32,
}

impl BatchHeader {
    pub(super) fn read(bytes: &[u8; BATCH_HEADER_BYTES]) -> Self {
        let mut bytes = bytes.as_slice();
        Self {
            base_offset: bytes.get_i64(),
            batch_length: bytes.get_i32(),
            partition_leader_epoch: bytes.get_i32(),
            magic: bytes.get_i8(),
            crc: bytes.get_u32(),
            attributes: Attributes(bytes.get_u16()),
            last_offset_delta: bytes.get_i32(),
            base_timestamp: Timestamp::from_millis(bytes.get_i64()),
            max_timestamp: Timestamp::from_millis(bytes.get_i64()),
            producer_id: bytes.get_i64(),
            producer_epoch: bytes.get_i16(),
            base_sequence: bytes.get_i32(),
            record_count: bytes.get_i32(),
        }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.base_offset.to_be_bytes());
        out.extend_from_slice(&self.batch_length.to_be_bytes());
        out.extend_from_slice(&self.partition_leader_epoch.to_be_bytes());
        out.extend_from_slice(&self.magic.to_be_bytes());
        out.extend_from_slice(&self.crc.to_be_bytes());
        out.extend_from_slice(&self.attributes.0.to_be_bytes());
        out.extend_from_slice(&self.last_offset_delta.to_be_bytes());
        out.extend_from_slice(&self.base_timestamp.millis().to_be_bytes());
        out.extend_from_slice(&self.max_timestamp.millis().to_be_bytes());
        out.extend_from_slice(&self.producer_id.to_be_bytes());
        out.extend_from_slice(&self.producer_epoch.to_be_bytes());
        out.extend_from_slice(&self.base_sequence.to_be_bytes());
        out.extend_from_slice(&self.record_count.to_be_bytes());
    }
}

/// The attributes of a batch: bits 0–2 codec, 3 timestamp type, 4 transactional, 5 control, 6 delete horizon.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes(pub u16);

impl Attributes {
    pub(super) const LOG_APPEND_TIME: u16 = 1 << 3;
    const TRANSACTIONAL: u16 = 1 << 4;
    const CONTROL: u16 = 1 << 5;

    /// The three bits of the codec.
    pub fn codec(self) -> u8 {
        self.0.to_le_bytes()[0] & 0b111
    }

    /// How the records are compressed; none for a codec that is not known.
    pub fn compression(self) -> Option<Compression> {
        Compression::from_codec(self.codec())
    }

    /// Whether all records have the header's max timestamp, instead of their own.
    pub fn is_log_append_time(self) -> bool {
        self.0 & Self::LOG_APPEND_TIME != 0
    }

    /// Whether the batch belongs to a Kafka transaction.
    pub fn is_transactional(self) -> bool {
        self.0 & Self::TRANSACTIONAL != 0
    }

    /// Whether the batch is a marker of a Kafka broker.
    pub fn is_control(self) -> bool {
        self.0 & Self::CONTROL != 0
    }

    /// What a batch from outside may not be; none if it is fine.
    pub(super) fn not_accepted(self) -> Option<&'static str> {
        match self {
            _ if self.is_control() => Some("a control batch"),
            _ if self.is_transactional() => Some("part of a transaction"),
            _ if self.is_log_append_time() => Some("stamped with a log append time"),
            _ if self.0 >> 6 != 0 => Some("marked with attributes of a later format"),
            _ => None,
        }
    }
}
