//! `GET /v1/usage`: what was used, and what it costs.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use carnax_core::access::TokenId;
use carnax_core::http::UsageResponse;
use carnax_core::id::TopicId;
use carnax_core::limits::USAGE_PAGE_MAX;
use carnax_core::metadata::{DescribeUsage, UsageMonth};
use http::Uri;
use serde::Deserialize;

use super::problem::Failure;
use super::{Api, parameters};
use crate::metadata_client::CommandError;

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct UsageQuery {
    month: UsageMonth,
    after_topic: Option<TopicId>,
    after_token: Option<TokenId>,
    limit: u32,
}

impl Default for UsageQuery {
    fn default() -> Self {
        Self { month: UsageMonth::This, after_topic: None, after_token: None, limit: USAGE_PAGE_MAX }
    }
}

/// What was used this month or in the one before, and what it costs by the prices of the cluster's settings. Holds what this
/// frontend counted; other frontends report every ten seconds.
#[utoipa::path(
    get, path = "/v1/usage", tag = "cluster",
    params(("month" = Option<String>, Query, description = "this (default) or last"),
        ("after_topic" = Option<String>, Query, description = "Only topics with ids after this one"),
        ("after_token" = Option<String>, Query, description = "Only tokens with ids after this one"),
        ("limit" = Option<u32>, Query, description = "Topics, and tokens, at most: 1 to 1,000")),
    responses((status = 200, body = UsageResponse), (status = "default", body = carnax_core::problem::ProblemDocument))
)]
pub(super) async fn describe(State(api): State<Arc<Api>>, uri: Uri) -> Result<Json<UsageResponse>, Failure> {
    let UsageQuery { month, after_topic, after_token, limit } = parameters::query(&uri)?;
    api.usage.report_or_wait().await;
    let question = DescribeUsage { month, after_topic, after_token, limit };
    let usage = api.client.repeat(question).await.map_err(CommandError::into_problem)?;
    Ok(Json(usage.into()))
}
