//! The part of a snapshot that says which queues are told about commits.

use std::io::{self, Write};

use carnax_core::id::PartitionIndex;
use carnax_core::limits;
use carnax_core::offset::Offset;

use super::frame::{Frame, WakeupRow};
use super::read::{Checked, require};
use super::write::Frames;
use crate::State;
use crate::wakeup::{Wakeup, Wakeups};

/// One a frame: each has a cursor for every partition of its topic.
pub(super) fn write(wakeups: &Wakeups, frames: &mut Frames<'_, impl Write>) -> io::Result<()> {
    for (topic, name, wakeup) in wakeups.iter() {
        let Wakeup { queue, window_ms, created, version, announced } = wakeup;
        let announced = announced.iter().map(|(partition, offset)| (partition.0, offset.0)).collect();
        let (name, queue) = (name.clone(), queue.to_string());
        let (window_ms, created, version) = (*window_ms, *created, *version);
        frames.put(&Frame::Wakeups(vec![WakeupRow {
            topic,
            name,
            queue,
            window_ms,
            created,
            version,
            announced,
        }]))?;
    }
    Ok(())
}

/// Topics were read before, so that the cursors can be held against them.
pub(super) fn add(state: &mut State, row: WakeupRow) -> Checked {
    let WakeupRow { topic, name, queue, window_ms, created, version, announced } = row;
    let known = state.topics.get(topic).ok_or("a wake-up of an unknown topic")?;
    require(queue.len() <= limits::WAKEUP_QUEUE_BYTES_MAX, "a queue whose URL is too long")?;
    require(version <= state.applied, "a wake-up from the future")?;
    let rows = announced.len();
    let announced: imbl::OrdMap<_, _> = announced
        .into_iter()
        .map(|(partition, offset)| (PartitionIndex(partition), Offset(offset)))
        .collect();
    require(announced.len() == rows, "a cursor twice")?;
    let committed = |(partition, offset): (&PartitionIndex, &Offset)| {
        known.partition(*partition).is_ok_and(|known| *offset <= known.high_watermark)
    };
    require(announced.iter().all(committed), "a cursor above the high watermark")?;
    let wakeup = Wakeup { queue: queue.into(), window_ms, created, version, announced };
    require(state.wakeups.restore(topic, name, wakeup), "wake-ups out of order, or too many")
}
