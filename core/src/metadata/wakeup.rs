//! Wake-ups: queues that are told when a topic grows, so that a consumer which is not running can be started.

use serde::{Deserialize, Serialize};

use super::fetch::TopicRef;
use crate::id::{LogIndex, PartitionIndex, TopicId};
use crate::limits;
use crate::name::WakeupName;
use crate::offset::Offset;
use crate::time::Timestamp;
use crate::topic::TopicName;

/// Tells a queue about commits to a topic from now on, or changes how an existing wake-up does. Idempotent.
///
/// What was committed and not announced before a change is announced after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutWakeup {
    /// Which topic.
    pub topic: TopicRef,
    /// Which of its wake-ups.
    pub name: WakeupName,
    /// The URL of the queue.
    pub queue: String,
    /// Milliseconds over which commits share one event.
    pub window_ms: u32,
}

/// Ends a wake-up. What was not announced is not announced any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteWakeup {
    /// Which topic.
    pub topic: TopicRef,
    /// Which of its wake-ups.
    pub name: WakeupName,
}

/// A wake-up has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletedWakeup {
    /// The topic's id.
    pub topic_id: TopicId,
}

/// Asks for the wake-ups of a topic, by a linearizable read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListWakeups {
    /// Which topic.
    pub topic: TopicRef,
}

/// The wake-ups of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WakeupList {
    /// The topic's id.
    pub topic_id: TopicId,
    /// In the order of their names.
    pub wakeups: Vec<WakeupDescription>,
}

/// A wake-up as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WakeupDescription {
    /// Its name, one a topic.
    pub name: WakeupName,
    /// The URL of the queue.
    pub queue: String,
    /// Milliseconds over which commits share one event.
    pub window_ms: u32,
    /// Log time of the first put.
    pub created: Timestamp,
    /// Records that were committed and that the queue was not told of yet.
    pub pending_records: u64,
}

/// The body of the message that a queue gets: which offsets of which partitions were committed. JSON; fields are only ever
/// added.
///
/// Sent at least once: the same range may come again, and ranges of two events may overlap, but none is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitEvent {
    /// The topic.
    pub topic: TopicName,
    /// Its id: another one under the same name is another topic.
    pub topic_id: TopicId,
    /// The name of the wake-up.
    pub wakeup: WakeupName,
    /// Up to where in the Raft log the event speaks; goes up from event to event of one wake-up and one leader.
    pub log_index: LogIndex,
    /// What was committed, in the order of the partitions; 1 to [`EVENT_PARTITIONS_MAX`](limits::EVENT_PARTITIONS_MAX).
    pub partitions: Vec<CommittedRange>,
}

/// Offsets of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommittedRange {
    /// The partition.
    pub partition: PartitionIndex,
    /// The first offset.
    pub from: Offset,
    /// One past the last.
    pub to: Offset,
}

/// Why a wake-up cannot be as it was asked for.
///
/// # Errors
/// A sentence for the caller.
pub fn check_wakeup(request: &PutWakeup) -> Result<(), String> {
    let queue = &request.queue;
    let is_url = queue.starts_with("https://") || queue.starts_with("http://");
    if !is_url || queue.len() > limits::WAKEUP_QUEUE_BYTES_MAX || !queue.bytes().all(|b| b.is_ascii_graphic())
    {
        let most = limits::WAKEUP_QUEUE_BYTES_MAX;
        return Err(format!(
            "a queue is named by its URL, https://…, of at most {most} visible ASCII characters"
        ));
    }
    let most = limits::WAKEUP_WINDOW_MAX.as_millis();
    if u128::from(request.window_ms) > most {
        return Err(format!("a window has 0 to {most} milliseconds"));
    }
    Ok(())
}
