//! The types that openraft is told to work with.
//!
//! The payload of a log entry is an [`EncodedEntry`]: the leader encodes it once; log, network and followers pass on the
//! same bytes, and only `apply` reads them.

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use carnax_core::time::Timestamp;
use carnax_metadata_state::Outcome;
use openraft::impls::leader_id_adv;
use openraft::type_config::alias;
use serde::{Deserialize, Serialize};

openraft::declare_raft_types!(
    /// Two leaders can exist in one term (their node ids differ): never take the bare term for a token.
    pub(crate) Types:
        D = EncodedEntry,
        R = Outcomes,
        NodeId = u64,
        Node = Peer,
        Term = u64,
        LeaderId = leader_id_adv::LeaderId<u64, u64>,
        AsyncRuntime = crate::runtime::Runtime,
);

pub(crate) type LogId = alias::LogIdOf<Types>;
pub(crate) type LeaderId = alias::LeaderIdOf<Types>;
pub(crate) type Vote = alias::VoteOf<Types>;
pub(crate) type RaftEntry = alias::EntryOf<Types>;
pub(crate) type RaftPayload = alias::PayloadOf<Types>;
pub(crate) type StoredMembership = alias::StoredMembershipOf<Types>;
pub(crate) type SnapshotMeta = alias::SnapshotMetaOf<Types>;
pub(crate) type Snapshot = alias::SnapshotOf<Types, crate::snapshot_store::SnapshotData>;
pub(crate) type Raft = openraft::Raft<Types, crate::state_machine::StateMachine>;

/// An encoded [`Entry`](carnax_metadata_state::Entry).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct EncodedEntry(pub(crate) Bytes);

impl fmt::Debug for EncodedEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Display for EncodedEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What came of the commands of an entry, in their order, and its log time; nothing for an entry that carries none. Never
/// leaves the process that proposed it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcomes(#[serde(skip)] pub(crate) Option<(Timestamp, Arc<Vec<Outcome>>)>);

/// How a node is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Peer {
    /// `host:port` of its RPC.
    pub(crate) address: String,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

/// A failure to read what another part of this process, or an earlier one, has written.
pub(crate) fn invalid_data(error: impl fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}
