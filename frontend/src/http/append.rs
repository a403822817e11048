//! `POST …/records`: appends to a topic or to one partition.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use carnax_core::error_code::ErrorCode;
use carnax_core::http::{AppendResponse, content_type};
use carnax_core::id::PartitionIndex;
use carnax_core::problem::Problem;
use carnax_core::topic::TopicName;
use http::{HeaderMap, Uri};
use serde::Deserialize;

use super::json_record::Encoding;
use super::problem::Failure;
use super::{Api, body, parameters};
use crate::append::accept::{AppendBody, AppendRequest};
use crate::append::draining;

/// JSON takes memory twice: as it came, since it may have to be routed again, and as batches.
const COPIES_OF_JSON: u32 = 2;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AppendQuery {
    #[serde(default)]
    encoding: Encoding,
}

/// Appends records to a topic; keyed ones go to the partition of their key.
#[utoipa::path(
    post, path = "/v1/topics/{topic}/records", tag = "records",
    params(("topic" = String, Path), ("encoding" = Option<Encoding>, Query, description = "What keys and values are in JSON")),
    request_body(content = String, content_type = "application/json", description = "{\"records\":[{\"key\",\"value\",\"headers\",\"timestamp\",\"partition\"}]}; also application/x-ndjson and application/vnd.carnax.batches"),
    responses((status = 200, body = AppendResponse), (status = "default", body = carnax_core::problem::ProblemDocument))
)]
pub(super) async fn to_topic(
    State(api): State<Arc<Api>>,
    Path(topic): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<AppendResponse>, Failure> {
    let topic = parameters::topic(&topic)?;
    append(&api, topic, None, &uri, &headers, body).await
}

/// Appends records to one partition.
#[utoipa::path(
    post, path = "/v1/topics/{topic}/partitions/{partition}/records", tag = "records",
    params(("topic" = String, Path), ("partition" = u32, Path), ("encoding" = Option<Encoding>, Query, description = "What keys and values are in JSON")),
    request_body(content = String, content_type = "application/json", description = "As for a topic; application/vnd.carnax.batches is concatenated record batches"),
    responses((status = 200, body = AppendResponse), (status = "default", body = carnax_core::problem::ProblemDocument))
)]
pub(super) async fn to_partition(
    State(api): State<Arc<Api>>,
    Path((topic, partition)): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<AppendResponse>, Failure> {
    let topic = parameters::topic(&topic)?;
    let partition = parameters::partition(&partition)?;
    append(&api, topic, Some(partition), &uri, &headers, body).await
}

async fn append(
    api: &Api,
    topic: TopicName,
    partition: Option<PartitionIndex>,
    uri: &Uri,
    headers: &HeaderMap,
    body: Body,
) -> Result<Json<AppendResponse>, Failure> {
    if api.draining.is_cancelled() {
        return Err(draining().into());
    }
    let AppendQuery { encoding } = parameters::query(uri)?;
    let media_type = parameters::media_type(headers, http::header::CONTENT_TYPE);
    let copies = match media_type.as_str() {
        content_type::JSON | content_type::NDJSON => COPIES_OF_JSON,
        content_type::BATCHES => 1,
        _ => return Err(unsupported(&media_type).into()),
    };
    let topic_id = parameters::topic_id(headers)?;
    let partition_count = parameters::partition_count(headers)?;
    // Whether there is such a topic is known before its records are taken in.
    api.topics.get(&topic).await?;
    let http = &api.settings.http;
    let (bytes, memory) =
        body::read_body(body, headers, http.body_bytes_max, http, &api.append_memory, copies).await?;
    let body = match media_type.as_str() {
        content_type::NDJSON => AppendBody::Ndjson(bytes, encoding),
        content_type::BATCHES => AppendBody::Batches(bytes),
        _ => AppendBody::Json(bytes, encoding),
    };
    let memory = Arc::new(memory);
    let request = AppendRequest { topic, topic_id, partition, partition_count, body, memory };
    let appended = api.accept.append(request).await?;
    let (results, duplicate) = (appended.results, appended.duplicate);
    Ok(Json(AppendResponse { results, duplicate, topic_id: appended.topic_id }))
}

fn unsupported(media_type: &str) -> Problem {
    let detail = format!(
        "records come as {}, {} or {}, not {}",
        content_type::JSON,
        content_type::NDJSON,
        content_type::BATCHES,
        parameters::shown(media_type),
    );
    Problem::new(ErrorCode::UnsupportedMediaType, detail)
}
