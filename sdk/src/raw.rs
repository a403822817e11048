//! Record batches as they travel: for benchmarks, for bridges, and for the producer and consumer of this crate.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use carnax_core::http::{AppendResponse, PartitionFrame, content_type, header, write_frame};
use carnax_core::id::{PartitionIndex, TopicId};
use carnax_core::limits;
use carnax_core::offset::Offset;
use carnax_core::topic::TopicName;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Method};

use crate::client::Client;
use crate::error::RequestError;
use crate::retry::Operation;
use crate::transport::{ApiAnswer, ApiRequest};

/// More than any answer to a fetch: what it may ask for, and one whole batch.
const FETCH_ANSWER_BYTES_MAX: usize = 2 * 16 * 1024 * 1024;

/// Appends and fetches without batching, prefetching or decoding; with the client's failover and retries.
///
/// ```no_run
/// # async fn example(client: carnax::Client) -> Result<(), carnax::RequestError> {
/// use carnax::{FetchRequest, Offset, PartitionIndex};
///
/// let request = FetchRequest::new(PartitionIndex(0), Offset(0));
/// let answer = client.raw().fetch("flights", &request).await?;
/// println!("{} bytes, next {}", answer.batches.len(), answer.next_offset);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Raw {
    client: Client,
}

/// What to read of one partition.
#[derive(Debug, Clone)]
pub struct FetchRequest {
    /// Which partition.
    pub partition: PartitionIndex,
    /// The first offset wanted.
    pub offset: Offset,
    /// How many bytes of batches at most; at least one whole batch comes all the same.
    pub max_bytes: u64,
    /// How long to wait for a record where there is none yet; at most 30 s.
    pub wait: Duration,
    /// The topic that is meant; refused with `topic_recreated` if the name means another one by now.
    pub topic_id: Option<TopicId>,
}

impl FetchRequest {
    /// A fetch of 1 MiB that does not wait.
    pub fn new(partition: PartitionIndex, offset: Offset) -> Self {
        Self {
            partition,
            offset,
            max_bytes: limits::FETCH_BYTES_DEFAULT,
            wait: Duration::ZERO,
            topic_id: None,
        }
    }
}

/// What a fetch read.
#[derive(Debug, Clone)]
pub struct FetchResponse {
    /// Concatenated record batches with their offsets; the first may begin before the offset that was asked for.
    pub batches: Bytes,
    /// Where to fetch next; moves past holes.
    pub next_offset: Offset,
    /// One past the last committed offset.
    pub high_watermark: Offset,
    /// The first readable offset.
    pub log_start_offset: Offset,
    /// Whether the batches reach the high watermark.
    pub caught_up: bool,
    /// The topic's id.
    pub topic_id: TopicId,
}

/// The batches of one append, and what it presumes.
#[derive(Debug)]
pub(crate) struct Append {
    pub(crate) topic: TopicName,
    pub(crate) topic_id: Option<TopicId>,
    /// By what partition count keyed records were routed.
    pub(crate) routed_by: Option<u32>,
    /// Each partition once, ascending.
    pub(crate) frames: Vec<PartitionFrame>,
}

impl Append {
    /// As it travels.
    pub(crate) fn request(&self) -> ApiRequest {
        let topic = &self.topic;
        let (path, body) = match self.frames.as_slice() {
            [only] => {
                (format!("/v1/topics/{topic}/partitions/{}/records", only.partition), only.batches.clone())
            }
            frames => (format!("/v1/topics/{topic}/records"), join(frames)),
        };
        let mut request = ApiRequest::new(Method::POST, path)
            .header(CONTENT_TYPE, HeaderValue::from_static(content_type::BATCHES));
        if let Some(topic_id) = self.topic_id {
            request = request.header(HeaderName::from_static(header::TOPIC_ID), header_text(topic_id));
        }
        if let Some(count) = self.routed_by {
            request = request.header(HeaderName::from_static(header::PARTITION_COUNT), count.into());
        }
        request.body = body;
        request
    }
}

impl Raw {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Appends concatenated record batches to one partition, all or nothing.
    ///
    /// An unknown outcome is not repeated: see [`RequestError::side_effects`]. Dropping the future leaves open whether
    /// they are appended.
    ///
    /// # Errors
    /// Any [`RequestError`].
    pub async fn append(
        &self,
        topic: &str,
        partition: PartitionIndex,
        batches: Bytes,
    ) -> Result<AppendResponse, RequestError> {
        self.append_all(topic, vec![PartitionFrame { partition, batches }]).await
    }

    /// Appends record batches to several partitions of one topic, all or nothing. Frames are in ascending order, each
    /// partition once.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub async fn append_all(
        &self,
        topic: &str,
        frames: Vec<PartitionFrame>,
    ) -> Result<AppendResponse, RequestError> {
        let topic = parse_topic(topic)?;
        let append = Append { topic, topic_id: None, routed_by: None, frames };
        self.append_with(&append, self.client.operation(false)).await
    }

    pub(crate) async fn append_with(
        &self,
        append: &Append,
        operation: Operation,
    ) -> Result<AppendResponse, RequestError> {
        self.client.execute(&append.request(), operation).await?.json()
    }

    /// Reads record batches from one partition. Neither decodes them nor verifies their checksums.
    ///
    /// # Errors
    /// Any [`RequestError`]; `offset_below_log_start` and `offset_above_high_watermark` carry the bounds.
    pub async fn fetch(&self, topic: &str, fetch: &FetchRequest) -> Result<FetchResponse, RequestError> {
        let FetchRequest { partition, offset, max_bytes, wait, topic_id } = fetch;
        let topic = parse_topic(topic)?;
        let wait = (*wait).min(limits::FETCH_WAIT_MAX);
        let path = format!(
            "/v1/topics/{topic}/partitions/{partition}/records?offset={offset}&max_bytes={max_bytes}&wait_ms={}",
            wait.as_millis()
        );
        let mut request = ApiRequest::new(Method::GET, path)
            .header(ACCEPT, HeaderValue::from_static(content_type::BATCHES));
        request.answer_bytes_max = FETCH_ANSWER_BYTES_MAX;
        if let Some(topic_id) = topic_id {
            request = request.header(HeaderName::from_static(header::TOPIC_ID), header_text(topic_id));
        }
        let mut operation = self.client.operation(true);
        operation.attempt_timeout += wait;
        operation.deadline += wait;
        read_fetch(&self.client.execute(&request, operation).await?)
    }
}

pub(crate) fn parse_topic(topic: &str) -> Result<TopicName, RequestError> {
    topic.parse().map_err(RequestError::invalid)
}

/// An id or a name as the value of a header.
///
/// # Panics
/// If it has other than visible ASCII characters, which no id and no name has.
pub(crate) fn header_text(value: impl std::fmt::Display) -> HeaderValue {
    HeaderValue::from_str(&value.to_string()).expect("ids and names are visible ASCII characters")
}

/// A text as one piece of a path or a query.
pub(crate) fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

fn join(frames: &[PartitionFrame]) -> Bytes {
    let mut body = BytesMut::with_capacity(frames.iter().map(|frame| frame.batches.len() + 8).sum());
    for frame in frames {
        write_frame(&mut body, frame);
    }
    body.freeze()
}

fn read_fetch(answer: &ApiAnswer) -> Result<FetchResponse, RequestError> {
    Ok(FetchResponse {
        batches: answer.body.clone(),
        next_offset: Offset(read_header(answer, header::NEXT_OFFSET)?),
        high_watermark: Offset(read_header(answer, header::HIGH_WATERMARK)?),
        log_start_offset: Offset(read_header(answer, header::LOG_START_OFFSET)?),
        caught_up: read_header(answer, header::CAUGHT_UP)?,
        topic_id: read_header(answer, header::TOPIC_ID)?,
    })
}

fn read_header<T: std::str::FromStr>(answer: &ApiAnswer, name: &str) -> Result<T, RequestError> {
    let value = answer.headers.get(name).and_then(|value| value.to_str().ok()?.parse().ok());
    value.ok_or_else(|| answer.not_understood(format_args!("header {name} is missing or wrong")))
}
