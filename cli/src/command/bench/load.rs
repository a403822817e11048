//! Many callers at once, each making one call after the other.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::task::JoinSet;

/// Bytes that no codec makes shorter, the same for the same seed.
pub(super) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// What one call moved.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Moved {
    pub(super) bytes: u64,
    pub(super) records: u64,
}

/// What all calls moved, and how long each took.
#[derive(Debug, Default)]
pub(super) struct Measured {
    pub(super) times: Vec<Duration>,
    pub(super) errors: usize,
    pub(super) moved: Moved,
    pub(super) elapsed: Duration,
}

impl Measured {
    pub(super) fn mib_per_s(&self) -> f64 {
        self.moved.bytes as f64 / f64::from(1 << 20) / self.elapsed.as_secs_f64().max(1e-6)
    }

    pub(super) fn records_per_s(&self) -> f64 {
        self.moved.records as f64 / self.elapsed.as_secs_f64().max(1e-6)
    }

    /// Adds what was measured at another time.
    pub(super) fn join(&mut self, other: Self) {
        self.times.extend(other.times);
        self.errors += other.errors;
        self.moved.bytes += other.moved.bytes;
        self.moved.records += other.moved.records;
        self.elapsed += other.elapsed;
    }

    pub(super) fn add(&mut self, moved: Moved, took: Duration) {
        self.times.push(took);
        self.moved.bytes += moved.bytes;
        self.moved.records += moved.records;
    }
}

/// Runs `callers` callers until each is told that there is nothing more to do. A call is given its caller and its number.
///
/// A caller ends with its first error; if nothing succeeded at all, that error is the result.
pub(super) async fn run<F, Fut>(callers: usize, call: F) -> anyhow::Result<Measured>
where
    F: Fn(usize, usize) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = anyhow::Result<Option<Moved>>> + Send,
{
    let call = Arc::new(call);
    let started = Instant::now();
    let mut running = JoinSet::new();
    for caller in 0..callers {
        let call = Arc::clone(&call);
        running.spawn(async move {
            let mut calls = Vec::new();
            for number in 0.. {
                let begun = Instant::now();
                match Box::pin(call(caller, number)).await {
                    Ok(Some(moved)) => calls.push((moved, begun.elapsed())),
                    Ok(None) => break,
                    Err(error) => return (calls, Some(error)),
                }
            }
            (calls, None)
        });
    }
    let mut measured = Measured::default();
    let mut first = None;
    while let Some(ended) = running.join_next().await {
        let (calls, error) = ended.context("a caller panicked")?;
        calls.into_iter().for_each(|(moved, took)| measured.add(moved, took));
        if let Some(error) = error {
            measured.errors += 1;
            first.get_or_insert(error);
        }
    }
    measured.elapsed = started.elapsed();
    match first {
        Some(error) if measured.times.is_empty() => Err(error),
        _ => Ok(measured),
    }
}
