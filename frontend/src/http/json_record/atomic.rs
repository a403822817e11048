//! The JSON body of an append over many topics.

use carnax_core::error_code::ErrorCode;
use carnax_core::http::{AppendCondition, AppendGroupOffsets};
use carnax_core::id::TopicId;
use carnax_core::problem::Problem;
use carnax_core::topic::TopicName;
use serde::Deserialize;

use super::{BoundedRecords, Encoding, JsonRecord, decode, malformed, too_many_records};
use crate::append::accept::atomic::{AtomicAppend, AtomicRecord};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    #[serde(borrow)]
    records: BoundedRecords<'a>,
    #[serde(default)]
    conditions: Vec<AppendCondition>,
    #[serde(default)]
    group: Option<AppendGroupOffsets>,
}

/// Reads `{"records":[…],"conditions":[…],"group":{…}}`, each record with its topic.
///
/// # Errors
/// `malformed` with the place, `too_large` beyond a limit, `invalid_value` for what may not be so.
pub(crate) fn parse_atomic(body: &[u8], encoding: Encoding) -> Result<AtomicAppend, Problem> {
    let Envelope { records, conditions, group } = serde_json::from_slice(body).map_err(|error| {
        Problem::new(ErrorCode::Malformed, format!("request body is not as expected: {error}"))
    })?;
    if records.too_many {
        return Err(too_many_records());
    }
    let mut read = Vec::with_capacity(records.records.len());
    for (index, record) in records.records.into_iter().enumerate() {
        let at = |detail: String| malformed(&format!("record {index}"), &detail);
        let (topic, topic_id) = place(&record).map_err(at)?;
        read.push(AtomicRecord { topic, topic_id, record: decode(record, encoding).map_err(at)? });
    }
    AtomicAppend::of_records(read, conditions, group)
}

fn place(record: &JsonRecord<'_>) -> Result<(TopicName, Option<TopicId>), String> {
    let name = record.topic.as_deref().ok_or("missing field `topic`")?;
    let topic = name.parse().map_err(|error| format!("{error}"))?;
    let id = record.topic_id.as_deref().map(str::parse).transpose().map_err(|error| format!("{error}"))?;
    Ok((topic, id))
}
