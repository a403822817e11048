//! Records that say where they must stand, and what may be answered to a reader of them. Pure.
//!
//! A partition has one writer, which is idempotent and never gives up: its record number n has offset n, or the log is wrong. So
//! every answer can be judged by itself, without knowing what others were told.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use carnax::{ErrorCode, PartitionIndex};
use serde::Deserialize;

use crate::api::Failure;

/// Leader and reader share a clock, which is not read at the same instant.
const CLOCK_TOLERANCE_MS: u64 = 500;
/// Values have different lengths, up to this and some more.
const PADDING_MAX: u64 = 240;

/// Which records may be gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// None.
    Forever,
    /// Those that were sent longer ago.
    For(Duration),
    /// Old ones, when there are many.
    UpToSize,
}

/// A partition whose records are known.
#[derive(Debug)]
pub struct Known {
    /// Its topic.
    pub topic: String,
    /// Its place there.
    pub partition: PartitionIndex,
    /// Which of its records may be gone.
    pub kept: Kept,
    /// When each record was sent at the earliest, in milliseconds.
    sent: Mutex<Vec<u64>>,
    /// Every offset below was acknowledged.
    acknowledged: AtomicU64,
}

/// An answer to a fetch, as JSON.
#[derive(Debug, Clone, Deserialize)]
pub struct Answer {
    records: Vec<AnsweredRecord>,
    /// Where the reader is to go on.
    pub next_offset: u64,
    /// One past the last offset.
    pub high_watermark: u64,
    /// The first offset that can be read.
    pub log_start_offset: u64,
}

#[derive(Debug, Clone, Deserialize)]
struct AnsweredRecord {
    offset: u64,
    value: String,
}

/// What came of a fetch, if nothing is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// So many records, and where to go on.
    Records(u64, u64),
    /// The records there are gone; the log starts here.
    Gone(u64),
    /// Nothing is there yet.
    NotYet,
    /// Nobody could answer now.
    TryAgain,
}

impl Known {
    /// A partition without records.
    pub fn new(topic: &str, partition: PartitionIndex, kept: Kept) -> Self {
        let (sent, acknowledged) = (Mutex::default(), AtomicU64::new(0));
        Self { topic: topic.to_owned(), partition, kept, sent, acknowledged }
    }

    /// The value of the next record, which is sent at this time; and its offset.
    pub fn next(&self, now_ms: u64) -> (u64, String) {
        let mut sent = self.sent();
        let offset = sent.len() as u64;
        sent.push(now_ms);
        (offset, self.value(offset))
    }

    /// Notes that the record at an offset is stored where it was said to be.
    ///
    /// # Errors
    /// If it is not.
    pub fn acknowledge(&self, expected: u64, stored: u64) -> Result<()> {
        let Self { topic, partition, .. } = self;
        ensure!(stored == expected, "record {expected} of {topic}/{partition} was stored at {stored}");
        self.acknowledged.fetch_max(expected + 1, Ordering::SeqCst);
        Ok(())
    }

    /// One past the last offset that was acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// Judges what was answered to a fetch that was sent when `acknowledged` was the end, and answered at `now_ms`.
    ///
    /// # Errors
    /// If records are wrong or missing, or were said to be gone too early.
    pub fn judge(
        &self,
        from: u64,
        acknowledged: u64,
        answered: Result<Answer, Failure>,
        now_ms: u64,
    ) -> Result<Outcome> {
        let outcome = match answered {
            Ok(answer) => self.check(from, acknowledged, &answer),
            Err(failure) if failure.is(ErrorCode::OffsetBelowLogStart) => self.gone(from, &failure, now_ms),
            Err(failure) if failure.is(ErrorCode::OffsetAboveHighWatermark) && from > acknowledged => {
                Ok(Outcome::NotYet)
            }
            Err(failure) if failure.retryable() => Ok(Outcome::TryAgain),
            Err(failure) => Err(failure.into()),
        };
        outcome.with_context(|| {
            format!("{}/{} from {from}, with {acknowledged} acknowledged", self.topic, self.partition)
        })
    }

    fn check(&self, from: u64, acknowledged: u64, answer: &Answer) -> Result<Outcome> {
        let Answer { records, next_offset, high_watermark, log_start_offset } = answer;
        for (expected, record) in (from..).zip(records) {
            ensure!(record.offset == expected, "offset {} came in the place of {expected}", record.offset);
            let value = self.value(expected);
            ensure!(record.value == value, "{expected} has the value {:?}, not {value:?}", record.value);
        }
        let count = records.len() as u64;
        ensure!(*next_offset == from + count, "{count} records, and next is {next_offset}");
        ensure!(*high_watermark >= acknowledged, "the high watermark is {high_watermark}");
        ensure!(*log_start_offset <= from, "records below the log start, which is {log_start_offset}");
        if count == 0 {
            ensure!(from >= acknowledged, "no record");
            return Ok(Outcome::NotYet);
        }
        Ok(Outcome::Records(count, *next_offset))
    }

    fn gone(&self, from: u64, failure: &Failure, now_ms: u64) -> Result<Outcome> {
        let facts = failure.problem().map(|problem| &problem.facts).context("a problem")?;
        let start = facts.log_start_offset.context("a problem with the log start")?.0;
        ensure!(start > from, "{from} is gone, it was said, and the log starts at {start}");
        self.may_start(start, now_ms)?;
        Ok(Outcome::Gone(start))
    }

    /// Checks that all below a log start may be gone.
    ///
    /// # Errors
    /// If not.
    pub fn may_start(&self, start: u64, now_ms: u64) -> Result<()> {
        let Some(last) = start.checked_sub(1) else { return Ok(()) };
        let sent = usize::try_from(last).ok().and_then(|last| self.sent().get(last).copied());
        let sent = sent.with_context(|| format!("the log starts at {start}, where nobody wrote"))?;
        let age = (now_ms + CLOCK_TOLERANCE_MS).saturating_sub(sent);
        match self.kept {
            Kept::UpToSize => Ok(()),
            Kept::For(time) if u128::from(age) >= time.as_millis() => Ok(()),
            Kept::For(time) => bail!("record {last} is gone after {age} ms, and is to be kept for {time:?}"),
            Kept::Forever => bail!("the log starts at {start}, and nothing may be gone"),
        }
    }

    fn value(&self, offset: u64) -> String {
        let padding = "-".repeat(usize::try_from(offset * 37 % PADDING_MAX).unwrap_or(0));
        format!("{}/{}/{offset}{padding}", self.topic, self.partition)
    }

    fn sent(&self) -> MutexGuard<'_, Vec<u64>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(kept: Kept) -> Known {
        let known = Known::new("t", PartitionIndex(0), kept);
        for offset in 0..10 {
            assert_eq!(known.next(1_000 * offset).0, offset);
            known.acknowledge(offset, offset).unwrap();
        }
        known
    }

    fn answer(known: &Known, offsets: std::ops::Range<u64>) -> Answer {
        Answer {
            next_offset: offsets.end,
            records: offsets.map(|offset| AnsweredRecord { offset, value: known.value(offset) }).collect(),
            high_watermark: 10,
            log_start_offset: 0,
        }
    }

    #[test]
    fn a_wrong_a_missing_and_a_stale_answer_are_found() {
        let known = known(Kept::Forever);
        let judge = |answer: Answer| known.judge(3, 10, Ok(answer), 0);
        assert_eq!(judge(answer(&known, 3..7)).unwrap(), Outcome::Records(4, 7));
        assert!(judge(answer(&known, 2..7)).is_err(), "from before");
        assert!(judge(answer(&known, 4..7)).is_err(), "one is missing");
        assert!(judge(answer(&known, 3..3)).is_err(), "all are missing");
        let mut changed = answer(&known, 3..7);
        changed.records[2].value.push('x');
        assert!(judge(changed).is_err(), "changed");
        let mut hole = answer(&known, 3..7);
        hole.records.remove(2);
        assert!(judge(hole).is_err(), "a hole");
        let stale = Answer { high_watermark: 9, ..answer(&known, 3..7) };
        assert!(judge(stale).is_err(), "stale");
        assert!(known.acknowledge(10, 11).is_err(), "stored elsewhere");
        assert_eq!(known.judge(10, 10, Ok(answer(&known, 10..10)), 0).unwrap(), Outcome::NotYet);
    }

    #[test]
    fn what_is_gone_too_early_is_found() {
        assert!(known(Kept::Forever).may_start(1, 100_000).is_err());
        assert!(known(Kept::UpToSize).may_start(11, 100_000).is_err(), "beyond the end");
        let known = known(Kept::For(Duration::from_secs(5)));
        known.may_start(0, 0).unwrap();
        known.may_start(3, 7_000).unwrap();
        assert!(known.may_start(4, 7_000).is_err(), "record 3 was sent four seconds ago");
    }
}
