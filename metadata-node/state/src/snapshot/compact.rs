//! The part of a snapshot that says how far partitions are compacted.

use std::io::{self, Write};

use carnax_core::offset::Offset;

use super::frame::{CompactionRow, Frame};
use super::read::{Checked, require};
use super::write::Frames;
use crate::State;
use crate::compact::{Compaction, Compactions};

pub(super) fn write(compactions: &Compactions, frames: &mut Frames<'_, impl Write>) -> io::Result<()> {
    let rows = compactions.iter().map(|(on, compaction)| {
        let Compaction { finished, clean_until, mark } = *compaction;
        (*on, finished, clean_until.0, mark.map(|(until, since)| (until.0, since)))
    });
    frames.put_rows(rows, Frame::Compactions)
}

/// Topics were read before.
pub(super) fn add(state: &mut State, row: CompactionRow) -> Checked {
    let (on, finished, clean_until, mark) = row;
    let known = state.topics.get(on.topic).and_then(|topic| topic.partition(on.partition).ok());
    let known = known.ok_or("a compaction of an unknown partition")?;
    let clean_until = Offset(clean_until);
    require(clean_until <= known.high_watermark, "a compaction above the high watermark")?;
    let (index, time) = finished;
    require(index <= state.applied && time <= state.log_time, "a compaction from the future")?;
    let mark = mark.map(|(until, since)| (Offset(until), since));
    let sound = mark.is_none_or(|(until, since)| until <= clean_until && since <= time);
    require(sound, "a mark above what is clean")?;
    let added = state.compactions.restore(on, Compaction { finished, clean_until, mark });
    require(added, "compactions out of order")
}
