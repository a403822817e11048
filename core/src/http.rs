//! What clients and frontends say to each other over HTTP, as far as both sides need the same types and words.
//!
//! Records in JSON are the frontend's own business: the SDK speaks record batches.

mod atomic;
mod frame;
mod group;
mod token;
mod usage;
mod wakeup;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use crate::id::{NodeId, PartitionIndex, TopicId};
use crate::metadata::ClusterStatus;
use crate::offset::Offset;
use crate::time::Timestamp;
use crate::topic::{ConfigEntries, TopicName};

pub use atomic::{
    AppendCondition, AppendGroupOffsets, AppendHead, AppendPart, AtomicAppendResponse, AtomicAppendResult,
    EnvelopeError, FencedEpochResponse, FencingTokenResponse, KeptReplyResponse, OffsetMove,
    ProducerResponse, RaiseEpochRequest, SetFencingTokenRequest, read_envelope, write_envelope,
};
pub use frame::{FrameError, PartitionFrame, read_frames, write_frame};
pub use group::{
    AlterSettingsRequest, AssignmentResponse, CommitOffsetsRequest, CommitOffsetsResponse,
    DeletedGroupResponse, GroupOffsetResponse, GroupOffsetsResponse, GroupResponse, GroupsResponse,
    HeartbeatRequest, JoinGroupRequest, LeftGroupResponse, MemberResponse, OffsetEntry, ResetOffset,
    ResetOffsetsRequest, ResetOffsetsResponse, ResetTo, SettingsResponse,
};
pub use token::{
    AlterTokenRequest, CreateTokenRequest, CreatedTokenResponse, RevokedTokenResponse, TokensResponse,
};
pub use usage::{TokenUsageResponse, TopicUsageResponse, UsageCost, UsageResponse};
pub use wakeup::{PutWakeupRequest, WakeupsResponse};

/// Content types of requests and answers.
pub mod content_type {
    /// JSON documents.
    pub const JSON: &str = "application/json";
    /// One JSON document a line.
    pub const NDJSON: &str = "application/x-ndjson";
    /// Server-sent events.
    pub const EVENT_STREAM: &str = "text/event-stream";
    /// Failures (RFC 9457).
    pub const PROBLEM: &str = "application/problem+json";
    /// Record batches, untouched: concatenated for one partition; for a whole topic as
    /// [frames](super::PartitionFrame).
    pub const BATCHES: &str = "application/vnd.carnax.batches";
    /// Record batches of several topics with conditions and group offsets, as
    /// [`write_envelope`](super::write_envelope) puts them together.
    pub const APPEND: &str = "application/vnd.carnax.append";
}

/// Headers of our own, in lower case.
pub mod header {
    /// Identifies a request in logs; taken from the client or made by the frontend, and always answered.
    pub const REQUEST_ID: &str = "carnax-request-id";
    /// Who sends, for deduplication: a producer id. The three headers after it go with it.
    pub const PRODUCER_ID: &str = "carnax-producer-id";
    /// The producer's epoch, from 0; absent: 0.
    pub const PRODUCER_EPOCH: &str = "carnax-producer-epoch";
    /// The request's sequence, from 0, up to 128 bits; always there with a producer id.
    pub const SEQUENCE: &str = "carnax-sequence";
    /// `contiguous` (default) or `increasing`.
    pub const SEQUENCE_MODE: &str = "carnax-sequence-mode";
    /// The key by which a request is told from its repeats; not together with a producer id.
    pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
    /// The id that the client knows the topic by (request); the topic's id (answer).
    pub const TOPIC_ID: &str = "carnax-topic-id";
    /// The partition count by which a client routed keyed records.
    pub const PARTITION_COUNT: &str = "carnax-partition-count";
    /// With [`BATCHES`](super::content_type::BATCHES): where to fetch next.
    pub const NEXT_OFFSET: &str = "carnax-next-offset";
    /// With [`BATCHES`](super::content_type::BATCHES): one past the last committed offset.
    pub const HIGH_WATERMARK: &str = "carnax-high-watermark";
    /// With [`BATCHES`](super::content_type::BATCHES): the first readable offset.
    pub const LOG_START_OFFSET: &str = "carnax-log-start-offset";
    /// With [`BATCHES`](super::content_type::BATCHES): whether the answer reaches the high watermark.
    pub const CAUGHT_UP: &str = "carnax-caught-up";
}

/// `PUT /v1/topics/{topic}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateTopicRequest {
    /// How many partitions, from 1.
    #[serde(default = "one")]
    pub partitions: u32,
    /// Configuration by Kafka's names; numbers and strings alike.
    #[serde(default)]
    pub config: BTreeMap<String, ConfigValue>,
}

/// `PATCH /v1/topics/{topic}`; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct AlterTopicRequest {
    /// The new number of partitions: at least as many as now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partitions: Option<u32>,
    /// Entries to set, or (`null`) to bring back to their default.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, ConfigValue>))]
    pub config: BTreeMap<String, Option<ConfigValue>>,
}

/// A configuration value: text, written in JSON as a string, a number or a boolean.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct ConfigValue(pub String);

impl<'de> Deserialize<'de> for ConfigValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl serde::de::Visitor<'_> for Visitor {
            type Value = ConfigValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a whole number or a boolean")
            }

            fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<ConfigValue, E> {
                Ok(ConfigValue(value.to_owned()))
            }

            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<ConfigValue, E> {
                Ok(ConfigValue(value.to_string()))
            }

            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<ConfigValue, E> {
                Ok(ConfigValue(value.to_string()))
            }

            fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<ConfigValue, E> {
                Ok(ConfigValue(value.to_string()))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

/// A topic, as `GET`, `PUT` and `PATCH /v1/topics/{topic}` answer it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TopicResponse {
    /// The name.
    pub name: TopicName,
    /// The id, which no other topic ever has.
    pub topic_id: TopicId,
    /// How many partitions.
    pub partitions: u32,
    /// All configuration entries with their values now, defaults included.
    pub config: ConfigEntries,
    /// Log time of the creation.
    pub created: Timestamp,
    /// The bounds of each partition, in order; only where one topic was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partition_offsets: Vec<PartitionResponse>,
}

/// The bounds of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PartitionResponse {
    /// The partition.
    pub partition: PartitionIndex,
    /// The first readable offset.
    pub log_start_offset: Offset,
    /// One past the last committed offset.
    pub high_watermark: Offset,
    /// Bytes in the object store that hold it.
    pub bytes: u64,
}

/// `GET /v1/topics`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TopicsResponse {
    /// In order of their names.
    pub topics: Vec<TopicResponse>,
    /// What to send as `after` for the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_after: Option<TopicName>,
}

/// Where the records of an append went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AppendResponse {
    /// One for each partition, in order of partition.
    pub results: Vec<AppendResult>,
    /// Whether the request had been done before and this is the first answer again.
    pub duplicate: bool,
    /// The topic's id.
    pub topic_id: TopicId,
}

/// Offsets `base_offset .. base_offset + count` of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AppendResult {
    /// The partition.
    pub partition: PartitionIndex,
    /// The offset of the request's first record in it.
    pub base_offset: Offset,
    /// How many records of the request went there.
    pub count: u32,
    /// Log time of the append.
    pub append_time: Timestamp,
}

/// `GET …/partitions/{p}/offsets?at=…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OffsetResponse {
    /// The first offset at or after the time; the high watermark if there is none.
    pub offset: Offset,
    /// The timestamp of the record there; absent where no record is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Timestamp>,
}

/// `GET /v1/topics/{topic}/offsets?at=…`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TopicOffsetsResponse {
    /// The topic's id.
    pub topic_id: TopicId,
    /// One for each partition, in order.
    pub offsets: Vec<PartitionOffsetResponse>,
}

/// An offset of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PartitionOffsetResponse {
    /// The partition.
    pub partition: PartitionIndex,
    /// The first offset at or after the time; the high watermark if there is none.
    pub offset: Offset,
    /// The timestamp of the record there; absent where no record is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Timestamp>,
}

/// `DELETE …/partitions/{p}/records?before=…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TrimResponse {
    /// The first readable offset now.
    pub log_start_offset: Offset,
}

/// `DELETE /v1/topics/{topic}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeletedTopicResponse {
    /// The id that the topic had.
    pub topic_id: TopicId,
}

/// `GET /v1/cluster` of a frontend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterResponse {
    /// The metadata cluster as one of its nodes sees it.
    pub metadata: ClusterStatus,
    /// The version of the frontend that answers.
    pub frontend_version: String,
    /// Where the frontend keeps its segments, without credentials.
    pub object_store: String,
}

/// `POST /v1/cluster/nodes`: lets the empty node that runs at `address` in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct AddNodeRequest {
    /// Where its RPC listens.
    pub address: String,
    /// Whether it is to vote once it has caught up.
    #[serde(default = "yes")]
    pub promote: bool,
}

/// `POST /v1/cluster/leader`: hands leadership over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct TransferLeadershipRequest {
    /// To whom; absent: to any voter that is up to date.
    pub to: Option<NodeId>,
}

/// `POST /v1/cluster/upgrade`: raises the feature level.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct UpgradeClusterRequest {
    /// To which level; absent: the highest that the leader knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<u32>,
    /// Only say what would happen.
    pub dry_run: bool,
}

fn one() -> u32 {
    1
}

fn yes() -> bool {
    true
}
