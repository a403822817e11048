//! `POST /v1/append`: appends over many topics and partitions, all or nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use bytes::Bytes;
use carnax_core::error_code::ErrorCode;
use carnax_core::http::{AppendHead, AtomicAppendResponse, AtomicAppendResult, content_type, read_envelope};
use carnax_core::problem::Problem;
use carnax_core::request_hash::{RequestTarget, request_hash};
use http::{HeaderMap, Uri};

use super::append::{AppendQuery, COPIES_OF_JSON};
use super::json_record::{Encoding, parse_atomic};
use super::problem::Failure;
use super::{Api, body, parameters, stamp};
use crate::access::Caller;
use crate::append::accept::atomic::AtomicAppend;
use crate::append::accept::{AppendRecords, AppendRequest, KnownTopics};
use crate::append::{Appended, draining};

/// Appends to many topics and partitions, all or nothing, if all conditions hold; group offsets move with it.
#[utoipa::path(
    post, path = "/v1/append", tag = "records",
    params(
        ("encoding" = Option<Encoding>, Query, description = "What keys and values are in JSON"),
        ("carnax-producer-id" = Option<String>, Header), ("carnax-producer-epoch" = Option<u32>, Header),
        ("carnax-sequence" = Option<String>, Header, description = "A number of at most 128 bits"),
        ("carnax-sequence-mode" = Option<String>, Header, description = "contiguous (default) or increasing"),
        ("idempotency-key" = Option<String>, Header, description = "Not together with a producer id")),
    request_body(content = String, content_type = "application/json", description = "{\"records\":[{\"topic\",\"topic_id\",\"partition\",\"key\",\"value\",\"headers\",\"timestamp\"}],\"conditions\":[AppendCondition],\"group\":AppendGroupOffsets}; also application/vnd.carnax.append"),
    responses((status = 200, body = AtomicAppendResponse), (status = "default", body = carnax_core::problem::ProblemDocument))
)]
pub(super) async fn append(
    State(api): State<Arc<Api>>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<AtomicAppendResponse>, Failure> {
    if api.draining.is_cancelled() {
        return Err(draining().into());
    }
    let AppendQuery { encoding } = parameters::query(&uri)?;
    let media_type = parameters::media_type(&headers, http::header::CONTENT_TYPE);
    let (copies, said_encoding) = match media_type.as_str() {
        content_type::JSON => (COPIES_OF_JSON, Some(encoding.as_str())),
        content_type::APPEND => (1, None),
        _ => return Err(unsupported(&media_type).into()),
    };
    let stamp = stamp::read(&headers, &caller)?;
    let http = &api.settings.http;
    let (bytes, memory) =
        body::read_body(body, &headers, http.body_bytes_max, http, &api.append_memory, copies).await?;
    let hash = || request_hash(RequestTarget::Atomic, &media_type, said_encoding, &bytes);
    let stamp = stamp::with_hash(stamp, hash);
    let records = match said_encoding {
        Some(_) => {
            let parsed = parse_atomic(&bytes, encoding);
            // Records have memory of their own: the body is not held while they wait.
            drop(bytes);
            parsed?
        }
        None => parse_envelope(bytes)?,
    };
    records.check_access(&caller)?;
    let records = AppendRecords::Atomic(Box::new(records));
    let request = AppendRequest { records, stamp, memory: Arc::new(memory), token: caller.token().cloned() };
    let (appended, topics) = Box::pin(api.accept.append(request)).await?;
    Ok(Json(response(appended, &topics)))
}

fn parse_envelope(body: Bytes) -> Result<AtomicAppend, Problem> {
    let read = read_envelope(body).map_err(|error| Problem::new(ErrorCode::Malformed, error));
    let (AppendHead { parts, conditions, group }, batches) = read?;
    AtomicAppend::of_batches(parts.into_iter().zip(batches).collect(), conditions, group)
}

fn response(appended: Appended, topics: &KnownTopics) -> AtomicAppendResponse {
    let Appended { slices, append_time, duplicate } = appended;
    let names: BTreeMap<_, _> = topics.iter().map(|(name, topic)| (topic.id, name)).collect();
    let result = |slice: carnax_core::metadata::AppendedSlice| AtomicAppendResult {
        topic: names.get(&slice.topic).map(|name| (*name).clone()),
        topic_id: slice.topic,
        partition: slice.partition,
        base_offset: slice.base_offset,
        count: slice.records,
        append_time,
    };
    let mut results: Vec<_> = slices.into_iter().map(result).collect();
    results.sort_by(|a, b| (&a.topic, a.topic_id, a.partition).cmp(&(&b.topic, b.topic_id, b.partition)));
    AtomicAppendResponse { results, duplicate }
}

fn unsupported(media_type: &str) -> Problem {
    let detail = format!(
        "an append over many topics comes as {} or {}, not {}",
        content_type::JSON,
        content_type::APPEND,
        parameters::shown(media_type),
    );
    Problem::new(ErrorCode::UnsupportedMediaType, detail)
}
