//! What the cluster remembers of producers and keys, by its rules.

use std::collections::BTreeMap;

use bytes::Bytes;
use carnax::{
    AtomicAppendResult, ErrorCode, FencedEpochResponse, KeptReplyResponse, ProducerResponse, Timestamp,
};
use carnax_core::limits;

use crate::server::{Reply, Seen};

#[derive(Debug, Default, Clone)]
pub(crate) struct Producers(BTreeMap<String, Entry>);

#[derive(Debug, Default, Clone)]
struct Entry {
    epoch: u32,
    last: Option<u128>,
    replies: Vec<Kept>,
    /// The epoch before, until something is accepted in this one.
    before: Option<(u32, Option<u128>, Vec<Kept>)>,
}

#[derive(Debug, Clone)]
struct Kept {
    sequence: u128,
    request: (String, Bytes),
    results: Vec<AtomicAppendResult>,
}

/// The stamp of a request.
pub(crate) struct Stamp {
    id: String,
    epoch: u32,
    sequence: u128,
}

impl Stamp {
    pub(crate) fn of(seen: &Seen) -> Option<Self> {
        let id = seen.header("carnax-producer-id")?.to_owned();
        let epoch = seen.header("carnax-producer-epoch").unwrap_or("0").parse().unwrap();
        Some(Self { id, epoch, sequence: seen.header("carnax-sequence").unwrap().parse().unwrap() })
    }
}

/// What the table says of a request before anything else is looked at.
pub(crate) enum Known {
    New,
    Duplicate(Vec<AtomicAppendResult>),
    Refused(Reply),
}

impl Producers {
    pub(crate) fn forget_all(&mut self) {
        self.0.clear();
    }

    pub(crate) fn epochs(&self) -> Vec<u32> {
        self.0.values().map(|entry| entry.epoch).collect()
    }

    /// Epoch, then duplicate.
    pub(crate) fn look_up(&self, stamp: &Stamp, seen: &Seen) -> Known {
        let Some(entry) = self.0.get(&stamp.id) else { return Known::New };
        if stamp.epoch < entry.epoch {
            return Known::Refused(Reply::problem(ErrorCode::Fenced, |facts| {
                facts.expected = Some(entry.epoch.to_string());
                facts.actual = Some(stamp.epoch.to_string());
            }));
        }
        if stamp.epoch > entry.epoch || entry.last.is_none_or(|last| stamp.sequence > last) {
            return Known::New;
        }
        match entry.replies.iter().find(|kept| kept.sequence == stamp.sequence) {
            Some(kept) if kept.request == (seen.path.clone(), seen.body.clone()) => {
                Known::Duplicate(kept.results.clone())
            }
            Some(_) => Known::Refused(Reply::problem(ErrorCode::BodyMismatch, |_| {})),
            None => Known::Duplicate(Vec::new()),
        }
    }

    /// The gap, after topic and routing.
    pub(crate) fn gap(&self, stamp: &Stamp) -> Option<Reply> {
        let entry = self.0.get(&stamp.id);
        if entry.is_none() && stamp.sequence != 0 {
            return Some(Reply::problem(ErrorCode::UnknownProducer, |_| {}));
        }
        let last = entry.filter(|entry| entry.epoch == stamp.epoch).and_then(|entry| entry.last);
        let expected = last.map_or(0, |last| last + 1);
        (stamp.sequence != expected).then(|| {
            Reply::problem(ErrorCode::SequenceGap, |facts| {
                facts.expected = Some(expected.to_string());
                facts.actual = Some(stamp.sequence.to_string());
            })
        })
    }

    pub(crate) fn accept(&mut self, stamp: Stamp, seen: &Seen, results: Vec<AtomicAppendResult>) {
        let entry = self.0.entry(stamp.id).or_default();
        if stamp.epoch > entry.epoch {
            *entry = Entry { epoch: stamp.epoch, ..Entry::default() };
        }
        entry.last = Some(stamp.sequence);
        entry.before = None;
        let request = (seen.path.clone(), seen.body.clone());
        entry.replies.push(Kept { sequence: stamp.sequence, request, results });
        if entry.replies.len() > limits::PRODUCER_REPLIES {
            entry.replies.remove(0);
        }
    }

    pub(crate) fn raise(&mut self, id: &str, from: Option<u32>) -> Reply {
        match (self.0.get_mut(id), from) {
            (None, None) => {
                self.0.insert(id.to_owned(), Entry::default());
            }
            (None, Some(from)) => {
                let before = Some((from, None, Vec::new()));
                self.0.insert(id.to_owned(), Entry { epoch: from + 1, before, ..Entry::default() });
            }
            (Some(entry), from) => {
                let repeat = from.is_some_and(|from| from + 1 == entry.epoch) && entry.last.is_none();
                if !repeat {
                    if from.is_some_and(|from| from != entry.epoch) {
                        let epoch = entry.epoch.to_string();
                        return Reply::problem(ErrorCode::Fenced, |facts| facts.actual = Some(epoch));
                    }
                    let before = (entry.epoch, entry.last, std::mem::take(&mut entry.replies));
                    *entry = Entry { epoch: entry.epoch + 1, before: Some(before), ..Entry::default() };
                }
            }
        }
        self.describe(id)
    }

    pub(crate) fn describe(&self, id: &str) -> Reply {
        let Some(entry) = self.0.get(id) else { return Reply::problem(ErrorCode::UnknownProducer, |_| {}) };
        let before = entry.before.as_ref().map(|(epoch, last, replies)| FencedEpochResponse {
            epoch: *epoch,
            last_sequence: last.map(|last| last.to_string()),
            replies: replies
                .iter()
                .map(|kept| KeptReplyResponse {
                    sequence: kept.sequence.to_string(),
                    results: kept.results.clone(),
                })
                .collect(),
        });
        Reply::json(&ProducerResponse {
            epoch: entry.epoch,
            last_sequence: entry.last.map(|last| last.to_string()),
            before,
            last_seen: Timestamp::EPOCH,
        })
    }
}
