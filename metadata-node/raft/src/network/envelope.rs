//! What stands on every message: from whom, for whom, and the sender's wall clock.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use carnax_core::error_code::ErrorCode;
use carnax_core::id::{ClusterId, NodeId};
use carnax_core::problem::Problem;
use carnax_core::time::Timestamp;
use carnax_platform::clock::Clock;
use serde::{Deserialize, Serialize};

/// The version of the protocol that this build speaks. Additions do not raise it; it is for breaks.
const PROTOCOL: u32 = 1;

/// A message with its address.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Envelope<T> {
    protocol: u32,
    cluster: ClusterId,
    from: NodeId,
    to: NodeId,
    /// The sender's wall clock.
    wall: Timestamp,
    body: T,
}

/// How far the wall clock of a peer was ahead of ours when it last spoke; as exact as a message is fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerClock {
    /// Milliseconds; negative if it is behind.
    pub ahead_millis: i64,
    /// Our wall clock then.
    pub heard_at: Timestamp,
}

/// Addresses messages of one node and checks those that arrive. Clones share what was heard.
#[derive(Debug, Clone)]
pub(crate) struct Desk {
    cluster: ClusterId,
    node: NodeId,
    clock: Arc<dyn Clock>,
    clocks: Arc<Mutex<BTreeMap<NodeId, PeerClock>>>,
}

impl Desk {
    pub(crate) fn new(cluster: ClusterId, node: NodeId, clock: Arc<dyn Clock>) -> Self {
        Self { cluster, node, clock, clocks: Arc::default() }
    }

    pub(super) fn seal<T>(&self, to: NodeId, body: T) -> Envelope<T> {
        let wall = self.clock.wall();
        Envelope { protocol: PROTOCOL, cluster: self.cluster, from: self.node, to, wall, body }
    }

    /// Takes the message out, if it is for this node: says from whom it is.
    pub(super) fn open<T>(&self, envelope: Envelope<T>) -> Result<(NodeId, T), Problem> {
        let refuse = |why: String| Err(Problem::new(ErrorCode::Conflict, why));
        if envelope.protocol != PROTOCOL {
            return refuse(format!("message of protocol {}, this node speaks {PROTOCOL}", envelope.protocol));
        }
        if envelope.cluster != self.cluster {
            return refuse(format!(
                "message of cluster {}, this node is of {}",
                envelope.cluster, self.cluster
            ));
        }
        if envelope.to != self.node {
            return refuse(format!("message for node {}, this is node {}", envelope.to, self.node));
        }
        let heard_at = self.clock.wall();
        let ahead_millis = envelope.wall.millis().saturating_sub(heard_at.millis());
        let mut clocks = self.clocks.lock().unwrap_or_else(PoisonError::into_inner);
        clocks.insert(envelope.from, PeerClock { ahead_millis, heard_at });
        Ok((envelope.from, envelope.body))
    }

    /// The clocks of the peers that have spoken.
    pub(crate) fn clocks(&self) -> BTreeMap<NodeId, PeerClock> {
        self.clocks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
