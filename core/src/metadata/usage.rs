//! What is used: reported by whoever uses it, summed in the metadata core, told with what it costs.

use serde::{Deserialize, Serialize};

use crate::access::TokenId;
use crate::id::TopicId;
use crate::time::Timestamp;
use crate::topic::TopicName;
use crate::usage::{Prices, StoreRequests, Traffic};

/// Reports what a process used since its last report.
///
/// Idempotent: a report whose number is not above the last one of its reporter is a repeat and is not counted again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportUsage {
    /// A random number of the process.
    pub reporter: u128,
    /// Counts the reports of a reporter, from 1.
    pub number: u64,
    /// Requests to the object store.
    pub requests: StoreRequests,
    /// Records and bytes by topic; at most [`USAGE_REPORT_ROWS_MAX`](crate::limits::USAGE_REPORT_ROWS_MAX).
    #[serde(default)]
    pub topics: Vec<(TopicId, Traffic)>,
    /// The same records and bytes by the token that they were moved with, as far as there was one; at most as many.
    #[serde(default)]
    pub tokens: Vec<(TokenId, Traffic)>,
}

/// A report has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageReported {
    /// False: it was counted before.
    pub counted: bool,
}

/// Which month's usage is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageMonth {
    /// The one that runs.
    #[default]
    This,
    /// The one before.
    Last,
}

/// Asks the leader for what was used in a month.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeUsage {
    /// Which.
    #[serde(default)]
    pub month: UsageMonth,
    /// Only topics with ids after this one.
    #[serde(default)]
    pub after_topic: Option<TopicId>,
    /// Only tokens with ids after this one.
    #[serde(default)]
    pub after_token: Option<TokenId>,
    /// At most so many topics, and so many tokens, 1 to 1,000.
    pub limit: u32,
}

/// What was used in a month: sums, and a page of topics and tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageDescription {
    /// The month, as 2026-11.
    pub month: String,
    /// Log time of the answer.
    pub log_time: Timestamp,
    /// Requests to the object store, of the whole cluster.
    pub requests: StoreRequests,
    /// Records and bytes of all topics, deleted ones included.
    pub traffic: Traffic,
    /// The part of topics that are deleted.
    pub deleted_topics: Traffic,
    /// The part that was moved without a token, or with one that is revoked.
    pub other_tokens: Traffic,
    /// Bytes that records take now, of all topics.
    pub stored_bytes: u64,
    /// Bytes of objects that wait for their deletion now.
    pub dead_bytes: u64,
    /// In the order of their ids.
    pub topics: Vec<TopicUsage>,
    /// Whether there are topics behind the last one.
    pub more_topics: bool,
    /// In the order of their ids.
    pub tokens: Vec<TokenUsage>,
    /// Whether there are tokens behind the last one.
    pub more_tokens: bool,
    /// By which costs are estimated.
    pub prices: Prices,
}

/// What was used for a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicUsage {
    /// Its id.
    pub topic_id: TopicId,
    /// Its name.
    pub name: TopicName,
    /// Records and bytes.
    pub traffic: Traffic,
    /// Bytes that its records take now.
    pub stored_bytes: u64,
}

/// What was used with a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenUsage {
    /// Its id.
    pub id: TokenId,
    /// Records and bytes.
    pub traffic: Traffic,
}
