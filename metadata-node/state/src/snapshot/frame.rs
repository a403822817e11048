//! The frames of a snapshot.

use std::sync::Arc;

use carnax_core::access::{Grant, TokenHash, TokenId};
use carnax_core::id::{
    ClusterId, CommitNumber, Incarnation, LogIndex, NodeId, PageId, SegmentId, SessionId, TopicId,
    TopicPartition,
};
use carnax_core::metadata::{JobKind, SegmentsCommitted};
use carnax_core::name::{FencingToken, WakeupName};
use carnax_core::offset::Offset;
use carnax_core::quota::Quotas;
use carnax_core::time::Timestamp;
use carnax_core::topic::{ConfigEntries, TopicName};
use carnax_core::usage::{Month, StoreRequests, Traffic};
use serde::{Deserialize, Serialize};

use super::group::{GroupHead, GroupsHead, MemberRow, OffsetRow};
use super::remembered::{KeyRow, ProducerRow};
use crate::entry::FeatureLevel;
use crate::node::Node;
use crate::partition::Slice;
use crate::segment::SegmentNumber;

pub(super) const MAGIC: [u8; 8] = *b"CARNAXST";
pub(super) const VERSION: u32 = 1;
/// Rows of a table in one frame.
pub(super) const ROWS_MAX: usize = 1_024;
/// Bytes of one frame: far above the reply to the largest commit, which is the largest thing that is not divided.
pub(super) const FRAME_BYTES_MAX: u32 = 256 * 1024 * 1024;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Frame {
    Head(Head),
    Nodes(Vec<(NodeId, Node)>),
    Settings(ConfigEntries),
    Sessions(Vec<SessionRow>),
    Producers(Vec<ProducerRow>),
    Keys(Vec<KeyRow>),
    Segments(Vec<SegmentRow>),
    Dead(Vec<DeadRow>),
    /// Number, the only partition.
    Rewritten(Vec<(u64, Option<TopicPartition>)>),
    Recent(Vec<SegmentId>),
    Former(Vec<(TopicId, TopicName)>),
    Topic(TopicHead),
    Partitions(Vec<PartitionRow>),
    Slices(Vec<SliceRow>),
    /// Partition, page.
    Pages(Vec<(u32, PageRow)>),
    Tokens(Vec<(u32, FencingToken)>),
    Groups(GroupsHead),
    Group(GroupHead),
    Member(Box<MemberRow>),
    Offsets(Vec<OffsetRow>),
    Wakeups(Vec<WakeupRow>),
    Jobs(JobsRow),
    Seats(Vec<SeatRow>),
    Compactions(Vec<CompactionRow>),
    DeadPages(Vec<DeadPageRow>),
    /// Segments whose ids are older are never committed.
    ClosedBefore(Timestamp),
    AccessTokens(Vec<TokenRow>),
    Usage(UsageRow),
    /// Whether of the last month, topic, sum.
    TopicUsage(Vec<(bool, TopicId, Traffic)>),
    /// Whether of the last month, token, sum.
    TokenUsage(Vec<(bool, TokenId, Traffic)>),
    /// Reporter, number and log time of its last report.
    UsageReporters(Vec<(u128, u64, Timestamp)>),
    End(End),
}

#[derive(Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) applied: LogIndex,
    pub(super) log_time: Timestamp,
    pub(super) cluster: Option<ClusterHead>,
    pub(super) last_session: SessionId,
    pub(super) next_segment: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct ClusterHead {
    pub(super) id: ClusterId,
    pub(super) incarnation: Incarnation,
    pub(super) voters_wanted: u32,
    pub(super) appends_open: bool,
    pub(super) last_node: NodeId,
    /// Absent at and below the last level that was not recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) level: Option<FeatureLevel>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct SessionRow {
    pub(super) id: SessionId,
    pub(super) frontend: String,
    pub(super) last_seen: Timestamp,
    pub(super) last: Option<(CommitNumber, Arc<SegmentsCommitted>)>,
}

/// Number, id, incarnation, append time, size, live slices.
pub(super) type SegmentRow = (u64, SegmentId, Incarnation, Timestamp, u32, u32);

/// Log index of the death, number, id, incarnation, size, log time of the death.
pub(super) type DeadRow = (LogIndex, u64, SegmentId, Incarnation, u32, Timestamp);

#[derive(Serialize, Deserialize)]
pub(super) struct TopicHead {
    pub(super) id: TopicId,
    pub(super) name: TopicName,
    pub(super) created: Timestamp,
    pub(super) config: ConfigEntries,
    pub(super) partitions: u32,
}

/// Log start, high watermark, the first slices.
pub(super) type PartitionRow = (u64, u64, Vec<SliceRow>);

#[derive(Serialize, Deserialize)]
pub(super) struct WakeupRow {
    pub(super) topic: TopicId,
    pub(super) name: WakeupName,
    pub(super) queue: String,
    pub(super) window_ms: u32,
    pub(super) created: Timestamp,
    pub(super) version: LogIndex,
    /// Partition, one past the last announced offset.
    pub(super) announced: Vec<(u32, u64)>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct TokenRow {
    pub(super) id: TokenId,
    pub(super) hash: TokenHash,
    pub(super) description: String,
    pub(super) grants: Vec<Grant>,
    pub(super) created: Timestamp,
    pub(super) expires: Option<Timestamp>,
    pub(super) last_used: Option<Timestamp>,
    pub(super) quotas: Quotas,
}

#[derive(Serialize, Deserialize)]
pub(super) struct UsageRow {
    pub(super) month: Month,
    pub(super) this: PeriodRow,
    pub(super) last: PeriodRow,
}

#[derive(Serialize, Deserialize)]
pub(super) struct PeriodRow {
    pub(super) requests: StoreRequests,
    pub(super) traffic: Traffic,
}

#[derive(Serialize, Deserialize)]
pub(super) struct JobsRow {
    pub(super) written: Timestamp,
    pub(super) done_until: Timestamp,
    /// Up to which id, folders done.
    pub(super) pass: Option<(Timestamp, u32)>,
    /// Id, worker, expiry.
    pub(super) lease: Option<(LogIndex, String, Timestamp)>,
    pub(super) last_success: Option<Timestamp>,
}

/// Id, incarnation, first offset, one past the last, bytes of its slices, their number, bytes of its object, largest timestamp, smallest
/// and largest id of its segments.
pub(super) type PageRow = (PageId, Incarnation, u64, u64, u64, u32, u32, i64, SegmentId, SegmentId);

/// Log index of the death, whose, log time of the death, whether it owns its slices, page.
pub(super) type DeadPageRow = (LogIndex, TopicPartition, Timestamp, bool, PageRow);

/// Kind, lease (id, worker, expiry), last success.
pub(super) type SeatRow = (JobKind, Option<(LogIndex, String, Timestamp)>, Option<Timestamp>);

/// Whose, log index and time of the last round, where it is clean up to, mark (offset, since when).
pub(super) type CompactionRow = (TopicPartition, (LogIndex, Timestamp), u64, Option<(u64, Timestamp)>);

/// Base offset, segment number, largest timestamp, first byte, bytes, records.
pub(super) type SliceRow = (u64, u64, i64, u32, u32, u32);

#[derive(Serialize, Deserialize)]
pub(super) struct End {
    /// Frames before this one.
    pub(super) frames: u64,
    /// CRC32C of their contents, one behind the other.
    pub(super) checksum: u32,
}

pub(super) fn slice_to_row(slice: &Slice) -> SliceRow {
    let Slice { base, segment, max_timestamp, start, length, records } = *slice;
    (base.0, segment.0, max_timestamp.millis(), start, length, records)
}

pub(super) fn slice_from_row(row: SliceRow) -> Slice {
    let (base, segment, max_timestamp, start, length, records) = row;
    Slice {
        base: Offset(base),
        segment: SegmentNumber(segment),
        max_timestamp: Timestamp::from_millis(max_timestamp),
        start,
        length,
        records,
    }
}
