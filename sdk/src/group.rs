//! Consumer groups: many processes share the partitions of topics, each read by one of them at a time.
//!
//! ```text
//!              poll, commit, seek …                    join, heartbeat
//!  caller ──▶ GroupConsumer ──▶ Membership ◀── speaker ──────────────▶ frontend
//!                  │    what has changed? │ what to say next?
//!                  ▼                      (pure, behind a lock)
//!               Reader: fetches ahead
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `builder` | settings |
//! | `membership` | what the member may hold, and what it says next: pure |
//! | `speaker` | the task that joins and sends heartbeats |
//! | `consumer` | polling, positions |
//! | `rebalance` | hand-over: what happens when the assignment changes |
//! | `commits` | offset commits, one behind the other |
//! | `process` | read, process, write: exactly once |
//!
//! Invariants: no record of a partition is handed out after its loss was known; a partition is let go of only when the caller
//! is done with its records and their offsets are committed; one offset commit is under way at a time.

mod builder;
mod commits;
mod consumer;
mod membership;
mod process;
mod rebalance;
mod speaker;

use std::fmt;
use std::sync::Arc;

use carnax_core::error_code::SideEffects;
use carnax_core::id::{PartitionIndex, TopicPartition};
use carnax_core::topic::TopicName;

use crate::consumer::ConsumeError;
use crate::error::RequestError;

pub use builder::GroupBuilder;
pub use commits::PendingCommit;
pub use consumer::GroupConsumer;
pub use process::ProcessError;
pub use rebalance::RebalanceListener;

/// A partition, by the name of its topic.
///
/// ```
/// use carnax::{GroupPartition, PartitionIndex};
///
/// let third = GroupPartition::new("flights", PartitionIndex(3))?;
/// assert_eq!(third.to_string(), "flights/3");
/// # Ok::<(), carnax::RequestError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupPartition {
    /// The topic.
    pub topic: TopicName,
    /// The partition of it.
    pub partition: PartitionIndex,
}

impl GroupPartition {
    /// A partition of a topic.
    ///
    /// # Errors
    /// The name is none that a topic can have.
    pub fn new(topic: &str, partition: PartitionIndex) -> Result<Self, RequestError> {
        Ok(Self { topic: crate::raw::parse_topic(topic)?, partition })
    }
}

impl fmt::Display for GroupPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// What can go wrong for a member of a group.
#[derive(Debug, Clone, thiserror::Error)]
pub enum GroupError {
    /// The group does not take this member: its assignor is another one (`conflict`), a limit is reached, it is not allowed.
    /// The next poll tries again.
    #[error("cannot join group")]
    Join(#[source] Arc<RequestError>),
    /// A partition cannot be read. It stays where it is until it is sought or resumed, or assigned again.
    #[error(transparent)]
    Consume(#[from] ConsumeError),
    /// Nothing is committed for a partition, and the group was not told where to begin
    /// ([`offset_reset`](GroupBuilder::offset_reset)). It is not read until it is sought.
    #[error("nothing is committed for {partition}, and offset reset is off")]
    NoOffset {
        /// The partition.
        partition: GroupPartition,
    },
    /// The member does not have this partition (any more).
    #[error("{partition} is not assigned to this member")]
    NotAssigned {
        /// The partition.
        partition: GroupPartition,
    },
    /// The member is no longer, or not yet, in the group. Others read what it has not committed.
    #[error("the member is not in the group now")]
    Lost,
    /// A request failed: nothing of it is done unless its side effects are possible.
    #[error("request of the group failed")]
    Request(#[source] Arc<RequestError>),
}

impl GroupError {
    /// Whether the same call may succeed later.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Join(error) | Self::Request(error) => error.retryable(),
            Self::Consume(error) => error.retryable(),
            Self::NoOffset { .. } | Self::NotAssigned { .. } | Self::Lost => false,
        }
    }

    /// Whether offsets may be committed all the same.
    pub fn side_effects(&self) -> SideEffects {
        match self {
            Self::Join(error) | Self::Request(error) => error.side_effects(),
            Self::Consume(_) | Self::NoOffset { .. } | Self::NotAssigned { .. } | Self::Lost => {
                SideEffects::None
            }
        }
    }
}

fn named(on: TopicPartition, topic: &TopicName) -> GroupPartition {
    GroupPartition { topic: topic.clone(), partition: on.partition }
}
