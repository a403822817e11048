//! A message of a queue, and the append that it becomes.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use carnax_core::error_code::ErrorCode;
use carnax_core::metadata::{IdempotencyStamp, ProducerStamp, SequenceMode};
use carnax_core::problem::Problem;
use carnax_core::record::Header;
use carnax_core::request_hash::message_hash;
use carnax_core::time::Timestamp;
use carnax_queue::{MESSAGE_ATTRIBUTES_MAX, OutgoingMessage};
use serde_json::Value;

use super::rules::{IngestRule, KeySource, is_fifo};
use crate::append::accept::Stamp;
use crate::append::accept::atomic::{AtomicAppend, AtomicRecord};
use crate::http::json_record::ParsedRecord;

/// Bytes of a message around its texts: ids, stamps, and those who wait for it.
const AROUND_BYTES: usize = 512;

/// A message as its queue delivered it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngestMessage {
    /// The queue's own name of the message, the same in each delivery.
    pub id: String,
    /// The ARN of the queue.
    pub queue: String,
    /// The text.
    pub body: String,
    /// The string attributes.
    pub attributes: BTreeMap<String, String>,
    /// The group, in FIFO queues.
    pub group: Option<String>,
    /// Its place in the order of its group, in FIFO queues; may be above 2⁶⁴.
    pub sequence: Option<u128>,
    /// When the queue took it, by the queue's clock.
    pub sent: Timestamp,
}

/// What SQS never sends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("message {id:?} of queue {queue}: {reason}")]
pub struct InvalidMessage {
    id: String,
    queue: String,
    reason: &'static str,
}

impl IngestMessage {
    /// A message with the attributes of the system as SQS writes them: `MessageGroupId`, `SequenceNumber`, `SentTimestamp`.
    ///
    /// # Errors
    /// If a number is none, or a message of a FIFO queue has no group or sequence.
    pub fn new(
        id: String,
        queue: String,
        body: String,
        attributes: BTreeMap<String, String>,
        system: &BTreeMap<String, String>,
    ) -> Result<Self, InvalidMessage> {
        let wrong = |reason| InvalidMessage { id: id.clone(), queue: queue.clone(), reason };
        let text = |name: &str| system.get(name).map(String::as_str);
        let sequence = text("SequenceNumber").map(str::parse::<u128>).transpose();
        let sequence = sequence.map_err(|_| wrong("its SequenceNumber is no number of up to 128 bits"))?;
        let sent = text("SentTimestamp").and_then(|millis| millis.parse().ok()).map(Timestamp::from_millis);
        let sent = sent.ok_or_else(|| wrong("its SentTimestamp is no number"))?;
        let group = text("MessageGroupId").map(str::to_owned);
        if is_fifo(&queue) && (group.is_none() || sequence.is_none()) {
            return Err(wrong("a message of a FIFO queue has a MessageGroupId and a SequenceNumber"));
        }
        Ok(Self { id, queue, body, attributes, group, sequence, sent })
    }

    /// Bytes that it takes in memory, about.
    pub(super) fn bytes(&self) -> usize {
        let attributes = self.attributes.iter().map(|(name, value)| name.len() + value.len());
        AROUND_BYTES + self.body.len() + attributes.sum::<usize>()
    }

    /// What it must not overtake: the messages of its group.
    pub(super) fn chain(&self) -> Option<Arc<str>> {
        let group = self.group.as_ref().filter(|_| is_fifo(&self.queue))?;
        Some(format!("{}/{group}", self.queue).into())
    }

    /// The append of the message alone, and how it is told from its repeats.
    pub(super) fn to_append(&self, rule: &IngestRule) -> Result<(AtomicAppend, Stamp), Problem> {
        let (stamp, key) = (self.stamp()?, self.key(&rule.key)?);
        let header = |(name, value): (&String, &String)| Header {
            key: Bytes::from(name.clone()),
            value: Some(Bytes::from(value.clone())),
        };
        let headers = self.attributes.iter().map(header);
        let record = ParsedRecord {
            partition: None,
            timestamp: Some(self.sent),
            key,
            value: Some(Bytes::from(self.body.clone())),
            headers: headers.collect(),
        };
        let records = vec![AtomicRecord { topic: rule.topic.clone(), topic_id: None, record }];
        Ok((AtomicAppend::of_records(records, Vec::new(), None)?, stamp))
    }

    /// The message for the queue of dead letters, with what is wrong with it where it has room for two more attributes.
    pub(super) fn dead_letter(&self, queue: &str, problem: &Problem) -> OutgoingMessage {
        let mut attributes = self.attributes.clone();
        if attributes.len() + 2 <= MESSAGE_ATTRIBUTES_MAX {
            attributes.insert("carnax-code".to_owned(), problem.code.as_str().to_owned());
            attributes.insert("carnax-detail".to_owned(), problem.detail.clone());
        }
        let fifo = is_fifo(queue);
        OutgoingMessage {
            id: "dead-letter".to_owned(),
            body: self.body.clone(),
            group: self.group.clone().filter(|_| fifo),
            // The same one again, when the answer was lost.
            deduplication: fifo.then(|| self.id.clone()),
            attributes,
        }
    }

    fn stamp(&self) -> Result<Stamp, Problem> {
        let body_hash = message_hash(&self.body, &self.attributes);
        let unusable =
            |what: &str| Problem::new(ErrorCode::InvalidValue, format!("message {}: {what}", self.id));
        let Some(chain) = self.chain() else {
            let key = self.id.parse().map_err(|_| unusable("its id is no idempotency key"))?;
            return Ok(Stamp::Key(IdempotencyStamp { principal: self.queue.clone(), key, body_hash }));
        };
        let producer =
            chain.parse().map_err(|_| unusable("its queue and group are together no producer id"))?;
        let sequence = self.sequence.ok_or_else(|| unusable("it has no sequence"))?;
        let mode = SequenceMode::Increasing;
        Ok(Stamp::Producer(ProducerStamp { producer, epoch: 0, sequence, mode, body_hash }))
    }

    fn key(&self, source: &KeySource) -> Result<Option<Bytes>, Problem> {
        let missing =
            |what: String| Problem::new(ErrorCode::InvalidValue, format!("message {}: {what}", self.id));
        let text = match source {
            KeySource::None => return Ok(None),
            KeySource::Group => {
                self.group.clone().ok_or_else(|| missing("it has no group for a key".to_owned()))?
            }
            KeySource::Attribute(name) => {
                let value = self.attributes.get(name).cloned();
                value.ok_or_else(|| missing(format!("it has no string attribute {name:?} for a key")))?
            }
            KeySource::Json(pointer) => {
                let body: Value = serde_json::from_str(&self.body)
                    .map_err(|error| missing(format!("its body is no JSON: {error}")))?;
                match body.pointer(pointer) {
                    Some(Value::String(text)) => text.clone(),
                    Some(scalar @ (Value::Number(_) | Value::Bool(_))) => scalar.to_string(),
                    _ => {
                        return Err(missing(format!(
                            "its body has no string, number or boolean at {pointer} for a key"
                        )));
                    }
                }
            }
        };
        Ok(Some(Bytes::from(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn message(queue: &str, body: &str, entries: &[(&str, &str)]) -> Result<IngestMessage, InvalidMessage> {
        let attributes = BTreeMap::from([("customer".to_owned(), "7".to_owned())]);
        IngestMessage::new("id".to_owned(), queue.to_owned(), body.to_owned(), attributes, &system(entries))
    }

    #[test]
    fn a_message_of_a_fifo_queue_has_a_group_and_a_sequence_of_up_to_128_bits() {
        let huge = "18850000000000000000000";
        let sent = ("SentTimestamp", "1700000000000");
        let whole = [sent, ("MessageGroupId", "UA"), ("SequenceNumber", huge)];
        let good = message("arn:q.fifo", "x", &whole).unwrap();
        assert_eq!((good.sequence, good.chain().as_deref()), (huge.parse().ok(), Some("arn:q.fifo/UA")));
        assert!(message("arn:q.fifo", "x", &whole[..2]).is_err() && message("arn:q.fifo", "x", &[]).is_err());
        assert!(message("arn:q", "x", &[sent, ("SequenceNumber", "-1")]).is_err());
        assert_eq!(message("arn:q", "x", &[sent]).unwrap().chain(), None);
    }

    #[test]
    fn a_key_comes_from_where_the_rule_says_or_the_message_fails() {
        let sent = [("SentTimestamp", "1"), ("MessageGroupId", "UA"), ("SequenceNumber", "1")];
        let body = r#"{"a": {"id": 7, "name": "x", "more": []}, "b": null}"#;
        let good = message("arn:q.fifo", body, &sent).unwrap();
        let key = |source: &str| {
            good.key(&source.parse().unwrap())
                .map(|key| key.map(|key| String::from_utf8(key.to_vec()).unwrap()))
        };
        assert_eq!(key("none").unwrap(), None);
        for (source, expected) in
            [("group", "UA"), ("attribute:customer", "7"), ("json:/a/id", "7"), ("json:/a/name", "x")]
        {
            assert_eq!(key(source).unwrap().as_deref(), Some(expected), "{source}");
        }
        for source in ["attribute:none", "json:/a/more", "json:/b", "json:/none"] {
            assert_eq!(key(source).unwrap_err().code, ErrorCode::InvalidValue, "{source}");
        }
        let no_json = message("arn:q", "x", &sent).unwrap();
        assert!(no_json.key(&KeySource::Json("/a".to_owned())).is_err());
    }
}
