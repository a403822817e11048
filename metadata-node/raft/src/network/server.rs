//! What this node answers to others.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use carnax_core::error_code::ErrorCode;
use carnax_core::id::{LogIndex, NodeId};
use carnax_core::metadata::Call;
use carnax_core::problem::Problem;
use carnax_platform::rpc::{RequestStream, Router};
use futures::stream::{self, BoxStream, StreamExt};
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use tokio::sync::oneshot;

use super::envelope::{Desk, Envelope};
use super::messages::{
    Append, Heartbeat, ReadIndex, RequestPreVote, RequestVote, SendSnapshot, TransferLeader,
};
use super::snapshot;
use crate::read::leader_read_index;
use crate::snapshot_store::SnapshotStore;
use crate::types::{Raft, Types};

/// The calls of a node, to be mounted on its server.
pub(crate) fn router(raft: &Raft, desk: &Desk, store: &SnapshotStore) -> Router {
    let calls = Calls { raft: raft.clone(), desk: desk.clone() };
    let (append, install) = (calls.clone(), (calls.clone(), store.clone()));
    Router::new()
        .unary(calls.handle(
            |call: Heartbeat| call.0,
            |raft, rpc| async move { raft.append_entries(rpc).await.map_err(|error| stopped(&error)) },
        ))
        .unary(calls.handle(
            |call: RequestVote| call.0,
            |raft, rpc| async move { raft.vote(rpc).await.map_err(|error| stopped(&error)) },
        ))
        .unary(calls.handle(
            |call: RequestPreVote| call.0,
            |raft, rpc| async move { raft.pre_vote(rpc).await.map_err(|error| stopped(&error)) },
        ))
        .unary(calls.handle(
            |call: TransferLeader| call.0,
            |raft, request| async move {
                raft.handle_transfer_leader(request).await.map_err(|error| stopped(&error))
            },
        ))
        .unary(calls.handle(
            |call: ReadIndex| call.0,
            |raft, ()| async move { leader_read_index(&raft).await.map(LogIndex) },
        ))
        .bidirectional::<Append, _, _>(move |requests| {
            let calls = append.clone();
            async move { Ok(calls.append(requests)) }
        })
        .bidirectional::<SendSnapshot, _, _>(move |parts| {
            let (calls, store) = install.clone();
            let answer = snapshot::receive(calls.raft, calls.desk, store, parts);
            async move { Ok(stream::once(answer).boxed()) }
        })
}

/// A node that has stopped.
pub(super) fn stopped(error: &impl std::fmt::Display) -> Problem {
    Problem::new(ErrorCode::Unavailable, format!("the node has stopped: {error}"))
}

#[derive(Clone)]
struct Calls {
    raft: Raft,
    desk: Desk,
}

impl Calls {
    /// Opens the envelope, asks `answer`, seals the reply for the sender.
    fn handle<C, Q, R, F>(
        &self,
        take: impl Fn(C) -> Envelope<Q> + Clone + Send + Sync + 'static,
        answer: impl Fn(Raft, Q) -> F + Clone + Send + Sync + 'static,
    ) -> impl Fn(C) -> futures::future::BoxFuture<'static, Result<Envelope<R>, Problem>>
    + Clone
    + Send
    + Sync
    + 'static
    where
        C: Call<Reply = Envelope<R>>,
        Q: Send + 'static,
        R: Send + 'static,
        F: Future<Output = Result<R, Problem>> + Send + 'static,
    {
        let calls = self.clone();
        move |call| {
            let opened = calls.desk.open(take(call));
            let (calls, answer) = (calls.clone(), answer.clone());
            Box::pin(async move {
                let (from, question) = opened?;
                Ok(calls.desk.seal(from, answer(calls.raft, question).await?))
            })
        }
    }

    /// Feeds the requests to openraft, which answers them in their order. Ends at the first that is not for this node.
    fn append(
        self,
        requests: RequestStream<Envelope<AppendEntriesRequest<Types>>>,
    ) -> BoxStream<'static, Result<Envelope<StreamAppendResult<Types>>, Problem>> {
        let (refused, refusal) = oneshot::channel();
        let leader = Arc::new(AtomicU64::new(0));
        let input =
            Input { requests, refused: Some(refused), desk: self.desk.clone(), leader: Arc::clone(&leader) };
        let opened = stream::unfold(input, |mut input| async move { Some((input.next().await?, input)) });
        let desk = self.desk;
        let replies = self.raft.stream_append(opened).map(move |result| {
            let result = result.map_err(|error| stopped(&error))?;
            Ok(desk.seal(NodeId(leader.load(Ordering::Relaxed)), result))
        });
        // After the replies to what was taken comes the reason why no more was.
        let refusal = stream::once(refusal).filter_map(|refusal| std::future::ready(refusal.ok().map(Err)));
        replies.chain(refusal).boxed()
    }
}

/// The appends of one leader.
struct Input {
    requests: RequestStream<Envelope<AppendEntriesRequest<Types>>>,
    refused: Option<oneshot::Sender<Problem>>,
    desk: Desk,
    /// Its id, once it has spoken.
    leader: Arc<AtomicU64>,
}

impl Input {
    async fn next(&mut self) -> Option<AppendEntriesRequest<Types>> {
        let opened = self.requests.next().await?.and_then(|envelope| self.desk.open(envelope));
        match opened {
            Ok((leader, request)) => {
                self.leader.store(leader.0, Ordering::Relaxed);
                Some(request)
            }
            Err(problem) => {
                // Fails if the leader has hung up and needs no reason.
                let _ = self.refused.take()?.send(problem);
                None
            }
        }
    }
}
