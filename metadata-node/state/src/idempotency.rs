//! Idempotency keys: what became of requests whose clients remember nothing but a key.
//!
//! A key means something only to its principal. It lives a window of log time since its unit was accepted; every entry of the
//! log drops what has expired before it is applied, so none of the functions that change or check something meets an
//! expired one.

use std::sync::Arc;
use std::time::Duration;

use carnax_core::metadata::{ClusterSettings, IdempotencyStamp, UnitOutcome};
use carnax_core::name::IdempotencyKey;
use carnax_core::problem::Problem;
use carnax_core::time::Timestamp;
use imbl::{OrdMap, Vector};

use crate::remembered::{Remembered, full};

/// A key with the principal that chose it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OwnedKey {
    pub(crate) principal: Arc<str>,
    pub(crate) key: IdempotencyKey,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct IdempotencyKeys {
    by_key: OrdMap<OwnedKey, Remembered>,
    /// All keys in the order of their acceptance, which is also that of their expiry, since log time never goes back.
    order: Vector<OwnedKey>,
    /// Slices in all kept answers.
    slices: u64,
}

impl IdempotencyKeys {
    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(crate) fn slices(&self) -> u64 {
        self.slices
    }

    /// All keys in the order of their acceptance.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&OwnedKey, &Remembered)> {
        self.order.iter().filter_map(|key| Some((key, self.by_key.get(key)?)))
    }

    /// Answers a unit that was accepted before.
    pub(crate) fn recall(&self, stamp: &IdempotencyStamp) -> Result<Option<UnitOutcome>, Problem> {
        let known = self.by_key.get(&OwnedKey::of(stamp));
        known.map(|reply| reply.repeat(stamp.body_hash)).transpose()
    }

    /// Whether one more key may be remembered.
    pub(crate) fn check_room(&self, settings: &ClusterSettings, now: Timestamp) -> Result<(), Problem> {
        if (self.by_key.len() as u64) < settings.idempotency_keys_max {
            return Ok(());
        }
        let wait = self.oldest().map(|at| settings.idempotency_window.saturating_sub(now.since(at)));
        Err(full("as many idempotency keys are remembered as may be", settings.idempotency_keys_max, wait))
    }

    /// Notes an accepted unit with its answer.
    pub(crate) fn record(&mut self, stamp: &IdempotencyStamp, reply: Remembered) {
        let mut key = OwnedKey::of(stamp);
        // Neighbours mostly have the same principal: one text serves all of them.
        let neighbour = self.by_key.get_prev(&key).or_else(|| self.by_key.get_next(&key));
        if let Some((neighbour, _)) = neighbour.filter(|(known, _)| known.principal == key.principal) {
            key.principal = Arc::clone(&neighbour.principal);
        }
        self.slices = self.slices.saturating_add(reply.slice_count());
        self.order.push_back(key.clone());
        self.by_key.insert(key, reply);
    }

    /// Drops the keys whose window has passed.
    pub(crate) fn expire(&mut self, window: Duration, now: Timestamp) {
        while self.due(window, now) {
            let Some(key) = self.order.pop_front() else { return };
            let gone = self.by_key.remove(&key).map_or(0, |reply| reply.slice_count());
            self.slices = self.slices.saturating_sub(gone);
        }
    }

    /// Whether [`expire`](Self::expire) would have something to drop.
    pub(crate) fn due(&self, window: Duration, now: Timestamp) -> bool {
        self.oldest().is_some_and(|at| now.since(at) >= window)
    }

    /// Puts a key behind all others; says whether it belongs there.
    pub(crate) fn restore(&mut self, stamp: &IdempotencyStamp, reply: Remembered) -> bool {
        let key = OwnedKey::of(stamp);
        let newest = self.order.last().and_then(|last| self.by_key.get(last));
        let in_order = newest.is_none_or(|newest| newest.append_time <= reply.append_time);
        if !in_order || self.by_key.contains_key(&key) {
            return false;
        }
        self.record(stamp, reply);
        true
    }

    fn oldest(&self) -> Option<Timestamp> {
        self.by_key.get(self.order.front()?).map(|reply| reply.append_time)
    }
}

impl OwnedKey {
    fn of(stamp: &IdempotencyStamp) -> Self {
        Self { principal: stamp.principal.as_str().into(), key: stamp.key.clone() }
    }
}
