//! A token bucket that may be overdrawn, as one moment: when all that was used will be paid for.

use std::time::Duration;

/// What may be used at once: so much time's worth.
const BURST: Duration = Duration::from_secs(1);
/// No wait is longer; a quota of nothing is looked at again after it.
const WAIT_MAX: Duration = Duration::from_secs(3_600);
/// No more is owed than is paid for in this time: a quota may be so small that it would take years.
const OWED_MAX: Duration = Duration::from_secs(24 * 3_600);

/// What is left of one quota. A new one is full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Bucket {
    /// Monotonic time at which it is full again.
    full_at: Duration,
    per_second: u64,
}

impl Bucket {
    /// Sets what flows in. What is owed stays as many units as it was, and so is paid faster or slower from now on.
    pub(super) fn set_rate(&mut self, per_second: u64, now: Duration) {
        if self.per_second == per_second {
            return;
        }
        let owed = self.full_at.saturating_sub(now).as_nanos() * u128::from(self.per_second);
        let owed = owed.checked_div(u128::from(per_second)).unwrap_or(0);
        *self = Self { full_at: now.saturating_add(nanos(owed).min(OWED_MAX)), per_second };
    }

    /// How long until one unit is there; zero: now.
    pub(super) fn wait(&self, now: Duration) -> Duration {
        if self.per_second == 0 {
            return WAIT_MAX;
        }
        let owed = self.full_at.saturating_sub(now);
        let one = nanos(1_000_000_000 / u128::from(self.per_second));
        (owed + one).saturating_sub(BURST).min(WAIT_MAX)
    }

    /// Uses an amount, also one that is not there.
    pub(super) fn charge(&mut self, amount: u64, now: Duration) {
        let Some(time) = (u128::from(amount) * 1_000_000_000).checked_div(u128::from(self.per_second)) else {
            return;
        };
        let full_at = self.full_at.max(now).saturating_add(nanos(time));
        self.full_at = full_at.min(now.saturating_add(OWED_MAX));
    }

    /// Whether nothing is owed: such a bucket is as good as a new one.
    pub(super) fn is_full(&self, now: Duration) -> bool {
        self.full_at <= now
    }
}

fn nanos(nanos: u128) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
