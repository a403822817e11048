//! A queue of SQS as an event source: Lambda's *event source mapping* with `ReportBatchItemFailures`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use carnax_queue::{MessageQueue, QueueError, Receipt, Receive, ReceivedMessage};
use serde_json::{Map, Value, json};

use crate::function::{Function, InvokeError};

/// Takes messages from a queue and invokes a function with them; deletes those that the function does not name as failed.
///
/// What goes back is visible again at once, where Lambda leaves it until its visibility time is over: a test need not wait.
/// One source may serve many environments at once.
#[derive(Debug, Clone)]
pub struct EventSource {
    queue: Arc<dyn MessageQueue>,
    arn: String,
    /// Messages in an event at most: 1 to 10.
    pub messages_max: usize,
    /// For how long nobody else gets what a function has; longer than an invocation may last.
    pub visibility: Duration,
}

/// What became of one batch.
#[derive(Debug)]
pub struct Delivery {
    /// Messages of the batch.
    pub messages: usize,
    /// Those of them that had been delivered before.
    pub redelivered: usize,
    /// Those that went back to the queue.
    pub back: usize,
    /// What the function said.
    pub answer: Result<Value, InvokeError>,
}

impl EventSource {
    /// A queue, which has this ARN. Batches of up to ten messages, with a visibility time of an hour.
    pub fn new(queue: Arc<dyn MessageQueue>, arn: impl Into<String>) -> Self {
        Self { queue, arn: arn.into(), messages_max: 10, visibility: Duration::from_secs(3_600) }
    }

    /// Waits so long for messages, and has a function take them. None if none came.
    ///
    /// # Errors
    /// If the queue fails. Messages that were received may be in flight until their visibility time is over.
    pub async fn deliver(&self, function: &Function, wait: Duration) -> Result<Option<Delivery>, QueueError> {
        let messages = self.receive(wait).await?;
        if messages.is_empty() {
            return Ok(None);
        }
        let answer = function.invoke(&self.event(&messages)).await;
        self.settle(&messages, answer).await.map(Some)
    }

    /// The first third of [`deliver`](Self::deliver): takes messages. Empty if none came in time.
    ///
    /// # Errors
    /// If the queue fails.
    pub async fn receive(&self, wait: Duration) -> Result<Vec<ReceivedMessage>, QueueError> {
        let request = Receive { messages_max: self.messages_max, wait, visibility: self.visibility };
        self.queue.receive(request).await
    }

    /// The second one: the event that the function is invoked with.
    pub fn event(&self, messages: &[ReceivedMessage]) -> Value {
        json!({ "Records": messages.iter().map(|message| self.record(message)).collect::<Vec<_>>() })
    }

    /// The last one: deletes what was done, and gives back the rest. Whoever gives an error here lets the whole batch go back,
    /// as if the answer had been lost.
    ///
    /// # Errors
    /// If the queue fails.
    pub async fn settle(
        &self,
        messages: &[ReceivedMessage],
        answer: Result<Value, InvokeError>,
    ) -> Result<Delivery, QueueError> {
        let failed = answer.as_ref().ok().and_then(|answer| failed(answer, messages));
        let goes_back = |message: &&ReceivedMessage| {
            failed.as_ref().is_none_or(|failed| failed.contains(message.id.as_str()))
        };
        let (back, done): (Vec<_>, Vec<_>) = messages.iter().partition(goes_back);
        if !done.is_empty() {
            let receipts: Vec<Receipt> = done.iter().map(|message| message.receipt.clone()).collect();
            self.queue.delete(&receipts).await?;
        }
        if !back.is_empty() {
            let receipts = back.iter().map(|message| (message.receipt.clone(), Duration::ZERO));
            self.queue.extend(&receipts.collect::<Vec<_>>()).await?;
        }
        let redelivered = messages.iter().filter(|message| message.receive_count > 1).count();
        Ok(Delivery { messages: messages.len(), redelivered, back: back.len(), answer })
    }

    fn record(&self, message: &ReceivedMessage) -> Value {
        let mut system = Map::new();
        let mut put = |name: &str, value: String| drop(system.insert(name.to_owned(), value.into()));
        put("ApproximateReceiveCount", message.receive_count.to_string());
        put("SentTimestamp", message.sent.millis().to_string());
        if let Some(sequence) = message.sequence {
            put("SequenceNumber", sequence.to_string());
        }
        if let Some(group) = &message.group {
            put("MessageGroupId", group.clone());
        }
        let attribute = |(name, value): (&String, &String)| {
            (name.clone(), json!({ "stringValue": value, "dataType": "String" }))
        };
        let attributes: Map<String, Value> = message.attributes.iter().map(attribute).collect();
        json!({
            "messageId": message.id,
            "receiptHandle": message.receipt.as_str(),
            "body": message.body,
            "attributes": system,
            "messageAttributes": attributes,
            "md5OfBody": "",
            "eventSource": "aws:sqs",
            "eventSourceARN": self.arn,
            "awsRegion": self.arn.split(':').nth(3).unwrap_or_default(),
        })
    }
}

/// The ids that an answer names as failed; none if by Lambda's rules the whole batch failed: the answer is not understood, or
/// names what is not in the batch.
fn failed<'a>(answer: &'a Value, messages: &[ReceivedMessage]) -> Option<BTreeSet<&'a str>> {
    let named = match answer {
        Value::Null => return Some(BTreeSet::new()),
        Value::Object(fields) => fields.get("batchItemFailures").unwrap_or(&Value::Null),
        _ => return None,
    };
    if named.is_null() {
        return Some(BTreeSet::new());
    }
    let known: BTreeSet<&str> = messages.iter().map(|message| message.id.as_str()).collect();
    let id = |item: &'a Value| item.get("itemIdentifier")?.as_str().filter(|id| known.contains(id));
    named.as_array()?.iter().map(id).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use carnax_core::time::Timestamp;

    use super::*;

    fn message(id: &str) -> ReceivedMessage {
        ReceivedMessage {
            id: id.to_owned(),
            receipt: Receipt::new("r"),
            body: String::new(),
            attributes: BTreeMap::new(),
            group: None,
            sequence: None,
            sent: Timestamp::EPOCH,
            receive_count: 1,
        }
    }

    #[test]
    fn an_answer_names_failures_or_none_and_what_is_not_understood_is_a_failure_of_all() {
        let messages = [message("a"), message("b")];
        let failed = |answer: Value| {
            failed(&answer, &messages).map(|ids| ids.into_iter().map(str::to_owned).collect::<Vec<_>>())
        };
        for all_done in
            [json!(null), json!({}), json!({"batchItemFailures": null}), json!({"batchItemFailures": []})]
        {
            assert_eq!(failed(all_done), Some(vec![]));
        }
        assert_eq!(
            failed(json!({"batchItemFailures": [{"itemIdentifier": "b"}]})),
            Some(vec!["b".to_owned()])
        );
        let not_understood = [
            json!("done"),
            json!({"batchItemFailures": "b"}),
            json!({"batchItemFailures": [{"itemIdentifier": ""}]}),
            json!({"batchItemFailures": [{"id": "b"}]}),
            json!({"batchItemFailures": [{"itemIdentifier": "a"}, {"itemIdentifier": "c"}]}),
        ];
        for answer in not_understood {
            assert_eq!(failed(answer.clone()), None, "{answer}");
        }
    }
}
