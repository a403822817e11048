//! Puts numbered requests in order that HTTP delivered out of order.
//!
//! A producer sends several requests before the first is answered, each over a connection of its own. One that overtook its
//! predecessor would be refused for a gap, so it is held for a moment until the predecessor is there. What is known here of
//! a producer is soft: it comes from what passed, is corrected by the answers, and is forgotten beyond a bound. When it is
//! wrong, a request waits a moment for nothing, or passes too early; the state machine decides either way.
//!
//! ```text
//!   7 ─▶ passes    9 ─▶ held    10 ─▶ held    8 ─▶ passes, and 9 and 10 with it
//!                  └ passes alone when its time is up: the state machine refuses it, or knows better
//! ```
//!
//! Invariants: nothing is held longer than the limit; what is let go of at once is in order of its sequences; whatever arrived
//! is let go of once. Pure: time and answers are arguments.

use std::collections::BTreeMap;
use std::time::Duration;

use carnax_core::error_code::{ErrorCode, SideEffects};
use carnax_core::metadata::{ProducerStamp, SequenceMode, UnitOutcome};
use carnax_core::name::ProducerId;
use carnax_core::problem::Problem;

/// Requests that are held; beyond it they pass as they come.
const HELD_MAX: usize = 4_096;
/// Producers that are remembered; beyond it the one that was longest not heard of is forgotten.
const KNOWN_MAX: usize = 10_000;

/// Holds requests, of which only the stamps matter here.
#[derive(Debug)]
pub(crate) struct Sequencer<T> {
    hold: Duration,
    known: KnownProducers,
    held: BTreeMap<(ProducerId, u32), BTreeMap<Turn, T>>,
    /// Until when each is held, in order of arrival, which is that of the times.
    until: BTreeMap<u64, (Duration, ProducerId, u32, u128)>,
    arrivals: u64,
}

/// Sequence, then arrival: repeats of one request stay apart.
type Turn = (u128, u64);

#[derive(Debug, Default)]
struct KnownProducers {
    by_id: BTreeMap<ProducerId, Known>,
    by_use: BTreeMap<u64, ProducerId>,
    uses: u64,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    epoch: u32,
    /// The sequence after the highest one that passed or was accepted.
    next: u128,
    last_use: u64,
}

impl<T> Sequencer<T> {
    /// Holds nothing longer than `hold`.
    pub(crate) fn new(hold: Duration) -> Self {
        Self {
            hold,
            known: KnownProducers::default(),
            held: BTreeMap::new(),
            until: BTreeMap::new(),
            arrivals: 0,
        }
    }

    /// Whether nothing is held.
    pub(crate) fn is_empty(&self) -> bool {
        self.until.is_empty()
    }

    /// When the next one is to be let go of.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.until.first_key_value().map(|(_, (until, ..))| *until)
    }

    /// Takes a request; says what may go on now, in this order. None: it is held.
    pub(crate) fn arrive(&mut self, stamp: &ProducerStamp, request: T, now: Duration) -> Vec<T> {
        let ProducerStamp { producer, epoch, sequence, mode, .. } = stamp;
        if *mode == SequenceMode::Increasing {
            return vec![request];
        }
        if self.may_pass(producer, *epoch, *sequence) {
            let mut passing = vec![request];
            self.pass(producer, *epoch, *sequence, &mut passing);
            return passing;
        }
        if self.until.len() >= HELD_MAX {
            return vec![request];
        }
        let arrival = self.arrivals;
        self.arrivals += 1;
        let of_epoch = self.held.entry((producer.clone(), *epoch)).or_default();
        of_epoch.insert((*sequence, arrival), request);
        let until = now.saturating_add(self.hold);
        self.until.insert(arrival, (until, producer.clone(), *epoch, *sequence));
        Vec::new()
    }

    /// Lets go of what was held long enough, each with those that follow it.
    pub(crate) fn expire(&mut self, now: Duration) -> Vec<T> {
        let mut passing = Vec::new();
        while self.next_deadline().is_some_and(|until| until <= now) {
            self.let_go_of_oldest(&mut passing);
        }
        passing
    }

    /// Lets go of everything: nothing will come that it could wait for.
    pub(crate) fn release(&mut self) -> Vec<T> {
        let mut passing = Vec::new();
        while !self.until.is_empty() {
            self.let_go_of_oldest(&mut passing);
        }
        passing
    }

    /// Learns from what the state machine decided; says what may go on now.
    pub(crate) fn decided(&mut self, stamp: &ProducerStamp, outcome: &UnitOutcome) -> Vec<T> {
        let ProducerStamp { producer, epoch, sequence, mode, .. } = stamp;
        if *mode == SequenceMode::Increasing {
            return Vec::new();
        }
        let next = match outcome {
            UnitOutcome::Accepted { .. } | UnitOutcome::Duplicate { .. } => {
                let mut passing = Vec::new();
                self.pass(producer, *epoch, *sequence, &mut passing);
                return passing;
            }
            UnitOutcome::Refused(problem) => match (problem.code, expected(problem)) {
                (ErrorCode::SequenceGap, Some(expected)) => expected,
                (ErrorCode::SequenceGap | ErrorCode::UnknownProducer | ErrorCode::Fenced, _) => {
                    self.known.forget(producer, *epoch);
                    return Vec::new();
                }
                _ => {
                    self.failed(stamp, problem);
                    return Vec::new();
                }
            },
        };
        let mut passing = Vec::new();
        if self.known.set(producer, *epoch, next) {
            self.follow(producer, *epoch, &mut passing);
        }
        passing
    }

    /// Learns that a request came to nothing: its sequence is free again.
    pub(crate) fn failed(&mut self, stamp: &ProducerStamp, problem: &Problem) {
        if problem.code.side_effects() == SideEffects::Possible || stamp.mode == SequenceMode::Increasing {
            return;
        }
        let next = self.known.next(&stamp.producer, stamp.epoch);
        if next.is_some_and(|next| next > stamp.sequence) {
            self.known.set(&stamp.producer, stamp.epoch, stamp.sequence);
        }
    }

    fn may_pass(&self, producer: &ProducerId, epoch: u32, sequence: u128) -> bool {
        let next = match self.known.by_id.get(producer) {
            // It will be fenced.
            Some(known) if epoch < known.epoch => return true,
            Some(known) if epoch == known.epoch => known.next,
            Some(_) => 0,
            None if self.held.contains_key(&(producer.clone(), epoch)) => 0,
            None => return true,
        };
        sequence <= next
    }

    /// Notes that a sequence has passed, and lets those go that follow it.
    fn pass(&mut self, producer: &ProducerId, epoch: u32, sequence: u128, passing: &mut Vec<T>) {
        let after = sequence.saturating_add(1);
        let next = self.known.next(producer, epoch).map_or(after, |next| next.max(after));
        if self.known.set(producer, epoch, next) {
            self.follow(producer, epoch, passing);
        }
    }

    fn follow(&mut self, producer: &ProducerId, epoch: u32, passing: &mut Vec<T>) {
        let of_epoch = (producer.clone(), epoch);
        while let Some(held) = self.held.get_mut(&of_epoch) {
            let next = self.known.next(producer, epoch).unwrap_or(0);
            let Some(first) = held.first_entry().filter(|first| first.key().0 <= next) else { return };
            let ((sequence, arrival), request) = first.remove_entry();
            if held.is_empty() {
                self.held.remove(&of_epoch);
            }
            self.until.remove(&arrival);
            passing.push(request);
            self.known.set(producer, epoch, next.max(sequence.saturating_add(1)));
        }
    }

    /// The oldest passes as if its predecessors had: first those held that come before it, then it and all that follow.
    fn let_go_of_oldest(&mut self, passing: &mut Vec<T>) {
        let Some((_, (_, producer, epoch, sequence))) = self.until.first_key_value() else { return };
        let (producer, epoch, sequence) = (producer.clone(), *epoch, *sequence);
        if self.known.set(&producer, epoch, sequence) {
            self.follow(&producer, epoch, passing);
            return;
        }
        // A later epoch is known: whatever is left of this one will be fenced.
        for ((_, arrival), request) in self.held.remove(&(producer, epoch)).unwrap_or_default() {
            self.until.remove(&arrival);
            passing.push(request);
        }
    }
}

impl KnownProducers {
    fn next(&self, producer: &ProducerId, epoch: u32) -> Option<u128> {
        self.by_id.get(producer).filter(|known| known.epoch == epoch).map(|known| known.next)
    }

    /// Sets what comes next, unless a later epoch is known; says whether it was set.
    fn set(&mut self, producer: &ProducerId, epoch: u32, next: u128) -> bool {
        if self.by_id.get(producer).is_some_and(|known| known.epoch > epoch) {
            return false;
        }
        self.uses += 1;
        let known = Known { epoch, next, last_use: self.uses };
        if let Some(before) = self.by_id.insert(producer.clone(), known) {
            self.by_use.remove(&before.last_use);
        }
        self.by_use.insert(self.uses, producer.clone());
        if self.by_id.len() > KNOWN_MAX
            && let Some((_, longest)) = self.by_use.pop_first()
        {
            self.by_id.remove(&longest);
        }
        true
    }

    fn forget(&mut self, producer: &ProducerId, epoch: u32) {
        if self.next(producer, epoch).is_some()
            && let Some(known) = self.by_id.remove(producer)
        {
            self.by_use.remove(&known.last_use);
        }
    }
}

fn expected(problem: &Problem) -> Option<u128> {
    problem.facts.expected.as_deref()?.parse().ok()
}

#[cfg(test)]
mod tests;
