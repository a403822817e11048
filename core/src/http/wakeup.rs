//! Wake-ups of topics.

use serde::{Deserialize, Serialize};

use crate::metadata::WakeupDescription;

/// `PUT /v1/topics/{topic}/wakeups/{wakeup}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PutWakeupRequest {
    /// The URL of the SQS queue that is told about commits.
    pub queue: String,
    /// Milliseconds over which commits share one event, 0 to 60,000; absent: 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_ms: Option<u32>,
}

/// `GET /v1/topics/{topic}/wakeups`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WakeupsResponse {
    /// In the order of their names.
    pub wakeups: Vec<WakeupDescription>,
}
