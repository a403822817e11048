//! What was used and what it costs.

use serde::{Deserialize, Serialize};

use crate::access::TokenId;
use crate::id::TopicId;
use crate::metadata::{TokenUsage, TopicUsage, UsageDescription};
use crate::time::Timestamp;
use crate::topic::TopicName;
use crate::usage::{Prices, StoreRequests, Traffic};

/// `GET /v1/usage`: what was used in a month, as far as it is reported.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UsageResponse {
    /// The month in UTC, as 2026-11.
    pub month: String,
    /// Until when, in milliseconds since 1970.
    pub log_time: Timestamp,
    /// Records and bytes of all topics, deleted ones included.
    pub traffic: Traffic,
    /// Requests to the object store, retries included, of the whole cluster: exact.
    pub object_store_requests: StoreRequests,
    /// Bytes that records take now.
    pub stored_bytes: u64,
    /// Bytes of objects that wait for their deletion now.
    pub dead_bytes: u64,
    /// What it costs by the prices below.
    pub cost: UsageCost,
    /// In nanodollars: a request of each kind, and a GiB for a month. Changed by the cluster settings `price.…`.
    pub prices: Prices,
    /// The part of topics that are deleted.
    pub deleted_topics: Traffic,
    /// The part that was moved without a token, or with one that is revoked.
    pub other_tokens: Traffic,
    /// By topic, in the order of their ids.
    pub topics: Vec<TopicUsageResponse>,
    /// The id after which the next page of topics begins; absent: there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_after_topic: Option<TopicId>,
    /// By token, in the order of their ids.
    pub tokens: Vec<TokenUsageResponse>,
    /// The id after which the next page of tokens begins; absent: there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_after_token: Option<TokenId>,
}

/// An estimate in US dollars.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UsageCost {
    /// What the requests of the month cost.
    pub requests_dollars: f64,
    /// What it costs to keep for a month what is stored now.
    pub storage_dollars_per_month: f64,
}

/// What was used for a topic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TopicUsageResponse {
    /// Its name.
    pub topic: TopicName,
    /// Its id.
    pub topic_id: TopicId,
    /// Records and bytes.
    pub traffic: Traffic,
    /// An estimate: requests are shared by topics; each gets its part of those that write by its bytes in, of those that read
    /// by its bytes out.
    pub object_store_requests: StoreRequests,
    /// Bytes that its records take now.
    pub stored_bytes: u64,
    /// What it costs, of the same estimate.
    pub cost: UsageCost,
}

/// What was used with a token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenUsageResponse {
    /// Its id.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub token: TokenId,
    /// Records and bytes.
    pub traffic: Traffic,
    /// An estimate, as for topics.
    pub object_store_requests: StoreRequests,
    /// What these requests cost; a token stores nothing.
    pub requests_dollars: f64,
}

impl From<UsageDescription> for UsageResponse {
    /// Shares the requests out and puts prices to them.
    fn from(usage: UsageDescription) -> Self {
        let UsageDescription { prices, requests, traffic, .. } = usage;
        let topics = usage.topics.into_iter().map(|topic| of_topic(topic, &requests, &traffic, &prices));
        let topics: Vec<_> = topics.collect();
        let tokens = usage.tokens.into_iter().map(|token| of_token(token, &requests, &traffic, &prices));
        let tokens: Vec<_> = tokens.collect();
        let last_topic = topics.last().map(|topic| topic.topic_id);
        let last_token = tokens.last().map(|token| token.token.clone());
        Self {
            month: usage.month,
            log_time: usage.log_time,
            traffic,
            object_store_requests: requests,
            stored_bytes: usage.stored_bytes,
            dead_bytes: usage.dead_bytes,
            cost: cost(&prices, &requests, usage.stored_bytes.saturating_add(usage.dead_bytes)),
            prices,
            deleted_topics: usage.deleted_topics,
            other_tokens: usage.other_tokens,
            topics,
            next_after_topic: last_topic.filter(|_| usage.more_topics),
            tokens,
            next_after_token: last_token.filter(|_| usage.more_tokens),
        }
    }
}

fn cost(prices: &Prices, requests: &StoreRequests, stored_bytes: u64) -> UsageCost {
    UsageCost {
        requests_dollars: prices.of_requests(requests).dollars(),
        storage_dollars_per_month: prices.of_month(stored_bytes).dollars(),
    }
}

fn of_topic(
    usage: TopicUsage,
    requests: &StoreRequests,
    whole: &Traffic,
    prices: &Prices,
) -> TopicUsageResponse {
    let TopicUsage { topic_id, name, traffic, stored_bytes } = usage;
    let object_store_requests = requests.share(&traffic, whole);
    let cost = cost(prices, &object_store_requests, stored_bytes);
    TopicUsageResponse { topic: name, topic_id, traffic, object_store_requests, stored_bytes, cost }
}

fn of_token(
    usage: TokenUsage,
    requests: &StoreRequests,
    whole: &Traffic,
    prices: &Prices,
) -> TokenUsageResponse {
    let TokenUsage { id, traffic } = usage;
    let object_store_requests = requests.share(&traffic, whole);
    let requests_dollars = prices.of_requests(&object_store_requests).dollars();
    TokenUsageResponse { token: id, traffic, object_store_requests, requests_dollars }
}
