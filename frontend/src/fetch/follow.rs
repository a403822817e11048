//! Streams of server-sent events: one partition, or all partitions of a topic.
//!
//! A stream makes its next piece only when the last one was taken, so that a slow client costs no memory. The id of an
//! event says where to go on behind it. While nothing comes, comments show that the connection lives. A problem is an
//! event of its own and ends the stream.

use std::collections::{BTreeSet, VecDeque};
use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use carnax_core::error_code::ErrorCode;
use carnax_core::id::{PartitionIndex, TopicId};
use carnax_core::metadata::FetchFrom;
use carnax_core::name::TokenId;
use carnax_core::offset::Offset;
use carnax_core::problem::{Problem, ProblemDocument};
use carnax_core::topic::TopicName;
use futures::stream::{BoxStream, StreamExt};

use super::{Fetch, FetchRequest, Fetched};
use crate::http::json_record::Encoding;
use crate::metadata_client::feed::{Changed, Registration};

/// Bytes of batches behind one piece of a stream.
const PIECE_BYTES: u64 = 256 * 1024;
/// Partitions of a topic that can be followed as a whole: every event carries the offsets of all.
pub(crate) const FOLLOWED_PARTITIONS_MAX: u32 = 256;

/// Pieces of a body.
pub(crate) type Pieces = BoxStream<'static, Result<Bytes, Infallible>>;

/// Where a follower of a whole topic is: the id of its events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) topic_id: TopicId,
    /// The next offset of each partition, in order.
    pub(crate) next: Vec<Offset>,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.topic_id)?;
        for (index, offset) in self.next.iter().enumerate() {
            write!(f, "{}{offset}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl FromStr for Cursor {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let parse = || {
            let (topic_id, offsets) = text.split_once(':')?;
            let next: Option<Vec<Offset>> = offsets
                .split(',')
                .map(|offset| offset.parse().ok().map(Offset).filter(|offset| *offset <= Offset::MAX))
                .collect();
            Some(Self { topic_id: topic_id.parse().ok()?, next: next? })
        };
        let few = |cursor: &Self| cursor.next.len() <= FOLLOWED_PARTITIONS_MAX as usize;
        parse().filter(few).ok_or_else(|| {
            Problem::new(
                ErrorCode::Malformed,
                "Last-Event-ID is not one that a stream of this topic gave out",
            )
        })
    }
}

/// Follows one partition from the request's position on; its first fetch has been done.
pub(crate) fn follow_partition(
    fetch: Arc<Fetch>,
    mut request: FetchRequest,
    first: Fetched,
    encoding: Encoding,
) -> Pieces {
    let stream = async_stream::stream! {
        let mut fetched = Ok(first);
        loop {
            let written = match &fetched {
                Ok(fetched) => {
                    request.topic_id = Some(fetched.topic_id);
                    fetched.write_events(encoding, None, request.max_records, |next| next.to_string())
                }
                Err(problem) => Err(Problem::clone(problem)),
            };
            // The memory of the fetch is given back before the client takes the piece.
            drop(fetched);
            match written {
                Ok(written) => {
                    request.from = FetchFrom::Offset(written.next_offset);
                    yield Ok(if written.body.is_empty() { heartbeat() } else { written.body });
                }
                Err(problem) if may_pass(problem.code) => yield Ok(pause(&fetch).await),
                Err(problem) => {
                    yield Ok(problem_event(&problem));
                    return;
                }
            }
            if fetch.draining.is_cancelled() {
                return;
            }
            request.wait = fetch.settings.stream_heartbeat;
            fetched = fetch.fetch(request.clone()).await;
        }
    };
    stream.boxed()
}

/// Follows all partitions of a topic.
#[derive(Debug)]
pub(crate) struct TopicFollower {
    pub(crate) fetch: Arc<Fetch>,
    pub(crate) topic: TopicName,
    pub(crate) cursor: Cursor,
    pub(crate) encoding: Encoding,
    pub(crate) token: Option<TokenId>,
}

impl TopicFollower {
    pub(crate) fn into_pieces(mut self) -> Pieces {
        let stream = async_stream::stream! {
            let registration = self.fetch.feed.register(self.cursor.topic_id, None);
            let mut pending: VecDeque<PartitionIndex> = self.all();
            yield Ok(Bytes::from(format!("id: {}\nevent: start\ndata: {{}}\n\n", self.cursor)));
            loop {
                while let Some(partition) = pending.pop_front() {
                    if self.fetch.draining.is_cancelled() {
                        return;
                    }
                    match self.next_piece(partition).await {
                        Ok((piece, caught_up)) => {
                            if !caught_up {
                                pending.push_back(partition);
                            }
                            if let Some(piece) = piece {
                                yield Ok(piece);
                            }
                        }
                        Err(problem) if may_pass(problem.code) => {
                            pending.push_back(partition);
                            yield Ok(pause(&self.fetch).await);
                        }
                        Err(problem) => {
                            yield Ok(problem_event(&problem));
                            return;
                        }
                    }
                }
                match self.wait(&registration).await {
                    Ok(Some(changed)) => pending.extend(changed),
                    Ok(None) if self.fetch.draining.is_cancelled() => return,
                    Ok(None) => yield Ok(heartbeat()),
                    Err(problem) => {
                        yield Ok(problem_event(&problem));
                        return;
                    }
                }
            }
        };
        stream.boxed()
    }

    /// Reads on in one partition; says whether it is read to its end.
    async fn next_piece(&mut self, partition: PartitionIndex) -> Result<(Option<Bytes>, bool), Problem> {
        let position = partition.0 as usize;
        let request = FetchRequest {
            topic: self.topic.clone(),
            topic_id: Some(self.cursor.topic_id),
            partition,
            from: FetchFrom::Offset(self.cursor.next[position]),
            max_bytes: PIECE_BYTES,
            max_records: carnax_core::limits::FETCH_RECORDS_MAX,
            wait: Duration::ZERO,
            token: self.token.clone(),
        };
        let fetched = self.fetch.fetch(request).await?;
        let cursor = &mut self.cursor;
        let written = fetched.write_events(self.encoding, Some(partition), u32::MAX, |next| {
            cursor.next[position] = next;
            cursor.to_string()
        })?;
        self.cursor.next[position] = written.next_offset;
        let piece = (!written.body.is_empty()).then_some(written.body);
        Ok((piece, fetched.caught_up(written.next_offset)))
    }

    /// Waits for commits; says which partitions to look at, or nothing when it is time for a sign of life.
    async fn wait(&mut self, registration: &Registration) -> Result<Option<Vec<PartitionIndex>>, Problem> {
        let changed = tokio::select! {
            changed = registration.changed() => changed,
            () = self.fetch.draining.cancelled() => return Ok(None),
            () = tokio::time::sleep(self.fetch.settings.stream_heartbeat) => return Ok(None),
        };
        let known = self.cursor.next.len();
        let partitions: BTreeSet<PartitionIndex> = match changed {
            Changed::Nothing => BTreeSet::new(),
            Changed::Partitions(partitions)
                if partitions.iter().all(|partition| (partition.0 as usize) < known) =>
            {
                partitions
            }
            Changed::Partitions(_) | Changed::Everything => {
                self.grow().await?;
                self.all()
            }
        };
        Ok(Some(partitions.into_iter().collect()))
    }

    /// Takes in partitions that the topic got meanwhile; they are read from their beginning.
    async fn grow(&mut self) -> Result<(), Problem> {
        let topic = self.fetch.topics.refresh(&self.topic).await?;
        if topic.id != self.cursor.topic_id {
            return Err(Problem::new(ErrorCode::TopicRecreated, "the topic was deleted and made again")
                .with(|facts| facts.topic_id = Some(topic.id)));
        }
        if topic.partition_count > FOLLOWED_PARTITIONS_MAX {
            return Err(too_many_partitions(topic.partition_count));
        }
        let count = (topic.partition_count as usize).max(self.cursor.next.len());
        self.cursor.next.resize(count, Offset::ZERO);
        Ok(())
    }

    fn all<T: FromIterator<PartitionIndex>>(&self) -> T {
        (0u32..).take(self.cursor.next.len()).map(PartitionIndex).collect()
    }
}

pub(crate) fn too_many_partitions(count: u32) -> Problem {
    let detail =
        format!("a topic of {count} partitions cannot be followed as a whole; follow its partitions");
    Problem::new(ErrorCode::InvalidValue, detail)
        .with(|facts| facts.limit = Some(FOLLOWED_PARTITIONS_MAX.into()))
}

/// Whether a stream outlives this failure.
fn may_pass(code: ErrorCode) -> bool {
    code.retryable() && code != ErrorCode::TopicRecreated
}

/// Waits a little after a failure that may pass; the comment shows that the connection lives.
async fn pause(fetch: &Fetch) -> Bytes {
    tokio::select! {
        () = tokio::time::sleep(Duration::from_millis(500)) => {}
        () = fetch.draining.cancelled() => {}
    }
    heartbeat()
}

fn heartbeat() -> Bytes {
    Bytes::from_static(b": still here\n\n")
}

fn problem_event(problem: &Problem) -> Bytes {
    let document = ProblemDocument::from_problem(problem, None);
    let json = serde_json::to_string(&document).unwrap_or_else(|_| "{}".to_owned());
    Bytes::from(format!("event: problem\ndata: {json}\n\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_read_as_written_and_wrong_ones_are_refused() {
        let topic_id = TopicId::from_bytes([7; 16]);
        let cursor = Cursor { topic_id, next: vec![Offset(0), Offset(41), Offset::MAX] };
        let text = cursor.to_string();
        assert_eq!(text.parse(), Ok(cursor));
        let many = Cursor { topic_id, next: vec![Offset(1); 257] }.to_string();
        for wrong in ["", "41", ":", "x:1", &format!("{topic_id}:"), &format!("{topic_id}:-1"), &many] {
            assert!(wrong.parse::<Cursor>().is_err(), "{wrong}");
        }
    }
}
