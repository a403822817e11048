//! Role `sqs-ingest`: an event is a batch of messages, the answer names those that have to go back to their queue.

use std::collections::BTreeMap;

use carnax_core::error_code::ErrorCode;
use carnax_core::problem::Problem;
use carnax_frontend::ingest::{FailedMessage, IngestMessage, IngestRules};
use lambda_runtime::LambdaEvent;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::environment::{Environment, Times};

/// What an event source mapping of SQS hands over; what we do not use of it is left out.
#[derive(Debug, Deserialize)]
pub(crate) struct Batch {
    #[serde(rename = "Records")]
    records: Vec<Record>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    message_id: String,
    #[serde(default)]
    body: String,
    /// Those of the system.
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    #[serde(default)]
    message_attributes: BTreeMap<String, Attribute>,
    #[serde(rename = "eventSourceARN")]
    queue: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Attribute {
    string_value: Option<String>,
}

/// Partial failures, as `ReportBatchItemFailures` of the event source mapping reads them.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Answer {
    batch_item_failures: Vec<ItemFailure>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct ItemFailure {
    item_identifier: String,
}

/// Applies a batch within the time of the invocation. What is not known to be done when the time is up goes back.
pub(crate) async fn take(
    environment: &Environment,
    rules: &IngestRules,
    event: LambdaEvent<Batch>,
) -> Answer {
    let times = Times::until(environment, crate::deadline(event.context.deadline));
    let ids: Vec<String> = event.payload.records.iter().map(|record| record.message_id.clone()).collect();
    let (messages, mut failed) = read(event.payload);
    match tokio::time::timeout_at(times.answer, apply(environment, rules, messages, times.end)).await {
        Ok(Ok(back)) => failed.extend(back),
        Ok(Err(error)) => {
            tracing::error!(error = format!("{error:#}"), "no frontend can be made: all messages go back");
            return Answer::of(ids);
        }
        Err(_) => {
            tracing::warn!("the invocation had not enough time: all messages go back");
            environment.discard_any().await;
            return Answer::of(ids);
        }
    }
    Answer::of(failed.into_iter().map(|failed| failed.id))
}

async fn apply(
    environment: &Environment,
    rules: &IngestRules,
    messages: Vec<IngestMessage>,
    end: Instant,
) -> anyhow::Result<Vec<FailedMessage>> {
    let invocation = environment.begin().await?;
    let ingest = invocation.ingest(rules.clone());
    let failed = ingest.take(messages).await;
    environment.settle(invocation, end).await;
    Ok(failed)
}

/// The messages of a batch, and those that SQS cannot have sent so.
fn read(batch: Batch) -> (Vec<IngestMessage>, Vec<FailedMessage>) {
    let (mut messages, mut failed) = (Vec::with_capacity(batch.records.len()), Vec::new());
    for Record { message_id: id, body, attributes: system, message_attributes, queue } in batch.records {
        let text = |(name, attribute): (String, Attribute)| Some((name, attribute.string_value?));
        let attributes = message_attributes.into_iter().filter_map(text).collect();
        match IngestMessage::new(id.clone(), queue, body, attributes, &system) {
            Ok(message) => messages.push(message),
            Err(error) => {
                tracing::error!(%error, "a message goes back to its queue");
                failed.push(FailedMessage { id, problem: Problem::new(ErrorCode::Malformed, error) });
            }
        }
    }
    (messages, failed)
}

impl Answer {
    fn of(ids: impl IntoIterator<Item = String>) -> Self {
        let failure = |item_identifier| ItemFailure { item_identifier };
        Self { batch_item_failures: ids.into_iter().map(failure).collect() }
    }
}
