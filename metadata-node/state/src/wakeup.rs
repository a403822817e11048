//! Wake-ups: which queues are told about commits to which topics, and up to where each was told.
//!
//! The leader sends an event first and moves the cursor after the queue took it; a leader that dies between the two leaves
//! the sending to its successor, so that every commit is told at least once and none is left out.

use std::sync::Arc;

use carnax_core::error_code::ErrorCode;
use carnax_core::id::{LogIndex, PartitionIndex, TopicId};
use carnax_core::limits;
use carnax_core::metadata::{CommittedRange, PutWakeup, WakeupDescription, check_wakeup};
use carnax_core::name::WakeupName;
use carnax_core::offset::Offset;
use carnax_core::problem::Problem;
use carnax_core::time::Timestamp;
use imbl::OrdMap;

use crate::segment::Moment;
use crate::topic::{Topic, Topics};

/// A queue that is told when a topic grows.
#[derive(Debug, Clone)]
pub(crate) struct Wakeup {
    pub(crate) queue: Arc<str>,
    pub(crate) window_ms: u32,
    pub(crate) created: Timestamp,
    /// The entry that made it what it is: what was sent under an older one moves no cursor.
    pub(crate) version: LogIndex,
    /// One past the last announced offset; a partition that is not here was never announced.
    pub(crate) announced: OrdMap<PartitionIndex, Offset>,
}

/// All wake-ups, by topic and name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wakeups {
    by_topic: OrdMap<TopicId, OrdMap<WakeupName, Wakeup>>,
    /// Over all topics.
    count: usize,
}

impl Wakeup {
    /// Where a partition's next announcement begins.
    fn cursor(&self, partition: PartitionIndex) -> Offset {
        self.announced.get(&partition).copied().unwrap_or(Offset::ZERO)
    }

    /// What was committed and not announced, partition by partition.
    pub(crate) fn pending<'a>(&'a self, topic: &'a Topic) -> impl Iterator<Item = CommittedRange> + 'a {
        let ranges = (0..).map(PartitionIndex).zip(&topic.partitions);
        ranges.filter_map(|(partition, known)| {
            let (from, to) = (self.cursor(partition), known.high_watermark);
            (from < to).then_some(CommittedRange { partition, from, to })
        })
    }

    pub(crate) fn describe(&self, name: &WakeupName, topic: &Topic) -> WakeupDescription {
        let pending = self.pending(topic).map(|range| range.to.0.saturating_sub(range.from.0));
        WakeupDescription {
            name: name.clone(),
            queue: self.queue.to_string(),
            window_ms: self.window_ms,
            created: self.created,
            pending_records: pending.fold(0, u64::saturating_add),
        }
    }
}

impl Wakeups {
    /// All, in the order of their topics and names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (TopicId, &WakeupName, &Wakeup)> {
        let topics = self.by_topic.iter();
        topics.flat_map(|(topic, wakeups)| wakeups.iter().map(|(name, wakeup)| (*topic, name, wakeup)))
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Those of one topic, in the order of their names.
    pub(crate) fn of_topic(&self, topic: TopicId) -> impl Iterator<Item = (&WakeupName, &Wakeup)> {
        self.by_topic.get(&topic).into_iter().flatten()
    }

    /// Adds a wake-up that begins at the high watermarks, or changes one that keeps its cursor.
    pub(crate) fn put(
        &mut self,
        topics: &Topics,
        at: Moment,
        request: &PutWakeup,
    ) -> Result<WakeupDescription, Problem> {
        let (id, topic) = topics.resolve(&request.topic)?;
        check_wakeup(request).map_err(|detail| Problem::new(ErrorCode::InvalidValue, detail))?;
        let (created, announced) = match self.get(id, &request.name) {
            Some(known) if *known.queue == *request.queue && known.window_ms == request.window_ms => {
                return Ok(known.describe(&request.name, topic));
            }
            Some(known) => (known.created, known.announced.clone()),
            None => {
                self.check_room(id)?;
                self.count += 1;
                (at.time, high_watermarks(topic))
            }
        };
        let queue = request.queue.as_str().into();
        let wakeup = Wakeup { queue, window_ms: request.window_ms, created, version: at.index, announced };
        let description = wakeup.describe(&request.name, topic);
        self.by_topic.entry(id).or_default().insert(request.name.clone(), wakeup);
        Ok(description)
    }

    pub(crate) fn get(&self, topic: TopicId, name: &WakeupName) -> Option<&Wakeup> {
        self.by_topic.get(&topic)?.get(name)
    }

    fn check_room(&self, topic: TopicId) -> Result<(), Problem> {
        let (what, limit) = if self.count >= limits::WAKEUPS_MAX {
            ("the cluster", limits::WAKEUPS_MAX)
        } else if self.of_topic(topic).count() >= limits::TOPIC_WAKEUPS_MAX {
            ("the topic", limits::TOPIC_WAKEUPS_MAX)
        } else {
            return Ok(());
        };
        let detail = format_args!("{what} has as many wake-ups as it may: {limit}");
        Err(Problem::new(ErrorCode::InvalidValue, detail).with(|facts| facts.limit = Some(limit as u64)))
    }

    pub(crate) fn delete(&mut self, topic: TopicId, name: &WakeupName) -> Result<(), Problem> {
        let wakeups = self.by_topic.get_mut(&topic).filter(|wakeups| wakeups.contains_key(name));
        let wakeups = wakeups.ok_or_else(|| not_found(name))?;
        wakeups.remove(name);
        if wakeups.is_empty() {
            self.by_topic.remove(&topic);
        }
        self.count -= 1;
        Ok(())
    }

    pub(crate) fn topic_deleted(&mut self, topic: TopicId) {
        let gone = self.by_topic.remove(&topic);
        self.count -= gone.map_or(0, |wakeups| wakeups.len());
    }

    /// Moves cursors up to what a queue took, never back and never beyond what is committed.
    pub(crate) fn confirm(
        &mut self,
        topics: &Topics,
        wakeup: (TopicId, &WakeupName, LogIndex),
        partitions: &[(PartitionIndex, Offset)],
    ) -> Result<(), Problem> {
        let (id, name, version) = wakeup;
        let known = self.by_topic.get_mut(&id).and_then(|wakeups| wakeups.get_mut(name));
        let known = known.filter(|known| known.version == version);
        let (Some(known), Some(topic)) = (known, topics.get(id)) else { return Err(not_found(name)) };
        for (partition, to) in partitions {
            let Ok(committed) = topic.partition(*partition) else { continue };
            let to = (*to).min(committed.high_watermark);
            if to > known.cursor(*partition) {
                known.announced.insert(*partition, to);
            }
        }
        Ok(())
    }

    /// Puts back what a snapshot held; false if it is out of order, or there are too many.
    pub(crate) fn restore(&mut self, topic: TopicId, name: WakeupName, wakeup: Wakeup) -> bool {
        let last = self.by_topic.get_max();
        let behind = last.is_none_or(|(last, wakeups)| {
            *last < topic || (*last == topic && wakeups.get_max().is_none_or(|(last, _)| *last < name))
        });
        if !behind || self.check_room(topic).is_err() {
            return false;
        }
        self.count += 1;
        self.by_topic.entry(topic).or_default().insert(name, wakeup);
        true
    }
}

fn high_watermarks(topic: &Topic) -> OrdMap<PartitionIndex, Offset> {
    let known = (0..).map(PartitionIndex).zip(&topic.partitions);
    known
        .map(|(index, partition)| (index, partition.high_watermark))
        .filter(|(_, at)| *at > Offset::ZERO)
        .collect()
}

fn not_found(name: &WakeupName) -> Problem {
    Problem::new(
        ErrorCode::WakeupNotFound,
        format_args!("there is no wake-up {name}, or it was changed meanwhile"),
    )
}
