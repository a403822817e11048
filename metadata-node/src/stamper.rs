//! Stamps entries just before they are proposed.

use std::sync::{Arc, Mutex, PoisonError};

use carnax_core::time::Timestamp;
use carnax_platform::clock::Clock;

use crate::log_clock::{LogClock, Reading};

/// Holds the log clock while this node leads. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Stamper {
    clock: Arc<dyn Clock>,
    leading: Arc<Mutex<Option<Leading>>>,
}

#[derive(Debug)]
struct Leading {
    log_clock: LogClock,
    peers: Vec<Timestamp>,
    voters: usize,
}

impl Stamper {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, leading: Arc::default() }
    }

    /// Begins to lead where the log ends, or goes on with what is known of the other voters' clocks now.
    pub(crate) fn lead(&self, log_time: Timestamp, peers: Vec<Timestamp>, voters: usize) {
        let mut leading = self.leading.lock().unwrap_or_else(PoisonError::into_inner);
        match leading.as_mut() {
            Some(leading) => (leading.peers, leading.voters) = (peers, voters),
            None => {
                let log_clock = LogClock::start(log_time, self.clock.monotonic());
                *leading = Some(Leading { log_clock, peers, voters });
            }
        }
    }

    /// Leads no longer.
    pub(crate) fn follow(&self) {
        *self.leading.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The wall clock of this node.
    pub(crate) fn wall(&self) -> Timestamp {
        self.clock.wall()
    }

    /// The log time of the next entry. In the moment between winning an election and [`lead`](Self::lead) it has no time of
    /// its own: the state machine then takes the time that it has.
    pub(crate) fn stamp(&self) -> Timestamp {
        let mut leading = self.leading.lock().unwrap_or_else(PoisonError::into_inner);
        leading.as_mut().map_or(Timestamp::EPOCH, |leading| {
            let Leading { log_clock, peers, voters } = leading;
            let (wall, monotonic) = (self.clock.wall(), self.clock.monotonic());
            log_clock.stamp(Reading { wall, monotonic, peers, voters: *voters })
        })
    }
}
