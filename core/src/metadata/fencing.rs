//! Fencing tokens: who may write to a partition, among those who ask.

use serde::{Deserialize, Serialize};

use super::fetch::TopicRef;
use crate::id::{PartitionIndex, TopicId};
use crate::name::FencingToken;
use crate::offset::Offset;

/// Sets the fencing token of a partition, or takes it away. Appends that carry another one are refused from then on; those
/// that carry none are not looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetFencingToken {
    /// Which topic.
    pub topic: TopicRef,
    /// Which partition.
    pub partition: PartitionIndex,
    /// The new token; none: no token.
    pub token: Option<FencingToken>,
    /// What the token must be now.
    #[serde(default)]
    pub from: TokenNow,
}

/// What the token of a partition must be for it to change; otherwise `condition_failed`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenNow {
    /// Any, or none.
    #[default]
    Any,
    /// None.
    Nothing,
    /// This one.
    Token(FencingToken),
}

/// Asks for the fencing token of a partition, by a linearizable read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeFencingToken {
    /// Which topic.
    pub topic: TopicRef,
    /// Which partition.
    pub partition: PartitionIndex,
}

/// The fencing token of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionFence {
    /// The topic's id.
    pub topic_id: TopicId,
    /// The token; none if there is none.
    pub token: Option<FencingToken>,
    /// One past the last committed offset: everything below was written before the answer.
    pub high_watermark: Offset,
}
