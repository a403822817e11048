//! Reads request bodies: bounded in bytes, in time and in the memory of all requests together.

use std::sync::Arc;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use carnax_core::error_code::ErrorCode;
use carnax_core::http::content_type;
use carnax_core::problem::Problem;
use http::HeaderMap;
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Api, parameters};
use crate::config::HttpSettings;

/// Bytes of a body that is not records.
const DOCUMENT_BYTES_MAX: u64 = 1024 * 1024;
/// Bytes of all such bodies that are being read.
pub(crate) const DOCUMENT_MEMORY_BYTES: u64 = 32 * DOCUMENT_BYTES_MAX;

/// Reads a body, taking `copies` times its bytes of `memory` as they come.
///
/// # Errors
/// `too_large`, `request_timeout`, `too_many_requests` when memory runs out, `malformed` when the body breaks off.
pub(super) async fn read_body(
    body: Body,
    headers: &HeaderMap,
    bytes_max: u64,
    settings: &HttpSettings,
    memory: &Arc<Semaphore>,
    copies: u32,
) -> Result<(Bytes, OwnedSemaphorePermit), Problem> {
    let announced = headers
        .get(http::header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > bytes_max) {
        return Err(too_large(bytes_max));
    }
    let reading = collect(body, bytes_max, memory, copies);
    tokio::time::timeout(settings.body_timeout, reading).await.unwrap_or_else(|_| {
        let detail = format!("the request body did not arrive within {:?}", settings.body_timeout);
        Err(Problem::new(ErrorCode::RequestTimeout, detail))
    })
}

impl Api {
    /// Reads a small JSON document; no body is an empty one. It takes memory of its own: members of groups must be heard while
    /// appends take all of theirs.
    ///
    /// A body has to say that it is JSON: web pages of strangers may send anything else without being asked for leave.
    ///
    /// # Errors
    /// As [`read_body`], `unsupported_media_type`, and `malformed` for anything that is not the document.
    pub(super) async fn document<T: serde::de::DeserializeOwned>(
        &self,
        body: Body,
        headers: &HeaderMap,
    ) -> Result<T, Problem> {
        let (settings, memory) = (&self.settings.http, &self.document_memory);
        let (bytes, _memory) = read_body(body, headers, DOCUMENT_BYTES_MAX, settings, memory, 1).await?;
        let media_type = parameters::media_type(headers, http::header::CONTENT_TYPE);
        if !bytes.is_empty() && media_type != content_type::JSON {
            let detail = format!(
                "a request body here comes as {}, not {}",
                content_type::JSON,
                parameters::shown(&media_type)
            );
            return Err(Problem::new(ErrorCode::UnsupportedMediaType, detail));
        }
        let document = if bytes.is_empty() { b"{}".as_slice() } else { &bytes };
        // Without this, an array would be read as the fields in their order.
        if document.trim_ascii_start().first() != Some(&b'{') {
            return Err(Problem::new(
                ErrorCode::Malformed,
                "request body is not as expected: not a JSON object",
            ));
        }
        serde_json::from_slice(document).map_err(|error| {
            Problem::new(ErrorCode::Malformed, format!("request body is not as expected: {error}"))
        })
    }
}

async fn collect(
    mut body: Body,
    bytes_max: u64,
    memory: &Arc<Semaphore>,
    copies: u32,
) -> Result<(Bytes, OwnedSemaphorePermit), Problem> {
    let mut permit = take(memory, 0)?;
    let mut first: Option<Bytes> = None;
    let mut joined = BytesMut::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Problem::new(ErrorCode::Malformed, format!("request body broke off: {error}"))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        length += data.len() as u64;
        if length > bytes_max {
            return Err(too_large(bytes_max));
        }
        let bytes = u32::try_from(data.len()).unwrap_or(u32::MAX);
        permit.merge(take(memory, bytes.saturating_mul(copies))?);
        match first.take() {
            None if joined.is_empty() => first = Some(data),
            None => joined.extend_from_slice(&data),
            Some(before) => {
                joined.extend_from_slice(&before);
                joined.extend_from_slice(&data);
            }
        }
    }
    Ok((first.unwrap_or_else(|| joined.freeze()), permit))
}

fn take(memory: &Arc<Semaphore>, bytes: u32) -> Result<OwnedSemaphorePermit, Problem> {
    Arc::clone(memory).try_acquire_many_owned(bytes).map_err(|_| {
        Problem::new(
            ErrorCode::TooManyRequests,
            "too many bytes of requests are in progress; try again after a while",
        )
        .with(|facts| facts.retry_after_seconds = Some(1))
    })
}

fn too_large(bytes_max: u64) -> Problem {
    Problem::new(ErrorCode::TooLarge, format!("a request body here has at most {bytes_max} bytes"))
        .with(|facts| facts.limit = Some(bytes_max))
}
