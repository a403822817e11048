//! A store that misbehaves on demand, and counts.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use carnax_core::usage::StoreRequests;
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::error::{ObjectStoreError, Said};
use crate::key::Version;
use crate::payload::Payload;
use crate::store::{GetRange, ListPage, ObjectHead, ObjectStore, StoreFuture, Verb};

/// What befalls one call. The default is nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fault {
    /// Waited before the call reaches the store.
    pub delay: Duration,
    /// Waited after the store has done it, before the caller knows.
    pub delay_after: Duration,
    /// What the caller gets instead of the store's answer; none: the answer.
    pub failure: Option<Failure>,
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Nothing is done and the caller knows: `Unavailable`.
    Before,
    /// Nothing is done and the caller knows: `Throttled`.
    Throttled,
    /// Nothing is done, but a caller who writes cannot know: `OutcomeUnknown` (`Unavailable` for reads).
    Lost,
    /// It is done, but a caller who writes cannot know: `OutcomeUnknown` (`Unavailable` for reads).
    After,
}

impl Fault {
    /// The call only takes longer.
    pub const fn delay(delay: Duration) -> Self {
        Self { delay, delay_after: Duration::ZERO, failure: None }
    }

    /// The call fails at once.
    pub const fn fail(failure: Failure) -> Self {
        Self { delay: Duration::ZERO, delay_after: Duration::ZERO, failure: Some(failure) }
    }
}

/// How often a seeded store misbehaves, in faults a thousand calls, and for how long it waits at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FaultRates {
    /// [`Failure::Before`]
    pub before_per_mille: u16,
    /// [`Failure::Throttled`]
    pub throttled_per_mille: u16,
    /// [`Failure::Lost`]
    pub lost_per_mille: u16,
    /// [`Failure::After`]
    pub after_per_mille: u16,
    /// Each call waits up to so long before, and up to so long after it is done.
    pub delay_max: Duration,
}

/// Hands calls to another store, with faults before, after or instead of it.
///
/// Faults come from a script for each verb while it lasts, then from the seed, if there is one. They depend on nothing but
/// script, seed and the order of the calls. Waits use tokio's clock, so that they are virtual where that is. Dropping a
/// future during its first wait means that nothing was done; during the second, that it was done.
#[derive(Debug)]
pub struct FaultStore<S> {
    inner: S,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    calls: BTreeMap<Verb, u64>,
    script: BTreeMap<Verb, VecDeque<Fault>>,
    rates: FaultRates,
    random: u64,
}

impl<S: ObjectStore> FaultStore<S> {
    /// Without faults, until some are scripted: counts only.
    pub fn new(inner: S) -> Self {
        Self { inner, state: Mutex::default() }
    }

    /// With random faults that follow from a seed.
    pub fn seeded(inner: S, seed: u64, rates: FaultRates) -> Self {
        let store = Self::new(inner);
        store.state().random = seed;
        store.set_rates(rates);
        store
    }

    /// Changes how often random faults happen from the next call on; the default stops them.
    pub fn set_rates(&self, rates: FaultRates) {
        self.state().rates = rates;
    }

    /// Lets the next calls of a verb meet these faults, one each, after those scripted before.
    pub fn script(&self, verb: Verb, faults: impl IntoIterator<Item = Fault>) {
        self.state().script.entry(verb).or_default().extend(faults);
    }

    /// How often a verb was called so far, failed calls included.
    pub fn calls(&self, verb: Verb) -> u64 {
        self.state().calls.get(&verb).copied().unwrap_or(0)
    }

    /// How often any verb was called so far.
    pub fn calls_total(&self) -> u64 {
        self.state().calls.values().sum()
    }

    /// The store behind.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Meets the fault of this call around what it does.
    async fn meet<T>(
        &self,
        verb: Verb,
        key: &str,
        work: BoxFuture<'_, Result<T, ObjectStoreError>>,
    ) -> Result<T, ObjectStoreError> {
        let Fault { delay, delay_after, failure } = self.state().next(verb);
        wait(delay).await;
        match failure {
            None => {
                let result = work.await;
                wait(delay_after).await;
                result
            }
            Some(Failure::After) => {
                let _ = work.await;
                wait(delay_after).await;
                Err(unknown(verb, key))
            }
            Some(Failure::Lost) => Err(unknown(verb, key)),
            Some(Failure::Before) => Err(ObjectStoreError::unavailable(verb, key, injected())),
            Some(Failure::Throttled) => Err(ObjectStoreError::throttled(verb, key, injected())),
        }
    }
}

impl State {
    fn next(&mut self, verb: Verb) -> Fault {
        *self.calls.entry(verb).or_default() += 1;
        if let Some(fault) = self.script.get_mut(&verb).and_then(VecDeque::pop_front) {
            return fault;
        }
        if self.rates == FaultRates::default() {
            return Fault::default();
        }
        let FaultRates { before_per_mille, throttled_per_mille, lost_per_mille, after_per_mille, delay_max } =
            self.rates;
        let (delay, delay_after) = (self.wait_up_to(delay_max), self.wait_up_to(delay_max));
        let mut roll = self.random() % 1_000;
        let mut failure = None;
        for (per_mille, candidate) in [
            (before_per_mille, Failure::Before),
            (throttled_per_mille, Failure::Throttled),
            (lost_per_mille, Failure::Lost),
            (after_per_mille, Failure::After),
        ] {
            if failure.is_none() && roll < u64::from(per_mille) {
                failure = Some(candidate);
            }
            roll = roll.saturating_sub(u64::from(per_mille));
        }
        Fault { delay, delay_after, failure }
    }

    fn wait_up_to(&mut self, max: Duration) -> Duration {
        let micros = u64::try_from(max.as_micros()).unwrap_or(u64::MAX - 1);
        Duration::from_micros(self.random() % (micros + 1))
    }

    /// SplitMix64: enough to scatter faults, and the same everywhere.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

async fn wait(duration: Duration) {
    if !duration.is_zero() {
        tokio::time::sleep(duration).await;
    }
}

fn injected() -> crate::error::SharedError {
    Said::shared("injected by a test")
}

fn unknown(verb: Verb, key: &str) -> ObjectStoreError {
    match verb.writes() {
        true => ObjectStoreError::outcome_unknown(verb, key, injected()),
        false => ObjectStoreError::unavailable(verb, key, injected()),
    }
}

impl<S: ObjectStore> ObjectStore for FaultStore<S> {
    fn put_if_absent<'a>(&'a self, key: &'a str, payload: Payload) -> StoreFuture<'a, ()> {
        let work = async move { self.inner.put_if_absent(key, payload).await };
        self.meet(Verb::PutIfAbsent, key, work.boxed()).boxed()
    }

    fn compare_and_swap<'a>(
        &'a self,
        key: &'a str,
        expected: Option<Version>,
        bytes: Bytes,
    ) -> StoreFuture<'a, Version> {
        let work = async move { self.inner.compare_and_swap(key, expected, bytes).await };
        self.meet(Verb::CompareAndSwap, key, work.boxed()).boxed()
    }

    fn get<'a>(&'a self, key: &'a str, range: GetRange) -> StoreFuture<'a, (Bytes, Version)> {
        let work = async move { self.inner.get(key, range).await };
        self.meet(Verb::Get, key, work.boxed()).boxed()
    }

    fn head<'a>(&'a self, key: &'a str) -> StoreFuture<'a, ObjectHead> {
        let work = async move { self.inner.head(key).await };
        self.meet(Verb::Head, key, work.boxed()).boxed()
    }

    fn list<'a>(&'a self, prefix: &'a str, start_after: &'a str, limit: usize) -> StoreFuture<'a, ListPage> {
        let work = async move { self.inner.list(prefix, start_after, limit).await };
        self.meet(Verb::List, prefix, work.boxed()).boxed()
    }

    fn delete_many<'a>(&'a self, keys: &'a [String]) -> BoxFuture<'a, Vec<Result<(), ObjectStoreError>>> {
        async move {
            let work = async move { Ok(self.inner.delete_many(keys).await) };
            let first = keys.first().map_or("", String::as_str);
            match self.meet(Verb::DeleteMany, first, work.boxed()).await {
                Ok(results) => results,
                Err(error) => vec![Err(error); keys.len()],
            }
        }
        .boxed()
    }

    fn take_requests(&self) -> StoreRequests {
        self.inner.take_requests()
    }
}

#[cfg(test)]
mod tests;
