//! Which records wait, and which of them go into the next request. Pure: time and randomness are handed in.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use carnax_core::id::PartitionIndex;
use carnax_core::limits;
use carnax_core::offset::Offset;
use carnax_core::partitioner::partition_of;
use carnax_core::record::{Header, NewRecord};
use carnax_core::time::Timestamp;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::record::{Delivery, Record, RecordMetadata};
use super::{ProduceError, Settings, encode};
use crate::route::Route;

/// A record that was taken and is not answered yet.
#[derive(Debug)]
pub(super) struct Pending {
    /// The place in the order of acceptance.
    pub(super) sequence: u64,
    pub(super) accepted: Instant,
    /// What it takes in a batch, at most.
    bytes: usize,
    /// What it takes of the memory.
    pub(super) charge: u32,
    /// Whether its partition follows from its key.
    routed: bool,
    timestamp: Timestamp,
    key: Option<Bytes>,
    value: Option<Bytes>,
    headers: Vec<Header>,
    answer: oneshot::Sender<Result<RecordMetadata, ProduceError>>,
}

impl Pending {
    pub(super) fn as_new(&self) -> NewRecord<'_> {
        NewRecord {
            timestamp: self.timestamp,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: &self.headers,
        }
    }

    /// Tells whoever still listens.
    pub(super) fn answer(self, result: Result<RecordMetadata, ProduceError>) {
        let _ = self.answer.send(result);
    }

    pub(super) fn stored(self, partition: PartitionIndex, offset: Offset, append_time: Timestamp) {
        self.answer(Ok(RecordMetadata { partition, offset, append_time }));
    }
}

/// Records for one request.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// Each partition once, ascending.
    pub(super) parts: BTreeMap<PartitionIndex, Vec<Pending>>,
    /// Whether any of them was routed by its key.
    pub(super) routed: bool,
    bytes: usize,
}

impl Draft {
    fn push(&mut self, partition: PartitionIndex, record: Pending) {
        self.bytes += record.bytes;
        self.routed |= record.routed;
        self.parts.entry(partition).or_default().push(record);
    }

    pub(super) fn records(&self) -> impl Iterator<Item = &Pending> {
        self.parts.values().flatten()
    }
}

#[derive(Debug, Default)]
struct Queue {
    records: VecDeque<Pending>,
    bytes: usize,
    in_flight: usize,
}

/// All records that wait.
#[derive(Debug)]
pub(super) struct Queues {
    settings: Settings,
    route: Route,
    /// Only partitions with records that wait or are in flight.
    queues: BTreeMap<PartitionIndex, Queue>,
    /// The oldest record of each request in flight, with how many such requests there are.
    in_flight: BTreeMap<u64, usize>,
    /// Where records without a key go, and how many bytes went there.
    sticky: Option<(PartitionIndex, usize)>,
    /// Where the next request begins to look.
    cursor: PartitionIndex,
    next_sequence: u64,
    /// Records before this one do not wait for company.
    flush_before: u64,
    /// Callers that wait for memory.
    pub(super) waiting: usize,
    closed: bool,
    closed_by: ProduceError,
    /// Nothing is sent until the topic's partition count is known again.
    pub(super) stale: bool,
}

impl Queues {
    pub(super) fn new(settings: Settings, route: Route) -> Self {
        Self {
            settings,
            route,
            queues: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            sticky: None,
            cursor: PartitionIndex(0),
            next_sequence: 0,
            flush_before: 0,
            waiting: 0,
            closed: false,
            closed_by: ProduceError::Closed,
            stale: false,
        }
    }

    pub(super) fn route(&self) -> Route {
        self.route
    }

    pub(super) fn batch_bytes(&self) -> usize {
        self.settings.batch_bytes.min(self.route.batch_bytes_max)
    }

    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Takes no more records, and says why.
    pub(super) fn close_with(&mut self, error: ProduceError) {
        self.closed = true;
        self.closed_by = error;
    }

    /// Lets all that wait go; tells the last of them, or none if nothing waits or is in flight.
    pub(super) fn flush(&mut self) -> Option<u64> {
        self.flush_before = self.next_sequence;
        self.oldest().map(|_| self.next_sequence - 1)
    }

    /// The oldest record that is not answered.
    pub(super) fn oldest(&self) -> Option<u64> {
        let waiting = self.queues.values().filter_map(|queue| Some(queue.records.front()?.sequence)).min();
        let sent = self.in_flight.keys().next().copied();
        waiting.into_iter().chain(sent).min()
    }

    pub(super) fn is_finished(&self) -> bool {
        self.closed && self.oldest().is_none()
    }

    /// Takes a record. Tells whether the sender should look: a queue has begun or has filled a batch.
    pub(super) fn push(
        &mut self,
        record: Record,
        timestamp: Timestamp,
        charge: u32,
        now: Instant,
        random: u64,
    ) -> Result<(Delivery, bool), ProduceError> {
        if self.closed {
            return Err(self.closed_by.clone());
        }
        let bytes = encode::batch_bytes(&record);
        let (partition, routed) = self.partition_for(&record, bytes, random)?;
        let (answer, delivery) = oneshot::channel();
        let pending = Pending {
            sequence: self.next_sequence,
            accepted: now,
            bytes,
            charge,
            routed,
            timestamp,
            key: record.key,
            value: record.value,
            headers: record.headers,
            answer,
        };
        self.next_sequence += 1;
        let batch_bytes = self.batch_bytes();
        let queue = self.queues.entry(partition).or_default();
        let was_short = queue.bytes < batch_bytes;
        let was_empty = queue.records.is_empty();
        queue.bytes += bytes;
        queue.records.push_back(pending);
        Ok((Delivery(delivery), was_empty || (was_short && queue.bytes >= batch_bytes)))
    }

    fn partition_for(
        &mut self,
        record: &Record,
        bytes: usize,
        random: u64,
    ) -> Result<(PartitionIndex, bool), ProduceError> {
        let count = self.route.partition_count;
        if let Some(partition) = record.partition {
            if partition.0 >= count {
                let reason = format!("the topic has {count} partitions, none is number {partition}");
                return Err(ProduceError::Invalid { reason });
            }
            return Ok((partition, false));
        }
        if let Some(key) = &record.key {
            return Ok((partition_of(key, count), true));
        }
        let batch_bytes = self.batch_bytes();
        let drawn = PartitionIndex(u32::try_from(random % u64::from(count)).unwrap_or(0));
        let (partition, filled) =
            self.sticky.filter(|(_, filled)| *filled < batch_bytes).unwrap_or((drawn, 0));
        self.sticky = Some((partition, filled + bytes));
        Ok((partition, false))
    }

    /// Takes the records of the next request: from each partition that is due, as many as fit.
    pub(super) fn take_request(&mut self, now: Instant) -> Option<Draft> {
        if self.stale {
            return None;
        }
        let mut draft = Draft::default();
        let due: Vec<PartitionIndex> = self.due_from_cursor(now);
        for partition in due.into_iter().take(limits::UNIT_PARTITIONS_MAX) {
            let Some(queue) = self.queues.get_mut(&partition) else { continue };
            let mut any = false;
            while let Some(record) = queue.records.front() {
                if !draft.parts.is_empty() && draft.bytes + record.bytes > self.settings.request_bytes {
                    break;
                }
                let Some(record) = queue.records.pop_front() else { break };
                queue.bytes -= record.bytes;
                draft.push(partition, record);
                any = true;
            }
            if !any {
                break;
            }
            queue.in_flight += 1;
            self.cursor = PartitionIndex(partition.0.wrapping_add(1));
            // Whoever fills the next batch without keys should not wait behind this one.
            self.sticky = self.sticky.filter(|(sticky, _)| *sticky != partition);
        }
        let oldest = draft.records().map(|record| record.sequence).min()?;
        *self.in_flight.entry(oldest).or_default() += 1;
        Some(draft)
    }

    fn due_from_cursor(&self, now: Instant) -> Vec<PartitionIndex> {
        let (before, from) =
            self.queues.iter().partition::<Vec<_>, _>(|(partition, _)| **partition < self.cursor);
        let in_order = from.into_iter().chain(before);
        in_order.filter(|(_, queue)| self.is_due(queue, now)).map(|(partition, _)| *partition).collect()
    }

    fn is_due(&self, queue: &Queue, now: Instant) -> bool {
        let Some(front) = queue.records.front() else { return false };
        let hurried = self.closed || self.waiting > 0 || front.sequence < self.flush_before;
        let ripe = queue.bytes >= self.batch_bytes() || now >= front.accepted + self.settings.linger;
        queue.in_flight < self.settings.max_in_flight_per_partition && (hurried || ripe)
    }

    /// Takes the records whose time is up before they were sent.
    pub(super) fn take_expired(&mut self, now: Instant) -> Vec<Pending> {
        let mut expired = Vec::new();
        for queue in self.queues.values_mut() {
            while queue
                .records
                .front()
                .is_some_and(|front| now >= front.accepted + self.settings.delivery_timeout)
            {
                let Some(record) = queue.records.pop_front() else { break };
                queue.bytes -= record.bytes;
                expired.push(record);
            }
        }
        expired
    }

    /// When something is due (if more may be sent) or expires next, if nothing else happens before.
    pub(super) fn next_look(&self, may_send: bool) -> Option<Instant> {
        let look = |queue: &Queue| {
            let accepted = queue.records.front()?.accepted;
            let free = may_send && !self.stale && queue.in_flight < self.settings.max_in_flight_per_partition;
            let wait: Duration = if free { self.settings.linger } else { self.settings.delivery_timeout };
            Some(accepted + wait.min(self.settings.delivery_timeout))
        };
        self.queues.values().filter_map(look).min()
    }

    /// A request is answered: its partitions may send again. `returned` are records that must wait again.
    pub(super) fn settle(
        &mut self,
        oldest: u64,
        partitions: &[PartitionIndex],
        returned: BTreeMap<PartitionIndex, Vec<Pending>>,
    ) {
        if let Some(count) = self.in_flight.get_mut(&oldest) {
            *count -= 1;
            if *count == 0 {
                self.in_flight.remove(&oldest);
            }
        }
        for (partition, records) in returned {
            let queue = self.queues.entry(partition).or_default();
            for record in records.into_iter().rev() {
                queue.bytes += record.bytes;
                queue.records.push_front(record);
            }
        }
        for partition in partitions {
            if let Some(queue) = self.queues.get_mut(partition) {
                queue.in_flight = queue.in_flight.saturating_sub(1);
            }
        }
        self.queues.retain(|_, queue| queue.in_flight > 0 || !queue.records.is_empty());
    }

    /// The topic has another partition count: gives every keyed record the partition that it belongs to now.
    ///
    /// Nothing is in flight then. Records stay in the order of their acceptance, so the order of each key stays too.
    pub(super) fn reroute(&mut self, route: Route) {
        self.route = route;
        self.stale = false;
        self.sticky = None;
        for (partition, record) in self.take_all() {
            let partition = match &record.key {
                Some(key) if record.routed => partition_of(key, route.partition_count),
                _ => partition,
            };
            let queue = self.queues.entry(partition).or_default();
            queue.bytes += record.bytes;
            queue.records.push_back(record);
        }
    }

    /// Empties all queues; in the order of acceptance.
    pub(super) fn take_all(&mut self) -> Vec<(PartitionIndex, Pending)> {
        let queues = std::mem::take(&mut self.queues);
        let mut all: Vec<(PartitionIndex, Pending)> = queues
            .into_iter()
            .flat_map(|(partition, queue)| queue.records.into_iter().map(move |record| (partition, record)))
            .collect();
        all.sort_by_key(|(_, record)| record.sequence);
        all
    }
}
