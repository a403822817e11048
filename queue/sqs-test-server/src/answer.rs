//! From a request's JSON to its answer's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use carnax_queue::{
    Failure, MemoryQueue, MessageQueue, OutgoingMessage, QueueError, Receipt, Receive, ReceivedMessage, Sent,
};
use serde_json::{Map, Value, json};

use crate::script::Action;

pub(crate) type Answer = Result<Value, Refusal>;

const VISIBILITY_DEFAULT: u64 = 30;

/// An error answer to a whole request.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) code: &'static str,
    message: String,
}

impl Refusal {
    pub(crate) fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    pub(crate) fn body(&self) -> Value {
        json!({ "__type": format!("com.amazonaws.sqs#{}", self.code), "message": self.message })
    }
}

impl From<QueueError> for Refusal {
    fn from(error: QueueError) -> Self {
        let (code, message) = code_of(&error);
        Self::new(400, code, message)
    }
}

#[derive(Debug)]
pub(crate) struct Queues {
    base: String,
    queues: BTreeMap<String, Arc<MemoryQueue>>,
}

impl Queues {
    /// `base` is what the URL of each queue begins with, without the slash.
    pub(crate) fn new(base: String, queues: impl IntoIterator<Item = Arc<MemoryQueue>>) -> Self {
        let queues = queues.into_iter().map(|queue| (queue.name().to_owned(), queue)).collect();
        Self { base, queues }
    }

    pub(crate) async fn answer(&self, action: Action, input: &Value) -> Answer {
        if action == Action::QueueUrl {
            let queue = self.queue(text(input, "QueueName")?)?;
            return Ok(json!({ "QueueUrl": format!("{}/{}", self.base, queue.name()) }));
        }
        let url = text(input, "QueueUrl")?;
        let queue = self.queue(url.rsplit('/').next().unwrap_or(url))?;
        match action {
            Action::QueueUrl | Action::QueueAttributes => Ok(attributes(queue)),
            Action::Send => send(queue, input).await,
            Action::SendBatch => send_batch(queue, input).await,
            Action::Receive => receive(queue, input).await,
            Action::Delete => delete(queue, input).await,
            Action::DeleteBatch => delete_batch(queue, input).await,
            Action::ExtendBatch => extend_batch(queue, input).await,
        }
    }

    fn queue(&self, name: &str) -> Result<&MemoryQueue, Refusal> {
        let missing =
            || Refusal::new(400, "AWS.SimpleQueueService.NonExistentQueue", "the queue does not exist");
        self.queues.get(name).map(Arc::as_ref).ok_or_else(missing)
    }
}

async fn send(queue: &MemoryQueue, input: &Value) -> Answer {
    let sent = queue.send(&[outgoing("single", input)?]).await?;
    let first = sent.into_iter().next().expect("one result for one message")?;
    Ok(Value::Object(describe_sent(&first)))
}

async fn send_batch(queue: &MemoryQueue, input: &Value) -> Answer {
    let entries = list(input, "Entries")?.iter();
    let messages = entries.map(|entry| outgoing(text(entry, "Id")?, entry)).collect::<Result<Vec<_>, _>>()?;
    let results = queue.send(&messages).await?;
    let results = results.into_iter().map(|result| result.map(|sent| describe_sent(&sent)));
    Ok(batch(messages.iter().map(|message| message.id.as_str()).zip(results)))
}

async fn receive(queue: &MemoryQueue, input: &Value) -> Answer {
    let request = Receive {
        messages_max: usize::try_from(number(input, "MaxNumberOfMessages").unwrap_or(1))
            .unwrap_or(usize::MAX),
        wait: Duration::from_secs(number(input, "WaitTimeSeconds").unwrap_or(0)),
        visibility: Duration::from_secs(number(input, "VisibilityTimeout").unwrap_or(VISIBILITY_DEFAULT)),
    };
    let received = queue.receive(request).await?;
    let messages: Vec<Value> = received.iter().map(|message| describe_received(message, input)).collect();
    Ok(json!({ "Messages": messages }))
}

async fn delete(queue: &MemoryQueue, input: &Value) -> Answer {
    let results = queue.delete(&[Receipt::new(text(input, "ReceiptHandle")?)]).await?;
    results.into_iter().next().expect("one result for one receipt")?;
    Ok(json!({}))
}

async fn delete_batch(queue: &MemoryQueue, input: &Value) -> Answer {
    let entries = list(input, "Entries")?;
    let receipts = entries.iter().map(receipt).collect::<Result<Vec<_>, _>>()?;
    let results = queue.delete(&receipts).await?;
    Ok(batch(ids(entries)?.into_iter().zip(results.into_iter().map(|result| result.map(|()| Map::new())))))
}

async fn extend_batch(queue: &MemoryQueue, input: &Value) -> Answer {
    let entries = list(input, "Entries")?;
    let extension = |entry| {
        let visibility = number(entry, "VisibilityTimeout").ok_or_else(|| malformed("VisibilityTimeout"))?;
        Ok((receipt(entry)?, Duration::from_secs(visibility)))
    };
    let extensions = entries.iter().map(extension).collect::<Result<Vec<_>, Refusal>>()?;
    let results = queue.extend(&extensions).await?;
    Ok(batch(ids(entries)?.into_iter().zip(results.into_iter().map(|result| result.map(|()| Map::new())))))
}

fn attributes(queue: &MemoryQueue) -> Value {
    let depth = queue.depth();
    let mut attributes = Map::new();
    attributes.insert("ApproximateNumberOfMessages".to_owned(), json!(depth.visible.to_string()));
    attributes.insert("ApproximateNumberOfMessagesNotVisible".to_owned(), json!(depth.in_flight.to_string()));
    if queue.is_fifo() {
        attributes.insert("FifoQueue".to_owned(), json!("true"));
    }
    json!({ "Attributes": attributes })
}

/// The answer to a batch: who succeeded and who failed, by the ids of the entries.
fn batch<'a>(results: impl Iterator<Item = (&'a str, Result<Map<String, Value>, QueueError>)>) -> Value {
    let (mut successful, mut failed) = (Vec::new(), Vec::new());
    for (id, result) in results {
        match result {
            Ok(mut entry) => {
                entry.insert("Id".to_owned(), json!(id));
                successful.push(entry);
            }
            Err(error) => {
                let (code, message) = code_of(&error);
                failed.push(json!({ "Id": id, "SenderFault": true, "Code": code, "Message": message }));
            }
        }
    }
    json!({ "Successful": successful, "Failed": failed })
}

fn code_of(error: &QueueError) -> (&'static str, String) {
    let message = match &error.failure {
        Failure::NotInFlight => {
            "the receipt handle has expired, or the message is not available for visibility timeout change"
                .to_owned()
        }
        other => other.to_string(),
    };
    ("InvalidParameterValue", message)
}

fn outgoing(id: &str, entry: &Value) -> Result<OutgoingMessage, Refusal> {
    let optional = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
    let mut attributes = BTreeMap::new();
    for (name, value) in entry.get("MessageAttributes").and_then(Value::as_object).into_iter().flatten() {
        if text(value, "DataType")? != "String" {
            return Err(malformed("DataType"));
        }
        attributes.insert(name.clone(), text(value, "StringValue")?.to_owned());
    }
    Ok(OutgoingMessage {
        id: id.to_owned(),
        body: text(entry, "MessageBody")?.to_owned(),
        group: optional("MessageGroupId"),
        deduplication: optional("MessageDeduplicationId"),
        attributes,
    })
}

fn describe_sent(sent: &Sent) -> Map<String, Value> {
    let mut entry = Map::from_iter([("MessageId".to_owned(), json!(sent.message_id))]);
    if let Some(sequence) = sent.sequence {
        entry.insert("SequenceNumber".to_owned(), json!(sequence.to_string()));
    }
    entry
}

/// As SQS does, it shows only those attributes that were asked for.
fn describe_received(message: &ReceivedMessage, input: &Value) -> Value {
    let facts = [
        ("SentTimestamp", Some(message.sent.to_string())),
        ("ApproximateReceiveCount", Some(message.receive_count.to_string())),
        ("MessageGroupId", message.group.clone()),
        ("SequenceNumber", message.sequence.map(|sequence| sequence.to_string())),
    ];
    let facts = facts.into_iter().filter(|(name, _)| is_wanted(input, "MessageSystemAttributeNames", name));
    let facts: BTreeMap<&str, String> =
        facts.filter_map(|(name, value)| value.map(|value| (name, value))).collect();
    let attributes = message.attributes.iter();
    let attributes = attributes.filter(|(name, _)| is_wanted(input, "MessageAttributeNames", name));
    let attributes: BTreeMap<&String, Value> = attributes
        .map(|(name, value)| (name, json!({ "DataType": "String", "StringValue": value })))
        .collect();
    json!({
        "MessageId": message.id,
        "ReceiptHandle": message.receipt.as_str(),
        "Body": message.body,
        "Attributes": facts,
        "MessageAttributes": attributes,
    })
}

fn is_wanted(input: &Value, key: &str, name: &str) -> bool {
    let mut wanted = input.get(key).and_then(Value::as_array).into_iter().flatten();
    wanted.any(|wanted| wanted == "All" || wanted == name)
}

fn ids(entries: &[Value]) -> Result<Vec<&str>, Refusal> {
    entries.iter().map(|entry| text(entry, "Id")).collect()
}

fn receipt(entry: &Value) -> Result<Receipt, Refusal> {
    text(entry, "ReceiptHandle").map(Receipt::new)
}

fn text<'a>(input: &'a Value, key: &'static str) -> Result<&'a str, Refusal> {
    input.get(key).and_then(Value::as_str).ok_or_else(|| malformed(key))
}

fn list<'a>(input: &'a Value, key: &'static str) -> Result<&'a [Value], Refusal> {
    input.get(key).and_then(Value::as_array).map(Vec::as_slice).ok_or_else(|| malformed(key))
}

fn number(input: &Value, key: &'static str) -> Option<u64> {
    input.get(key).and_then(Value::as_u64)
}

fn malformed(key: &'static str) -> Refusal {
    Refusal::new(400, "InvalidParameterValue", format!("{key} is missing, or not what it should be"))
}
