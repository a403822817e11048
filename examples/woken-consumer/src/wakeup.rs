//! What SQS hands over, and what goes back to it.

use std::collections::BTreeMap;

use carnax::CommitEvent;
use serde::{Deserialize, Serialize};

/// The messages of one invocation, as an event source mapping gives them. Only what we need of them.
#[derive(Debug, Deserialize)]
pub(crate) struct Batch {
    #[serde(rename = "Records")]
    messages: Vec<Message>,
}

#[derive(Debug, Deserialize)]
struct Message {
    #[serde(rename = "messageId")]
    id: String,
    body: String,
}

/// The messages that go back. The mapping must be told to read it (`ReportBatchItemFailures`), else none does.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Answer {
    #[serde(rename = "batchItemFailures")]
    failures: Vec<Failure>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Failure {
    #[serde(rename = "itemIdentifier")]
    id: String,
}

/// The events that tell of a topic, by the messages that brought them.
pub(crate) type Wakeups = BTreeMap<String, CommitEvent>;

impl Batch {
    /// What is no event of that topic is left out, and thus goes back: the queue's redrive policy puts it aside in the end,
    /// where somebody can look at it.
    pub(crate) fn wakeups(&self, topic: &str) -> Wakeups {
        let mut wakeups = Wakeups::new();
        for message in &self.messages {
            match serde_json::from_str::<CommitEvent>(&message.body) {
                Ok(event) if event.topic.as_str() == topic => {
                    wakeups.insert(message.id.clone(), event);
                }
                Ok(event) => tracing::error!(topic = %event.topic, "a message tells of another topic"),
                Err(error) => tracing::error!(%error, "a message is no wake-up"),
            }
        }
        wakeups
    }

    pub(crate) fn answer(&self, wakeups: &Wakeups, is_done: impl Fn(&CommitEvent) -> bool) -> Answer {
        let goes_back = |message: &&Message| !wakeups.get(&message.id).is_some_and(&is_done);
        let failures = self.messages.iter().filter(goes_back);
        Answer { failures: failures.map(|message| Failure { id: message.id.clone() }).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_done_or_no_wake_up_of_the_topic_goes_back() {
        let event = |topic: &str, to: u64| {
            format!(
                r#"{{"topic":"{topic}","topic_id":"01KAR000000000000000000000","wakeup":"w","log_index":7,
                    "partitions":[{{"partition":0,"from":0,"to":{to}}}]}}"#
            )
        };
        let bodies = [event("flights", 3), event("flights", 4), event("trains", 1), "hello".to_owned()];
        let messages = ["a", "b", "c", "d"].into_iter().zip(bodies);
        let messages = messages.map(|(id, body)| Message { id: id.to_owned(), body }).collect();
        let batch = Batch { messages };
        let wakeups = batch.wakeups("flights");
        let answer = batch.answer(&wakeups, |event| event.partitions[0].to.0 <= 3);
        let said = serde_json::to_value(answer).unwrap();
        let back = ["b", "c", "d"].map(|id| serde_json::json!({ "itemIdentifier": id }));
        assert_eq!(said, serde_json::json!({ "batchItemFailures": back }));
    }
}
