//! Times of many calls, and what is worth knowing of them.

use std::time::Duration;

use serde::Serialize;

/// Milliseconds below which so much of the calls stayed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    pub(crate) max_ms: f64,
}

impl Percentiles {
    /// Of all times; zero if there is none.
    pub(crate) fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |permille: usize| {
            let rank = (times.len() * permille).div_ceil(1_000).max(1) - 1;
            times.get(rank).map_or(0.0, |time| time.as_secs_f64() * 1_000.0)
        };
        Self { p50_ms: at(500), p99_ms: at(990), p999_ms: at(999), max_ms: at(1_000) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_smallest_time_that_so_many_calls_do_not_exceed() {
        let times = (1..=1_000).rev().map(Duration::from_millis).collect();
        let expected = Percentiles { p50_ms: 500.0, p99_ms: 990.0, p999_ms: 999.0, max_ms: 1_000.0 };
        assert_eq!(Percentiles::of(times), expected);
        assert_eq!(Percentiles::of(vec![Duration::from_millis(3)]).p999_ms, 3.0);
        assert_eq!(Percentiles::of(Vec::new()).max_ms, 0.0);
    }
}
