//! `…/partitions/{p}/fencing-token`: who may write to a partition, among those who ask.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use carnax_core::http::{FencingTokenResponse, SetFencingTokenRequest};
use carnax_core::metadata::{DescribeFencingToken, PartitionFence, SetFencingToken, TokenNow};
use http::HeaderMap;

use super::problem::Failure;
use super::{Api, parameters, topics};
use crate::metadata_client::CommandError;

/// Sets the fencing token of a partition, or takes it away; appends that carry another one are refused from then on.
#[utoipa::path(
    put, path = "/v1/topics/{topic}/partitions/{partition}/fencing-token", tag = "records",
    params(("topic" = String, Path), ("partition" = u32, Path)), request_body = SetFencingTokenRequest,
    responses((status = 200, body = FencingTokenResponse), (status = "default", body = carnax_core::problem::ProblemDocument))
)]
pub(super) async fn set(
    State(api): State<Arc<Api>>,
    Path((topic, partition)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<FencingTokenResponse>, Failure> {
    let topic = topics::topic_ref(&topic, &headers)?;
    let partition = parameters::partition(&partition)?;
    let SetFencingTokenRequest { token, from } = api.document(body, &headers).await?;
    let from = match from {
        None => TokenNow::Any,
        Some(None) => TokenNow::Nothing,
        Some(Some(token)) => TokenNow::Token(token),
    };
    // Never repeated: a late try could take a token away from somebody who has set it meanwhile.
    let command = SetFencingToken { topic, partition, token, from };
    let fence = api.client.command(command).await.map_err(CommandError::into_problem)?;
    Ok(Json(response(fence)))
}

/// Tells the fencing token of a partition.
#[utoipa::path(
    get, path = "/v1/topics/{topic}/partitions/{partition}/fencing-token", tag = "records",
    params(("topic" = String, Path), ("partition" = u32, Path)),
    responses((status = 200, body = FencingTokenResponse), (status = "default", body = carnax_core::problem::ProblemDocument))
)]
pub(super) async fn describe(
    State(api): State<Arc<Api>>,
    Path((topic, partition)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Json<FencingTokenResponse>, Failure> {
    let topic = topics::topic_ref(&topic, &headers)?;
    let partition = parameters::partition(&partition)?;
    Ok(Json(response(api.client.query(DescribeFencingToken { topic, partition }).await?)))
}

fn response(fence: PartitionFence) -> FencingTokenResponse {
    FencingTokenResponse { token: fence.token, high_watermark: fence.high_watermark }
}
