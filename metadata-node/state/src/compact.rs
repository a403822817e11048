//! Key compaction: how far each partition is compacted, and when its tombstones may go.
//!
//! ```text
//!  log start            ripe                clean until                     high watermark
//!      │  no tombstones  │  one record a key  │  new: the next round reads it │
//!      │  from here …    │  tombstones stay   │  … up to the compaction lag   │
//! ```
//!
//! A tombstone may go when it has been within the clean part for `delete.retention.ms`: since then nobody who begins to read finds
//! an older record of its key. So it is enough to remember one mark: an offset, and since when everything below it has been clean.
//! When the tombstones below a mark are gone, the next mark is set, at what is clean then.
//!
//! A topic that was not compacted once may have manifest pages. What lies in them stays as it is, and tombstones stay as long as there
//! are pages, since those may hold what they speak of.

use std::time::Duration;

use carnax_core::error_code::ErrorCode;
use carnax_core::id::{LogIndex, PartitionIndex, TopicId, TopicPartition};
use carnax_core::metadata::FinishCompaction;
use carnax_core::offset::Offset;
use carnax_core::problem::Problem;
use carnax_core::time::Timestamp;
use imbl::OrdMap;

use crate::partition::Partition;
use crate::segment::Moment;
use crate::topic::Topics;

/// How far a partition is compacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Compaction {
    /// When the last round was finished.
    pub(crate) finished: (LogIndex, Timestamp),
    /// No key has two records below.
    pub(crate) clean_until: Offset,
    /// Below this offset there may be tombstones, and everything has been clean since this time.
    pub(crate) mark: Option<(Offset, Timestamp)>,
}

/// Of all partitions that were ever compacted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Compactions(OrdMap<TopicPartition, Compaction>);

impl Default for Compaction {
    fn default() -> Self {
        let finished = (LogIndex(0), Timestamp::EPOCH);
        Self { finished, clean_until: Offset::ZERO, mark: None }
    }
}

impl Compaction {
    /// Up to where tombstones may go, and since when; none if there are none that may.
    pub(crate) fn ripe(
        &self,
        partition: &Partition,
        delete_retention: Duration,
        now: Timestamp,
    ) -> Option<(Offset, Timestamp)> {
        let (until, clean_since) = self.mark.filter(|_| partition.pages.all().is_empty())?;
        let ripe_since = clean_since.saturating_add(delete_retention);
        (ripe_since <= now).then_some((until, ripe_since))
    }
}

impl Compactions {
    /// A partition that was never compacted is clean up to nowhere.
    pub(crate) fn get(&self, on: TopicPartition) -> Compaction {
        self.0.get(&on).copied().unwrap_or_default()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&TopicPartition, &Compaction)> {
        self.0.iter()
    }

    /// Takes in that a round was finished, if it follows the last one.
    pub(crate) fn finish(
        &mut self,
        topics: &Topics,
        at: Moment,
        request: &FinishCompaction,
    ) -> Result<bool, Problem> {
        let FinishCompaction { on, follows, clean_until, tombstones_until, tombstones_left, .. } = *request;
        let partition = topics.get(on.topic).and_then(|topic| topic.partition(on.partition).ok());
        let known = self.get(on);
        let Some(partition) = partition.filter(|_| known.finished.0 == follows) else { return Ok(false) };
        let bounds = known.clean_until..=partition.high_watermark;
        if !bounds.contains(&clean_until) || tombstones_until > known.clean_until {
            let detail = format_args!("{on} cannot be clean up to offset {clean_until}");
            return Err(Problem::new(ErrorCode::InvalidValue, detail));
        }
        let mark = known.mark.filter(|(until, _)| *until > tombstones_until);
        let is_seen_whole = partition.pages.all().is_empty();
        let mark = (tombstones_left && is_seen_whole).then(|| mark.unwrap_or((clean_until, at.time)));
        self.0.insert(on, Compaction { finished: (at.index, at.time), clean_until, mark });
        Ok(true)
    }

    pub(crate) fn topic_deleted(&mut self, topic: TopicId) {
        let on = |partition| TopicPartition { topic, partition: PartitionIndex(partition) };
        let gone: Vec<_> = self.0.range(on(0)..=on(u32::MAX)).map(|(on, _)| *on).collect();
        for on in gone {
            self.0.remove(&on);
        }
    }

    /// Puts back a row; partitions must go up.
    pub(crate) fn restore(&mut self, on: TopicPartition, compaction: Compaction) -> bool {
        let in_order = self.0.get_max().is_none_or(|(last, _)| *last < on);
        self.0.insert(on, compaction);
        in_order
    }
}
