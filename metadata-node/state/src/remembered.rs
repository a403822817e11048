//! What is kept of an accepted unit, so that its repeat gets the same answer: shared by producers and idempotency keys.

use std::sync::Arc;
use std::time::Duration;

use carnax_core::error_code::ErrorCode;
use carnax_core::limits;
use carnax_core::metadata::{AppendedSlice, UnitOutcome};
use carnax_core::problem::Problem;
use carnax_core::time::Timestamp;

/// The answer to an accepted unit.
///
/// A copy of what stands in the reply to the commit, not a part of it: that reply holds the answers of thousands of units, and
/// one producer would keep all of them in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remembered {
    /// Hash of the request.
    pub(crate) body_hash: [u8; 16],
    /// Log time of the command that accepted it.
    pub(crate) append_time: Timestamp,
    pub(crate) slices: Arc<[AppendedSlice]>,
}

impl Remembered {
    /// The answer to a repeat, if it is one.
    pub(crate) fn repeat(&self, body_hash: [u8; 16]) -> Result<UnitOutcome, Problem> {
        if body_hash != self.body_hash {
            let detail = "this sequence or idempotency key was used for another request";
            return Err(Problem::new(ErrorCode::BodyMismatch, detail));
        }
        Ok(UnitOutcome::Duplicate { slices: self.slices.to_vec(), append_time: self.append_time })
    }

    pub(crate) fn slice_count(&self) -> u64 {
        self.slices.len() as u64
    }
}

/// Whether there is room for the answer to one more unit of so many slices.
pub(crate) fn check_room(kept: u64, freed: u64, new: u64) -> Result<(), Problem> {
    if kept.saturating_sub(freed).saturating_add(new) <= limits::REMEMBERED_SLICES_MAX {
        return Ok(());
    }
    let detail = "the answers that are kept for repeats take as much room as they may";
    Err(full(detail, limits::REMEMBERED_SLICES_MAX, None))
}

/// A table is full: nothing is evicted before its time, so new entries have to wait.
///
/// `wait` is the time until the first entry may leave. An operator can make room sooner, so nobody is told to wait longer
/// than a minute.
pub(crate) fn full(detail: &str, limit: u64, wait: Option<Duration>) -> Problem {
    let seconds = wait.map_or(60, |wait| wait.as_millis().div_ceil(1_000).clamp(1, 60));
    Problem::new(ErrorCode::TooManyRequests, detail).with(|facts| {
        facts.limit = Some(limit);
        facts.retry_after_seconds = u64::try_from(seconds).ok();
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_answer_takes_the_place_of_makes_room_and_the_limit_itself_is_allowed() {
        let max = limits::REMEMBERED_SLICES_MAX;
        assert_eq!(check_room(max - 3, 0, 3), Ok(()));
        let refused = check_room(max - 3, 0, 4).unwrap_err();
        assert_eq!((refused.code, refused.facts.limit), (ErrorCode::TooManyRequests, Some(max)));
        assert_eq!(check_room(max, 4, 4), Ok(()));
        assert!(check_room(max, 4, 5).is_err() && check_room(u64::MAX, 0, u64::MAX).is_err());
    }
}
