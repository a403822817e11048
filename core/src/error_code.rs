//! What can go wrong, as stable words. Each answers three questions: whose fault is it (HTTP status), may the same request
//! be sent again, and might it have happened anyway? Clients decide on these answers alone.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Whether a request that failed may have changed something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum SideEffects {
    /// Nothing happened and nothing will.
    None,
    /// It may have happened, or may still happen.
    Possible,
}

macro_rules! error_codes {
    ($($(#[$meta:meta])* $name:ident = $word:literal, $status:literal, $retryable:literal, $effects:ident;)*) => {
        /// A stable word for a failure. Words are only ever added.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        pub enum ErrorCode {
            $($(#[$meta])* #[serde(rename = $word)] $name,)*
        }

        impl ErrorCode {
            /// All codes, in the order of their declaration.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The word that stands in problem documents.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// The HTTP status of a problem with this code.
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// Whether the same request may succeed later.
            pub const fn retryable(self) -> bool {
                match self { $(Self::$name => $retryable,)* }
            }

            /// Whether the request may have been done all the same.
            pub const fn side_effects(self) -> SideEffects {
                match self { $(Self::$name => SideEffects::$effects,)* }
            }
        }
    };
}

error_codes! {
    /// The request cannot be read: wrong JSON, wrong base64, a batch that is not a batch.
    Malformed = "malformed", 400, false, None;
    /// A record batch whose checksum does not match its bytes.
    CorruptBatch = "corrupt_batch", 400, false, None;
    /// No token, or one that is not known, expired or revoked.
    Unauthenticated = "unauthenticated", 401, false, None;
    /// The token does not allow this.
    Forbidden = "forbidden", 403, false, None;
    /// A newer epoch of the producer or member has taken over.
    Fenced = "fenced", 403, false, None;
    /// No such path in this API.
    RouteNotFound = "route_not_found", 404, false, None;
    /// No topic of that name.
    TopicNotFound = "topic_not_found", 404, false, None;
    /// The topic has fewer partitions than that.
    PartitionNotFound = "partition_not_found", 404, false, None;
    /// No metadata node of that id.
    NodeNotFound = "node_not_found", 404, false, None;
    /// No group of that name.
    GroupNotFound = "group_not_found", 404, false, None;
    /// The topic has no wake-up of that name, or it was changed meanwhile.
    WakeupNotFound = "wakeup_not_found", 404, false, None;
    /// No access token of that id.
    TokenNotFound = "token_not_found", 404, false, None;
    /// No such member of the group (any more): it left, or its session expired. Join again.
    UnknownMember = "unknown_member", 404, false, None;
    /// The path exists, but not with this method.
    MethodNotAllowed = "method_not_allowed", 405, false, None;
    /// The request body took too long to arrive.
    RequestTimeout = "request_timeout", 408, true, None;
    /// The topic exists with another configuration or partition count.
    TopicExists = "topic_exists", 409, false, None;
    /// The topic id belongs to a deleted topic; the name now means another one.
    TopicRecreated = "topic_recreated", 409, false, None;
    /// The request was routed by a partition count that is no longer the topic's; route again.
    StaleRouting = "stale_routing", 409, true, None;
    /// A sequence that does not follow the last one.
    SequenceGap = "sequence_gap", 409, false, None;
    /// A producer that is not known (any more) and does not start at sequence 0.
    UnknownProducer = "unknown_producer", 409, false, None;
    /// The partition belongs to another member of the group, or to none.
    NotOwner = "not_owner", 409, false, None;
    /// The group has members.
    GroupNotEmpty = "group_not_empty", 409, false, None;
    /// The maintenance job belongs to another worker by now, or to none.
    LeaseLost = "lease_lost", 409, false, None;
    /// Not all nodes of the cluster were told that this may be done: upgrade the cluster.
    FeatureLevelTooLow = "feature_level_too_low", 409, false, None;
    /// The cluster is not in the state that the change presumes.
    Conflict = "conflict", 409, false, None;
    /// The offset lies below the log start.
    OffsetBelowLogStart = "offset_below_log_start", 410, false, None;
    /// A condition of the append does not hold.
    ConditionFailed = "condition_failed", 412, false, None;
    /// A body, batch or unit beyond its limit.
    TooLarge = "too_large", 413, false, None;
    /// A content type that this call does not take.
    UnsupportedMediaType = "unsupported_media_type", 415, false, None;
    /// The offset lies above the high watermark.
    OffsetAboveHighWatermark = "offset_above_high_watermark", 416, false, None;
    /// A well-formed value that is not allowed here.
    InvalidValue = "invalid_value", 422, false, None;
    /// The same idempotency key or sequence with another body.
    BodyMismatch = "body_mismatch", 422, false, None;
    /// A quota or a bound on work in progress is reached; try again after a while.
    TooManyRequests = "too_many_requests", 429, true, None;
    /// Request headers beyond their limit.
    HeadersTooLarge = "headers_too_large", 431, false, None;
    /// A stored batch that fails its checks; neighbours can still be read.
    DamagedBatch = "damaged_batch", 500, false, None;
    /// A bug, or a state that should not be.
    Internal = "internal", 500, false, Possible;
    /// The server cannot do this now.
    Unavailable = "unavailable", 503, true, None;
    /// No majority of metadata nodes answers.
    NoQuorum = "no_quorum", 503, true, None;
    /// The server is shutting down and takes nothing new.
    Draining = "draining", 503, true, None;
    /// The object store fails or throttles.
    ObjectStoreUnavailable = "object_store_unavailable", 503, true, None;
    /// The segment's time is too far from log time; the frontend uploads anew under a new id.
    StaleSegment = "stale_segment", 503, true, None;
    /// The frontend's session is not known (any more).
    SessionExpired = "session_expired", 503, true, None;
    /// A commit number that is not the session's last or next.
    StaleCommitNumber = "stale_commit_number", 503, false, Possible;
    /// The cluster was restored from its bucket under a newer incarnation.
    StaleIncarnation = "stale_incarnation", 503, true, None;
    /// This metadata node does not lead; the facts may name the one that does.
    NotLeader = "not_leader", 503, true, None;
    /// The change was sent and no answer came: it may have happened.
    OutcomeUnknown = "outcome_unknown", 504, true, Possible;
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unavailable_codes_have_no_side_effects_and_words_are_unique() {
        for (position, code) in ErrorCode::ALL.iter().enumerate() {
            assert!(
                !ErrorCode::ALL[..position].iter().any(|other| other.as_str() == code.as_str()),
                "{code} twice"
            );
            assert!((400..600).contains(&code.status()), "{code}");
            if code.retryable() && code.side_effects() == SideEffects::Possible {
                assert_eq!(
                    *code,
                    ErrorCode::OutcomeUnknown,
                    "only an unknown outcome is retried with side effects"
                );
            }
        }
    }
}
