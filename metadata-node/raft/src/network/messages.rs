//! The calls between nodes.

use bytes::Bytes;
use carnax_core::id::LogIndex;
use carnax_core::metadata::{Call, Callers};
use carnax_platform::rpc::BidirectionalCall;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};

use super::envelope::Envelope;
use crate::types::{SnapshotMeta, Types, Vote};

macro_rules! calls {
    ($($(#[$meta:meta])* $name:ident($request:ty) => $reply:ty;)*) => {
        $($(#[$meta])*
        #[derive(Debug, Serialize, Deserialize)]
        #[serde(transparent)]
        pub(super) struct $name(pub(super) Envelope<$request>);

        impl Call for $name {
            const NAME: &'static str = concat!("Raft", stringify!($name));
            const CALLERS: Callers = Callers::Nodes;
            type Reply = Envelope<$reply>;
        })*
    };
}

calls! {
    /// A heartbeat.
    Heartbeat(AppendEntriesRequest<Types>) => AppendEntriesResponse<Types>;
    /// Asks for a vote.
    RequestVote(VoteRequest<Types>) => VoteResponse<Types>;
    /// Asks whether a vote would be given.
    RequestPreVote(VoteRequest<Types>) => VoteResponse<Types>;
    /// Says that another node is to lead.
    TransferLeader(TransferLeaderRequest<Types>) => TransferLeaderResponse<Types>;
    /// Asks the leader up to where a read that starts now must see.
    ReadIndex(()) => LogIndex;
}

/// A stream of appends.
#[derive(Debug)]
pub(super) struct Append;

impl BidirectionalCall for Append {
    const NAME: &'static str = "RaftAppend";
    const CALLERS: Callers = Callers::Nodes;
    type Request = Envelope<AppendEntriesRequest<Types>>;
    type Reply = Envelope<StreamAppendResult<Types>>;
}

/// A snapshot: its head, chunks in order, its end; answered once, at its end.
#[derive(Debug)]
pub(super) struct SendSnapshot;

impl BidirectionalCall for SendSnapshot {
    const NAME: &'static str = "RaftSnapshot";
    const CALLERS: Callers = Callers::Nodes;
    type Request = Envelope<SnapshotPart>;
    type Reply = Envelope<SnapshotResponse<Types>>;
}

/// A piece of a snapshot.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum SnapshotPart {
    /// Comes first.
    Head { vote: Vote, meta: SnapshotMeta, bytes: u64 },
    /// The next bytes.
    Chunk(Bytes),
}
