//! Brings the group up to where the events say that the topic has grown.
//!
//! Nothing is remembered from one round to the next: before each, the group says where it is. That one question answers
//! everything that may have happened meanwhile: an append of unknown outcome, another function at the same partition, an
//! event that comes for the second time.

use std::collections::BTreeMap;
use std::time::Duration;

use carnax::{
    Client, CommitEvent, ConsumedRecord, GroupOffsetResponse, Offset, OffsetMove, PartitionIndex, Start,
    TopicId,
};

use crate::Settings;
use crate::late;
use crate::wakeup::Wakeups;

/// Records that are read into one append. It may move the offsets of 1,000 partitions, and so many records are of no more.
const BATCH: usize = 1_000;
/// The records that an event names are there: whoever waits so long for them waits in vain.
const WAIT: Duration = Duration::from_secs(5);

/// How far the group is, as it was last seen.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    topic: Option<TopicId>,
    next: BTreeMap<PartitionIndex, Offset>,
}

impl Progress {
    /// Whether nothing that an event tells of is left to be done.
    pub(crate) fn covers(&self, event: &CommitEvent) -> bool {
        // A topic that was deleted, and perhaps made again under its name, took its records along.
        let is_gone = self.topic.is_some_and(|topic| topic != event.topic_id);
        let is_done = |partition, to| self.next.get(&partition).is_some_and(|next| *next >= to);
        is_gone || event.partitions.iter().all(|range| is_done(range.partition, range.to))
    }

    fn update(&mut self, seen: &[GroupOffsetResponse]) {
        self.topic = seen.first().map(|at| at.topic_id);
        self.next = seen.iter().map(|at| (at.partition, start(at))).collect();
    }
}

/// Reads and appends until the group is where the events end, or has taken as many records as it may.
pub(crate) async fn run(
    client: &Client,
    settings: &Settings,
    wakeups: &Wakeups,
    progress: &mut Progress,
) -> anyhow::Result<()> {
    let mut taken = 0;
    loop {
        let group = client.admin().group_offsets(&settings.group, &[&settings.input]).await?.offsets;
        progress.update(&group);
        let ends = ends(wakeups, progress);
        let is_behind =
            |at: &GroupOffsetResponse| ends.get(&at.partition).is_some_and(|end| start(at) < *end);
        let behind: Vec<_> = group.into_iter().filter(is_behind).collect();
        if behind.is_empty() || taken >= settings.records_max {
            return Ok(());
        }
        let max = BATCH.min(settings.records_max - taken);
        let stretches = read(client, settings, behind, &ends, max).await?;
        let (full, empty): (Vec<_>, Vec<_>) =
            stretches.into_iter().partition(|stretch| !stretch.records.is_empty());
        if full.is_empty() {
            // Only holes, which key compaction or a restore has left. There is nothing to append, so the group stays.
            progress.next.extend(empty.iter().map(|stretch| (stretch.at.partition, stretch.to)));
            return Ok(());
        }
        taken += append(client, settings, &full).await?;
    }
}

/// Where reading begins: at what is committed, or at the first record; behind what was deleted meanwhile.
fn start(at: &GroupOffsetResponse) -> Offset {
    at.offset.unwrap_or(at.log_start_offset).max(at.log_start_offset)
}

/// How far all events together want the partitions to be read. Their order does not matter.
fn ends(wakeups: &Wakeups, progress: &Progress) -> BTreeMap<PartitionIndex, Offset> {
    let mut ends: BTreeMap<PartitionIndex, Offset> = BTreeMap::new();
    for event in wakeups.values().filter(|event| progress.topic == Some(event.topic_id)) {
        for range in &event.partitions {
            let end = ends.entry(range.partition).or_insert(range.to);
            *end = range.to.max(*end);
        }
    }
    ends
}

/// What was read of a partition.
struct Stretch {
    at: GroupOffsetResponse,
    records: Vec<ConsumedRecord>,
    /// One past the last of them.
    to: Offset,
}

/// Reads up to the ends, or `max` records if that is less; may read a little further.
async fn read(
    client: &Client,
    settings: &Settings,
    behind: Vec<GroupOffsetResponse>,
    ends: &BTreeMap<PartitionIndex, Offset>,
    max: usize,
) -> anyhow::Result<Vec<Stretch>> {
    let mut consumer = client.consumer(&settings.input).partitions(behind.iter().map(|at| at.partition));
    for at in &behind {
        consumer = consumer.start_of(at.partition, Start::Offset(start(at)));
    }
    let mut consumer = consumer.build().await?;
    let mut records: BTreeMap<PartitionIndex, Vec<ConsumedRecord>> = BTreeMap::new();
    let mut left = max;
    while left > 0
        && behind.iter().any(|at| consumer.position(at.partition) < ends.get(&at.partition).copied())
    {
        let more = consumer.poll(left, WAIT).await?;
        if more.is_empty() {
            break;
        }
        left -= more.len();
        more.into_iter().for_each(|record| records.entry(record.partition).or_default().push(record));
    }
    let stretch = |at: GroupOffsetResponse| {
        let to = consumer.position(at.partition).unwrap_or_else(|| start(&at));
        Stretch { records: records.remove(&at.partition).unwrap_or_default(), at, to }
    };
    Ok(behind.into_iter().map(stretch).collect())
}

/// Stores what is made of the records, and moves the group past them: both or neither. Gives how many records were taken.
async fn append(client: &Client, settings: &Settings, stretches: &[Stretch]) -> anyhow::Result<usize> {
    let moves = stretches.iter().map(|stretch| OffsetMove {
        topic: stretch.at.topic.clone(),
        topic_id: Some(stretch.at.topic_id),
        partition: stretch.at.partition,
        // Refused unless the group is still there.
        from: stretch.at.offset,
        to: stretch.to,
    });
    let mut append = client.append().commit_offsets(&settings.group, None, moves);
    for output in stretches.iter().flat_map(|stretch| late::count(&stretch.records)) {
        append = append.to(&settings.output, output.record());
    }
    match append.send().await {
        Ok(_) => {
            let records = stretches.iter().map(|stretch| stretch.records.len()).sum();
            tracing::info!(records, partitions = stretches.len(), "appended");
            Ok(records)
        }
        // Another function was faster at one of the partitions, so nothing of this is stored: the group says where to go on.
        Err(error) if error.is(carnax::ErrorCode::ConditionFailed) => {
            tracing::info!(actual = error.actual(), "append refused: the group has moved");
            Ok(0)
        }
        // It may be stored, or even be stored later. The group says which, and an offset moves only once.
        Err(error) if error.retryable() => {
            tracing::warn!(%error, "append failed: looking where the group is");
            Ok(0)
        }
        Err(error) => Err(error.into()),
    }
}
