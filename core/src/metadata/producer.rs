//! Producers: their epochs, and what became of what they sent.

use serde::{Deserialize, Serialize};

use super::append::AppendedSlice;
use crate::name::ProducerId;
use crate::time::Timestamp;

/// Raises the epoch of a producer by one, so that nothing of the epochs before can be accepted any more, and says what was.
///
/// A client with an unknown outcome learns from the reply what it has to send again, under the new epoch and from sequence 0.
/// A producer that is not known becomes known: with epoch 0 if `from` is none, else with the one after `from`, of which nothing
/// was accepted within the producer window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaiseProducerEpoch {
    /// Which producer.
    pub producer: ProducerId,
    /// The epoch that the client has. If the producer's is one higher already and nothing was accepted in it, this is a repeat
    /// and gets the same answer; if it is higher otherwise, the client is `fenced`. So a repeat that arrives late changes
    /// nothing. None: whatever it is now, as for a producer that starts; each repeat raises it once more.
    #[serde(default)]
    pub from: Option<u32>,
}

/// A producer as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProducerDescription {
    /// The epoch; lower ones are fenced.
    pub epoch: u32,
    /// The last accepted sequence of that epoch; none before the first.
    #[serde(default)]
    pub last_sequence: Option<u128>,
    /// The epoch before that, until something is accepted in this one.
    #[serde(default)]
    pub before: Option<FencedEpoch>,
    /// Log time of the last change.
    pub last_seen: Timestamp,
}

/// What became of an epoch that was fenced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FencedEpoch {
    /// The epoch.
    pub epoch: u32,
    /// Its last accepted sequence: all up to it were accepted, none after it will be. None: nothing was.
    pub last_sequence: Option<u128>,
    /// Its last replies that are kept, by sequence, ascending; at most [`PRODUCER_REPLIES`](crate::limits::PRODUCER_REPLIES).
    #[serde(default)]
    pub replies: Vec<KeptReply>,
}

/// The reply to a unit that was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptReply {
    /// The unit's sequence.
    pub sequence: u128,
    /// Where its records went.
    pub slices: Vec<AppendedSlice>,
    /// Log time of the command that accepted it.
    pub append_time: Timestamp,
}

/// Asks for a producer, by a linearizable read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeProducer {
    /// Which. Not known (any more) is `unknown_producer`.
    pub producer: ProducerId,
}
