//! What one fetch brought, verified and not yet decoded.

use std::collections::VecDeque;

use carnax_core::id::TopicPartition;
use carnax_core::offset::Offset;
use carnax_core::record::Batch;
use carnax_core::topic::TopicName;
use tokio::sync::OwnedSemaphorePermit;

use super::ConsumeError;
use crate::raw::FetchResponse;

/// A partition with the name of its topic.
#[derive(Debug, Clone)]
pub(crate) struct Of {
    pub(crate) topic: TopicName,
    pub(crate) on: TopicPartition,
}

/// Batches of one fetch, in order, and why there are no more if there are none.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) of: Of,
    pub(super) epoch: u64,
    /// From where it was fetched: elsewhere than asked for after an offset reset.
    pub(super) start: Offset,
    pub(super) batches: VecDeque<Batch>,
    /// Ends the reading of the partition, behind the batches.
    pub(super) failure: Option<ConsumeError>,
    pub(super) next_offset: Offset,
    /// Lets the fetcher hand over the next chunk once this one is done with.
    pub(super) slot: Option<OwnedSemaphorePermit>,
}

impl Chunk {
    pub(super) fn failed(of: Of, epoch: u64, at: Offset, failure: ConsumeError) -> Self {
        let batches = VecDeque::new();
        Self { of, epoch, start: at, batches, failure: Some(failure), next_offset: at, slot: None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.failure.is_none()
    }
}

/// Splits an answer into batches and verifies them; ends at the first one that is damaged.
pub(super) fn read(of: Of, epoch: u64, position: Offset, answer: &FetchResponse) -> Chunk {
    let mut batches = VecDeque::new();
    let mut rest = answer.batches.clone();
    let mut expected = position;
    let mut failure = None;
    loop {
        let parsed = Batch::parse_next(&mut rest);
        let batch = match parsed {
            Ok(None) => break,
            Ok(Some(batch)) => batch,
            Err(error) => {
                failure = Some(damaged(&of, expected, answer.next_offset, &error));
                break;
            }
        };
        let base = base_offset(&batch);
        let end = end_offset(&batch);
        if let Err(error) = batch.verify_checksum() {
            // Its own count cannot be trusted: the next batch, or the server, knows where it ends.
            let mut behind = rest.clone();
            let next = Batch::parse_next(&mut behind).ok().flatten();
            let next = next.map_or(answer.next_offset, |next| base_offset(&next));
            failure = Some(damaged(&of, expected.max(base), next, &error));
            break;
        }
        if end <= expected {
            continue;
        }
        if base < expected && !batches.is_empty() {
            let reason = format!("batch at offset {base} comes where {expected} is next");
            failure = Some(damaged(&of, expected, answer.next_offset, &reason));
            break;
        }
        expected = end;
        batches.push_back(batch);
    }
    let next_offset = if failure.is_some() { expected } else { answer.next_offset.max(expected) };
    Chunk { of, epoch, start: position, batches, failure, next_offset, slot: None }
}

pub(super) fn base_offset(batch: &Batch) -> Offset {
    Offset(u64::try_from(batch.header().base_offset).unwrap_or(0))
}

pub(super) fn end_offset(batch: &Batch) -> Offset {
    Offset(base_offset(batch).0 + u64::from(batch.offset_count()))
}

pub(super) fn damaged(of: &Of, offset: Offset, next_offset: Offset, reason: &dyn ToString) -> ConsumeError {
    let next_offset = next_offset.max(Offset(offset.0 + 1));
    let topic = of.topic.clone();
    ConsumeError::Damaged {
        topic,
        partition: of.on.partition,
        offset,
        next_offset,
        reason: reason.to_string(),
    }
}
