//! One request: from the records of a draft to what travels, and from the answer back to the records.

use std::collections::BTreeMap;
use std::sync::Arc;

use carnax_core::error_code::{ErrorCode, SideEffects};
use carnax_core::http::{AppendResponse, AppendResult, PartitionFrame, header};
use carnax_core::id::PartitionIndex;
use carnax_core::name::ProducerId;
use carnax_core::offset::Offset;
use http::HeaderName;
use tokio::time::Instant;

use super::queue::{Draft, Pending};
use super::sequence::Outcome;
use super::{ProduceError, Shared, encode};
use crate::error::RequestError;
use crate::raw::{Append, header_text};
use crate::transport::ApiRequest;

/// Records on their way.
pub(super) struct Request {
    /// What travels, the same in every attempt.
    pub(super) api: ApiRequest,
    /// When to give up.
    pub(super) deadline: Instant,
    /// How the last attempts ended.
    pub(super) error: Option<RequestError>,
    /// The first of its records, in the order of acceptance.
    oldest: u64,
    /// Those that the draft was for, if some of their records had to be left out.
    partitions: Vec<PartitionIndex>,
    parts: BTreeMap<PartitionIndex, Vec<Pending>>,
}

impl Request {
    /// Encodes a draft. None if no record of it could be sent; then all are answered.
    pub(super) async fn prepare(shared: &Shared, draft: Draft) -> Option<Self> {
        let (route, batch_bytes) = {
            let queues = shared.lock();
            (queues.route(), queues.batch_bytes())
        };
        let oldest = draft.records().map(|record| record.sequence).min().unwrap_or_default();
        let accepted = draft.records().map(|record| record.accepted).min().unwrap_or_else(Instant::now);
        let partitions: Vec<PartitionIndex> = draft.parts.keys().copied().collect();
        let routed_by = draft.routed.then_some(route.partition_count);
        let mut parts = BTreeMap::new();
        let mut frames = Vec::new();
        for (partition, records) in draft.parts {
            let (batches, taken, left) = encode::encode(records, batch_bytes, shared.settings.compression);
            left.into_iter().for_each(|(record, error)| shared.fail(record, error));
            if !taken.is_empty() {
                frames.push(PartitionFrame { partition, batches });
                parts.insert(partition, taken);
            }
            // Compression takes a while: let others have the thread between partitions.
            tokio::task::yield_now().await;
        }
        if frames.is_empty() {
            shared.settle(oldest, &partitions, BTreeMap::new());
            return None;
        }
        let append =
            Append { topic: shared.topic.clone(), topic_id: Some(route.topic_id), routed_by, frames };
        let deadline = accepted + shared.settings.delivery_timeout;
        Some(Self { api: append.request(), deadline, error: None, oldest, partitions, parts })
    }

    /// Says who sends it, and as which of its requests.
    pub(super) fn stamp(mut self, producer: &ProducerId, epoch: u32, sequence: u64) -> Self {
        for (name, value) in [
            (header::PRODUCER_ID, header_text(producer)),
            (header::PRODUCER_EPOCH, epoch.into()),
            (header::SEQUENCE, sequence.into()),
        ] {
            self.api.headers.push((HeaderName::from_static(name), value));
        }
        self
    }

    /// Tells each record where it is.
    pub(super) fn stored(self, shared: &Shared, results: &[AppendResult]) {
        for (partition, records) in self.parts {
            let result = results.iter().find(|result| result.partition == partition);
            let right = result.filter(|result| u32::try_from(records.len()) == Ok(result.count));
            match right {
                Some(result) => {
                    for (offset, record) in (result.base_offset.0..).zip(records) {
                        shared.memory.add_permits(record.charge as usize);
                        record.stored(partition, Offset(offset), result.append_time);
                    }
                }
                None if results.is_empty() => records
                    .into_iter()
                    .for_each(|record| shared.fail(record, ProduceError::OffsetUnknown { partition })),
                None => {
                    let reason =
                        format!("answer to an append does not name the records of partition {partition}");
                    let endpoint = shared.topic.to_string();
                    let error = Arc::new(RequestError::Answer { endpoint, status: 200, reason });
                    records
                        .into_iter()
                        .for_each(|record| shared.fail(record, ProduceError::Request(Arc::clone(&error))));
                }
            }
        }
        shared.settle(self.oldest, &self.partitions, BTreeMap::new());
    }

    /// Fails all records with the same error.
    pub(super) fn fail(self, shared: &Shared, error: &ProduceError) {
        self.parts.into_values().flatten().for_each(|record| shared.fail(record, error.clone()));
        shared.settle(self.oldest, &self.partitions, BTreeMap::new());
    }

    /// Fails all records by how the last attempt ended, now that it is known whether they may be stored.
    pub(super) fn fail_with(mut self, shared: &Shared, side_effects: SideEffects) {
        let in_vain =
            |error: &RequestError| error.is(ErrorCode::SequenceGap) || error.is(ErrorCode::UnknownProducer);
        let error = match self.error.take() {
            // It was in order, and waited for those before it.
            Some(error) if in_vain(&error) && side_effects == SideEffects::None => None,
            other => other,
        };
        let error = match error {
            Some(error) => ProduceError::Request(Arc::new(error.with_side_effects(side_effects))),
            None => ProduceError::Expired { waited: shared.settings.delivery_timeout },
        };
        self.fail(shared, &error);
    }

    /// Lets all records wait again, before those that wait already.
    pub(super) fn send_anew(self, shared: &Shared) {
        shared.settle(self.oldest, &self.partitions, self.parts);
    }
}

/// What an answer to an append, or none, means for its sequence; and whether it may be stored by it.
pub(super) fn judge(result: &Result<AppendResponse, RequestError>) -> (Outcome, bool) {
    let error = match result {
        Ok(_) => return (Outcome::Stored, false),
        Err(error) => error,
    };
    let outcome = if error.is(ErrorCode::SequenceGap) || error.is(ErrorCode::UnknownProducer) {
        Outcome::OutOfOrder
    } else if error.is(ErrorCode::StaleRouting) {
        Outcome::Stale
    } else if error.is(ErrorCode::BodyMismatch) {
        Outcome::Collided
    } else if error.is(ErrorCode::Fenced) {
        Outcome::Fenced
    } else {
        Outcome::Failed
    };
    (outcome, error.side_effects() == SideEffects::Possible)
}
