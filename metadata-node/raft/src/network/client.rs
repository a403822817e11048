//! What this node says to others.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use carnax_core::id::{LogIndex, NodeId};
use carnax_core::metadata::Call;
use carnax_platform::network::Network;
use carnax_platform::rpc::{CallError, Channel, ChannelSettings};
use futures::Stream;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RaftNetworkFactory};

use super::append::Floor;
use super::envelope::{Desk, Envelope};
use super::messages::{Heartbeat, ReadIndex, RequestPreVote, RequestVote, TransferLeader};
use super::{append, snapshot};
use crate::snapshot_store::SnapshotData;
use crate::types::{Peer, Snapshot, Types, Vote};

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Append,
    Urgent,
    Snapshot,
}

/// The connections to all peers: made once, kept, made anew when an address changes. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Connections {
    pub(super) desk: Desk,
    network: Arc<dyn Network>,
    channels: Arc<Mutex<BTreeMap<(NodeId, Kind), Channel>>>,
    /// How long an append may be without an answer before its connection counts as dead.
    append_idle_max: Duration,
    /// What is below is sent as a snapshot.
    pub(crate) floor: Floor,
}

impl Connections {
    pub(crate) fn new(desk: Desk, network: Arc<dyn Network>, append_idle_max: Duration) -> Self {
        Self { desk, network, channels: Arc::default(), append_idle_max, floor: Floor::default() }
    }

    /// Asks the leader for a read index.
    pub(crate) async fn read_index(
        &self,
        leader: NodeId,
        address: &str,
        deadline: Duration,
    ) -> Result<LogIndex, CallError> {
        let channel = self
            .channel(leader, address, Kind::Urgent)
            .map_err(|error| CallError::NotSent { address: address.to_owned(), reason: error.to_string() })?;
        let reply = channel.call(ReadIndex(self.desk.seal(leader, ())), deadline).await?;
        Ok(self.desk.open(reply)?.1)
    }

    fn channel(&self, peer: NodeId, address: &str, kind: Kind) -> io::Result<Channel> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(&(peer, kind)).filter(|channel| channel.address() == address) {
            return Ok(channel.clone());
        }
        let channel = Channel::new(Arc::clone(&self.network), address, &ChannelSettings::default())?;
        channels.insert((peer, kind), channel.clone());
        Ok(channel)
    }
}

impl RaftNetworkFactory<Types> for Connections {
    type Network = Peers;

    async fn new_client(&mut self, target: u64, peer: &Peer) -> Peers {
        Peers {
            connections: self.clone(),
            target: NodeId(target),
            address: peer.address.clone(),
            kind: Kind::Append,
        }
    }

    async fn new_heartbeat_client(&mut self, target: u64, peer: &Peer) -> Peers {
        Peers { kind: Kind::Urgent, ..self.new_client(target, peer).await }
    }

    async fn new_snapshot_client(&mut self, target: u64, peer: &Peer) -> Peers {
        Peers { kind: Kind::Snapshot, ..self.new_client(target, peer).await }
    }
}

/// One peer, over one kind of connection.
#[derive(Debug)]
pub(crate) struct Peers {
    connections: Connections,
    target: NodeId,
    address: String,
    kind: Kind,
}

impl Peers {
    fn channel(&self, kind: Kind) -> Result<Channel, RPCError<Types>> {
        self.connections
            .channel(self.target, &self.address, kind)
            .map_err(|error| Unreachable::new(&error).into())
    }

    async fn ask<C, R>(&self, call: C, option: &RPCOption) -> Result<R, RPCError<Types>>
    where
        C: Call<Reply = Envelope<R>>,
    {
        let reply = self
            .channel(Kind::Urgent)?
            .call(call, option.soft_ttl())
            .await
            .map_err(|error| failed(&error))?;
        self.connections.desk.open(reply).map(|(_, body)| body).map_err(|problem| failed(&problem.into()))
    }

    fn seal<T>(&self, body: T) -> Envelope<T> {
        self.connections.desk.seal(self.target, body)
    }
}

/// What openraft makes of a failure: it backs off from a peer that cannot be reached, and tries again at once otherwise.
pub(super) fn failed(error: &CallError) -> RPCError<Types> {
    match error {
        CallError::NoAnswer { .. } => RPCError::Network(NetworkError::new(error)),
        CallError::NotSent { .. } | CallError::Refused(_) => RPCError::Unreachable(Unreachable::new(error)),
    }
}

impl RaftNetworkV2<Types> for Peers {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        self.ask(Heartbeat(self.seal(rpc)), &option).await
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>, RPCError<Types>>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        if self.kind == Kind::Urgent {
            return openraft::network::stream_append_sequential(self, input, option);
        }
        Box::pin(async move {
            let channel = self.channel(Kind::Append)?;
            let floor = self.connections.floor.clone();
            let idle_max = option.soft_ttl().max(self.connections.append_idle_max);
            append::stream(&channel, &self.connections.desk, self.target, input, idle_max, floor).await
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask(RequestVote(self.seal(rpc)), &option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask(RequestPreVote(self.seal(rpc)), &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let channel = self.channel(Kind::Snapshot)?;
        let send =
            snapshot::send(&channel, &self.connections.desk, self.target, vote, snapshot, option.soft_ttl());
        tokio::select! {
            biased;
            closed = cancel => Err(closed.into()),
            sent = send => sent,
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        self.ask(TransferLeader(self.seal(request)), &option).await
    }
}
