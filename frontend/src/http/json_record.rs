//! Records in JSON and NDJSON: parsed from requests, written into answers.

mod atomic;

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use carnax_core::error_code::ErrorCode;
use carnax_core::id::PartitionIndex;
use carnax_core::limits;
use carnax_core::offset::Offset;
use carnax_core::problem::Problem;
use carnax_core::record::{Header, Record};
use carnax_core::time::Timestamp;
use serde::de::{IgnoredAny, SeqAccess};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

pub(crate) use atomic::parse_atomic;

/// What keys, values and headers are in JSON.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Encoding {
    /// UTF-8 strings.
    #[default]
    Text,
    /// Strings of base64: any bytes.
    Base64,
    /// Values are any JSON; keys and headers are UTF-8 strings.
    Json,
}

impl Encoding {
    /// As the query says it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Base64 => "base64",
            Self::Json => "json",
        }
    }
}

/// A record of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ParsedRecord {
    pub(crate) partition: Option<PartitionIndex>,
    pub(crate) timestamp: Option<Timestamp>,
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Vec<Header>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    #[serde(borrow)]
    records: BoundedRecords<'a>,
}

/// Stops keeping records at the limit, so that a body of many tiny ones does not take many times its size.
struct BoundedRecords<'a> {
    records: Vec<JsonRecord<'a>>,
    too_many: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonRecord<'a> {
    #[serde(borrow, default)]
    key: Option<Cow<'a, str>>,
    #[serde(borrow, deserialize_with = "required")]
    value: Option<&'a RawValue>,
    #[serde(borrow, default)]
    headers: Vec<(Cow<'a, str>, Option<Cow<'a, str>>)>,
    #[serde(default)]
    timestamp: Option<i64>,
    #[serde(default)]
    partition: Option<u32>,
    /// Only in appends over many topics.
    #[serde(borrow, default)]
    topic: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    topic_id: Option<Cow<'a, str>>,
}

/// A tombstone has to be written: a forgotten value is no tombstone.
fn required<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    Option::deserialize(deserializer)
}

impl<'de: 'a, 'a> Deserialize<'de> for BoundedRecords<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<'a>(std::marker::PhantomData<&'a ()>);

        impl<'de: 'a, 'a> serde::de::Visitor<'de> for Visitor<'a> {
            type Value = BoundedRecords<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of records")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                let mut records = Vec::new();
                while records.len() < limits::REQUEST_RECORDS_MAX {
                    match items.next_element()? {
                        Some(record) => records.push(record),
                        None => return Ok(BoundedRecords { records, too_many: false }),
                    }
                }
                let mut too_many = false;
                while items.next_element::<IgnoredAny>()?.is_some() {
                    too_many = true;
                }
                Ok(BoundedRecords { records, too_many })
            }
        }

        deserializer.deserialize_seq(Visitor(std::marker::PhantomData))
    }
}

/// Reads `{"records":[…]}`.
///
/// # Errors
/// `malformed` with the place, `too_large` beyond the limit of records, `invalid_value` for none.
pub(crate) fn parse_json(body: &[u8], encoding: Encoding) -> Result<Vec<ParsedRecord>, Problem> {
    let envelope: Envelope<'_> = serde_json::from_slice(body).map_err(|error| {
        Problem::new(ErrorCode::Malformed, format!("request body is not as expected: {error}"))
    })?;
    if envelope.records.too_many {
        return Err(too_many_records());
    }
    let mut records = Vec::with_capacity(envelope.records.records.len());
    for (index, record) in envelope.records.records.into_iter().enumerate() {
        records.push(
            decode_plain(record, encoding)
                .map_err(|detail| malformed(&format!("record {index}"), &detail))?,
        );
    }
    not_empty(records)
}

/// Reads one record a line; empty lines are skipped.
///
/// # Errors
/// As [`parse_json`].
pub(crate) fn parse_ndjson(body: &[u8], encoding: Encoding) -> Result<Vec<ParsedRecord>, Problem> {
    let mut records = Vec::new();
    for (index, line) in body.split(|byte| *byte == b'\n').enumerate() {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        if records.len() == limits::REQUEST_RECORDS_MAX {
            return Err(too_many_records());
        }
        let at = || format!("line {}", index + 1);
        let record = serde_json::from_slice(line).map_err(|error| malformed(&at(), &error.to_string()))?;
        records.push(decode_plain(record, encoding).map_err(|detail| malformed(&at(), &detail))?);
    }
    not_empty(records)
}

fn not_empty(records: Vec<ParsedRecord>) -> Result<Vec<ParsedRecord>, Problem> {
    if records.is_empty() {
        return Err(Problem::new(ErrorCode::InvalidValue, "an append has at least one record"));
    }
    Ok(records)
}

fn too_many_records() -> Problem {
    let limit = limits::REQUEST_RECORDS_MAX as u64;
    Problem::new(ErrorCode::TooLarge, format!("an append has at most {limit} records"))
        .with(|facts| facts.limit = Some(limit))
}

fn malformed(at: &str, detail: &str) -> Problem {
    Problem::new(ErrorCode::Malformed, format!("{at}: {detail}"))
}

/// A record of an append to one topic, which the path names.
fn decode_plain(record: JsonRecord<'_>, encoding: Encoding) -> Result<ParsedRecord, String> {
    if record.topic.is_some() || record.topic_id.is_some() {
        return Err("topic and topic_id belong to POST /v1/append: here the path names the topic".to_owned());
    }
    decode(record, encoding)
}

fn decode(record: JsonRecord<'_>, encoding: Encoding) -> Result<ParsedRecord, String> {
    let key = record.key.map(|key| decode_text("key", &key, encoding)).transpose()?;
    let value = match (record.value, encoding) {
        (None, _) => None,
        (Some(raw), Encoding::Json) => Some(compact(raw.get())),
        (Some(raw), Encoding::Text | Encoding::Base64) => {
            let text: Cow<'_, str> = serde_json::from_str(raw.get())
                .map_err(|_| "value is not a string; any JSON is taken with encoding=json".to_owned())?;
            Some(decode_text("value", &text, encoding)?)
        }
    };
    let mut headers = Vec::with_capacity(record.headers.len());
    for (key, value) in record.headers {
        let value = value.map(|value| decode_text("value of a header", &value, encoding)).transpose()?;
        headers.push(Header { key: Bytes::copy_from_slice(key.as_bytes()), value });
    }
    Ok(ParsedRecord {
        partition: record.partition.map(PartitionIndex),
        timestamp: record.timestamp.map(Timestamp::from_millis),
        key,
        value,
        headers,
    })
}

fn decode_text(what: &str, text: &str, encoding: Encoding) -> Result<Bytes, String> {
    match encoding {
        Encoding::Base64 => {
            STANDARD.decode(text).map(Bytes::from).map_err(|error| format!("{what} is not base64: {error}"))
        }
        Encoding::Text | Encoding::Json => Ok(Bytes::copy_from_slice(text.as_bytes())),
    }
}

/// Leaves out the white space between the parts of a JSON text; numbers and the order of fields stay as they are.
fn compact(json: &str) -> Bytes {
    let mut out = Vec::with_capacity(json.len());
    let (mut in_string, mut escaped) = (false, false);
    for byte in json.bytes() {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
        } else if byte == b'"' {
            in_string = true;
        } else if byte.is_ascii_whitespace() {
            continue;
        }
        out.push(byte);
    }
    out.into()
}

/// Writes a record as one JSON object, without a line end.
///
/// # Errors
/// `invalid_value`, if a stored key or value cannot be written in this encoding.
pub(crate) fn write_record(
    out: &mut Vec<u8>,
    offset: Offset,
    record: &Record,
    encoding: Encoding,
    partition: Option<PartitionIndex>,
) -> Result<(), Problem> {
    let unreadable = |what: &str| {
        let wanted = match encoding {
            Encoding::Json => "JSON",
            Encoding::Text | Encoding::Base64 => "UTF-8",
        };
        let detail = format!("{what} of the record at offset {offset} is not {wanted}; use encoding=base64");
        Problem::new(ErrorCode::InvalidValue, detail).with(|facts| facts.next_offset = Some(offset))
    };
    out.push(b'{');
    if let Some(partition) = partition {
        out.extend_from_slice(format!("\"partition\":{partition},").as_bytes());
    }
    out.extend_from_slice(
        format!("\"offset\":{offset},\"timestamp\":{},\"key\":", record.timestamp).as_bytes(),
    );
    write_text(out, record.key.as_deref(), encoding).ok_or_else(|| unreadable("key"))?;
    out.extend_from_slice(b",\"value\":");
    match (&record.value, encoding) {
        (Some(value), Encoding::Json) => {
            let text = std::str::from_utf8(value).ok().filter(|text| is_json(text));
            // Line ends between the parts would break NDJSON and events.
            out.extend_from_slice(&compact(text.ok_or_else(|| unreadable("value"))?));
        }
        (value, _) => write_text(out, value.as_deref(), encoding).ok_or_else(|| unreadable("value"))?,
    }
    out.extend_from_slice(b",\"headers\":[");
    for (index, header) in record.headers.iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"[" } else { b",[" });
        write_text(out, Some(&header.key), Encoding::Text).ok_or_else(|| unreadable("key of a header"))?;
        out.push(b',');
        write_text(out, header.value.as_deref(), encoding).ok_or_else(|| unreadable("value of a header"))?;
        out.push(b']');
    }
    out.extend_from_slice(b"]}");
    Ok(())
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

fn write_text(out: &mut Vec<u8>, bytes: Option<&[u8]>, encoding: Encoding) -> Option<()> {
    let Some(bytes) = bytes else {
        out.extend_from_slice(b"null");
        return Some(());
    };
    match encoding {
        Encoding::Base64 => {
            out.push(b'"');
            out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
            out.push(b'"');
            Some(())
        }
        Encoding::Text | Encoding::Json => {
            let text = std::str::from_utf8(bytes).ok()?;
            serde_json::to_writer(out, text).ok()
        }
    }
}
