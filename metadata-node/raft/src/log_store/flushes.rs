//! Knows which fsyncs are under way.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The writes that wait for their fsync, so that a watchdog can see a disk that hangs. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flushes(Arc<Mutex<Pending>>);

#[derive(Debug, Default)]
struct Pending {
    next: u64,
    since: BTreeMap<u64, Instant>,
}

impl Flushes {
    /// A write begins to wait; it waits until the ticket is dropped.
    pub(crate) fn begin(&self) -> FlushTicket {
        let mut pending = self.lock();
        let number = pending.next;
        pending.next += 1;
        pending.since.insert(number, Instant::now());
        FlushTicket { flushes: self.clone(), number }
    }

    /// How long the oldest unfinished write has been waiting.
    pub(crate) fn oldest(&self) -> Option<Duration> {
        self.lock().since.first_key_value().map(|(_, since)| since.elapsed())
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One write that waits.
#[derive(Debug)]
pub(crate) struct FlushTicket {
    flushes: Flushes,
    number: u64,
}

impl Drop for FlushTicket {
    fn drop(&mut self) {
        self.flushes.lock().since.remove(&self.number);
    }
}
