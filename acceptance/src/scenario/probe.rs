//! One record, written and read by itself.

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use carnax::{Client, Compression, ErrorCode, FetchRequest, Offset, PartitionIndex, RequestError, Timestamp};
use carnax_core::record::{Batch, BatchBuilder, NewRecord};

use crate::flights::TOPIC;

/// A batch of one record.
pub(super) fn batch(value: &str) -> Result<Bytes> {
    let mut batch = BatchBuilder::new(64 * 1024);
    let value = Some(value.as_bytes());
    batch.push(&NewRecord { timestamp: Timestamp::EPOCH, key: None, value, headers: &[] })?;
    Ok(batch.build(Compression::None))
}

/// Appends one record; an unknown outcome is an error.
pub(super) async fn append(client: &Client, partition: PartitionIndex, value: &str) -> Result<Offset> {
    let answer = client.raw().append(TOPIC, partition, batch(value)?).await?;
    let [result] = answer.results.as_slice() else {
        bail!("one partition has {} results", answer.results.len())
    };
    Ok(result.base_offset)
}

/// What a reader is told about an offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    /// This record is there.
    Record(String),
    /// There is nothing yet.
    Nothing {
        /// Where the log ends, as the reader is told.
        high_watermark: Option<Offset>,
    },
}

/// Asks for one record.
pub(super) async fn fetch(
    client: &Client,
    partition: PartitionIndex,
    offset: Offset,
) -> Result<Seen, RequestError> {
    let answer = match client.raw().fetch(TOPIC, &FetchRequest::new(partition, offset)).await {
        Ok(answer) => answer,
        Err(error) if error.is(ErrorCode::OffsetAboveHighWatermark) => {
            let bounds = error.problem().and_then(|problem| problem.facts.high_watermark);
            return Ok(Seen::Nothing { high_watermark: bounds });
        }
        Err(error) => return Err(error),
    };
    let value = value_at(answer.batches, offset)
        .map_err(|error| RequestError::Invalid { reason: format!("{error:#}") })?;
    Ok(value.map_or(Seen::Nothing { high_watermark: Some(answer.high_watermark) }, Seen::Record))
}

fn value_at(batches: Bytes, offset: Offset) -> Result<Option<String>> {
    for batch in Batch::parse_all(batches)? {
        batch.verify_checksum()?;
        let base = batch.header().base_offset;
        for record in batch.records()? {
            let record = record?;
            if i64::try_from(offset.0)? == base + i64::from(record.offset_delta) {
                let value = record.value.context("the record has a value")?;
                return Ok(Some(String::from_utf8(value.to_vec())?));
            }
        }
    }
    Ok(None)
}

/// That a call failed with a retryable problem within 10 s; gives the problem's code.
pub(super) fn retryable_in_time<T: std::fmt::Debug>(
    what: &str,
    started: Instant,
    result: Result<T, RequestError>,
) -> Result<String> {
    let elapsed = started.elapsed();
    let error = match result {
        Ok(answer) => bail!("{what} was answered: {answer:?}"),
        Err(error) => error,
    };
    let problem = error.problem().with_context(|| format!("{what} failed without a problem: {error}"))?;
    ensure!(problem.retryable, "{what} failed with {}, which is not retryable", problem.code);
    ensure!(elapsed.as_secs() < 10, "{what} failed only after {elapsed:?}");
    Ok(format!("{what}: {} {} after {:.1} s", problem.status, problem.code, elapsed.as_secs_f32()))
}
