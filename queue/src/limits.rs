//! The limits of SQS, checked before anything is sent, so that a broken one is named rather than answered by a code.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::error::Failure;
use crate::message::{OutgoingMessage, Receipt, Receive};

/// Entries of one batch, and messages of one receive, at most.
pub const BATCH_ENTRIES_MAX: usize = 10;
/// Bytes of one batch at most: bodies, and names, types and values of attributes.
pub const BATCH_BYTES_MAX: usize = 256 * 1024;
/// Attributes of one message at most.
pub const MESSAGE_ATTRIBUTES_MAX: usize = 10;
/// The longest wait of one receive.
pub const RECEIVE_WAIT_MAX: Duration = Duration::from_secs(20);
/// The longest time for which a message may be kept from others.
pub const VISIBILITY_MAX: Duration = Duration::from_hours(12);

/// The type of every attribute that is sent.
pub(crate) const STRING_TYPE: &str = "String";

const ID_BYTES_MAX: usize = 80;
const GROUP_BYTES_MAX: usize = 128;
const ATTRIBUTE_NAME_BYTES_MAX: usize = 256;
const QUEUE_NAME_BYTES_MAX: usize = 80;
const FIFO_SUFFIX: &str = ".fifo";

/// Whether the queue of that name, or URL, keeps the order of its groups.
pub(crate) fn is_fifo(queue: &str) -> bool {
    queue.ends_with(FIFO_SUFFIX)
}

pub(crate) fn check_queue_name(name: &str) -> Result<(), Failure> {
    let stem = name.strip_suffix(FIFO_SUFFIX).unwrap_or(name);
    let is_good = !stem.is_empty() && name.len() <= QUEUE_NAME_BYTES_MAX && stem.bytes().all(is_word);
    or_invalid(is_good, || {
        format!("a queue's name is 1 to 80 of A-Z a-z 0-9 - _ and may end in .fifo: {name:?}")
    })
}

pub(crate) fn check_send(messages: &[OutgoingMessage], is_fifo: bool) -> Result<(), Failure> {
    check_entries(messages.len())?;
    let mut ids = BTreeSet::new();
    for message in messages {
        check_message(message, is_fifo)?;
        or_invalid(ids.insert(&message.id), || {
            format!("two messages of the batch have the id {:?}", message.id)
        })?;
    }
    let bytes: usize = messages.iter().map(message_bytes).sum();
    or_invalid(bytes <= BATCH_BYTES_MAX, || format!("the batch has {bytes} bytes, limit {BATCH_BYTES_MAX}"))
}

pub(crate) fn check_receive(request: Receive) -> Result<(), Failure> {
    let count = request.messages_max;
    or_invalid((1..=BATCH_ENTRIES_MAX).contains(&count), || {
        format!("a receive takes 1 to {BATCH_ENTRIES_MAX} messages, asked for {count}")
    })?;
    or_invalid(request.wait <= RECEIVE_WAIT_MAX, || {
        format!("a receive waits {RECEIVE_WAIT_MAX:?} at most, asked for {:?}", request.wait)
    })?;
    check_visibility(request.visibility)
}

pub(crate) fn check_receipts<'a>(
    receipts: impl ExactSizeIterator<Item = &'a Receipt>,
) -> Result<(), Failure> {
    check_entries(receipts.len())?;
    let mut seen = BTreeSet::new();
    for receipt in receipts {
        or_invalid(!receipt.as_str().is_empty(), || "a receipt is empty".to_owned())?;
        or_invalid(seen.insert(receipt), || format!("a receipt is in the batch twice: {receipt}"))?;
    }
    Ok(())
}

pub(crate) fn check_extensions(extensions: &[(Receipt, Duration)]) -> Result<(), Failure> {
    check_receipts(extensions.iter().map(|(receipt, _)| receipt))?;
    extensions.iter().try_for_each(|(_, visibility)| check_visibility(*visibility))
}

fn check_visibility(visibility: Duration) -> Result<(), Failure> {
    or_invalid(visibility <= VISIBILITY_MAX, || {
        format!("a message is kept from others for {VISIBILITY_MAX:?} at most, asked for {visibility:?}")
    })
}

/// In whole seconds, a fraction counted as one: less would give a message to others too early.
pub(crate) fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

fn check_entries(count: usize) -> Result<(), Failure> {
    or_invalid((1..=BATCH_ENTRIES_MAX).contains(&count), || {
        format!("a batch has 1 to {BATCH_ENTRIES_MAX} entries, this one has {count}")
    })
}

fn check_message(message: &OutgoingMessage, is_fifo: bool) -> Result<(), Failure> {
    let id = &message.id;
    let id_is_good = (1..=ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(is_word);
    or_invalid(id_is_good, || format!("an id is 1 to {ID_BYTES_MAX} of A-Z a-z 0-9 - _: {id:?}"))?;
    check_text("the body", id, &message.body)?;
    check_token("group", id, message.group.as_deref(), is_fifo)?;
    or_invalid(is_fifo || message.deduplication.is_none(), || {
        format!("only a FIFO queue takes a deduplication id: message {id:?}")
    })?;
    check_token("deduplication id", id, message.deduplication.as_deref(), is_fifo)?;
    let count = message.attributes.len();
    or_invalid(count <= MESSAGE_ATTRIBUTES_MAX, || {
        format!("message {id:?} has {count} attributes, limit {MESSAGE_ATTRIBUTES_MAX}")
    })?;
    for (name, value) in &message.attributes {
        or_invalid(is_attribute_name(name), || {
            format!("message {id:?} has an attribute with a bad name: {name:?}")
        })?;
        check_text("an attribute", id, value)?;
    }
    Ok(())
}

fn check_text(what: &str, id: &str, text: &str) -> Result<(), Failure> {
    or_invalid(!text.is_empty(), || format!("{what} of message {id:?} is empty"))?;
    match text.char_indices().find(|(_, character)| !is_allowed(*character)) {
        None => Ok(()),
        Some((at, character)) => Err(Failure::invalid(format!(
            "{what} of message {id:?} has a character that queues refuse: {character:?} at byte {at}"
        ))),
    }
}

fn check_token(what: &str, id: &str, token: Option<&str>, is_needed: bool) -> Result<(), Failure> {
    let Some(token) = token else {
        return or_invalid(!is_needed, || format!("a FIFO queue needs a {what}: message {id:?}"));
    };
    let is_good =
        (1..=GROUP_BYTES_MAX).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic());
    or_invalid(is_good, || {
        format!("the {what} of message {id:?} is not 1 to {GROUP_BYTES_MAX} visible ASCII characters")
    })
}

fn message_bytes(message: &OutgoingMessage) -> usize {
    let attributes = message.attributes.iter();
    message.body.len()
        + attributes.map(|(name, value)| name.len() + STRING_TYPE.len() + value.len()).sum::<usize>()
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

/// The characters of XML 1.0.
fn is_allowed(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

fn is_attribute_name(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    (1..=ATTRIBUTE_NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| is_word(byte) || byte == b'.')
        && !lower.starts_with("aws.")
        && !lower.starts_with("amazon.")
        && name.split('.').all(|part| !part.is_empty())
}

fn or_invalid(is_good: bool, reason: impl FnOnce() -> String) -> Result<(), Failure> {
    if is_good { Ok(()) } else { Err(Failure::invalid(reason())) }
}
