//! Which request has which sequence, and what is to be done when one fails. Pure: it knows numbers, not requests.
//!
//! The server accepts the sequences of an epoch one after the other, without a gap, each once. So the requests that are
//! stored are always the first ones, and a request that failed for good leaves a hole that nothing behind it can pass. Then
//! nothing more is sent until nothing is in flight (*trouble*), and one of three things follows:
//!
//! | what is known | what follows |
//! |---|---|
//! | no request that is left can be stored any more | *rewind*: their sequences are given out again |
//! | one may be stored, or the server does not know us | *raise*: a new epoch ends that, and tells what is stored |
//! | another producer has raised the epoch | *close* |
//!
//! Whichever it is, the requests that are left are taken apart, and their records wait again in their old order.
//!
//! A producer without an id uses none of this but the bound on requests in flight.

use std::collections::BTreeMap;

/// How the attempts to send a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is stored, by one attempt or another.
    Stored,
    /// The server has not accepted what comes before it.
    OutOfOrder,
    /// Its records were routed by an old partition count.
    Stale,
    /// It was refused, or its time is up.
    Failed,
    /// Its sequence was used by something else.
    Collided,
    /// Another producer has raised the epoch.
    Fenced,
}

/// What is to be done with a request now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Its records are stored.
    Stored,
    /// Its records are not stored, or nobody will ever know.
    Failed,
    /// Its records are not stored and are to be sent anew.
    Again,
    /// Nothing yet: it is sent again, or its fate is told when the trouble is over.
    Wait,
}

/// What ends the trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remedy {
    Rewind,
    Raise,
    Close,
}

/// What became of a request of an epoch that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is stored.
    Stored,
    /// It is not stored and was not at fault.
    Again,
    /// It is not stored and will not be.
    Failed,
    /// Nobody knows.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// To be sent as soon as those before it are.
    Ready,
    /// `first`: all before it were stored when it was sent.
    InFlight {
        first: bool,
    },
    /// Refused for a gap; sent again when all before it are stored.
    Held,
    Stale,
    Failed,
    Collided,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    state: State,
    /// Some attempt may be accepted, or may have been.
    possible: bool,
}

/// The requests of an epoch that are not stored, as far as the producer knows.
#[derive(Debug)]
pub(super) struct Window {
    numbered: bool,
    size: u64,
    epoch: u32,
    next: u64,
    entries: BTreeMap<u64, Entry>,
    in_flight: usize,
    troubled: bool,
    /// Whether the server says something that only a new epoch can settle.
    disagreed: bool,
    fenced: bool,
    closed: bool,
}

impl Window {
    /// A producer with an id, at the beginning of an epoch. At most `size` sequences lie between the first that is not
    /// stored and the next one, so that the server still has the reply to each of them.
    pub(super) fn numbered(epoch: u32, size: usize) -> Self {
        Self { numbered: true, epoch, ..Self::unnumbered(size) }
    }

    /// A producer without an id: at most `size` requests are in flight.
    pub(super) fn unnumbered(size: usize) -> Self {
        Self {
            numbered: false,
            size: u64::try_from(size).unwrap_or(u64::MAX),
            epoch: 0,
            next: 0,
            entries: BTreeMap::new(),
            in_flight: 0,
            troubled: false,
            disagreed: false,
            fenced: false,
            closed: false,
        }
    }

    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    pub(super) fn is_troubled(&self) -> bool {
        self.troubled
    }

    /// Whether another request may be given a sequence.
    pub(super) fn admits(&self) -> bool {
        let used = match self.entries.keys().next() {
            Some(first) if self.numbered => self.next - first,
            _ => self.entries.len() as u64,
        };
        !self.troubled && used < self.size && self.entries.values().all(|entry| entry.state != State::Held)
    }

    /// Gives the next request its sequence; without an id, a number that says which it is.
    pub(super) fn push(&mut self) -> u64 {
        let sequence = self.next;
        self.next += 1;
        self.entries.insert(sequence, Entry { state: State::Ready, possible: false });
        sequence
    }

    /// The request that is to be sent now, if one is; from then on it is in flight.
    pub(super) fn next_to_send(&mut self) -> Option<u64> {
        if self.troubled {
            return None;
        }
        let first = *self.entries.keys().next()?;
        let waits = |entry: &Entry| matches!(entry.state, State::Ready | State::Held);
        let (sequence, entry) = self.entries.iter_mut().find(|(_, entry)| waits(entry))?;
        if entry.state == State::Held {
            return None;
        }
        entry.state = State::InFlight { first: *sequence == first };
        self.in_flight += 1;
        Some(*sequence)
    }

    /// Takes note of how the attempts for a request in flight ended. `possible`: whether one of them may have been, or may
    /// still be, accepted.
    pub(super) fn conclude(&mut self, sequence: u64, outcome: Outcome, possible: bool) -> Verdict {
        let Some(entry) = self.entries.get_mut(&sequence) else { return Verdict::Wait };
        let State::InFlight { first } = entry.state else { return Verdict::Wait };
        self.in_flight -= 1;
        entry.possible |= possible;
        if !self.numbered {
            self.entries.remove(&sequence);
            return match outcome {
                Outcome::Stored => Verdict::Stored,
                Outcome::Stale => Verdict::Again,
                Outcome::OutOfOrder | Outcome::Failed | Outcome::Collided | Outcome::Fenced => {
                    Verdict::Failed
                }
            };
        }
        match outcome {
            Outcome::Stored => return self.stored(sequence),
            // It overtook one before it, and must come again behind that.
            Outcome::OutOfOrder if !first => {
                entry.state = State::Held;
                self.release();
                return Verdict::Wait;
            }
            // All before it are stored, and the server does not know of them.
            Outcome::OutOfOrder => {
                entry.state = State::Held;
                self.disagreed = true;
            }
            Outcome::Collided => {
                entry.state = State::Collided;
                self.disagreed = true;
            }
            Outcome::Fenced => {
                entry.state = State::Failed;
                self.fenced = true;
            }
            Outcome::Stale => entry.state = State::Stale,
            Outcome::Failed => entry.state = State::Failed,
        }
        self.troubled = true;
        let settled =
            matches!(outcome, Outcome::Failed | Outcome::Collided) && !self.entries[&sequence].possible;
        if settled { Verdict::Failed } else { Verdict::Wait }
    }

    fn stored(&mut self, sequence: u64) -> Verdict {
        self.entries.remove(&sequence);
        // Then all before it are stored too, whatever was said of them.
        self.entries.range_mut(..sequence).for_each(|(_, entry)| entry.possible = true);
        self.release();
        Verdict::Stored
    }

    /// Lets those that were held go if all before them are stored.
    fn release(&mut self) {
        if self.entries.values().next().is_some_and(|first| first.state == State::Held) {
            let held = self.entries.values_mut().filter(|entry| entry.state == State::Held);
            held.for_each(|entry| entry.state = State::Ready);
        }
    }

    /// What ends the trouble, if there is any and nothing is in flight.
    pub(super) fn remedy(&self) -> Option<Remedy> {
        if !self.troubled || self.closed || self.in_flight > 0 {
            return None;
        }
        let open = self.disagreed || self.entries.values().any(|entry| entry.possible);
        Some(match (self.fenced, open) {
            (true, _) => Remedy::Close,
            (false, true) => Remedy::Raise,
            (false, false) => Remedy::Rewind,
        })
    }

    /// Gives the sequences that are not used out again; tells what became of each request, in order.
    pub(super) fn rewind(&mut self) -> Vec<(u64, Fate)> {
        self.next = self.entries.keys().next().copied().unwrap_or(self.next);
        self.over(|_, entry| if entry.state == State::Failed { Fate::Failed } else { Fate::Again })
    }

    /// Another epoch has begun, in which nothing is accepted yet; all up to `last` of the epoch before are stored, and
    /// nothing else is. Tells what became of each request, in order.
    pub(super) fn raised(&mut self, epoch: u32, last: Option<u128>) -> Vec<(u64, Fate)> {
        let first = self.entries.keys().next().copied().unwrap_or(0);
        (self.epoch, self.next) = (epoch, 0);
        // All before the first that is left are stored. A server that does not know that has forgotten what it accepted.
        let forgotten = last.map_or(0, |last| last.saturating_add(1)) < u128::from(first);
        self.over(|sequence, entry| match entry.state {
            State::Collided => Fate::Failed,
            State::Failed if !entry.possible => Fate::Failed,
            _ if forgotten && entry.possible => Fate::Unknown,
            _ if last.is_some_and(|last| u128::from(sequence) <= last) => Fate::Stored,
            State::Failed => Fate::Failed,
            State::Ready | State::InFlight { .. } | State::Held | State::Stale => Fate::Again,
        })
    }

    /// Nothing is ever sent again.
    pub(super) fn close(&mut self) -> Vec<(u64, Fate)> {
        let fates = self.over(|_, entry| if entry.possible { Fate::Unknown } else { Fate::Failed });
        (self.troubled, self.closed) = (true, true);
        fates
    }

    /// Whether a request that has to be answered now may be stored.
    pub(super) fn is_possible(&self, sequence: u64) -> bool {
        self.entries.get(&sequence).is_some_and(|entry| entry.possible)
    }

    fn over(&mut self, fate: impl Fn(u64, &Entry) -> Fate) -> Vec<(u64, Fate)> {
        assert!(self.in_flight == 0, "fates are told when nothing is in flight");
        let entries = std::mem::take(&mut self.entries);
        (self.troubled, self.disagreed) = (false, false);
        entries.into_iter().map(|(sequence, entry)| (sequence, fate(sequence, &entry))).collect()
    }
}

#[cfg(test)]
mod tests;
