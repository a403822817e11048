//! The pipelined stream of appends to one follower.
//!
//! Requests are taken from openraft only while it polls the replies, and never after it has dropped them: what is taken
//! counts as sent, and a new stream starts from what was answered. The first one is taken before the connection is made:
//! openraft backs off from a peer while it is asked for a request, so a stream that fails without asking would be
//! opened again at once, for ever.
//!
//! A follower that is slower than the log grows would keep the log from being purged for as long as it streams. Its stream
//! is cut once it asks for entries below the floor, which a snapshot has made superfluous: openraft then sends that.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use carnax_core::id::NodeId;
use carnax_platform::rpc::{Channel, ReplyStream};
use futures::stream::{self, BoxStream, Stream, StreamExt};
use openraft::errors::{NetworkError, RPCError, Unreachable};
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use super::client::failed;
use super::envelope::{Desk, Envelope};
use super::messages::Append;
use crate::types::Types;

/// Requests that may be on their way.
const PIPELINE_MAX: usize = 64;

type Request = AppendEntriesRequest<Types>;
type Reply = Result<StreamAppendResult<Types>, RPCError<Types>>;

/// The lowest index that is still streamed to followers. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Floor(Arc<AtomicU64>);

impl Floor {
    pub(crate) fn set(&self, index: u64) {
        self.0.store(index, Ordering::Relaxed);
    }

    fn is_above(&self, request: &Request) -> bool {
        request.prev_log_id.is_some_and(|prev| prev.index < self.0.load(Ordering::Relaxed))
    }
}

/// Sends the requests and gives the replies in their order. Ends with the requests, or with an error if the follower says
/// nothing for `idle_max` while a request waits, or needs entries below `floor`.
pub(super) async fn stream(
    channel: &Channel,
    desk: &Desk,
    target: NodeId,
    mut requests: impl Stream<Item = Request> + Send + Unpin + 'static,
    idle_max: Duration,
    floor: Floor,
) -> Result<BoxStream<'static, Reply>, RPCError<Types>> {
    let Some(first) = requests.next().await else { return Ok(stream::empty().boxed()) };
    let requests = stream::iter([first]).chain(requests);
    let (sender, receiver) = mpsc::channel(PIPELINE_MAX);
    let replies = channel
        .bidirectional::<Append>(ReceiverStream::new(receiver), idle_max)
        .await
        .map_err(|error| failed(&error))?;
    let pipeline = Pipeline {
        desk: desk.clone(),
        target,
        requests,
        sender: Some(sender),
        replies,
        waiting: VecDeque::new(),
        idle_max,
        floor,
    };
    Ok(stream::unfold(Some(pipeline), |pipeline| async move {
        let mut pipeline = pipeline?;
        let reply = pipeline.next_reply().await?;
        let goes_on = matches!(reply, Ok(Ok(_)));
        Some((reply, goes_on.then_some(pipeline)))
    })
    .boxed())
}

struct Pipeline<S> {
    desk: Desk,
    target: NodeId,
    requests: S,
    /// Gone once all requests are sent.
    sender: Option<mpsc::Sender<Envelope<Request>>>,
    replies: ReplyStream<Envelope<StreamAppendResult<Types>>>,
    /// When each request that has no reply yet was sent.
    waiting: VecDeque<Instant>,
    idle_max: Duration,
    floor: Floor,
}

impl<S: Stream<Item = Request> + Unpin> Pipeline<S> {
    /// Sends requests until a reply comes; `None` when all are answered.
    async fn next_reply(&mut self) -> Option<Reply> {
        loop {
            let idle_max = self.idle_max;
            let deadline = self.waiting.front().map(|sent| *sent + idle_max);
            let may_send = self.waiting.len() < PIPELINE_MAX && self.sender.is_some();
            if self.sender.is_none() && self.waiting.is_empty() {
                return None;
            }
            tokio::select! {
                biased;
                reply = self.replies.next() => return Some(self.replied(reply)),
                request = self.requests.next(), if may_send => {
                    if let Some(request) = &request && self.floor.is_above(request) {
                        return Some(Err(RPCError::Unreachable(Unreachable::from_string("the follower lags too far"))));
                    }
                    self.send(request);
                }
                () = tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    return Some(Err(broken(format!("no reply within {idle_max:?}"))));
                }
            }
        }
    }

    fn send(&mut self, request: Option<Request>) {
        let sent = request.is_some_and(|request| {
            let envelope = self.desk.seal(self.target, request);
            // There is room: no more requests than it holds are without a reply. If the transport is gone, so are the
            // replies, and they tell.
            self.sender.as_ref().is_some_and(|sender| sender.try_send(envelope).is_ok())
        });
        if sent {
            self.waiting.push_back(Instant::now());
        } else {
            self.sender = None;
        }
    }

    fn replied(
        &mut self,
        reply: Option<Result<Envelope<StreamAppendResult<Types>>, carnax_platform::rpc::CallError>>,
    ) -> Reply {
        let Some(reply) = reply else { return Err(broken("the follower ended the stream".to_owned())) };
        let (_, result) = self
            .desk
            .open(reply.map_err(|error| failed(&error))?)
            .map_err(|problem| failed(&problem.into()))?;
        if self.waiting.pop_front().is_none() {
            return Err(broken("a reply without a request".to_owned()));
        }
        Ok(result)
    }
}

fn broken(why: String) -> RPCError<Types> {
    RPCError::Network(NetworkError::from_string(why))
}

#[cfg(test)]
mod tests {
    use carnax_core::id::ClusterId;
    use carnax_core::time::Timestamp;
    use carnax_platform::clock::SystemClock;
    use carnax_platform::network::{Network, TcpNetwork};
    use carnax_platform::rpc::{ChannelSettings, Router, serve};

    use super::*;
    use crate::settings::RaftSettings;
    use crate::types::{LeaderId, LogId, Vote};

    fn desk() -> Desk {
        let settings = RaftSettings::new(ClusterId::from_parts(Timestamp::EPOCH, 1), NodeId(1));
        Desk::new(&settings, Arc::new(SystemClock::new()))
    }

    fn request() -> Request {
        let leader_id = LeaderId { term: 1, node_id: 1 };
        Request {
            vote: Vote { leader_id, committed: true },
            prev_log_id: Some(LogId::new(leader_id, 7)),
            entries: Vec::new(),
            leader_commit: None,
        }
    }

    /// What the leader makes of a follower that takes appends and never answers.
    async fn first_reply(floor: u64) -> RPCError<Types> {
        let silent = Router::new().bidirectional::<Append, _, _>(|_| async { Ok(stream::pending().boxed()) });
        let listener = TcpNetwork.listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_address().unwrap().to_string();
        tokio::spawn(serve(listener, silent, std::future::pending()));

        let channel = Channel::new(Arc::new(TcpNetwork), &address, &ChannelSettings::default()).unwrap();
        let shared = Floor::default();
        shared.set(floor);
        let requests = stream::iter([request()]).chain(stream::pending());
        let idle_max = Duration::from_millis(50);
        let replies = stream(&channel, &desk(), NodeId(2), requests, idle_max, shared).await;
        replies.unwrap().next().await.unwrap().unwrap_err()
    }

    #[tokio::test]
    async fn a_silent_follower_and_one_that_lags_too_far_are_cut_off() {
        assert!(matches!(first_reply(7).await, RPCError::Network(_)), "silent");
        assert!(matches!(first_reply(8).await, RPCError::Unreachable(_)), "below the floor");
    }

    #[tokio::test]
    async fn a_peer_that_cannot_be_reached_is_tried_only_as_often_as_requests_are_given() {
        let listener = TcpNetwork.listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_address().unwrap().to_string();
        drop(listener);
        let channel = Channel::new(Arc::new(TcpNetwork), &address, &ChannelSettings::default()).unwrap();
        let asked = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&asked);
        let requests = stream::iter([request()]).inspect(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        let patience = Duration::from_secs(10);
        let failed = stream(&channel, &desk(), NodeId(2), requests, patience, Floor::default()).await;
        assert!(failed.is_err(), "nobody listens there");
        assert_eq!(asked.load(Ordering::Relaxed), 1, "openraft backs off while it is asked");
    }
}
