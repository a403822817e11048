//! Random units with producers, keys and conditions, raises, fencing tokens and settings against a naive model that forgets
//! nothing: it keeps everything that was ever accepted, with its time, and works out each answer from that. After every entry the
//! invariants hold; the same entries give the same bytes, also from a snapshot in the middle and without ticks.

use std::collections::BTreeMap;

use carnax_core::error_code::ErrorCode;
use carnax_core::id::TopicId;
use carnax_core::metadata::{SequenceMode, UnitCommit};

use crate::support::topic_id;
use crate::writer::{expecting, holding, increasing, keyed, records, stamped};

mod run;

const PARTITIONS: usize = 2;
const PRODUCERS: [&str; 3] = ["a", "b", "c"];
const TOKENS: [&str; 2] = ["red", "blue"];
const KEPT: usize = 8;

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<Append>),
    Raise {
        producer: usize,
        from: Option<i64>,
    },
    Fence {
        partition: usize,
        token: Option<usize>,
        from: From,
    },
    Window {
        producers: Option<i64>,
        keys: Option<i64>,
    },
    Room {
        producers: Option<usize>,
        keys: Option<usize>,
    },
    Delete,
    /// Creates the topic, if it is not there.
    Create,
    Tick,
    Wait {
        millis: i64,
    },
}

#[derive(Debug, Clone, Copy)]
enum From {
    Any,
    Nothing,
    Token(usize),
}

#[derive(Debug, Clone)]
struct Append {
    dedup: Dedup,
    /// Bits: which partitions.
    partitions: usize,
    /// Whether the topic is the one before the last.
    old_topic: bool,
    /// How far the expected next offset of partition 0 is off.
    expected: Option<i64>,
    /// Of partition 1.
    token: Option<usize>,
    body: u8,
}

#[derive(Debug, Clone)]
enum Dedup {
    None,
    /// Epoch and sequence relative to what the producer has and what is next.
    Producer {
        producer: usize,
        epoch: i64,
        sequence: i128,
        mode: SequenceMode,
    },
    Key {
        key: usize,
        principal: usize,
    },
    Both,
}

/// What a unit got when it was accepted.
#[derive(Debug, Clone, PartialEq)]
struct Accepted {
    body: [u8; 16],
    offsets: Vec<u64>,
    time: i64,
}

#[derive(Debug, Clone)]
enum Event {
    Accepted { epoch: u32, sequence: u128, what: Accepted },
    Raised { epoch: u32, time: i64 },
}

#[derive(Debug, Clone, PartialEq)]
enum Expected {
    Accepted(Vec<u64>),
    Duplicate(Vec<u64>, i64),
    Refused(ErrorCode, Option<String>, Option<String>),
}

struct Model {
    now: i64,
    /// Everything that ever happened to a producer since it became known, oldest first.
    producers: BTreeMap<&'static str, Vec<Event>>,
    keys: BTreeMap<(String, String), Accepted>,
    high_watermarks: [u64; PARTITIONS],
    tokens: [Option<usize>; PARTITIONS],
    /// All that ever had the name, and whether the last one is still there.
    topics: Vec<TopicId>,
    exists: bool,
    producer_window: i64,
    key_window: i64,
    producers_max: usize,
    keys_max: usize,
    commits: u64,
}

/// Epoch, last sequence, the epoch before with its last sequence and kept answers, last change.
type Description = (u32, Option<u128>, Option<Before>, i64);
type Before = (u32, Option<u128>, Vec<(u128, Vec<u64>, i64)>);

fn refused(code: ErrorCode) -> Expected {
    Expected::Refused(code, None, None)
}

fn because(code: ErrorCode, expected: &dyn ToString, actual: &dyn ToString) -> Expected {
    Expected::Refused(code, Some(expected.to_string()), Some(actual.to_string()))
}

impl Event {
    fn time(&self) -> i64 {
        match self {
            Self::Accepted { what, .. } => what.time,
            Self::Raised { time, .. } => *time,
        }
    }

    fn epoch(&self) -> u32 {
        match self {
            Self::Accepted { epoch, .. } | Self::Raised { epoch, .. } => *epoch,
        }
    }
}

impl Model {
    fn new() -> Self {
        Self {
            now: 0,
            producers: BTreeMap::new(),
            keys: BTreeMap::new(),
            high_watermarks: [0; PARTITIONS],
            tokens: [None; PARTITIONS],
            topics: vec![topic_id(1)],
            exists: true,
            producer_window: 7 * 24 * 60 * 60 * 1_000,
            key_window: 60 * 60 * 1_000,
            producers_max: 100_000,
            keys_max: 1_000_000,
            commits: 0,
        }
    }

    fn forget(&mut self) {
        let (now, window, key_window) = (self.now, self.producer_window, self.key_window);
        self.producers.retain(|_, events| now - events.last().unwrap().time() < window);
        self.keys.retain(|_, accepted| now - accepted.time < key_window);
    }

    fn epoch(&self, producer: &str) -> Option<u32> {
        self.producers.get(producer).map(|events| events.last().unwrap().epoch())
    }

    /// What was accepted in an epoch, oldest first.
    fn accepted(&self, producer: &str, of: u32) -> Vec<(u128, Accepted)> {
        let events = self.producers.get(producer).into_iter().flatten();
        let of_epoch = events.filter_map(|event| match event {
            Event::Accepted { epoch, sequence, what } if *epoch == of => Some((*sequence, what.clone())),
            _ => None,
        });
        of_epoch.collect()
    }

    fn unit(&self, append: &Append) -> UnitCommit {
        let live = *self.topics.last().unwrap();
        let topic = if append.old_topic { self.topics[self.topics.len().saturating_sub(2)] } else { live };
        let partitions: Vec<u32> =
            (0..2).filter(|partition| append.partitions & (1 << partition) != 0).collect();
        let mut unit = records(topic, &partitions);
        match &append.dedup {
            Dedup::None => {}
            Dedup::Producer { producer, epoch, sequence, mode } => {
                let name = PRODUCERS[*producer];
                let epoch = self.epoch(name).unwrap_or(0).saturating_add_signed((*epoch).try_into().unwrap());
                let next = self.accepted(name, epoch).last().map_or(0, |(last, _)| *last + 1);
                let sequence = next.saturating_add_signed(*sequence);
                unit = stamped(name, epoch, sequence, unit);
                if *mode == SequenceMode::Increasing {
                    unit = increasing(unit);
                }
                unit.producer.as_mut().unwrap().body_hash = [append.body; 16];
            }
            Dedup::Key { key, principal } => {
                unit = keyed(["", "alice"][*principal], ["k", "l", "m"][*key], unit);
                unit.idempotency.as_mut().unwrap().body_hash = [append.body; 16];
            }
            Dedup::Both => unit = keyed("", "k", stamped("a", 0, 0, unit)),
        }
        if let Some(off) = append.expected {
            unit = expecting(live, 0, self.high_watermarks[0].saturating_add_signed(off), unit);
        }
        if let Some(token) = append.token {
            unit = holding(live, 1, TOKENS[token], unit);
        }
        unit
    }

    /// What must become of a unit, in the order of the checks.
    fn decide(&mut self, unit: &UnitCommit) -> Expected {
        if unit.producer.is_some() && unit.idempotency.is_some() {
            return refused(ErrorCode::InvalidValue);
        }
        if let Some(repeat) = self.recall(unit) {
            return repeat;
        }
        if let Some(problem) = self.misplaced(unit) {
            return problem;
        }
        if let Some(problem) = self.out_of_turn(unit) {
            return problem;
        }
        for condition in &unit.conditions {
            use carnax_core::metadata::ConditionKind::{ExpectedNextOffset, FencingToken};
            let partition = condition.on.partition.0 as usize;
            let token = self.tokens[partition].map_or("none", |token| TOKENS[token]);
            let next = self.high_watermarks[partition];
            match &condition.kind {
                ExpectedNextOffset(expected) if expected.0 != next => {
                    return because(ErrorCode::ConditionFailed, &expected, &next);
                }
                FencingToken(expected) if expected.as_str() != token => {
                    return because(ErrorCode::ConditionFailed, &expected, &token);
                }
                _ => {}
            }
        }
        self.accept(unit)
    }

    fn recall(&self, unit: &UnitCommit) -> Option<Expected> {
        let again = |accepted: &Accepted, body: [u8; 16]| {
            if accepted.body == body {
                Expected::Duplicate(accepted.offsets.clone(), accepted.time)
            } else {
                refused(ErrorCode::BodyMismatch)
            }
        };
        if let Some(stamp) = &unit.producer {
            let known = self.epoch(stamp.producer.as_str())?;
            if stamp.epoch < known {
                return Some(because(ErrorCode::Fenced, &known, &stamp.epoch));
            }
            let all = self.accepted(stamp.producer.as_str(), stamp.epoch);
            let kept = &all[all.len().saturating_sub(KEPT)..];
            if all.last().is_none_or(|(last, _)| *last < stamp.sequence) {
                return None;
            }
            let found = kept.iter().find(|(sequence, _)| *sequence == stamp.sequence);
            return Some(match found {
                Some((_, accepted)) => again(accepted, stamp.body_hash),
                None => Expected::Duplicate(vec![], kept[0].1.time),
            });
        }
        let stamp = unit.idempotency.as_ref()?;
        let accepted = self.keys.get(&(stamp.principal.clone(), stamp.key.to_string()))?;
        Some(again(accepted, stamp.body_hash))
    }

    fn misplaced(&self, unit: &UnitCommit) -> Option<Expected> {
        if unit.slices.is_empty() {
            return Some(refused(ErrorCode::InvalidValue));
        }
        if !self.exists {
            return Some(refused(ErrorCode::TopicNotFound));
        }
        let live = self.topics.last().unwrap();
        let gone = unit.slices.iter().find(|slice| slice.topic != *live)?;
        Some(because(ErrorCode::StaleRouting, &gone.topic, &live))
    }

    fn out_of_turn(&self, unit: &UnitCommit) -> Option<Expected> {
        if let Some(stamp) = &unit.producer {
            let name = stamp.producer.as_str();
            let known = self.epoch(name);
            let next = self.accepted(name, stamp.epoch).last().map_or(0, |(last, _)| last + 1);
            if stamp.mode == SequenceMode::Contiguous && stamp.sequence != next {
                let code = known.map_or(ErrorCode::UnknownProducer, |_| ErrorCode::SequenceGap);
                return Some(because(code, &next, &stamp.sequence));
            }
            let full = known.is_none() && self.producers.len() >= self.producers_max;
            return full.then(|| refused(ErrorCode::TooManyRequests));
        }
        let full = unit.idempotency.is_some() && self.keys.len() >= self.keys_max;
        full.then(|| refused(ErrorCode::TooManyRequests))
    }

    fn accept(&mut self, unit: &UnitCommit) -> Expected {
        let mut offsets = Vec::new();
        for slice in &unit.slices {
            let high_watermark = &mut self.high_watermarks[slice.partition.0 as usize];
            offsets.push(*high_watermark);
            *high_watermark += u64::from(slice.records);
        }
        let (now, of) = (self.now, offsets.clone());
        let accepted = |body| Accepted { body, offsets: of, time: now };
        if let Some(stamp) = &unit.producer {
            let name = PRODUCERS.iter().find(|name| **name == stamp.producer.as_str()).unwrap();
            let what = accepted(stamp.body_hash);
            let event = Event::Accepted { epoch: stamp.epoch, sequence: stamp.sequence, what };
            self.producers.entry(name).or_default().push(event);
        } else if let Some(stamp) = &unit.idempotency {
            let key = (stamp.principal.clone(), stamp.key.to_string());
            self.keys.insert(key, accepted(stamp.body_hash));
        }
        Expected::Accepted(offsets)
    }

    fn delete(&mut self) {
        self.exists = false;
    }

    fn create(&mut self, id: TopicId) {
        if !self.exists {
            self.topics.push(id);
            self.exists = true;
            self.high_watermarks = [0; PARTITIONS];
            self.tokens = [None; PARTITIONS];
        }
    }

    /// The new description, or why the epoch is not raised.
    fn raise(&mut self, producer: usize, from: Option<u32>) -> Result<Description, ErrorCode> {
        let name = PRODUCERS[producer];
        let time = self.now;
        let Some(epoch) = self.epoch(name) else {
            if self.producers.len() >= self.producers_max {
                return Err(ErrorCode::TooManyRequests);
            }
            let epoch = from.map_or(0, |from| from + 1);
            self.producers.insert(name, vec![Event::Raised { epoch, time }]);
            return Ok(self.describe(name).unwrap());
        };
        let fresh = self.accepted(name, epoch).is_empty() && epoch > 0;
        if fresh && from.is_some_and(|from| from + 1 == epoch) {
            return Ok(self.describe(name).unwrap());
        }
        if from.is_some_and(|from| from < epoch) {
            return Err(ErrorCode::Fenced);
        }
        let epoch = from.unwrap_or(epoch) + 1;
        self.producers.get_mut(name).unwrap().push(Event::Raised { epoch, time });
        Ok(self.describe(name).unwrap())
    }

    fn describe(&self, producer: &str) -> Option<Description> {
        let epoch = self.epoch(producer)?;
        let last_seen = self.producers[producer].last().unwrap().time();
        let last = self.accepted(producer, epoch).last().map(|(sequence, _)| *sequence);
        let before = (last.is_none() && epoch > 0).then(|| {
            let all = self.accepted(producer, epoch - 1);
            let kept = all[all.len().saturating_sub(KEPT)..].iter();
            let kept = kept.map(|(sequence, what)| (*sequence, what.offsets.clone(), what.time));
            (epoch - 1, all.last().map(|(sequence, _)| *sequence), kept.collect())
        });
        Some((epoch, last, before, last_seen))
    }
}
