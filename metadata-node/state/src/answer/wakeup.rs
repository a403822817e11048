//! What the state says of wake-ups.

use carnax_core::id::{LogIndex, TopicId};
use carnax_core::limits;
use carnax_core::metadata::{CommitEvent, ListWakeups, WakeupList};
use carnax_core::name::WakeupName;
use carnax_core::problem::Problem;

use crate::State;

/// Events that are to be sent for one wake-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// The URL of the queue.
    pub queue: String,
    /// Milliseconds over which commits share one event.
    pub window_ms: u32,
    /// The wake-up as it is now, for [`Command::ConfirmAnnouncement`](crate::Command::ConfirmAnnouncement).
    pub version: LogIndex,
    /// In the order of the partitions; at least one.
    pub events: Vec<CommitEvent>,
}

/// Describes the wake-ups of a topic.
///
/// # Errors
/// `topic_not_found`, `topic_recreated`.
pub fn list_wakeups(state: &State, request: &ListWakeups) -> Result<WakeupList, Problem> {
    let (topic_id, topic) = state.topics.resolve(&request.topic)?;
    let wakeups = state.wakeups.of_topic(topic_id);
    let wakeups = wakeups.map(|(name, wakeup)| wakeup.describe(name, topic)).collect();
    Ok(WakeupList { topic_id, wakeups })
}

/// The wake-ups of a topic, or all of them.
pub fn wakeups(state: &State, topic: Option<TopicId>) -> Vec<(TopicId, WakeupName)> {
    match topic {
        Some(topic) => state.wakeups.of_topic(topic).map(|(name, _)| (topic, name.clone())).collect(),
        None => state.wakeups.iter().map(|(topic, name, _)| (topic, name.clone())).collect(),
    }
}

/// What the queue of a wake-up is still to be told; none if there is nothing, or no such wake-up.
pub fn announcement(state: &State, topic_id: TopicId, name: &WakeupName) -> Option<Announcement> {
    let (topic, wakeup) = (state.topics.get(topic_id)?, state.wakeups.get(topic_id, name)?);
    let ranges: Vec<_> = wakeup.pending(topic).collect();
    let event = |ranges: &[_]| CommitEvent {
        topic: topic.name.clone(),
        topic_id,
        wakeup: name.clone(),
        log_index: state.applied,
        partitions: ranges.to_vec(),
    };
    let events: Vec<_> = ranges.chunks(limits::EVENT_PARTITIONS_MAX).map(event).collect();
    let (queue, window_ms) = (wakeup.queue.to_string(), wakeup.window_ms);
    (!events.is_empty()).then_some(Announcement { queue, window_ms, version: wakeup.version, events })
}
