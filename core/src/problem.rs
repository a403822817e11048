//! A failure as it travels: between metadata node and frontend, and (as RFC 9457 `application/problem+json`) to clients.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error_code::ErrorCode;
use crate::id::{NodeId, PartitionIndex, TopicId};
use crate::offset::Offset;

/// A failure with everything that a caller can act on.
///
/// `Display` is `code: detail`, for logs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Problem {
    /// The stable word that says what kind of failure this is.
    pub code: ErrorCode,
    /// A sentence for a human: what failed, on which thing, what to do.
    pub detail: String,
    /// Actual values.
    #[serde(default, skip_serializing_if = "Facts::is_empty")]
    pub facts: Box<Facts>,
}

/// Actual values that explain a problem; all optional, only ever added to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Facts {
    /// The topic's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// The topic's id now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<TopicId>,
    /// The partition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<PartitionIndex>,
    /// The number of partitions that the topic has now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition_count: Option<u32>,
    /// The first readable offset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_start_offset: Option<Offset>,
    /// One past the last committed offset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub high_watermark: Option<Offset>,
    /// What the request presumed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// What is the case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actual: Option<String>,
    /// The limit that was passed, in the unit of the thing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Where a stream of records can go on behind damaged ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_offset: Option<Offset>,
    /// The metadata node that leads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader: Option<NodeId>,
    /// Where the leading metadata node listens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader_address: Option<String>,
    /// When to try again, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u64>,
}

impl Facts {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Problem {
    /// A problem without facts.
    pub fn new(code: ErrorCode, detail: impl fmt::Display) -> Self {
        Self { code, detail: detail.to_string(), facts: Box::default() }
    }

    /// The same problem with facts.
    #[must_use]
    pub fn with(mut self, set: impl FnOnce(&mut Facts)) -> Self {
        set(&mut self.facts);
        self
    }
}

/// The body of an `application/problem+json` answer (RFC 9457), written from a [`Problem`] in one place of each server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProblemDocument {
    /// Always `about:blank`: the code says more.
    #[serde(rename = "type", default)]
    pub problem_type: String,
    /// The code in words.
    #[serde(default)]
    pub title: String,
    /// The HTTP status, again.
    #[serde(default)]
    pub status: u16,
    /// The stable word.
    pub code: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// Whether the request may have been done all the same.
    pub side_effects: crate::error_code::SideEffects,
    /// What failed, on which thing, what to do.
    #[serde(default)]
    pub detail: String,
    /// Identifies the request in the logs of the servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Actual values.
    #[serde(flatten)]
    pub facts: Facts,
}

impl ProblemDocument {
    /// The document of a problem.
    pub fn from_problem(problem: &Problem, request_id: Option<String>) -> Self {
        Self {
            problem_type: "about:blank".to_owned(),
            title: problem.code.as_str().replace('_', " "),
            status: problem.code.status(),
            code: problem.code.as_str().to_owned(),
            retryable: problem.code.retryable(),
            side_effects: problem.code.side_effects(),
            detail: problem.detail.clone(),
            request_id,
            facts: (*problem.facts).clone(),
        }
    }
}
