//! Quotas: how much may be done in a second with a token, and on a topic.

use serde::{Deserialize, Serialize};

/// How much may be done in a second; what is absent has no limit, and nothing at all may be done with zero.
///
/// As Kafka's (KIP-13), they hold at each frontend by itself: a cluster of three gives up to three times as much to whoever uses all
/// three. Bytes are those of bodies that append and of record batches that are fetched, requests those that append or fetch. A second's
/// worth may be used at once; one request may go beyond what is left, and is paid for by waiting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Quotas {
    /// Bytes of appended records in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub produce_bytes_per_second: Option<u64>,
    /// Requests that append in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub produce_requests_per_second: Option<u64>,
    /// Bytes of fetched records in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetch_bytes_per_second: Option<u64>,
    /// Requests that fetch in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetch_requests_per_second: Option<u64>,
}

/// Which way records go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Into the log.
    Produce,
    /// Out of the log.
    Fetch,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Measure {
    /// Bytes of records.
    Bytes,
    /// Requests.
    Requests,
}

impl Quotas {
    /// One of the four, in a second.
    pub fn per_second(&self, direction: Direction, measure: Measure) -> Option<u64> {
        match (direction, measure) {
            (Direction::Produce, Measure::Bytes) => self.produce_bytes_per_second,
            (Direction::Produce, Measure::Requests) => self.produce_requests_per_second,
            (Direction::Fetch, Measure::Bytes) => self.fetch_bytes_per_second,
            (Direction::Fetch, Measure::Requests) => self.fetch_requests_per_second,
        }
    }

    /// Whether there is none.
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }
}

impl Direction {
    /// The word in messages and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Produce => "produce",
            Self::Fetch => "fetch",
        }
    }
}

impl Measure {
    /// The word in messages and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Requests => "requests",
        }
    }
}
