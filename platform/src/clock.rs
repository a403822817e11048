//! What time it is.

use std::fmt::Debug;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use carnax_core::time::Timestamp;
use tokio::time::Instant;

/// Tells the time. A component, so that a simulation can let clocks step and drift.
///
/// Waiting is not part of it: that is tokio's, which a simulation controls as well.
pub trait Clock: Debug + Send + Sync + 'static {
    /// The wall clock, which may step in either direction and differs between machines.
    fn wall(&self) -> Timestamp;

    /// Time since some moment before the first call, which never goes back and does not follow the wall clock.
    fn monotonic(&self) -> Duration;
}

/// The clocks of the operating system (the monotonic one through tokio, so that paused time is honoured in tests).
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts now.
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn wall(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::EPOCH.saturating_add(since_epoch)
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}
