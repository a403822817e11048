//! The last step: every request gets its own answer.

use std::sync::Arc;

use carnax_core::error_code::ErrorCode;
use carnax_core::http::AppendResult;
use carnax_core::id::{PartitionIndex, TopicId};
use carnax_core::metadata::{AppendedSlice, UnitOutcome};
use carnax_core::offset::Offset;
use carnax_core::problem::Problem;
use carnax_core::time::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// Where the records of one request went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Appended {
    pub(crate) topic_id: TopicId,
    pub(crate) results: Vec<AppendResult>,
    pub(crate) duplicate: bool,
}

/// Who waits for the outcome of a unit: one request, or all that share it.
#[derive(Debug)]
pub(crate) struct UnitAck {
    pub(crate) topic_id: TopicId,
    pub(crate) members: Vec<Member>,
}

/// A request that waits. A client that hung up is a receiver that is gone; its records are committed all the same.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) reply: oneshot::Sender<Result<Appended, Problem>>,
    /// In order of partition.
    pub(crate) places: Vec<Place>,
    /// The memory that the request takes until it is answered.
    pub(crate) memory: Arc<OwnedSemaphorePermit>,
}

/// Which of a unit's records in a partition are those of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) partition: PartitionIndex,
    /// How many records of the unit come before.
    pub(crate) start: u32,
    pub(crate) count: u32,
}

impl UnitAck {
    /// Answers everybody with what the state machine decided.
    pub(crate) fn decided(self, outcome: UnitOutcome) {
        match outcome {
            UnitOutcome::Accepted { slices, append_time } => self.accepted(&slices, append_time, false),
            UnitOutcome::Duplicate { slices, append_time } => self.accepted(&slices, append_time, true),
            UnitOutcome::Refused(problem) => self.failed(&problem),
        }
    }

    /// Answers everybody with one failure.
    pub(crate) fn failed(self, problem: &Problem) {
        for member in self.members {
            member.answer(Err(problem.clone()));
        }
    }

    fn accepted(self, slices: &[AppendedSlice], append_time: Timestamp, duplicate: bool) {
        for member in self.members {
            let results = member.places.iter().map(|place| place.result(slices, append_time)).collect();
            let answer = match results {
                Some(results) => Ok(Appended { topic_id: self.topic_id, results, duplicate }),
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
    fn result(&self, slices: &[AppendedSlice], append_time: Timestamp) -> Option<AppendResult> {
        let slice = slices.iter().find(|slice| slice.partition == self.partition)?;
        let base_offset = slice.base_offset.checked_add(self.start.into())?;
        Some(AppendResult { partition: self.partition, base_offset, count: self.count, append_time })
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
            topic: ack.topic_id,
            partition: place.partition,
            base_offset: Offset::ZERO,
            records: place.start + place.count,
        })
        .collect();
    ack.accepted(&slices, append_time, false);
}
