//! Producers: which epoch each has, the last sequence of it, and the last answers, so that a request that is sent again changes
//! nothing and gets its first answer.
//!
//! The only handshake is to raise the epoch ([`Producers::raise`]): a producer that does not ask for anything begins with
//! sequence 0 of any epoch. Whether gaps are allowed is a property of each request and not kept.
//!
//! ```text
//!            unit of a higher epoch, accepted: nothing is kept of the epochs before
//!   epoch 4 ────────────────────────────────────────────────────────────────────────▶ epoch 7
//!   last 9  ── raise ──▶ epoch 5, last none, before: epoch 4 ── unit accepted ──▶ epoch 5, last 0
//! ```
//!
//! A producer lives a window of log time since its last change. Every entry drops what has expired before it is applied, so
//! none of the functions that change or check something meets an expired one.

use std::sync::Arc;
use std::time::Duration;

use carnax_core::error_code::ErrorCode;
use carnax_core::limits;
use carnax_core::metadata::{
    ClusterSettings, FencedEpoch, KeptReply, ProducerDescription, ProducerStamp, RaiseProducerEpoch,
    SequenceMode, UnitOutcome,
};
use carnax_core::name::ProducerId;
use carnax_core::problem::Problem;
use carnax_core::time::Timestamp;
use imbl::{OrdMap, OrdSet};

use crate::remembered::{Remembered, full};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Producer {
    pub(crate) now: Epoch,
    /// The epoch that was raised, until a unit is accepted in the new one.
    pub(crate) before: Option<Box<Epoch>>,
    /// Log time of the last accepted unit or raise.
    pub(crate) last_seen: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Epoch {
    pub(crate) number: u32,
    /// The last accepted sequence; none before the first.
    pub(crate) last: Option<u128>,
    /// The last answers by sequence, ascending; at most [`limits::PRODUCER_REPLIES`].
    pub(crate) replies: Vec<(u128, Remembered)>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Producers {
    by_id: OrdMap<ProducerId, Arc<Producer>>,
    /// When to look at each producer: one entry a producer, at or before its `last_seen`. Moved only when it comes up, so that
    /// an append does not pay for it.
    watch: OrdSet<(Timestamp, ProducerId)>,
    /// Slices in all kept answers.
    slices: u64,
}

impl Producers {
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn slices(&self) -> u64 {
        self.slices
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (&ProducerId, &Producer)> {
        self.by_id.iter().map(|(id, producer)| (id, &**producer))
    }

    pub(crate) fn watch(&self) -> &OrdSet<(Timestamp, ProducerId)> {
        &self.watch
    }

    pub(crate) fn get(&self, id: &ProducerId) -> Option<&Producer> {
        self.by_id.get(id).map(|producer| &**producer)
    }

    /// Refuses a fenced unit, and answers one that was accepted before.
    pub(crate) fn recall(&self, stamp: &ProducerStamp) -> Result<Option<UnitOutcome>, Problem> {
        let Some(producer) = self.get(&stamp.producer) else { return Ok(None) };
        if stamp.epoch < producer.now.number {
            return Err(fenced(&stamp.producer, producer.now.number, stamp.epoch));
        }
        match producer.now.last {
            Some(last) if stamp.epoch == producer.now.number && stamp.sequence <= last => {
                producer.repeat(stamp).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Whether a unit that is no repeat follows what was accepted last, and whether its producer is known or may become so.
    pub(crate) fn check_turn(
        &self,
        stamp: &ProducerStamp,
        settings: &ClusterSettings,
        now: Timestamp,
    ) -> Result<(), Problem> {
        let known = self.get(&stamp.producer);
        let last = known.filter(|known| known.now.number == stamp.epoch).and_then(|known| known.now.last);
        let expected = last.map_or(Some(0), |last| last.checked_add(1));
        if stamp.mode == SequenceMode::Contiguous && expected != Some(stamp.sequence) {
            let (code, why) = match known {
                None => (ErrorCode::UnknownProducer, "is not known (any more)"),
                Some(_) => (ErrorCode::SequenceGap, "has a gap in its sequences"),
            };
            let detail = format_args!("producer {} {why}", stamp.producer);
            return Err(Problem::new(code, detail).with(|facts| {
                facts.expected = expected.map(|expected| expected.to_string());
                facts.actual = Some(stamp.sequence.to_string());
            }));
        }
        if known.is_none() { self.check_room(settings, now) } else { Ok(()) }
    }

    /// How many slices of kept answers an accepted unit takes the place of.
    pub(crate) fn freed_by(&self, stamp: &ProducerStamp) -> u64 {
        let Some(producer) = self.get(&stamp.producer) else { return 0 };
        if stamp.epoch > producer.now.number {
            return producer.slices();
        }
        let before = producer.before.as_ref().map_or(0, |before| before.slices());
        let oldest = producer.now.replies.first().filter(|_| producer.now.is_full());
        before.saturating_add(oldest.map_or(0, |(_, reply)| reply.slice_count()))
    }

    /// Notes an accepted unit with its answer.
    pub(crate) fn record(&mut self, stamp: &ProducerStamp, reply: Remembered, now: Timestamp) {
        let freed = self.freed_by(stamp);
        self.slices = self.slices.saturating_sub(freed).saturating_add(reply.slice_count());
        let Some(producer) = self.by_id.get_mut(&stamp.producer).map(Arc::make_mut) else {
            self.watch.insert((now, stamp.producer.clone()));
            let mut epoch = Epoch::new(stamp.epoch);
            epoch.push(stamp.sequence, reply);
            let producer = Producer { now: epoch, before: None, last_seen: now };
            self.by_id.insert(stamp.producer.clone(), Arc::new(producer));
            return;
        };
        if stamp.epoch > producer.now.number {
            producer.now = Epoch::new(stamp.epoch);
        }
        producer.before = None;
        producer.last_seen = now;
        producer.now.push(stamp.sequence, reply);
    }

    /// Raises an epoch, so that nothing of the epochs before can be accepted any more, and says what was.
    pub(crate) fn raise(
        &mut self,
        request: &RaiseProducerEpoch,
        settings: &ClusterSettings,
        now: Timestamp,
    ) -> Result<ProducerDescription, Problem> {
        let RaiseProducerEpoch { producer: id, from } = request;
        let known = self.by_id.get(id).map(|producer| producer.now.number);
        if let (Some(epoch), Some(from), Some(producer)) = (known, *from, self.by_id.get(id))
            && from < epoch
        {
            let raised_from_there = producer.before.as_ref().is_some_and(|before| before.number == from);
            return if raised_from_there { Ok(producer.describe()) } else { Err(fenced(id, epoch, from)) };
        }
        // An epoch above the known one is one in which nothing was accepted.
        let fenced = known.max(*from);
        let number = fenced.map_or(Some(0), |fenced| fenced.checked_add(1));
        let Some(number) = number else {
            let detail = format_args!("producer {id} has used up its epochs: take another id");
            return Err(Problem::new(ErrorCode::Conflict, detail));
        };
        if known.is_none() {
            self.check_room(settings, now)?;
            self.watch.insert((now, id.clone()));
        }
        let old = self.by_id.remove(id).map(Arc::unwrap_or_clone);
        self.slices = self.slices.saturating_sub(old.as_ref().map_or(0, Producer::slices));
        let fenced = fenced.map(|fenced| {
            let last = old.map(|old| old.now).filter(|last| last.number == fenced);
            Box::new(last.unwrap_or_else(|| Epoch::new(fenced)))
        });
        let raised = Producer { now: Epoch::new(number), before: fenced, last_seen: now };
        self.slices = self.slices.saturating_add(raised.slices());
        let description = raised.describe();
        self.by_id.insert(id.clone(), Arc::new(raised));
        Ok(description)
    }

    /// Drops the producers whose window has passed.
    pub(crate) fn expire(&mut self, window: Duration, now: Timestamp) {
        while self.due(window, now) {
            let Some((_, id)) = self.watch.remove_min() else { return };
            let Some(producer) = self.by_id.get(&id) else { continue };
            if now.since(producer.last_seen) < window {
                self.watch.insert((producer.last_seen, id));
            } else {
                self.slices = self.slices.saturating_sub(producer.slices());
                self.by_id.remove(&id);
            }
        }
    }

    /// Whether [`expire`](Self::expire) would have something to look at.
    pub(crate) fn due(&self, window: Duration, now: Timestamp) -> bool {
        self.watch.get_min().is_some_and(|(seen, _)| now.since(*seen) >= window)
    }

    /// Puts a producer behind all others; says whether it belongs there.
    pub(crate) fn restore(&mut self, id: ProducerId, producer: Producer) -> bool {
        if self.by_id.get_max().is_some_and(|(last, _)| *last >= id) {
            return false;
        }
        self.slices = self.slices.saturating_add(producer.slices());
        self.watch.insert((producer.last_seen, id.clone()));
        self.by_id.insert(id, Arc::new(producer));
        true
    }

    fn check_room(&self, settings: &ClusterSettings, now: Timestamp) -> Result<(), Problem> {
        if (self.by_id.len() as u64) < settings.producers_max {
            return Ok(());
        }
        let first = self.watch.get_min().map(|(seen, _)| now.since(*seen));
        let wait = first.map(|age| settings.producer_window.saturating_sub(age));
        Err(full("as many producers are remembered as may be", settings.producers_max, wait))
    }
}

impl Producer {
    pub(crate) fn slices(&self) -> u64 {
        let before = self.before.as_ref().map_or(0, |before| before.slices());
        self.now.slices().saturating_add(before)
    }

    /// Whether this is what [`Producers`] makes: an epoch in which nothing was accepted was raised from the one before it, or is
    /// the first; the last answer is always kept.
    pub(crate) fn is_sound(&self) -> bool {
        let raised = match &self.before {
            Some(before) => before.is_sound() && before.number.checked_add(1) == Some(self.now.number),
            None => self.now.number == 0,
        };
        let accepted = self.now.last.is_some();
        self.now.is_sound() && if accepted { self.before.is_none() } else { raised }
    }

    pub(crate) fn describe(&self) -> ProducerDescription {
        let before = self.before.as_ref().map(|before| FencedEpoch {
            epoch: before.number,
            last_sequence: before.last,
            replies: before.replies.iter().map(|(sequence, reply)| kept(*sequence, reply)).collect(),
        });
        let Epoch { number: epoch, last: last_sequence, .. } = self.now;
        ProducerDescription { epoch, last_sequence, before, last_seen: self.last_seen }
    }

    /// The answer to a unit whose sequence is not above the last one. One whose own answer is no longer kept gets none of its
    /// offsets, and the earliest time that is still known: it was accepted then or before.
    fn repeat(&self, stamp: &ProducerStamp) -> Result<UnitOutcome, Problem> {
        let replies = &self.now.replies;
        if let Ok(place) = replies.binary_search_by_key(&stamp.sequence, |(sequence, _)| *sequence) {
            return replies[place].1.repeat(stamp.body_hash);
        }
        let append_time = replies.first().map_or(self.last_seen, |(_, reply)| reply.append_time);
        Ok(UnitOutcome::Duplicate { slices: Vec::new(), append_time })
    }
}

impl Epoch {
    fn new(number: u32) -> Self {
        Self { number, last: None, replies: Vec::new() }
    }

    fn push(&mut self, sequence: u128, reply: Remembered) {
        if self.is_full() {
            self.replies.remove(0);
        }
        self.replies.push((sequence, reply));
        self.last = Some(sequence);
    }

    fn is_sound(&self) -> bool {
        self.replies.len() <= limits::PRODUCER_REPLIES
            && self.replies.is_sorted_by(|(a, _), (b, _)| a < b)
            && self.replies.last().map(|(sequence, _)| *sequence) == self.last
    }

    fn is_full(&self) -> bool {
        self.replies.len() >= limits::PRODUCER_REPLIES
    }

    fn slices(&self) -> u64 {
        self.replies.iter().map(|(_, reply)| reply.slice_count()).sum()
    }
}

pub(crate) fn unknown(id: &ProducerId) -> Problem {
    Problem::new(ErrorCode::UnknownProducer, format_args!("producer {id} is not known (any more)"))
}

fn fenced(id: &ProducerId, known: u32, sent: u32) -> Problem {
    let detail = format_args!("producer {id} has epoch {known}, not {sent}");
    Problem::new(ErrorCode::Fenced, detail).with(|facts| {
        facts.expected = Some(known.to_string());
        facts.actual = Some(sent.to_string());
    })
}

fn kept(sequence: u128, reply: &Remembered) -> KeptReply {
    KeptReply { sequence, slices: reply.slices.to_vec(), append_time: reply.append_time }
}
