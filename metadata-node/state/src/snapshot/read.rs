//! Reads a state, frame by frame, and believes nothing that it reads.

use std::io::{self, Read};
use std::sync::Arc;

use carnax_core::id::{NodeId, PartitionIndex, TopicId};
use carnax_core::limits;
use carnax_core::name::FencingToken;
use carnax_core::offset::Offset;
use carnax_core::time::Timestamp;
use carnax_core::topic::TopicName;

use super::compact;
use super::frame::{
    DeadRow, FRAME_BYTES_MAX, Frame, Head, MAGIC, PartitionRow, SegmentRow, SessionRow, SliceRow, TopicHead,
    VERSION, slice_from_row,
};
use super::group;
use super::job;
use super::page;
use super::remembered::{add_keys, add_producers};
use super::{token, usage, wakeup};
use crate::State;
use crate::deliberate_bugs::{self, DeliberateBug};
use crate::entry::FeatureLevel;
use crate::node::{Cluster, Node};
use crate::partition::Partition;
use crate::segment::{DeadSegment, Segment, SegmentNumber};
use crate::session::Session;
use crate::settings::Settings;
use crate::topic::{Config, FORMER_MAX, Topic};

/// How much a reader takes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the whole snapshot.
    pub bytes_max: u64,
}

/// Bytes that are no whole, unchanged snapshot, or none that this build may read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The source failed, or ended too early.
    #[error("snapshot cannot be read or is cut short")]
    Io(#[from] io::Error),
    /// The bytes do not begin as a snapshot does.
    #[error("not a snapshot of a metadata node")]
    NotASnapshot,
    /// A format that this build does not know: a newer build wrote it.
    #[error("snapshot has the unknown version {version}")]
    UnknownVersion {
        /// The version it claims.
        version: u32,
    },
    /// More bytes than the reader takes.
    #[error("snapshot is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// The bytes are not the ones that were written.
    #[error("snapshot fails its checksum in frame {frame}")]
    Checksum {
        /// Which frame, from 0.
        frame: u64,
    },
    /// A frame whose checksum is right but whose content is not understood.
    #[error("snapshot is not understood in frame {frame}")]
    Content {
        /// Which frame, from 0.
        frame: u64,
        /// Why.
        #[source]
        source: rmp_serde::decode::Error,
    },
    /// Frames that contradict each other.
    #[error("snapshot contradicts itself in frame {frame}: {what}")]
    Contradiction {
        /// Which frame, from 0.
        frame: u64,
        /// What is wrong.
        what: &'static str,
    },
}

/// Reads what [`write`](super::write()) wrote, to the end of the source. Buffer `from` if small reads are dear.
///
/// Allocates no more than a frame beside the state, and never more than about what the source really holds.
///
/// # Errors
/// The source fails, or what it holds is not a whole, unchanged snapshot of a version that this build knows.
pub fn read(from: &mut impl Read, limits: Limits) -> Result<State, ReadError> {
    let mut start = [0; 12];
    from.read_exact(&mut start)?;
    let (magic, version) = start.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(ReadError::NotASnapshot);
    }
    let version = version.iter().fold(0_u32, |sum, byte| (sum << 8) | u32::from(*byte));
    if version != VERSION {
        return Err(ReadError::UnknownVersion { version });
    }
    let mut frames =
        Frames { from, left: limits.bytes_max, limits, number: 0, checksum: 0, content: Vec::new() };
    let Frame::Head(head) = frames.next()? else {
        return Err(frames.contradiction("no head"));
    };
    let mut building = Building { state: begin(&head), topic: None, groups: group::Reading::default() };
    loop {
        let (number, checksum) = (frames.number, frames.checksum);
        match frames.next()? {
            Frame::End(end) => {
                if end.frames != number || end.checksum != checksum {
                    return Err(frames.contradiction("frames are missing or exchanged"));
                }
                building.end_topic().map_err(|what| frames.contradiction(what))?;
                building.groups.end(&mut building.state).map_err(|what| frames.contradiction(what))?;
                if frames.from.read(&mut [0])? != 0 {
                    return Err(frames.contradiction("bytes behind the end"));
                }
                if deliberate_bugs::makes(DeliberateBug::ForgetDuplicates) {
                    (building.state.producers, building.state.keys) = Default::default();
                }
                return Ok(building.state);
            }
            frame => building.add(frame).map_err(|what| frames.contradiction(what))?,
        }
    }
}

struct Frames<'a, R> {
    from: &'a mut R,
    /// Bytes that may still come.
    left: u64,
    limits: Limits,
    /// Of the next frame.
    number: u64,
    /// Of the contents of all frames so far.
    checksum: u32,
    content: Vec<u8>,
}

impl<R: Read> Frames<'_, R> {
    fn next(&mut self) -> Result<Frame, ReadError> {
        let mut header = [0; 8];
        self.from.read_exact(&mut header)?;
        let [l0, l1, l2, l3, checksum @ ..] = header;
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        let too_large = ReadError::TooLarge { limit: self.limits.bytes_max };
        self.left = self.left.checked_sub(u64::from(length) + 8).ok_or(too_large)?;
        let frame = self.number;
        if length > FRAME_BYTES_MAX {
            return Err(self.contradiction("a frame is too long"));
        }
        self.content.clear();
        // The buffer grows with what arrives, not with what the length claims.
        let arrived = self.from.by_ref().take(u64::from(length)).read_to_end(&mut self.content)?;
        if arrived as u64 != u64::from(length) {
            return Err(ReadError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        if crc32c::crc32c(&self.content) != u32::from_be_bytes(checksum) {
            return Err(ReadError::Checksum { frame });
        }
        self.checksum = crc32c::crc32c_append(self.checksum, &self.content);
        self.number += 1;
        rmp_serde::from_slice(&self.content).map_err(|source| ReadError::Content { frame, source })
    }

    fn contradiction(&self, what: &'static str) -> ReadError {
        ReadError::Contradiction { frame: self.number.saturating_sub(1), what }
    }
}

/// A state of which not all frames were read yet.
struct Building {
    state: State,
    /// The topic whose partitions are being read, and how many it must get.
    topic: Option<(TopicId, Topic, u32)>,
    groups: group::Reading,
}

fn begin(head: &Head) -> State {
    let mut state = State { applied: head.applied, log_time: head.log_time, ..State::default() };
    state.cluster = head.cluster.as_ref().map(|cluster| Cluster {
        id: cluster.id,
        incarnation: cluster.incarnation,
        level: cluster.level.unwrap_or(FeatureLevel::UNRECORDED),
        voters_wanted: cluster.voters_wanted,
        appends_open: cluster.appends_open,
        nodes: imbl::OrdMap::new(),
        last_node: cluster.last_node,
    });
    state.sessions.restore_last_id(head.last_session);
    state.segments.restore_next(head.next_segment);
    state
}

pub(super) type Checked = Result<(), &'static str>;

impl Building {
    fn add(&mut self, frame: Frame) -> Checked {
        match frame {
            Frame::Head(_) | Frame::End(_) => Err("a second head"),
            Frame::Nodes(nodes) => self.add_nodes(nodes),
            Frame::Settings(entries) => {
                self.state.settings =
                    Settings::read(&entries).map_err(|_| "settings that are not understood")?;
                Ok(())
            }
            Frame::Sessions(sessions) => {
                sessions.into_iter().try_for_each(|session| self.add_session(session))
            }
            Frame::Producers(rows) => add_producers(&mut self.state, rows),
            Frame::Keys(rows) => add_keys(&mut self.state, rows),
            Frame::Segments(segments) => segments.into_iter().try_for_each(|row| self.add_segment(row)),
            Frame::Dead(segments) => {
                segments.into_iter().for_each(|row| self.add_dead(row));
                Ok(())
            }
            Frame::Recent(ids) => {
                ids.into_iter().for_each(|id| self.state.segments.restore_recent(id));
                Ok(())
            }
            Frame::Groups(head) => {
                self.end_topic()?;
                self.groups.begin(&mut self.state, &head)
            }
            Frame::Group(head) => self.groups.begin_group(&mut self.state, head),
            Frame::Member(row) => self.groups.add_member(&self.state, *row),
            Frame::Offsets(rows) => self.groups.add_offsets(&self.state, rows),
            Frame::Wakeups(rows) => {
                self.end_topic()?;
                rows.into_iter().try_for_each(|row| wakeup::add(&mut self.state, row))
            }
            Frame::Jobs(row) => job::read(&mut self.state, row),
            Frame::Seats(rows) => rows.into_iter().try_for_each(|row| job::read_seat(&mut self.state, row)),
            Frame::Compactions(rows) => {
                self.end_topic()?;
                rows.into_iter().try_for_each(|row| compact::add(&mut self.state, row))
            }
            Frame::Rewritten(rows) => rows.into_iter().try_for_each(|(number, only)| {
                let added = self.state.segments.restore_rewritten(SegmentNumber(number), only);
                require(added, "a rewritten segment twice, or before it was committed")
            }),
            Frame::ClosedBefore(time) => self.close_before(time),
            Frame::AccessTokens(rows) => {
                rows.into_iter().try_for_each(|row| token::add(&mut self.state, row))
            }
            Frame::Usage(_) | Frame::TopicUsage(_) | Frame::TokenUsage(_) | Frame::UsageReporters(_) => {
                self.end_topic()?;
                usage::add(&mut self.state, frame)
            }
            Frame::Former(former) => self.add_former(former),
            Frame::Topic(head) => self.begin_topic(head),
            Frame::Partitions(rows) => rows.into_iter().try_for_each(|row| self.add_partition(row)),
            Frame::Slices(rows) => {
                let (_, topic, _) = self.topic.as_mut().ok_or("slices before a topic")?;
                let partition = topic.partitions.back_mut().ok_or("slices before a partition")?;
                self.state.topics.slice_count += rows.len() as u64;
                add_slices(Arc::make_mut(partition), rows)
            }
            Frame::Tokens(rows) => self.add_tokens(rows),
            Frame::Pages(rows) => {
                let (_, topic, _) = self.topic.as_mut().ok_or("pages before a topic")?;
                self.state.topics.page_count += rows.len() as u64;
                page::read(topic, rows)
            }
            Frame::DeadPages(rows) => page::read_dead(&mut self.state, rows),
        }
    }

    fn close_before(&mut self, time: Timestamp) -> Checked {
        require(time <= self.state.log_time, "a deadline in the future")?;
        self.state.segments.close_before(time);
        Ok(())
    }

    fn add_former(&mut self, former: Vec<(TopicId, TopicName)>) -> Checked {
        former.into_iter().try_for_each(|(id, name)| {
            require(self.state.topics.former.len() < FORMER_MAX, "too many former topics")?;
            require(!self.state.topics.former.contains_key(&id), "a former topic twice")?;
            self.state.topics.remember(id, name);
            Ok(())
        })
    }

    fn add_nodes(&mut self, nodes: Vec<(NodeId, Node)>) -> Checked {
        let cluster = self.state.cluster.as_mut().ok_or("nodes without a cluster")?;
        for (id, node) in nodes {
            require(id <= cluster.last_node, "a node id that was not given out")?;
            cluster.nodes.insert(id, node);
        }
        require(cluster.nodes.len() <= limits::NODES_MAX, "too many nodes")
    }

    fn add_session(&mut self, row: SessionRow) -> Checked {
        let SessionRow { id, frontend, last_seen, last } = row;
        let sessions = &mut self.state.sessions;
        require(sessions.len() < limits::SESSIONS_MAX, "too many sessions")?;
        require(id <= sessions.last_id(), "a session id that was not given out")?;
        require(sessions.iter().next_back().is_none_or(|(last, _)| last < id), "sessions out of order")?;
        sessions.restore(id, Session { frontend: frontend.into(), last_seen, last });
        Ok(())
    }

    fn add_segment(&mut self, row: SegmentRow) -> Checked {
        let (number, id, incarnation, append_time, size, live) = row;
        let segment = Segment { id, incarnation, append_time, size, live };
        let added = self.state.segments.restore_live(SegmentNumber(number), segment);
        require(added, "segments out of order, or one without slices")
    }

    fn add_dead(&mut self, row: DeadRow) {
        let (died_at, number, id, incarnation, size, died) = row;
        let dead = DeadSegment { id, incarnation, size, died };
        self.state.segments.restore_dead(died_at, SegmentNumber(number), dead);
    }

    fn begin_topic(&mut self, head: TopicHead) -> Checked {
        require(!self.groups.begun(), "a topic behind groups")?;
        self.end_topic()?;
        let TopicHead { id, name, created, config, partitions } = head;
        let config = Config::read(&config).map_err(|_| "a configuration that is not understood")?;
        let topics = &self.state.topics;
        require(topics.by_id.len() < limits::TOPICS_MAX, "too many topics")?;
        require(topics.by_id.get_max().is_none_or(|(last, _)| *last < id), "topics out of order")?;
        require(!topics.by_name.contains_key(&name), "a topic name twice")?;
        require((1..=limits::TOPIC_PARTITIONS_MAX).contains(&partitions), "too many partitions in a topic")?;
        let Config { typed, entries } = config;
        let topic =
            Topic { name, created, config: Arc::new(entries), typed, partitions: imbl::Vector::new() };
        self.topic = Some((id, topic, partitions));
        Ok(())
    }

    fn add_partition(&mut self, row: PartitionRow) -> Checked {
        let (log_start, high_watermark, slices) = row;
        let (_, topic, wanted) = self.topic.as_mut().ok_or("partitions before a topic")?;
        require(topic.partition_count() < *wanted, "more partitions than the topic has")?;
        let (log_start, high_watermark) = (Offset(log_start), Offset(high_watermark));
        require(log_start <= high_watermark && high_watermark <= Offset::MAX, "bounds out of order")?;
        let mut partition = Partition { log_start, high_watermark, ..Partition::default() };
        self.state.topics.slice_count += slices.len() as u64;
        add_slices(&mut partition, slices)?;
        topic.partitions.push_back(Arc::new(partition));
        Ok(())
    }

    fn add_tokens(&mut self, rows: Vec<(u32, FencingToken)>) -> Checked {
        let (_, topic, _) = self.topic.as_mut().ok_or("fencing tokens before a topic")?;
        for (partition, token) in rows {
            let known = topic.partition_mut(PartitionIndex(partition));
            let known = known.ok_or("a fencing token before its partition")?;
            require(known.fencing_token.replace(token).is_none(), "a fencing token twice")?;
        }
        Ok(())
    }

    fn end_topic(&mut self) -> Checked {
        let Some((id, topic, partitions)) = self.topic.take() else { return Ok(()) };
        require(topic.partition_count() == partitions, "fewer partitions than the topic has")?;
        self.state.topics.insert(id, topic);
        let in_bounds = self.state.topics.partition_count <= limits::PARTITIONS_MAX as u64;
        require(in_bounds, "too many partitions")
    }
}

fn add_slices(partition: &mut Partition, rows: Vec<SliceRow>) -> Checked {
    for row in rows {
        let slice = slice_from_row(row);
        let behind = partition.slices.last().is_none_or(|last| last.end() <= slice.base);
        let inside = slice.records > 0 && slice.end() <= partition.high_watermark;
        require(behind && inside, "slices out of order or above the high watermark")?;
        partition.slices.push(slice);
    }
    Ok(())
}

pub(super) fn require(holds: bool, what: &'static str) -> Checked {
    if holds { Ok(()) } else { Err(what) }
}
