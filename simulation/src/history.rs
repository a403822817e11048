//! What the clients of a simulation did and saw. The checker judges by this alone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The value of a record: drawn once, so that every value names the one append that sent it.
pub(crate) type Value = u64;
/// Partition of the one topic of a simulation.
pub(crate) type Partition = u32;

/// One append, from one client, to one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Append {
    pub(crate) partition: Partition,
    /// In the order in which they were sent.
    pub(crate) values: Vec<Value>,
    pub(crate) outcome: AppendOutcome,
    pub(crate) ended: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AppendOutcome {
    /// Acknowledged: the first value has this offset, the others follow.
    Acknowledged { base_offset: u64 },
    /// Refused with `side_effects: none`.
    Refused,
    /// Anything else.
    Unknown,
}

/// One fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fetch {
    pub(crate) partition: Partition,
    pub(crate) from: u64,
    pub(crate) started: Duration,
    pub(crate) ended: Duration,
    pub(crate) high_watermark: u64,
    pub(crate) next_offset: u64,
    /// Offsets and values as they came.
    pub(crate) records: Vec<(u64, Value)>,
}

/// Everything that happened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct History {
    pub(crate) appends: Vec<Append>,
    pub(crate) fetches: Vec<Fetch>,
    /// What each partition held in the end, when all faults were healed: offset and value in the order of reading.
    pub(crate) finally: BTreeMap<Partition, Vec<(u64, Value)>>,
}

/// A history that several clients write.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recorder(Arc<Mutex<History>>);

impl Recorder {
    pub(crate) fn lock(&self) -> MutexGuard<'_, History> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
