//! What the clients of a simulation did and saw. The checker judges by this alone.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The value of a record: drawn once, so that every value names the one append that sent it.
pub(crate) type Value = u64;
/// A partition, counted over all topics of a simulation.
pub(crate) type Partition = u32;

/// One append unit of one client, however often it was sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Append {
    /// For each partition, in the order in which they were sent.
    pub(crate) parts: BTreeMap<Partition, Vec<Value>>,
    /// That the next offset of a partition is this one.
    pub(crate) condition: Option<(Partition, u64)>,
    /// By what repeats are told.
    pub(crate) identity: Option<Identity>,
    /// Each sending of a unit that may be repeated.
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) outcome: AppendOutcome,
    /// When the outcome was known.
    pub(crate) ended: Duration,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum AppendOutcome {
    /// Acknowledged: the first value of each part has this offset, the others follow. A repeat may be answered without.
    Acknowledged { base_offsets: BTreeMap<Partition, u64> },
    /// Refused with `side_effects: none`, each time.
    Refused,
    /// Anything else.
    #[default]
    Unknown,
}

/// By what repeats of a unit are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Identity {
    Sequence { producer: String, epoch: u32, sequence: u128 },
    Key(String),
}

/// One sending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) started: Duration,
    pub(crate) ended: Duration,
    pub(crate) answer: Answer,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is stored; the offsets are empty if they are not kept any more.
    Stored {
        duplicate: bool,
        base_offsets: BTreeMap<Partition, u64>,
    },
    /// It was not stored by this sending, with the code that says why.
    Refused(String),
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

/// Which member held a partition, and which time that was: every tenure has a number of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) partition: Partition,
    pub(crate) tenure: u64,
    pub(crate) from: Duration,
    pub(crate) until: Duration,
}

/// An output or a commit in the name of a tenure was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Act {
    pub(crate) partition: Partition,
    pub(crate) tenure: u64,
    pub(crate) sent: Duration,
    pub(crate) answered: Duration,
}

/// A record of a topic with a long life: its key and its value, if it has them.
pub(crate) type KeptRecord = (Option<u8>, Option<Value>);

/// Topics that are not only appended to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kept {
    /// Its old records go.
    Fleeting,
    /// It keeps the newest record of each key.
    Table,
}

/// One batch for such a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) topic: Kept,
    pub(crate) records: Vec<KeptRecord>,
    /// Bytes of the batch.
    pub(crate) bytes: u64,
    /// The offset of the first record, if it was acknowledged.
    pub(crate) base_offset: Option<u64>,
    /// Refused without side effects.
    pub(crate) refused: bool,
    /// Its records have this timestamp, too.
    pub(crate) started: Duration,
    pub(crate) ended: Duration,
}

/// One fetch from such a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) topic: Kept,
    pub(crate) from: u64,
    pub(crate) started: Duration,
    pub(crate) ended: Duration,
    pub(crate) shown: Shown,
}

/// What a fetch was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shown {
    /// The offset lies below the log start.
    Gone,
    Records {
        log_start: u64,
        high_watermark: u64,
        next_offset: u64,
        records: Vec<(u64, KeptRecord)>,
    },
}

/// A client asked for the deletion of all records below an offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trimmed {
    pub(crate) before: u64,
    pub(crate) started: Duration,
}

/// That the metadata core referred to an object when somebody asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Alive {
    /// When the last question of those began that were answered so.
    pub(crate) asked: Duration,
    /// Log time at the last of these answers, or before; since the beginning.
    pub(crate) log_time: Duration,
}

/// What becomes of old records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Retention {
    /// They go when clients say so.
    #[default]
    Trims,
    /// They go when they are so old.
    Age(Duration),
    /// They go when so many bytes are behind them.
    Bytes(u64),
}

/// All metadata disks were lost, and a new cluster was made from the bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Restoration {
    pub(crate) lost_at: Duration,
    /// Log time at the end of the archive: what was committed until then is there.
    pub(crate) archived_until: Duration,
    /// Offsets that nobody gets any more, by topic and partition.
    pub(crate) skipped: BTreeMap<(String, u32), Range<u64>>,
}

impl Restoration {
    /// The offsets of a partition that nobody gets any more.
    pub(crate) fn gap(&self, topic: &str, partition: u32) -> Range<u64> {
        self.skipped.get(&(topic.to_owned(), partition)).cloned().unwrap_or(0..0)
    }
}

/// By what a long life is judged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) retention: Retention,
    /// Tombstones stay for so long.
    pub(crate) tombstones: Duration,
    /// Objects stay for so long after nothing refers to them any more.
    pub(crate) grace: Duration,
    /// Whether log time goes as time does. Where clocks of several nodes are wrong by less than a leap, nobody can say.
    pub(crate) clocks_are_right: bool,
}

/// Everything that happened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct History {
    pub(crate) appends: Vec<Append>,
    pub(crate) fetches: Vec<Fetch>,
    pub(crate) holds: Vec<Hold>,
    pub(crate) acts: Vec<Act>,
    /// What each partition held in the end, when all faults were healed: offset and value in the order of reading.
    pub(crate) finally: BTreeMap<Partition, Vec<(u64, Value)>>,
    /// Up to where the input of each partition of outputs was committed in the end.
    pub(crate) handled: BTreeMap<Partition, u64>,
    pub(crate) rules: Rules,
    pub(crate) restoration: Option<Restoration>,
    pub(crate) written: Vec<Written>,
    pub(crate) seen: Vec<Seen>,
    pub(crate) trimmed: Vec<Trimmed>,
    /// By the keys of objects.
    pub(crate) alive: BTreeMap<String, Alive>,
    /// The keys of all objects that were ever in the bucket, and when they appeared.
    pub(crate) stored: BTreeMap<String, Duration>,
    /// Those that were deleted, and when.
    pub(crate) deleted: BTreeMap<String, Duration>,
    /// What the topics with a long life held in the end.
    pub(crate) kept_finally: BTreeMap<Kept, Seen>,
    /// Tenures so far.
    pub(crate) tenures: u64,
}

/// An output says which part of its input it stands for: `from .. to`, of a partition of outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) partition: Partition,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

impl Output {
    const BITS: u32 = 24;
    /// Tells outputs from values that were drawn.
    const MARK: u64 = 0xcafe << 48;

    /// As a value: the same output, written twice, has the same value.
    pub(crate) fn value(self) -> Value {
        let mixed = (self.from << Self::BITS) | self.to;
        Self::MARK ^ (u64::from(self.partition) << (2 * Self::BITS)) ^ mixed
    }

    /// Reads it from its value, in its partition.
    pub(crate) fn read(partition: Partition, value: Value) -> Option<Self> {
        let mask = (1 << Self::BITS) - 1;
        let output = Self { partition, from: (value >> Self::BITS) & mask, to: value & mask };
        (output.value() == value).then_some(output)
    }
}

/// A history that several clients write.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recorder(Arc<Mutex<History>>);

impl Recorder {
    pub(crate) fn lock(&self) -> MutexGuard<'_, History> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
