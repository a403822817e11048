//! The part of a snapshot that says which slices are written down in manifest pages.

use std::io::{self, Write};

use carnax_core::id::PartitionIndex;
use carnax_core::offset::Offset;
use carnax_core::time::Timestamp;

use super::frame::{DeadPageRow, Frame, PageRow};
use super::read::{Checked, require};
use super::write::Frames;
use crate::State;
use crate::page::{DeadPage, Page};
use crate::topic::Topic;

/// The pages of a topic, behind its partitions.
pub(super) fn write(topic: &Topic, frames: &mut Frames<'_, impl Write>) -> io::Result<()> {
    let partitions = (0..).zip(&topic.partitions);
    let rows = partitions.flat_map(|(index, partition)| {
        partition.pages.all().iter().map(move |page| (index, page_to_row(page)))
    });
    frames.put_rows(rows, Frame::Pages)
}

pub(super) fn write_dead(state: &State, frames: &mut Frames<'_, impl Write>) -> io::Result<()> {
    let rows = state.dead_pages.iter().map(|((died_at, _), dead)| {
        (*died_at, dead.on, dead.died, dead.owns_slices, page_to_row(&dead.page))
    });
    frames.put_rows(rows, Frame::DeadPages)
}

pub(super) fn read(topic: &mut Topic, rows: Vec<(u32, PageRow)>) -> Checked {
    for (index, row) in rows {
        let partition = topic.partition_mut(PartitionIndex(index)).ok_or("a page before its partition")?;
        let page = page_from_row(row);
        let first = partition
            .slices
            .some_from(Offset::ZERO, 1)
            .first()
            .map_or(partition.high_watermark, |slice| slice.base);
        let behind = partition.pages.last().is_none_or(|last| last.end == page.base);
        require(behind && page.base < page.end && page.end <= first, "pages out of order")?;
        partition.pages.push(page);
    }
    Ok(())
}

pub(super) fn read_dead(state: &mut State, rows: Vec<DeadPageRow>) -> Checked {
    for (died_at, on, died, owns_slices, row) in rows {
        let dead = DeadPage { page: page_from_row(row), on, died, owns_slices };
        require(state.dead_pages.restore(died_at, dead), "a dead page twice")?;
    }
    Ok(())
}

fn page_to_row(page: &Page) -> PageRow {
    let Page { id, incarnation, base, end, bytes, slices, size, max_timestamp, segments } = *page;
    (id, incarnation, base.0, end.0, bytes, slices, size, max_timestamp.millis(), segments.0, segments.1)
}

fn page_from_row(row: PageRow) -> Page {
    let (id, incarnation, base, end, bytes, slices, size, max_timestamp, first, last) = row;
    let (base, end, segments) = (Offset(base), Offset(end), (first, last));
    Page {
        id,
        incarnation,
        base,
        end,
        bytes,
        slices,
        size,
        max_timestamp: Timestamp::from_millis(max_timestamp),
        segments,
    }
}
