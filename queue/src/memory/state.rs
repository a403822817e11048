//! What a queue holds, and every change of it as a function of the time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use carnax_core::time::Timestamp;

use super::Depth;
use crate::error::Failure;
use crate::limits;
use crate::message::{OutgoingMessage, Receipt, ReceivedMessage, Sent};

/// How long a FIFO queue remembers what it took.
const DEDUPLICATION_TIME: Duration = Duration::from_mins(5);
/// Above 2⁶⁴, as those of SQS are: who parses them as `u64` is found out.
const SEQUENCE_FIRST: u128 = 18_849_496_460_467_696_128;
const SEQUENCE_STEP: u128 = 256;

#[derive(Debug)]
pub(super) struct State {
    name: String,
    is_fifo: bool,
    /// In the order in which they came.
    messages: BTreeMap<u64, Stored>,
    next_place: u64,
    /// What was taken lately, and when, by deduplication id.
    taken_lately: BTreeMap<String, (Duration, Sent)>,
}

#[derive(Debug)]
pub(super) struct Stored {
    id: String,
    body: String,
    attributes: BTreeMap<String, String>,
    group: Option<String>,
    sequence: Option<u128>,
    sent: Timestamp,
    receive_count: u32,
    /// In flight before this moment.
    visible_at: Duration,
}

impl State {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            is_fifo: limits::is_fifo(name),
            messages: BTreeMap::new(),
            next_place: 0,
            taken_lately: BTreeMap::new(),
        }
    }

    pub(super) fn depth(&self, now: Duration) -> Depth {
        let in_flight = self.messages.values().filter(|message| message.visible_at > now).count();
        Depth { visible: self.messages.len() - in_flight, in_flight }
    }

    pub(super) fn accept(&mut self, message: &OutgoingMessage, now: Duration, wall: Timestamp) -> Sent {
        self.taken_lately.retain(|_, (at, _)| now.saturating_sub(*at) < DEDUPLICATION_TIME);
        let earlier = message.deduplication.as_ref().and_then(|id| self.taken_lately.get(id));
        if let Some((_, sent)) = earlier {
            return sent.clone();
        }
        let place = self.take_place();
        let sent = Sent { message_id: format!("{}-{place}", self.name), sequence: self.sequence_at(place) };
        if let Some(id) = &message.deduplication {
            self.taken_lately.insert(id.clone(), (now, sent.clone()));
        }
        let stored = Stored {
            id: sent.message_id.clone(),
            body: message.body.clone(),
            attributes: message.attributes.clone(),
            group: message.group.clone(),
            sequence: sent.sequence,
            sent: wall,
            receive_count: 0,
            visible_at: Duration::ZERO,
        };
        self.messages.insert(place, stored);
        sent
    }

    /// Takes in the dead letters of another queue; they keep their names and counts.
    pub(super) fn bury(&mut self, dead: Vec<Stored>) {
        for message in dead {
            let place = self.take_place();
            let sequence = self.sequence_at(place);
            self.messages.insert(place, Stored { sequence, visible_at: Duration::ZERO, ..message });
        }
    }

    /// Removes what would now be delivered once too often.
    pub(super) fn remove_dead(&mut self, receives_max: u32, now: Duration) -> Vec<Stored> {
        let locked = self.locked_groups(now);
        let is_dead = |_: &u64, message: &mut Stored| {
            message.receive_count >= receives_max && message.is_free(&locked, now)
        };
        self.messages.extract_if(.., is_dead).map(|(_, message)| message).collect()
    }

    pub(super) fn take(&mut self, max: usize, visibility: Duration, now: Duration) -> Vec<ReceivedMessage> {
        let locked = self.locked_groups(now);
        let free = self.messages.iter_mut().filter(|(_, message)| message.is_free(&locked, now));
        free.take(max)
            .map(|(place, message)| {
                message.receive_count += 1;
                message.visible_at = now + visibility;
                message.deliver(Receipt::new(format!("{}/{place}/{}", self.name, message.receive_count)))
            })
            .collect()
    }

    /// After what time the next message in flight becomes visible.
    pub(super) fn next_visible(&self, now: Duration) -> Option<Duration> {
        let hidden = self.messages.values().filter(|message| message.visible_at > now);
        hidden.map(|message| message.visible_at - now).min()
    }

    pub(super) fn delete(&mut self, receipt: &Receipt, now: Duration) -> Result<(), Failure> {
        let (place, count) = self.read(receipt)?;
        let Some(message) = self.messages.get(&place) else { return Ok(()) };
        let is_latest = message.receive_count == count;
        if self.is_fifo && !(is_latest && message.visible_at > now) {
            return Err(Failure::NotInFlight);
        }
        // A standard queue answers an outdated receipt with success and does nothing.
        if is_latest {
            self.messages.remove(&place);
        }
        Ok(())
    }

    pub(super) fn extend(
        &mut self,
        (receipt, visibility): &(Receipt, Duration),
        now: Duration,
    ) -> Result<(), Failure> {
        let (place, count) = self.read(receipt)?;
        let message = self.messages.get_mut(&place);
        match message.filter(|message| message.receive_count == count && message.visible_at > now) {
            Some(message) => {
                message.visible_at = now + Duration::from_secs(limits::whole_seconds(*visibility));
                Ok(())
            }
            None => Err(Failure::NotInFlight),
        }
    }

    /// The place and the count of the delivery.
    fn read(&self, receipt: &Receipt) -> Result<(u64, u32), Failure> {
        let read = || {
            let rest = receipt.as_str().strip_prefix(self.name.as_str())?.strip_prefix('/')?;
            let (place, count) = rest.split_once('/')?;
            Some((place.parse().ok()?, count.parse().ok()?))
        };
        read().ok_or_else(|| Failure::invalid(format!("the receipt is not of this queue: {receipt}")))
    }

    fn take_place(&mut self) -> u64 {
        self.next_place += 1;
        self.next_place
    }

    fn sequence_at(&self, place: u64) -> Option<u128> {
        self.is_fifo.then(|| SEQUENCE_FIRST + u128::from(place) * SEQUENCE_STEP)
    }

    /// The groups of a FIFO queue of which somebody holds a message.
    fn locked_groups(&self, now: Duration) -> BTreeSet<String> {
        let in_flight = self.messages.values().filter(|message| self.is_fifo && message.visible_at > now);
        in_flight.filter_map(|message| message.group.clone()).collect()
    }
}

impl Stored {
    fn is_free(&self, locked: &BTreeSet<String>, now: Duration) -> bool {
        self.visible_at <= now && !self.group.as_ref().is_some_and(|group| locked.contains(group))
    }

    fn deliver(&self, receipt: Receipt) -> ReceivedMessage {
        ReceivedMessage {
            id: self.id.clone(),
            receipt,
            body: self.body.clone(),
            attributes: self.attributes.clone(),
            group: self.group.clone(),
            sequence: self.sequence,
            sent: self.sent,
            receive_count: self.receive_count,
        }
    }
}
