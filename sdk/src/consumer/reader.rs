//! Partitions that are being read: each has a fetcher, and all of them fill one queue of chunks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use carnax_core::id::TopicPartition;
use carnax_core::limits;
use carnax_core::offset::Offset;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use super::ConsumedRecord;
use super::chunk::Chunk;
use super::fetcher::Fetcher;
use super::stream::Current;

/// No fetch asks for less, however many partitions share the prefetched bytes.
const FETCH_BYTES_MIN: u64 = 64 * 1024;

/// Reads any number of partitions, which may come and go.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(super) places: BTreeMap<TopicPartition, Place>,
    /// Gives each start of a partition a number, so that what an earlier one fetched is told apart.
    pub(super) epoch: u64,
    pub(super) chunks: mpsc::UnboundedReceiver<Chunk>,
    /// Bounded by the slots of the fetchers: each may have one chunk here.
    into_chunks: mpsc::UnboundedSender<Chunk>,
    fetches: JoinSet<()>,
    pub(super) current: Option<Current>,
    /// Bytes to be fetched ahead, over all partitions.
    prefetch_bytes: u64,
    /// How much a fetch asks for: shared with all fetchers.
    fetch_bytes: Arc<AtomicU64>,
}

#[derive(Debug)]
pub(super) struct Place {
    fetcher: Fetcher,
    /// The next record to hand out.
    pub(super) position: Offset,
    high_watermark: Arc<AtomicU64>,
    pub(super) epoch: u64,
    paused: bool,
    /// None once it has failed, and while it is paused.
    pub(super) fetch: Option<AbortHandle>,
}

impl Reader {
    pub(crate) fn new(prefetch_bytes: u64) -> Self {
        let (into_chunks, chunks) = mpsc::unbounded_channel();
        Self {
            places: BTreeMap::new(),
            epoch: 0,
            chunks,
            into_chunks,
            fetches: JoinSet::new(),
            current: None,
            prefetch_bytes,
            fetch_bytes: Arc::new(AtomicU64::new(FETCH_BYTES_MIN)),
        }
    }

    /// Begins to read a partition, or goes on elsewhere in one that is being read.
    pub(crate) fn insert(&mut self, fetcher: Fetcher, position: Offset) {
        let on = fetcher.on;
        let high_watermark = Arc::new(AtomicU64::new(position.0));
        let place = Place { fetcher, position, high_watermark, epoch: 0, paused: false, fetch: None };
        self.remove(on);
        self.places.insert(on, place);
        self.share();
        self.restart(on, position);
    }

    /// Reads a partition no more; what was fetched ahead is forgotten.
    pub(crate) fn remove(&mut self, on: TopicPartition) {
        self.stop(on);
        self.places.remove(&on);
        self.share();
    }

    /// Reads nothing any more.
    pub(crate) fn clear(&mut self) {
        let all: Vec<_> = self.places.keys().copied().collect();
        all.into_iter().for_each(|on| self.remove(on));
    }

    pub(crate) fn contains(&self, on: TopicPartition) -> bool {
        self.places.contains_key(&on)
    }

    pub(crate) fn positions(&self) -> impl Iterator<Item = (TopicPartition, Offset)> + '_ {
        self.places.iter().map(|(on, place)| (*on, place.position))
    }

    pub(crate) fn position(&self, on: TopicPartition) -> Option<Offset> {
        self.places.get(&on).map(|place| place.position)
    }

    pub(crate) fn high_watermark(&self, on: TopicPartition) -> Option<Offset> {
        self.places.get(&on).map(|place| Offset(place.high_watermark.load(Ordering::Relaxed)))
    }

    pub(crate) fn failed(&self) -> impl Iterator<Item = TopicPartition> + '_ {
        let failed = self.places.iter().filter(|(_, place)| place.fetch.is_none() && !place.paused);
        failed.map(|(on, _)| *on)
    }

    /// Whether anything is being fetched.
    pub(crate) fn is_active(&self) -> bool {
        self.places.values().any(|place| place.fetch.is_some())
    }

    /// What reads this partition.
    pub(crate) fn fetcher(&self, on: TopicPartition) -> Option<&Fetcher> {
        self.places.get(&on).map(|place| &place.fetcher)
    }

    /// How much a fetch of these partitions asks for; changes with their number.
    pub(crate) fn fetch_bytes(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.fetch_bytes)
    }

    /// Brings a failed partition back where it failed. Does nothing for others.
    pub(crate) fn resume_failed(&mut self, on: TopicPartition) {
        let failed = self.places.get(&on).filter(|place| place.fetch.is_none() && !place.paused);
        if let Some(position) = failed.map(|place| place.position) {
            self.restart(on, position);
        }
    }

    /// Hands out nothing of a partition until it is resumed. What was fetched ahead is forgotten, the position stays.
    pub(crate) fn pause(&mut self, on: TopicPartition) {
        self.stop(on);
        if let Some(place) = self.places.get_mut(&on) {
            place.paused = true;
        }
    }

    /// Goes on with a partition that is paused. Does nothing for others.
    pub(crate) fn resume_paused(&mut self, on: TopicPartition) {
        let Some(place) = self.places.get_mut(&on).filter(|place| place.paused) else { return };
        place.paused = false;
        let position = place.position;
        self.restart(on, position);
    }

    pub(crate) fn paused(&self) -> impl Iterator<Item = TopicPartition> + '_ {
        self.places.iter().filter(|(_, place)| place.paused).map(|(on, _)| *on)
    }

    /// Goes on at `position`; records that were fetched ahead are forgotten. A paused partition stays so.
    pub(crate) fn restart(&mut self, on: TopicPartition, position: Offset) {
        self.stop(on);
        let Some(place) = self.places.get_mut(&on) else { return };
        place.position = position;
        if place.paused {
            return;
        }
        let watermark = Arc::clone(&place.high_watermark);
        let run = place.fetcher.clone().run(position, place.epoch, watermark, self.into_chunks.clone());
        place.fetch = Some(self.fetches.spawn(run));
        // Those that were aborted earlier have ended by now.
        while self.fetches.try_join_next().is_some() {}
    }

    /// Ends the fetch of a partition; whatever it has sent is of an earlier epoch from now on.
    pub(super) fn stop(&mut self, on: TopicPartition) {
        self.epoch += 1;
        let Some(place) = self.places.get_mut(&on) else { return };
        if let Some(fetch) = place.fetch.take() {
            fetch.abort();
        }
        place.epoch = self.epoch;
        if self.current.as_ref().is_some_and(|current| current.on() == on) {
            self.current = None;
        }
    }

    /// Records that are there without waiting, until there are `max`.
    pub(crate) fn take_at_hand(&mut self, max: usize, records: &mut Vec<ConsumedRecord>) {
        while records.len() < max {
            match self.next_at_hand() {
                Some(record) => records.push(record),
                None => return,
            }
        }
    }

    fn share(&mut self) {
        let share = self.prefetch_bytes / (2 * self.places.len().max(1) as u64);
        self.fetch_bytes.store(share.clamp(FETCH_BYTES_MIN, limits::FETCH_BYTES_MAX), Ordering::Relaxed);
    }
}
