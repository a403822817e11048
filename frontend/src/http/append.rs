//! `POST …/records`: appends to a topic or to one partition.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use carnax_core::error_code::ErrorCode;
use carnax_core::http::{AppendResponse, AppendResult, content_type};
use carnax_core::id::PartitionIndex;
use carnax_core::problem::Problem;
use carnax_core::request_hash::{RequestTarget, request_hash};
use carnax_core::topic::TopicName;
use http::{HeaderMap, Uri};
use serde::Deserialize;

use super::json_record::Encoding;
use super::problem::Failure;
use super::{Api, body, parameters, stamp};
use crate::access::Caller;
use crate::append::accept::{AppendBody, AppendRecords, AppendRequest, KnownTopics, TopicAppend};
use crate::append::{Appended, draining};

/// JSON takes memory twice: as it came, since it may have to be routed again, and as batches.
pub(super) const COPIES_OF_JSON: u32 = 2;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AppendQuery {
    #[serde(default)]
    pub(super) encoding: Encoding,
}

/// Appends records to a topic; keyed ones go to the partition of their key.
#[utoipa::path(
    post, path = "/v1/topics/{topic}/records", tag = "records",
    params(("topic" = String, Path),
        ("encoding" = Option<Encoding>, Query, description = "What keys and values are in JSON"),
        ("carnax-producer-id" = Option<String>, Header), ("carnax-producer-epoch" = Option<u32>, Header),
        ("carnax-sequence" = Option<String>, Header, description = "A number of at most 128 bits"),
        ("carnax-sequence-mode" = Option<String>, Header, description = "contiguous (default) or increasing"),
        ("idempotency-key" = Option<String>, Header, description = "Not together with a producer id")),
    request_body(content = String, content_type = "application/json", description = "{\"records\":[{\"key\",\"value\",\"headers\",\"timestamp\",\"partition\"}]}; also application/x-ndjson and application/vnd.carnax.batches"),
    responses((status = 200, body = AppendResponse), (status = "default", body = carnax_core::problem::ProblemDocument))
)]
pub(super) async fn to_topic(
    State(api): State<Arc<Api>>,
    Path(topic): Path<String>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<AppendResponse>, Failure> {
    let topic = parameters::topic(&topic)?;
    append(&api, &caller, (topic, None), &uri, &headers, body).await
}

/// Appends records to one partition.
#[utoipa::path(
    post, path = "/v1/topics/{topic}/partitions/{partition}/records", tag = "records",
    params(("topic" = String, Path), ("partition" = u32, Path),
        ("encoding" = Option<Encoding>, Query, description = "What keys and values are in JSON"),
        ("carnax-producer-id" = Option<String>, Header), ("carnax-producer-epoch" = Option<u32>, Header),
        ("carnax-sequence" = Option<String>, Header, description = "A number of at most 128 bits"),
        ("carnax-sequence-mode" = Option<String>, Header, description = "contiguous (default) or increasing"),
        ("idempotency-key" = Option<String>, Header, description = "Not together with a producer id")),
    request_body(content = String, content_type = "application/json", description = "As for a topic; application/vnd.carnax.batches is concatenated record batches"),
    responses((status = 200, body = AppendResponse), (status = "default", body = carnax_core::problem::ProblemDocument))
)]
pub(super) async fn to_partition(
    State(api): State<Arc<Api>>,
    Path((topic, partition)): Path<(String, String)>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<AppendResponse>, Failure> {
    let topic = parameters::topic(&topic)?;
    let partition = parameters::partition(&partition)?;
    append(&api, &caller, (topic, Some(partition)), &uri, &headers, body).await
}

async fn append(
    api: &Api,
    caller: &Caller,
    (topic, partition): (TopicName, Option<PartitionIndex>),
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
    let stamp = stamp::read(headers, caller)?;
    // Whether there is such a topic is known before its records are taken in. A repeat may be of one that is gone.
    if !stamp.is_some() {
        api.topics.get(&topic).await?;
    }
    let http = &api.settings.http;
    let (bytes, memory) =
        body::read_body(body, headers, http.body_bytes_max, http, &api.append_memory, copies).await?;
    let target = match partition {
        Some(partition) => RequestTarget::Partition(&topic, partition),
        None => RequestTarget::Topic(&topic),
    };
    let said_encoding = (copies == COPIES_OF_JSON).then_some(encoding.as_str());
    let stamp = stamp::with_hash(stamp, || request_hash(target, &media_type, said_encoding, &bytes));
    let body = match media_type.as_str() {
        content_type::NDJSON => AppendBody::Ndjson(bytes, encoding),
        content_type::BATCHES => AppendBody::Batches(bytes),
        _ => AppendBody::Json(bytes, encoding),
    };
    let records = TopicAppend { topic, topic_id, partition, partition_count, body };
    let (records, token) = (AppendRecords::Topic(records), caller.token().cloned());
    let request = AppendRequest { records, stamp, memory: Arc::new(memory), token };
    let (appended, topics) = Box::pin(api.accept.append(request)).await?;
    response(appended, &topics).map(Json).map_err(Failure)
}

fn response(appended: Appended, topics: &KnownTopics) -> Result<AppendResponse, Problem> {
    let Appended { mut slices, append_time, duplicate } = appended;
    slices.sort_by_key(|slice| slice.partition);
    let routed = topics.values().next().map(|topic| topic.id);
    let first = slices.first().map(|slice| slice.topic);
    let topic_id =
        first.or(routed).ok_or_else(|| Problem::new(ErrorCode::Internal, "an append has a topic"))?;
    let result = |slice: carnax_core::metadata::AppendedSlice| AppendResult {
        partition: slice.partition,
        base_offset: slice.base_offset,
        count: slice.records,
        append_time,
    };
    Ok(AppendResponse { results: slices.into_iter().map(result).collect(), duplicate, topic_id })
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
