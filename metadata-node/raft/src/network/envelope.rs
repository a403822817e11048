//! What stands on every message: from whom, for whom, and the sender's wall clock.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use carnax_core::error_code::ErrorCode;
use carnax_core::id::{ClusterId, NodeId};
use carnax_core::problem::Problem;
use carnax_core::time::Timestamp;
use carnax_metadata_state::FeatureLevel;
use carnax_platform::clock::Clock;
use serde::{Deserialize, Serialize};

use crate::settings::RaftSettings;

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
    /// The highest feature level that the sender knows; nodes from before levels were told say nothing.
    #[serde(default)]
    level_max: Option<FeatureLevel>,
    body: T,
}

/// What a peer said of itself when it last spoke: how far its wall clock was ahead of ours, as exact as a message is fast, and what
/// its build knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerClock {
    /// Milliseconds; negative if it is behind.
    pub ahead_millis: i64,
    /// Our wall clock then.
    pub heard_at: Timestamp,
    /// The highest feature level that the peer knows.
    pub level_max: FeatureLevel,
}

/// Addresses messages of one node and checks those that arrive. Clones share what was heard.
#[derive(Debug, Clone)]
pub(crate) struct Desk {
    cluster: ClusterId,
    node: NodeId,
    level_max: FeatureLevel,
    clock: Arc<dyn Clock>,
    clocks: Arc<Mutex<BTreeMap<NodeId, PeerClock>>>,
}

impl Desk {
    pub(crate) fn new(settings: &RaftSettings, clock: Arc<dyn Clock>) -> Self {
        let RaftSettings { cluster, node, level_max, .. } = *settings;
        Self { cluster, node, level_max, clock, clocks: Arc::default() }
    }

    pub(super) fn seal<T>(&self, to: NodeId, body: T) -> Envelope<T> {
        let wall = self.clock.wall();
        let level_max = Some(self.level_max);
        Envelope { protocol: PROTOCOL, cluster: self.cluster, from: self.node, to, wall, level_max, body }
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
        let level_max = envelope.level_max.unwrap_or(FeatureLevel::UNRECORDED);
        clocks.insert(envelope.from, PeerClock { ahead_millis, heard_at, level_max });
        Ok((envelope.from, envelope.body))
    }

    /// The clocks of the peers that have spoken.
    pub(crate) fn clocks(&self) -> BTreeMap<NodeId, PeerClock> {
        self.clocks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
