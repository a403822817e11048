//! `GET …/records` and `GET …/offsets`: fetches, streams, lookups.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use carnax_core::error_code::ErrorCode;
use carnax_core::http::{
    OffsetResponse, PartitionOffsetResponse, TopicOffsetsResponse, content_type, header,
};
use carnax_core::id::PartitionIndex;
use carnax_core::limits;
use carnax_core::metadata::{DescribeTopic, FetchFrom, TopicRef};
use carnax_core::offset::Offset;
use carnax_core::problem::Problem;
use carnax_core::time::Timestamp;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use http_body_util::BodyExt;
use serde::Deserialize;
use tokio::time::Instant;

use super::json_record::Encoding;
use super::problem::Failure;
use super::{Api, Deadline, parameters};
use crate::access::Caller;
use crate::fetch::follow::{Cursor, Pieces, TopicFollower, follow_partition, too_many_partitions};
use crate::fetch::resolve::Position;
use crate::fetch::respond::Layout;
use crate::fetch::{FetchRequest, Fetched};

/// The header by which a client of events says where it was.
const LAST_EVENT_ID: &str = "last-event-id";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FetchQuery {
    offset: Option<u64>,
    at: Option<String>,
    last: Option<u64>,
    max_bytes: Option<u64>,
    max_records: Option<u32>,
    wait_ms: Option<u64>,
    #[serde(default)]
    encoding: Encoding,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FollowQuery {
    follow: Option<String>,
    at: Option<String>,
    #[serde(default)]
    encoding: Encoding,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OffsetsQuery {
    at: String,
}

/// Fetches records of a partition, or follows it as server-sent events.
#[utoipa::path(
    get, path = "/v1/topics/{topic}/partitions/{partition}/records", tag = "records",
    params(
        ("topic" = String, Path), ("partition" = u32, Path),
        ("offset" = Option<u64>, Query, description = "First offset; by default the log start"),
        ("at" = Option<String>, Query, description = "earliest, latest or a time in milliseconds, instead of offset"),
        ("last" = Option<u64>, Query, description = "So many records before the end, instead of offset"),
        ("max_bytes" = Option<u64>, Query), ("max_records" = Option<u32>, Query),
        ("wait_ms" = Option<u64>, Query, description = "How long to wait for the first record"),
        ("encoding" = Option<Encoding>, Query, description = "What keys and values are in JSON")),
    responses(
        (status = 200, description = "Records as JSON; by Accept also NDJSON, record batches or events"),
        (status = "default", body = carnax_core::problem::ProblemDocument))
)]
pub(super) async fn records(
    State(api): State<Arc<Api>>,
    Path((topic, partition)): Path<(String, String)>,
    caller: Caller,
    deadline: Option<Extension<Deadline>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let query: FetchQuery = parameters::query(&uri)?;
    let accept = parameters::media_type(&headers, http::header::ACCEPT);
    let streams = accept == content_type::EVENT_STREAM;
    let (max_bytes, max_records) = sizes(&query)?;
    let mut request = FetchRequest {
        topic: parameters::topic(&topic)?,
        topic_id: parameters::topic_id(&headers)?,
        partition: parameters::partition(&partition)?,
        from: start(&query)?,
        max_bytes,
        max_records,
        wait: wait(&query, deadline.map(|Extension(deadline)| deadline))?,
        token: caller.token().cloned(),
    };
    api.fetch.quotas.fetch_request(caller.token(), &*api.topics.get(&request.topic).await?)?;
    if streams {
        if let Some(id) = parameters::text_header(&headers, LAST_EVENT_ID)? {
            let next = id.parse().ok().map(Offset).filter(|next| *next <= Offset::MAX);
            let wrong = || Problem::new(ErrorCode::Malformed, "Last-Event-ID is not an offset");
            request.from = FetchFrom::Offset(next.ok_or_else(wrong)?);
        }
        request.wait = Duration::ZERO;
    }
    let fetched = api.fetch.fetch(request.clone()).await?;
    if streams {
        let topic_id = fetched.topic_id;
        let pieces = follow_partition(Arc::clone(&api.fetch), request, fetched, query.encoding);
        let mut response = events(pieces);
        set(&mut response, header::TOPIC_ID, &topic_id.to_string());
        return Ok(response);
    }
    let (written, media_type) = match accept.as_str() {
        content_type::BATCHES => (fetched.write_batches(), content_type::BATCHES),
        content_type::NDJSON => {
            (fetched.write_json(Layout::Lines, query.encoding, max_records)?, content_type::NDJSON)
        }
        _ => (fetched.write_json(Layout::Json, query.encoding, max_records)?, content_type::JSON),
    };
    Ok(answer(written.body, media_type, written.next_offset, fetched))
}

/// Follows all partitions of a topic as server-sent events.
#[utoipa::path(
    get, path = "/v1/topics/{topic}/records", tag = "records",
    params(
        ("topic" = String, Path), ("follow" = bool, Query),
        ("at" = Option<String>, Query, description = "earliest or latest (default); Last-Event-ID goes before"),
        ("encoding" = Option<Encoding>, Query, description = "What keys and values are in JSON")),
    responses(
        (status = 200, description = "Server-sent events; each id says where to go on in every partition"),
        (status = "default", body = carnax_core::problem::ProblemDocument))
)]
pub(super) async fn follow_topic(
    State(api): State<Arc<Api>>,
    Path(topic): Path<String>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let query: FollowQuery = parameters::query(&uri)?;
    if query.follow.as_deref().is_none_or(|follow| follow == "false") {
        let detail = "a whole topic can only be followed: add ?follow, or fetch from a partition";
        return Err(parameters::invalid(detail).into());
    }
    let name = parameters::topic(&topic)?;
    let known = parameters::topic_id(&headers)?;
    let resumed: Option<Cursor> =
        parameters::text_header(&headers, LAST_EVENT_ID)?.map(str::parse).transpose()?;
    let id = resumed.as_ref().map(|cursor| cursor.topic_id).or(known);
    let described = DescribeTopic { topic: TopicRef { name: name.clone(), id }, with_offsets: true };
    let topic = api.client.query(described).await?;
    api.fetch.quotas.fetch_request(caller.token(), &api.topics.remember(&topic))?;
    if topic.partition_count > crate::fetch::follow::FOLLOWED_PARTITIONS_MAX {
        return Err(too_many_partitions(topic.partition_count).into());
    }
    let from_start = match query.at.as_deref() {
        Some("earliest") => true,
        None | Some("latest") => false,
        Some(other) => {
            let detail = format!("at is earliest or latest here, not {}", parameters::shown(other));
            return Err(parameters::invalid(&detail).into());
        }
    };
    let next = topic.offsets.iter().enumerate().map(|(position, bounds)| match &resumed {
        Some(cursor) => cursor.next.get(position).copied().unwrap_or(Offset::ZERO),
        None if from_start => bounds.log_start,
        None => bounds.high_watermark,
    });
    let cursor = Cursor { topic_id: topic.topic_id, next: next.collect() };
    let fetch = Arc::clone(&api.fetch);
    let token = caller.token().cloned();
    let follower = TopicFollower { fetch, topic: name, cursor, encoding: query.encoding, token };
    let mut response = events(follower.into_pieces());
    set(&mut response, header::TOPIC_ID, &topic.topic_id.to_string());
    Ok(response)
}

/// Looks an offset up.
#[utoipa::path(
    get, path = "/v1/topics/{topic}/partitions/{partition}/offsets", tag = "records",
    params(
        ("topic" = String, Path), ("partition" = u32, Path),
        ("at" = String, Query, description = "earliest, latest or a time in milliseconds")),
    responses((status = 200, body = OffsetResponse), (status = "default", body = carnax_core::problem::ProblemDocument))
)]
pub(super) async fn offsets(
    State(api): State<Arc<Api>>,
    Path((topic, partition)): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Json<OffsetResponse>, Failure> {
    let OffsetsQuery { at } = parameters::query(&uri)?;
    let request = FetchRequest {
        topic: parameters::topic(&topic)?,
        topic_id: parameters::topic_id(&headers)?,
        partition: parameters::partition(&partition)?,
        from: at_position(&at)?,
        max_bytes: 1,
        max_records: 1,
        wait: Duration::ZERO,
        token: None,
    };
    let position = api.fetch.position(request).await?;
    Ok(Json(OffsetResponse { offset: position.offset, timestamp: position.timestamp }))
}

/// Looks the same offset up in all partitions of a topic.
#[utoipa::path(
    get, path = "/v1/topics/{topic}/offsets", tag = "records",
    params(
        ("topic" = String, Path),
        ("at" = String, Query, description = "earliest, latest or a time in milliseconds")),
    responses((status = 200, body = TopicOffsetsResponse), (status = "default", body = carnax_core::problem::ProblemDocument))
)]
pub(super) async fn topic_offsets(
    State(api): State<Arc<Api>>,
    Path(topic): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Json<TopicOffsetsResponse>, Failure> {
    let OffsetsQuery { at } = parameters::query(&uri)?;
    let from = at_position(&at)?;
    let (name, id) = (parameters::topic(&topic)?, parameters::topic_id(&headers)?);
    let topic = TopicRef { name: name.clone(), id };
    let topic = api.client.query(DescribeTopic { topic, with_offsets: false }).await?;
    api.topics.remember(&topic);
    let partitions: Vec<_> = (0..topic.partition_count).map(PartitionIndex).collect();
    let positions = api.fetch.positions(&name, topic.topic_id, partitions.clone(), from).await?;
    let offset = |(partition, position): (PartitionIndex, Position)| PartitionOffsetResponse {
        partition,
        offset: position.offset,
        timestamp: position.timestamp,
    };
    let offsets = partitions.into_iter().zip(positions).map(offset).collect();
    Ok(Json(TopicOffsetsResponse { topic_id: topic.topic_id, offsets }))
}

fn start(query: &FetchQuery) -> Result<FetchFrom, Problem> {
    match (query.offset, query.at.as_deref(), query.last) {
        (None, None, None) => Ok(FetchFrom::Earliest),
        (Some(offset), None, None) if offset <= Offset::MAX.0 => Ok(FetchFrom::Offset(Offset(offset))),
        (Some(_), None, None) => Err(parameters::invalid("offset is larger than any offset can be")),
        (None, Some(at), None) => at_position(at),
        (None, None, Some(last)) => Ok(FetchFrom::Last(last)),
        _ => Err(parameters::invalid("only one of offset, at and last says where to start")),
    }
}

fn at_position(at: &str) -> Result<FetchFrom, Problem> {
    match at {
        "earliest" => Ok(FetchFrom::Earliest),
        "latest" => Ok(FetchFrom::Latest),
        time => {
            let millis = time.parse().map_err(|_| {
                let shown = parameters::shown(time);
                parameters::invalid(&format!("at is earliest, latest or a time in milliseconds, not {shown}"))
            })?;
            Ok(FetchFrom::Timestamp(Timestamp::from_millis(millis)))
        }
    }
}

fn sizes(query: &FetchQuery) -> Result<(u64, u32), Problem> {
    let max_bytes = query.max_bytes.unwrap_or(limits::FETCH_BYTES_DEFAULT);
    let max_records = query.max_records.unwrap_or(limits::FETCH_RECORDS_MAX);
    if max_bytes == 0 || max_bytes > limits::FETCH_BYTES_MAX {
        let detail = format!("max_bytes is 1 to {}", limits::FETCH_BYTES_MAX);
        return Err(parameters::invalid(&detail).with(|facts| facts.limit = Some(limits::FETCH_BYTES_MAX)));
    }
    if max_records == 0 || max_records > limits::FETCH_RECORDS_MAX {
        let detail = format!("max_records is 1 to {}", limits::FETCH_RECORDS_MAX);
        return Err(
            parameters::invalid(&detail).with(|facts| facts.limit = Some(limits::FETCH_RECORDS_MAX.into()))
        );
    }
    Ok((max_bytes, max_records))
}

fn wait(query: &FetchQuery, deadline: Option<Deadline>) -> Result<Duration, Problem> {
    let wait = Duration::from_millis(query.wait_ms.unwrap_or(0));
    if wait > limits::FETCH_WAIT_MAX {
        let limit = limits::FETCH_WAIT_MAX.as_secs() * 1_000;
        return Err(parameters::invalid(&format!("wait_ms is at most {limit}"))
            .with(|facts| facts.limit = Some(limit)));
    }
    let left = deadline.map(|Deadline(at)| at.saturating_duration_since(Instant::now()));
    Ok(left.map_or(wait, |left| wait.min(left)))
}

fn answer(body: Bytes, media_type: &'static str, next_offset: Offset, fetched: Fetched) -> Response {
    let caught_up = fetched.caught_up(next_offset);
    let Fetched { topic_id, high_watermark, log_start, memory, .. } = fetched;
    // The memory is given back when the last byte was taken, or the client has gone.
    let body = http_body_util::Full::new(body).map_frame(move |frame| {
        let _ = &memory;
        frame
    });
    let mut response = Body::new(body).into_response();
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    for (name, value) in [
        (header::TOPIC_ID, topic_id.to_string()),
        (header::NEXT_OFFSET, next_offset.to_string()),
        (header::HIGH_WATERMARK, high_watermark.to_string()),
        (header::LOG_START_OFFSET, log_start.to_string()),
        (header::CAUGHT_UP, caught_up.to_string()),
    ] {
        set(&mut response, name, &value);
    }
    response
}

fn events(pieces: Pieces) -> Response {
    let mut response = Body::from_stream(pieces).into_response();
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static(content_type::EVENT_STREAM));
    headers.insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn set(response: &mut Response, name: &'static str, value: &str) {
    let value = HeaderValue::try_from(value).expect("ids, numbers and words are header values");
    response.headers_mut().insert(HeaderName::from_static(name), value);
}
