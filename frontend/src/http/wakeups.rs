//! `/v1/topics/{topic}/wakeups`: queues that are told when a topic grows.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use carnax_core::http::{PutWakeupRequest, WakeupsResponse};
use carnax_core::limits;
use carnax_core::metadata::{DeleteWakeup, ListWakeups, PutWakeup, WakeupDescription, check_wakeup};
use carnax_core::name::WakeupName;
use carnax_core::problem::Problem;
use http::{HeaderMap, StatusCode};

use super::problem::Failure;
use super::{Api, parameters, topics};
use crate::metadata_client::CommandError;

/// Tells a queue about commits to a topic from now on; an existing wake-up is changed and goes on where it was.
#[utoipa::path(
    put, path = "/v1/topics/{topic}/wakeups/{wakeup}", tag = "topics",
    params(("topic" = String, Path), ("wakeup" = String, Path)), request_body = PutWakeupRequest,
    responses((status = 200, body = WakeupDescription), (status = "default", body = carnax_core::problem::ProblemDocument))
)]
pub(super) async fn put(
    State(api): State<Arc<Api>>,
    Path((topic, wakeup)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<WakeupDescription>, Failure> {
    let (topic, name) = (topics::topic_ref(&topic, &headers)?, wakeup_name(&wakeup)?);
    let PutWakeupRequest { queue, window_ms } = api.document(body, &headers).await?;
    let default = u32::try_from(limits::WAKEUP_WINDOW_DEFAULT.as_millis()).unwrap_or(u32::MAX);
    let command = PutWakeup { topic, name, queue, window_ms: window_ms.unwrap_or(default) };
    check_wakeup(&command).map_err(|detail| parameters::invalid(&detail))?;
    Ok(Json(api.client.repeat(command).await.map_err(CommandError::into_problem)?))
}

/// Lists the wake-ups of a topic, with what is still to be told.
#[utoipa::path(
    get, path = "/v1/topics/{topic}/wakeups", tag = "topics", params(("topic" = String, Path)),
    responses((status = 200, body = WakeupsResponse), (status = "default", body = carnax_core::problem::ProblemDocument))
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Path(topic): Path<String>,
    headers: HeaderMap,
) -> Result<Json<WakeupsResponse>, Failure> {
    let topic = topics::topic_ref(&topic, &headers)?;
    let list = api.client.query(ListWakeups { topic }).await?;
    Ok(Json(WakeupsResponse { wakeups: list.wakeups }))
}

/// Ends a wake-up.
#[utoipa::path(
    delete, path = "/v1/topics/{topic}/wakeups/{wakeup}", tag = "topics",
    params(("topic" = String, Path), ("wakeup" = String, Path)),
    responses((status = 204), (status = "default", body = carnax_core::problem::ProblemDocument))
)]
pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    Path((topic, wakeup)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, Failure> {
    let (topic, name) = (topics::topic_ref(&topic, &headers)?, wakeup_name(&wakeup)?);
    api.client.command(DeleteWakeup { topic, name }).await.map_err(CommandError::into_problem)?;
    Ok(StatusCode::NO_CONTENT)
}

fn wakeup_name(text: &str) -> Result<WakeupName, Problem> {
    text.parse().map_err(|error: carnax_core::name::InvalidName| parameters::invalid(&error.to_string()))
}
