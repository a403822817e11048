//! The last step: every request gets its own answer.

use std::sync::Arc;

use carnax_core::error_code::ErrorCode;
use carnax_core::id::TopicPartition;
use carnax_core::metadata::{AppendedSlice, ProducerStamp, UnitOutcome, UnitSlice};
use carnax_core::name::TokenId;
use carnax_core::offset::Offset;
use carnax_core::problem::Problem;
use carnax_core::time::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// Where the records of one request went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Appended {
    /// One for each topic and partition; none in the repeat of an answer that is no longer kept.
    pub(crate) slices: Vec<AppendedSlice>,
    pub(crate) append_time: Timestamp,
    /// Whether this is the answer of an earlier time again.
    pub(crate) duplicate: bool,
}

/// Who waits for the outcome of a unit: one request, or all that share it.
#[derive(Debug)]
pub(crate) struct UnitAck {
    /// Then the reply's slices are the answer as they are: a repeat may have been routed another way than the first time.
    pub(crate) is_one_request: bool,
    /// Whose unit it is, if a producer numbered it.
    pub(crate) producer: Option<ProducerStamp>,
    pub(crate) members: Vec<Member>,
}

/// A request that waits. A client that hung up is a receiver that is gone; its records are committed all the same.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) reply: oneshot::Sender<Result<Appended, Problem>>,
    /// In order of topic and partition.
    pub(crate) places: Vec<Place>,
    /// The memory that the request takes until it is answered.
    pub(crate) memory: Arc<OwnedSemaphorePermit>,
    /// With whose token the request came, if with any.
    pub(crate) token: Option<TokenId>,
}

/// Which of a unit's records in a partition are those of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) on: TopicPartition,
    /// How many records of the unit come before.
    pub(crate) start: u32,
    pub(crate) count: u32,
}

impl UnitAck {
    /// Answers everybody with what the state machine decided.
    pub(crate) fn decided(self, outcome: UnitOutcome) {
        match outcome {
            UnitOutcome::Accepted { slices, append_time } => self.accepted(slices, append_time, false),
            UnitOutcome::Duplicate { slices, append_time } => self.accepted(slices, append_time, true),
            UnitOutcome::Refused(problem) => self.failed(&problem),
        }
    }

    /// Records and bytes of each request that came with a token. Requests that share a slice share its bytes by their records.
    pub(crate) fn by_token<'a>(
        &'a self,
        slices: &'a [UnitSlice],
    ) -> impl Iterator<Item = (&'a TokenId, u64, u64)> {
        let with_token = self.members.iter().filter_map(|member| Some((member.token.as_ref()?, member)));
        with_token.flat_map(move |(token, member)| {
            member.places.iter().filter_map(move |place| {
                let TopicPartition { topic, partition } = place.on;
                let slice =
                    slices.iter().find(|slice| (slice.topic, slice.partition) == (topic, partition))?;
                let bytes = u128::from(slice.bytes.length) * u128::from(place.count);
                let bytes = bytes.checked_div(u128::from(slice.records))?;
                Some((token, place.count.into(), u64::try_from(bytes).unwrap_or(u64::MAX)))
            })
        })
    }

    /// Answers everybody with one failure.
    pub(crate) fn failed(self, problem: &Problem) {
        for member in self.members {
            member.answer(Err(problem.clone()));
        }
    }

    fn accepted(self, slices: Vec<AppendedSlice>, append_time: Timestamp, duplicate: bool) {
        let mut members = self.members;
        if self.is_one_request && members.len() == 1 && (duplicate || !slices.is_empty()) {
            members.remove(0).answer(Ok(Appended { slices, append_time, duplicate }));
            return;
        }
        for member in members {
            let results = member.places.iter().map(|place| place.result(&slices)).collect();
            let answer = match results {
                Some(slices) => Ok(Appended { slices, append_time, duplicate }),
                None => Err(Problem::new(
                    ErrorCode::Internal,
                    "the append was accepted, but the reply does not say where its records went",
                )),
            };
            member.answer(answer);
        }
    }
}

impl Member {
    pub(crate) fn answer(self, answer: Result<Appended, Problem>) {
        let Self { reply, memory, .. } = self;
        // Who hung up needs no answer.
        let _ = reply.send(answer);
        drop(memory);
    }
}

impl Place {
    fn result(&self, slices: &[AppendedSlice]) -> Option<AppendedSlice> {
        let TopicPartition { topic, partition } = self.on;
        let slice = slices.iter().find(|slice| (slice.topic, slice.partition) == (topic, partition))?;
        let base_offset = slice.base_offset.checked_add(self.start.into())?;
        Some(AppendedSlice { topic, partition, base_offset, records: self.count })
    }
}

/// What is left of an unknown outcome for those who wait.
pub(crate) fn outcome_unknown() -> Problem {
    Problem::new(
        ErrorCode::OutcomeUnknown,
        "the segment commit was sent and no metadata node said what became of it: the records may be in the log",
    )
}

/// For the simulation: pretends that a unit was accepted at offset 0.
pub(crate) fn pretend_accepted(ack: UnitAck, append_time: Timestamp) {
    let slices: Vec<AppendedSlice> = ack
        .members
        .iter()
        .flat_map(|member| &member.places)
        .map(|place| AppendedSlice {
            topic: place.on.topic,
            partition: place.on.partition,
            base_offset: Offset::ZERO,
            records: place.start + place.count,
        })
        .collect();
    ack.accepted(slices, append_time, false);
}
