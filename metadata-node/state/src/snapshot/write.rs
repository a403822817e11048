//! Writes a state, frame by frame.

use std::io::{self, Write};
use std::ops::ControlFlow;

use carnax_core::id::TopicId;
use carnax_core::offset::Offset;
use carnax_core::time::Timestamp;

use super::compact;
use super::frame::{
    ClusterHead, End, Frame, Head, MAGIC, PartitionRow, ROWS_MAX, SessionRow, SliceRow, TopicHead, VERSION,
    slice_to_row,
};
use super::group;
use super::job;
use super::page;
use super::remembered::write_remembered;
use super::{token, usage, wakeup};
use crate::State;
use crate::entry::FeatureLevel;
use crate::partition::Partition;
use crate::topic::Topic;

/// Writes the state. The same state always gives the same bytes. Buffer `to` if small writes are dear: each frame is one
/// write of some tens of KiB and one of eight bytes.
///
/// # Errors
/// Those of `to`.
pub fn write(state: &State, to: &mut impl Write) -> io::Result<()> {
    to.write_all(&MAGIC)?;
    to.write_all(&VERSION.to_be_bytes())?;
    let mut frames = Frames { to, frames: 0, checksum: 0, content: Vec::new() };
    write_head(state, &mut frames)?;
    let State { sessions, topics, segments, .. } = state;
    if !state.settings.entries().is_empty() {
        frames.put(&Frame::Settings(state.settings.entries().clone()))?;
    }
    // One a frame: a reply to keep may be large.
    for (id, session) in sessions.iter() {
        let frontend = session.frontend.to_string();
        let row = SessionRow { id, frontend, last_seen: session.last_seen, last: session.last.clone() };
        frames.put(&Frame::Sessions(vec![row]))?;
    }
    write_remembered(state, &mut frames)?;
    let live =
        segments.iter().map(|(number, s)| (number.0, s.id, s.incarnation, s.append_time, s.size, s.live));
    frames.put_rows(live, Frame::Segments)?;
    let dead = segments.dead().iter();
    let dead = dead.map(|((died_at, number), s)| (*died_at, number.0, s.id, s.incarnation, s.size, s.died));
    frames.put_rows(dead, Frame::Dead)?;
    let rewritten = segments.rewritten().iter().map(|(number, only)| (number.0, *only));
    frames.put_rows(rewritten, Frame::Rewritten)?;
    frames.put_rows(segments.recent().iter().copied(), Frame::Recent)?;
    let former = topics.former_order.iter().filter_map(|id| Some((*id, topics.former.get(id)?.clone())));
    frames.put_rows(former, Frame::Former)?;
    for (id, topic) in &topics.by_id {
        write_topic(*id, topic, &mut frames)?;
    }
    group::write(&state.groups, &mut frames)?;
    wakeup::write(&state.wakeups, &mut frames)?;
    job::write(&state.jobs, &mut frames)?;
    compact::write(&state.compactions, &mut frames)?;
    page::write_dead(state, &mut frames)?;
    if segments.closed_before() > Timestamp::MIN {
        frames.put(&Frame::ClosedBefore(segments.closed_before()))?;
    }
    token::write(&state.tokens, &mut frames)?;
    usage::write(&state.usage, &mut frames)?;
    let end = End { frames: frames.frames, checksum: frames.checksum };
    frames.put(&Frame::End(end))
}

pub(super) struct Frames<'a, W> {
    to: &'a mut W,
    frames: u64,
    checksum: u32,
    content: Vec<u8>,
}

fn write_head(state: &State, frames: &mut Frames<'_, impl Write>) -> io::Result<()> {
    let cluster = state.cluster.as_ref().map(|cluster| ClusterHead {
        id: cluster.id,
        incarnation: cluster.incarnation,
        voters_wanted: cluster.voters_wanted,
        appends_open: cluster.appends_open,
        last_node: cluster.last_node,
        level: Some(cluster.level).filter(|level| *level > FeatureLevel::UNRECORDED),
    });
    frames.put(&Frame::Head(Head {
        applied: state.applied,
        log_time: state.log_time,
        cluster,
        last_session: state.sessions.last_id(),
        next_segment: state.segments.next_number().0,
    }))?;
    let nodes = state.cluster.iter().flat_map(|cluster| &cluster.nodes);
    frames.put_rows(nodes.map(|(id, node)| (*id, node.clone())), Frame::Nodes)
}

/// Partitions share frames while they are small; a partition with many slices goes on in frames of its own.
fn write_topic(id: TopicId, topic: &Topic, frames: &mut Frames<'_, impl Write>) -> io::Result<()> {
    frames.put(&Frame::Topic(TopicHead {
        id,
        name: topic.name.clone(),
        created: topic.created,
        config: (*topic.config).clone(),
        partitions: topic.partition_count(),
    }))?;
    let mut rows = PartitionRows::default();
    for partition in &topic.partitions {
        rows.begin(partition, frames)?;
        let mut written = Ok(());
        partition.slices.visit_from(Offset::ZERO, &mut |slice| {
            written = rows.add(slice_to_row(slice), frames);
            if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        written?;
    }
    rows.flush(frames)?;
    let tokens = (0..).zip(&topic.partitions);
    let tokens = tokens.filter_map(|(index, partition)| Some((index, partition.fencing_token.clone()?)));
    frames.put_rows(tokens, Frame::Tokens)?;
    page::write(topic, frames)
}

/// Rows that fill the next frame.
#[derive(Default)]
struct PartitionRows {
    /// Whole partitions, the last one growing.
    partitions: Vec<PartitionRow>,
    /// Slices of a partition of which a frame was written already; partitions are empty then.
    more: Vec<SliceRow>,
    rows: usize,
}

impl PartitionRows {
    fn begin(&mut self, partition: &Partition, frames: &mut Frames<'_, impl Write>) -> io::Result<()> {
        if !self.more.is_empty() || self.rows >= ROWS_MAX {
            self.flush(frames)?;
        }
        self.partitions.push((partition.log_start.0, partition.high_watermark.0, Vec::new()));
        self.rows += 1;
        Ok(())
    }

    fn add(&mut self, slice: SliceRow, frames: &mut Frames<'_, impl Write>) -> io::Result<()> {
        if self.rows >= ROWS_MAX {
            self.flush(frames)?;
        }
        match self.partitions.last_mut() {
            Some((_, _, slices)) => slices.push(slice),
            None => self.more.push(slice),
        }
        self.rows += 1;
        Ok(())
    }

    fn flush(&mut self, frames: &mut Frames<'_, impl Write>) -> io::Result<()> {
        self.rows = 0;
        if !self.partitions.is_empty() {
            frames.put(&Frame::Partitions(std::mem::take(&mut self.partitions)))?;
        }
        frames.put_rows(self.more.drain(..), Frame::Slices)
    }
}

impl<W: Write> Frames<'_, W> {
    pub(super) fn put(&mut self, frame: &Frame) -> io::Result<()> {
        self.content.clear();
        rmp_serde::encode::write_named(&mut self.content, frame).map_err(io::Error::other)?;
        let length = u32::try_from(self.content.len()).map_err(io::Error::other)?;
        self.to.write_all(&length.to_be_bytes())?;
        self.to.write_all(&crc32c::crc32c(&self.content).to_be_bytes())?;
        self.to.write_all(&self.content)?;
        self.checksum = crc32c::crc32c_append(self.checksum, &self.content);
        self.frames += 1;
        Ok(())
    }

    /// Puts the rows of a table into as many frames as they need; none for an empty table.
    pub(super) fn put_rows<T>(
        &mut self,
        mut rows: impl Iterator<Item = T>,
        frame: impl Fn(Vec<T>) -> Frame,
    ) -> io::Result<()> {
        loop {
            let some: Vec<T> = rows.by_ref().take(ROWS_MAX).collect();
            if some.is_empty() {
                return Ok(());
            }
            self.put(&frame(some))?;
        }
    }
}
