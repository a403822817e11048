//! Between our types and those of the SDK.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_sqs::types::{
    BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry, Message,
    MessageAttributeValue, MessageSystemAttributeName, SendMessageBatchRequestEntry,
    SendMessageBatchResultEntry,
};
use carnax_core::time::Timestamp;

use super::judge;
use crate::error::Failure;
use crate::limits::{STRING_TYPE, whole_seconds};
use crate::message::{OutgoingMessage, Receipt, ReceivedMessage, Sent};

const FIELDS_GIVEN: &str = "every field that it needs is given";

pub(super) fn outgoing(message: &OutgoingMessage) -> SendMessageBatchRequestEntry {
    let attributes = message.attributes.iter().map(|(name, value)| {
        let value = MessageAttributeValue::builder().data_type(STRING_TYPE).string_value(value).build();
        (name.clone(), value.expect(FIELDS_GIVEN))
    });
    SendMessageBatchRequestEntry::builder()
        .id(&message.id)
        .message_body(&message.body)
        .set_message_group_id(message.group.clone())
        .set_message_deduplication_id(message.deduplication.clone())
        .set_message_attributes((!message.attributes.is_empty()).then(|| attributes.collect()))
        .build()
        .expect(FIELDS_GIVEN)
}

pub(super) fn sent(entry: &SendMessageBatchResultEntry) -> Result<Sent, Failure> {
    let sequence = entry.sequence_number().map(str::parse).transpose();
    let sequence = sequence.map_err(|_| Failure::outcome_unknown("the answer's sequence is not a number"))?;
    Ok(Sent { message_id: entry.message_id().to_owned(), sequence })
}

pub(super) fn deletion((index, receipt): (usize, &Receipt)) -> DeleteMessageBatchRequestEntry {
    let entry = DeleteMessageBatchRequestEntry::builder().id(index.to_string());
    entry.receipt_handle(receipt.as_str()).build().expect(FIELDS_GIVEN)
}

pub(super) fn extension(
    (index, (receipt, visibility)): (usize, &(Receipt, Duration)),
) -> ChangeMessageVisibilityBatchRequestEntry {
    let entry = ChangeMessageVisibilityBatchRequestEntry::builder().id(index.to_string());
    let entry = entry.receipt_handle(receipt.as_str()).visibility_timeout(seconds(*visibility));
    entry.build().expect(FIELDS_GIVEN)
}

/// The ids of the entries of a batch whose entries have no names of their own.
pub(super) fn entry_ids(count: usize) -> Vec<String> {
    (0..count).map(|index| index.to_string()).collect()
}

/// One result for each id, in the order of the ids, whatever the order of the answer.
pub(super) fn in_order<'a, T>(
    ids: impl Iterator<Item = &'a str>,
    done: impl Iterator<Item = (&'a str, Result<T, Failure>)>,
    failed: &'a [BatchResultErrorEntry],
) -> Vec<Result<T, Failure>> {
    let failed = failed.iter().map(|entry| (entry.id(), Err(judge::entry(entry))));
    let mut answers: BTreeMap<&str, Result<T, Failure>> = done.chain(failed).collect();
    let missing = || Err(Failure::outcome_unknown("the answer does not name this entry"));
    ids.map(|id| answers.remove(id).unwrap_or_else(missing)).collect()
}

pub(super) fn received(message: Message) -> Result<ReceivedMessage, Failure> {
    let missing = |what: &str| Failure::outcome_unknown(format!("a message came without {what}"));
    let facts = message.attributes.unwrap_or_default();
    let fact = |name| facts.get(&name).map(String::as_str);
    let sent = fact(MessageSystemAttributeName::SentTimestamp).and_then(|text| text.parse().ok());
    let receive_count =
        fact(MessageSystemAttributeName::ApproximateReceiveCount).and_then(|text| text.parse().ok());
    let sequence = fact(MessageSystemAttributeName::SequenceNumber).map(str::parse).transpose();
    let attributes = message.message_attributes.unwrap_or_default().into_iter();
    let strings = attributes.filter(|(_, value)| value.data_type == STRING_TYPE);
    let strings = strings.filter_map(|(name, value)| value.string_value.map(|value| (name, value)));
    Ok(ReceivedMessage {
        id: message.message_id.ok_or_else(|| missing("an id"))?,
        receipt: Receipt::new(message.receipt_handle.ok_or_else(|| missing("a receipt"))?),
        body: message.body.ok_or_else(|| missing("a body"))?,
        attributes: strings.collect(),
        group: fact(MessageSystemAttributeName::MessageGroupId).map(str::to_owned),
        sequence: sequence.map_err(|_| missing("a sequence that is a number"))?,
        sent: Timestamp::from_millis(sent.ok_or_else(|| missing("the time of sending"))?),
        receive_count: receive_count.ok_or_else(|| missing("the count of deliveries"))?,
    })
}

/// Limits were checked: there is always room.
pub(super) fn seconds(duration: Duration) -> i32 {
    i32::try_from(whole_seconds(duration)).unwrap_or(i32::MAX)
}

/// Limits were checked: there is always room.
pub(super) fn count(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
