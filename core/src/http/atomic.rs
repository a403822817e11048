//! Atomic appends, producers and fencing tokens.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Deserializer, Serialize};

use crate::id::{PartitionIndex, TopicId};
use crate::limits;
use crate::name::{FencingToken, GroupName, MemberId};
use crate::offset::Offset;
use crate::time::Timestamp;
use crate::topic::TopicName;

/// What must hold for an append, beside its records: part of `POST /v1/append`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct AppendCondition {
    /// Of which topic.
    pub topic: TopicName,
    /// The id that the client knows the topic by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<TopicId>,
    /// Of which partition. Need not be one that is written to.
    pub partition: PartitionIndex,
    /// The offset that the next record of the partition gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_next_offset: Option<Offset>,
    /// The partition's fencing token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fencing_token: Option<FencingToken>,
}

/// Group offsets that move with an append: part of `POST /v1/append`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct AppendGroupOffsets {
    /// The group.
    pub group: GroupName,
    /// The member that must own the partitions; absent for callers that are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<MemberId>,
    /// The member's epoch; present if the member is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u32>,
    /// Each partition once.
    pub offsets: Vec<OffsetMove>,
}

/// A committed offset that moves with an append.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct OffsetMove {
    /// Of which topic.
    pub topic: TopicName,
    /// The id that the client knows the topic by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<TopicId>,
    /// Of which partition.
    pub partition: PartitionIndex,
    /// What must be committed now; `null` if nothing may be. Always present, so that nobody forgets it.
    #[serde(deserialize_with = "present")]
    pub from: Option<Offset>,
    /// What is committed then.
    pub to: Offset,
}

/// The head of a `POST /v1/append` in record batches: what [`write_envelope`] puts before the batches.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppendHead {
    /// Where the batches go, in the order in which they follow; each topic and partition once.
    pub parts: Vec<AppendPart>,
    /// All must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<AppendCondition>,
    /// Group offsets that move with the append.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<AppendGroupOffsets>,
}

/// The batches of one partition in a `POST /v1/append`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppendPart {
    /// The topic.
    pub topic: TopicName,
    /// The id that the client knows the topic by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<TopicId>,
    /// The partition.
    pub partition: PartitionIndex,
    /// By how many partitions keyed records of the topic were routed; absent if none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition_count: Option<u32>,
    /// Bytes of its batches.
    pub bytes: u64,
}

/// Where the records of an atomic append went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AtomicAppendResponse {
    /// One for each topic and partition, in order of topic name and partition.
    pub results: Vec<AtomicAppendResult>,
    /// Whether the request had been done before and this is the first answer again.
    pub duplicate: bool,
}

/// Offsets `base_offset .. base_offset + count` of one partition of one topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AtomicAppendResult {
    /// The topic; absent in the repeat of an answer if it was deleted since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<TopicName>,
    /// The topic's id.
    pub topic_id: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
    /// The offset of the request's first record in it.
    pub base_offset: Offset,
    /// How many records of the request went there.
    pub count: u32,
    /// Log time of the append.
    pub append_time: Timestamp,
}

/// `POST /v1/producers/{producer}/epoch`: raises the epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct RaiseEpochRequest {
    /// The epoch that the client has; absent: whatever it is now, as for a producer that starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<u32>,
}

/// A producer, as `GET /v1/producers/{producer}` and `POST …/epoch` answer it. Sequences are decimal strings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProducerResponse {
    /// The epoch; lower ones are fenced.
    pub epoch: u32,
    /// The last accepted sequence of that epoch; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sequence: Option<String>,
    /// The epoch before that, until something is accepted in this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<FencedEpochResponse>,
    /// Log time of the last change.
    pub last_seen: Timestamp,
}

/// What became of an epoch that was fenced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FencedEpochResponse {
    /// The epoch.
    pub epoch: u32,
    /// Its last accepted sequence: all up to it were accepted, none after it will be. Absent: nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sequence: Option<String>,
    /// Its last replies that are kept, by sequence, ascending.
    pub replies: Vec<KeptReplyResponse>,
}

/// The answer to a request that was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeptReplyResponse {
    /// The request's sequence.
    pub sequence: String,
    /// Where its records went; topics by id only.
    pub results: Vec<AtomicAppendResult>,
}

/// `PUT …/partitions/{p}/fencing-token`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SetFencingTokenRequest {
    /// The new token; `null` takes it away. Always present.
    #[serde(deserialize_with = "present")]
    pub token: Option<FencingToken>,
    /// What the token must be now; `null`: there must be none. Absent: whatever it is.
    #[serde(default, deserialize_with = "some", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub from: Option<Option<FencingToken>>,
}

/// The fencing token of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FencingTokenResponse {
    /// The token; `null` if there is none.
    pub token: Option<FencingToken>,
    /// One past the last committed offset.
    pub high_watermark: Offset,
}

/// Reads a field that must be there, even if it is `null`.
pub(super) fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Option::deserialize(deserializer)
}

/// Tells a field that is `null` from one that is absent.
pub(super) fn some<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// A body that is no envelope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Fewer bytes than the head says.
    #[error("the body ends within its head")]
    Truncated,
    /// A head that is longer than it may be.
    #[error("the head has {bytes} bytes, at most {max} are allowed", max = HEAD_BYTES_MAX)]
    HeadTooLong {
        /// How many it claims.
        bytes: u32,
    },
    /// A head that is not understood.
    #[error("the head is not understood: {reason}")]
    Head {
        /// Why.
        reason: String,
    },
    /// The batches are more or fewer bytes than the parts say.
    #[error("the parts have {said} bytes of batches, the body has {there}")]
    Length {
        /// The sum of the parts.
        said: u64,
        /// What follows the head.
        there: u64,
    },
}

/// Bytes of the head of an envelope.
const HEAD_BYTES_MAX: u32 = 1024 * 1024;

/// Writes a `POST /v1/append` in record batches: the length of the head (4 bytes, big-endian), the head as JSON, then the
/// batches of each part, one behind the other. The parts' `bytes` are set from `batches`.
///
/// # Errors
/// The head is too long.
///
/// # Panics
/// If there are not as many batches as parts.
pub fn write_envelope(mut head: AppendHead, batches: &[Bytes]) -> Result<Bytes, EnvelopeError> {
    assert_eq!(head.parts.len(), batches.len(), "each part has its batches");
    for (part, batches) in head.parts.iter_mut().zip(batches) {
        part.bytes = batches.len() as u64;
    }
    let json = serde_json::to_vec(&head).map_err(unreadable)?;
    let length = u32::try_from(json.len()).unwrap_or(u32::MAX);
    if length > HEAD_BYTES_MAX {
        return Err(EnvelopeError::HeadTooLong { bytes: length });
    }
    let mut body = BytesMut::with_capacity(4 + json.len() + batches.iter().map(Bytes::len).sum::<usize>());
    body.put_u32(length);
    body.put_slice(&json);
    batches.iter().for_each(|batches| body.put_slice(batches));
    Ok(body.freeze())
}

/// Reads what [`write_envelope`] wrote: the head, and the batches of each part, sharing the body's memory.
///
/// # Errors
/// Any [`EnvelopeError`].
pub fn read_envelope(mut body: Bytes) -> Result<(AppendHead, Vec<Bytes>), EnvelopeError> {
    if body.len() < 4 {
        return Err(EnvelopeError::Truncated);
    }
    let bytes = body.get_u32();
    if bytes > HEAD_BYTES_MAX {
        return Err(EnvelopeError::HeadTooLong { bytes });
    }
    let length = usize::try_from(bytes).unwrap_or(usize::MAX);
    if length > body.len() {
        return Err(EnvelopeError::Truncated);
    }
    let head: AppendHead = serde_json::from_slice(&body.split_to(length)).map_err(unreadable)?;
    let said = head.parts.iter().fold(0_u64, |sum, part| sum.saturating_add(part.bytes));
    let there = body.len() as u64;
    if said != there || head.parts.len() > limits::UNIT_PARTITIONS_MAX {
        return Err(EnvelopeError::Length { said, there });
    }
    let length = |part: &AppendPart| usize::try_from(part.bytes).unwrap_or(usize::MAX);
    let batches = head.parts.iter().map(|part| body.split_to(length(part))).collect();
    Ok((head, batches))
}

fn unreadable(error: impl fmt::Display) -> EnvelopeError {
    EnvelopeError::Head { reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> AppendHead {
        let part = |partition: u32| AppendPart {
            topic: "orders".parse().unwrap(),
            topic_id: None,
            partition: PartitionIndex(partition),
            partition_count: Some(3),
            bytes: 0,
        };
        AppendHead { parts: vec![part(0), part(2)], ..AppendHead::default() }
    }

    #[test]
    fn an_envelope_is_read_as_it_was_written() {
        let batches = [Bytes::from_static(b"first"), Bytes::from_static(b"second one")];
        let body = write_envelope(head(), &batches).unwrap();
        let (read, read_batches) = read_envelope(body.clone()).unwrap();
        assert_eq!(read.parts.iter().map(|part| part.bytes).collect::<Vec<_>>(), [5, 10]);
        assert_eq!(read_batches, batches);
        for end in 0..body.len() {
            assert!(read_envelope(body.slice(..end)).is_err(), "cut at {end}");
        }
        let longer: Bytes = [body.as_ref(), b"x"].concat().into();
        assert_eq!(read_envelope(longer), Err(EnvelopeError::Length { said: 15, there: 16 }));
    }

    #[test]
    fn a_head_that_lies_is_refused() {
        assert!(matches!(
            read_envelope(Bytes::from_static(&[255; 8])),
            Err(EnvelopeError::HeadTooLong { .. })
        ));
        assert_eq!(read_envelope(Bytes::from_static(&[0, 0, 0, 9, b'{'])), Err(EnvelopeError::Truncated));
        let json = br#"{"parts":[],"conditoins":[]}"#;
        let body = [&u32::try_from(json.len()).unwrap().to_be_bytes()[..], json].concat();
        assert!(matches!(read_envelope(body.into()), Err(EnvelopeError::Head { .. })));
        let missing = serde_json::from_str::<OffsetMove>(r#"{"topic":"t","partition":0,"to":1}"#);
        assert!(missing.unwrap_err().to_string().contains("from"));
    }
}
