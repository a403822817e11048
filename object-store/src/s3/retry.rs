//! When to try again: a few times, later and later, and not at all when nothing gets through.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Tries saved up by a store that works.
const BUDGET_MAX: f64 = 100.0;
/// What a request that succeeds adds to the budget; a repeated try takes 1.
const BUDGET_PER_SUCCESS: f64 = 0.1;
/// The longest first pause; it doubles from try to try.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
/// The same after the store has asked for fewer requests.
const PAUSE_FIRST_THROTTLED: Duration = Duration::from_millis(250);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Bounds the repeated tries of all requests together: a store that is down is not asked many times more often than one
/// that works.
#[derive(Debug)]
pub(super) struct RetryBudget {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    tokens: f64,
    random: u64,
}

impl RetryBudget {
    pub(super) fn new() -> Self {
        // Only spreads pauses, so that many processes do not come back at one moment.
        let random = RandomState::new().hash_one(std::process::id());
        Self { state: Mutex::new(State { tokens: BUDGET_MAX, random }) }
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The patience of one request.
#[derive(Debug)]
pub(super) struct Persistence<'a> {
    tries_left: u32,
    pauses: u32,
    budget: &'a RetryBudget,
}

impl<'a> Persistence<'a> {
    pub(super) fn new(tries_max: u32, budget: &'a RetryBudget) -> Self {
        Self { tries_left: tries_max.saturating_sub(1), pauses: 0, budget }
    }

    /// How long to wait before the next try; none to give up.
    pub(super) fn pause(&mut self, throttled: bool) -> Option<Duration> {
        self.tries_left = self.tries_left.checked_sub(1)?;
        let share = self.budget.change(|state| {
            if state.tokens < 1.0 {
                return None;
            }
            state.tokens -= 1.0;
            Some(state.share())
        })?;
        let first = if throttled { PAUSE_FIRST_THROTTLED } else { PAUSE_FIRST };
        let longest = first.saturating_mul(1 << self.pauses.min(16)).min(PAUSE_MAX);
        self.pauses += 1;
        // Between half of the pause and all of it: spread, but never at once.
        Some(longest / 2 + longest.mul_f64(share / 2.0))
    }

    pub(super) fn succeeded(&self) {
        self.budget.change(|state| state.tokens = (state.tokens + BUDGET_PER_SUCCESS).min(BUDGET_MAX));
    }
}

impl State {
    /// A number from 0 to 1 (xorshift).
    fn share(&mut self) -> f64 {
        self.random |= 1;
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        f64::from(u16::try_from(self.random >> 48).unwrap_or(0)) / f64::from(u16::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_tries_end() {
        let budget = RetryBudget::new();
        let mut persistence = Persistence::new(20, &budget);
        let pauses: Vec<Duration> = std::iter::from_fn(|| persistence.pause(false)).collect();
        assert_eq!(pauses.len(), 19, "the first try is not a repetition");
        for (number, pause) in (0_u32..).zip(&pauses) {
            let longest = PAUSE_FIRST.saturating_mul(1 << number.min(16)).min(PAUSE_MAX);
            assert!(*pause >= longest / 2 && *pause <= longest, "{number}: {pause:?}");
        }
        let mut throttled = Persistence::new(2, &budget);
        assert!(throttled.pause(true).is_some_and(|pause| pause >= PAUSE_FIRST_THROTTLED / 2));
        assert_eq!(Persistence::new(1, &budget).pause(true), None);
    }

    #[test]
    fn a_store_that_always_fails_gets_few_repetitions_and_successes_earn_new_ones() {
        let budget = RetryBudget::new();
        let mut repetitions = 0;
        for _ in 0..1_000 {
            let mut request = Persistence::new(6, &budget);
            while request.pause(false).is_some() {
                repetitions += 1;
            }
        }
        assert_eq!(repetitions, 100);
        for _ in 0..11 {
            Persistence::new(6, &budget).succeeded();
        }
        let mut request = Persistence::new(6, &budget);
        assert!(request.pause(false).is_some());
        assert!(request.pause(false).is_none());
    }
}
