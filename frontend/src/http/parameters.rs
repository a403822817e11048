//! Reads what stands in paths, queries and headers.

use carnax_core::error_code::ErrorCode;
use carnax_core::http::header;
use carnax_core::id::{PartitionIndex, TopicId};
use carnax_core::name::{GroupName, MemberId, ProducerId};
use carnax_core::problem::Problem;
use carnax_core::topic::TopicName;
use http::{HeaderMap, Uri};
use serde::de::DeserializeOwned;

pub(super) fn topic(text: &str) -> Result<TopicName, Problem> {
    text.parse().map_err(|error| Problem::new(ErrorCode::InvalidValue, error))
}

pub(super) fn partition(text: &str) -> Result<PartitionIndex, Problem> {
    let number = text.parse().map(PartitionIndex);
    number.map_err(|_| invalid(&format!("a partition is a number from 0, not {}", shown(text))))
}

pub(super) fn group(text: &str) -> Result<GroupName, Problem> {
    text.parse().map_err(|error| Problem::new(ErrorCode::InvalidValue, error))
}

pub(super) fn member(text: &str) -> Result<MemberId, Problem> {
    text.parse().map_err(|error| Problem::new(ErrorCode::InvalidValue, error))
}

pub(super) fn producer(text: &str) -> Result<ProducerId, Problem> {
    text.parse().map_err(|error| Problem::new(ErrorCode::InvalidValue, error))
}

/// How much of a list to tell.
///
/// # Errors
/// `invalid_value` outside of 1 to `max`.
pub(super) fn limit(limit: Option<u32>, default: u32, max: u32) -> Result<u32, Problem> {
    let limit = limit.unwrap_or(default);
    if limit == 0 || limit > max {
        let problem = invalid(&format!("limit is 1 to {max}"));
        return Err(problem.with(|facts| facts.limit = Some(max.into())));
    }
    Ok(limit)
}

/// The query of a URI.
///
/// # Errors
/// `invalid_value`, naming the parameter.
pub(super) fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Problem> {
    let parsed = axum::extract::Query::<T>::try_from_uri(uri);
    parsed.map(|query| query.0).map_err(|rejection| invalid(&rejection.body_text()))
}

/// The topic id that the client knows, if it says one.
pub(super) fn topic_id(headers: &HeaderMap) -> Result<Option<TopicId>, Problem> {
    text_header(headers, header::TOPIC_ID)?
        .map(|text| text.parse().map_err(|error| invalid(&format!("header {}: {error}", header::TOPIC_ID))))
        .transpose()
}

/// By how many partitions the client routed, if it says so.
pub(super) fn partition_count(headers: &HeaderMap) -> Result<Option<u32>, Problem> {
    let wrong = |_| invalid(&format!("header {} is a number", header::PARTITION_COUNT));
    text_header(headers, header::PARTITION_COUNT)?.map(|text| text.parse().map_err(wrong)).transpose()
}

/// A header that is text; none if it is absent.
pub(super) fn text_header<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Problem> {
    headers
        .get(name)
        .map(|value| value.to_str().map_err(|_| invalid(&format!("header {name} is not text"))))
        .transpose()
}

/// The media type of a header, in lower case and without its parameters; empty if there is none.
pub(super) fn media_type(headers: &HeaderMap, name: http::header::HeaderName) -> String {
    let text = headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split([';', ',']).next().unwrap_or_default().trim().to_ascii_lowercase()
}

pub(super) fn invalid(detail: &str) -> Problem {
    Problem::new(ErrorCode::InvalidValue, detail)
}

pub(super) fn shown(text: &str) -> String {
    format!("{:?}", text.chars().take(100).collect::<String>())
}
