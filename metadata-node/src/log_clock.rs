//! Which time the leader stamps on a command.
//!
//! Log time decides when sessions, producers and segments expire, so one machine with a wrong clock must not move it:
//!
//! - it never goes back, whatever the wall clock does and whoever leads;
//! - it follows the leader's wall clock, but runs ahead of what the leader's *monotonic* clock has counted since it began
//!   to lead by at most [`AHEAD_MAX`] …
//! - … unless a majority of the voters have wall clocks that have come at least as far. That is how a cluster wakes up
//!   that slept for a week.
//!
//! Pure: clocks arrive as arguments.

use std::time::Duration;

use carnax_core::limits;
use carnax_core::time::Timestamp;
use carnax_metadata_state::deliberate_bugs::{self, DeliberateBug};

/// How far log time runs ahead of the leader's monotonic clock on the leader's word alone.
pub(crate) const AHEAD_MAX: Duration = limits::CLOCK_AHEAD_MAX;

/// Stamps commands while this node leads.
#[derive(Debug, Clone)]
pub(crate) struct LogClock {
    anchor: Timestamp,
    anchored_at: Duration,
    last: Timestamp,
}

/// What the clocks say at the moment of a stamp.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading<'a> {
    /// The leader's wall clock.
    pub(crate) wall: Timestamp,
    /// The leader's monotonic clock.
    pub(crate) monotonic: Duration,
    /// The wall clocks of the other voters now, as far as they are known.
    pub(crate) peers: &'a [Timestamp],
    /// How many voters there are, the leader included.
    pub(crate) voters: usize,
}

impl LogClock {
    /// Starts where the log ends: `last` is the log time of the newest applied command.
    pub(crate) fn start(last: Timestamp, monotonic: Duration) -> Self {
        Self { anchor: last, anchored_at: monotonic, last }
    }

    /// The time of the next command.
    pub(crate) fn stamp(&mut self, reading: Reading<'_>) -> Timestamp {
        let counted = self.anchor.saturating_add(reading.monotonic.saturating_sub(self.anchored_at));
        let mut time = reading.wall;
        if time > counted.saturating_add(AHEAD_MAX) {
            if majority_agrees(time, reading) || deliberate_bugs::makes(DeliberateBug::FollowAnyClock) {
                (self.anchor, self.anchored_at) = (time, reading.monotonic);
            } else {
                time = counted;
            }
        }
        self.last = self.last.max(time);
        self.last
    }
}

/// Whether a majority, the leader included, has come within [`AHEAD_MAX`] of `time`.
fn majority_agrees(time: Timestamp, reading: Reading<'_>) -> bool {
    let earliest = time.saturating_sub(AHEAD_MAX);
    let agreeing = 1 + reading.peers.iter().filter(|peer| **peer >= earliest).count();
    agreeing > reading.voters / 2
}

/// How far the leader's wall clock is from the median of all voters' clocks that are known, if a majority is.
///
/// With an even number of clocks the median nearer to the leader counts, so that two nodes that disagree do not take
/// leadership from each other in turn.
pub(crate) fn off_the_median(reading: Reading<'_>) -> Option<Duration> {
    let mut clocks: Vec<Timestamp> = reading.peers.to_vec();
    clocks.push(reading.wall);
    if clocks.len() <= reading.voters / 2 {
        return None;
    }
    clocks.sort_unstable();
    let distance = |other: Timestamp| reading.wall.since(other).max(other.since(reading.wall));
    let (lower, upper) = (clocks[(clocks.len() - 1) / 2], clocks[clocks.len() / 2]);
    Some(distance(lower).min(distance(upper)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    fn reading(wall: i64, monotonic: u64, peers: &[Timestamp]) -> Reading<'_> {
        Reading { wall: at(wall), monotonic: Duration::from_secs(monotonic), peers, voters: 3 }
    }

    #[test]
    fn log_time_follows_the_wall_clock_and_never_goes_back() {
        let mut clock = LogClock::start(at(1_000), Duration::from_secs(5));
        assert_eq!(clock.stamp(reading(1_001, 6, &[])), at(1_001));
        assert_eq!(clock.stamp(reading(900, 7, &[])), at(1_001));
        assert_eq!(clock.stamp(reading(1_003, 8, &[])), at(1_003));
        assert_eq!(
            clock.stamp(reading(1_060, 9, &[])),
            at(1_060),
            "within a minute the leader's word is enough"
        );
    }

    #[test]
    fn a_jump_needs_a_majority() {
        let mut clock = LogClock::start(at(1_000), Duration::ZERO);
        assert_eq!(
            clock.stamp(reading(9_000, 10, &[at(1_010), at(1_010)])),
            at(1_010),
            "the leader alone jumped"
        );
        assert_eq!(clock.stamp(reading(9_001, 11, &[])), at(1_011), "nobody knows the peers' clocks yet");
        assert_eq!(clock.stamp(reading(9_002, 12, &[at(8_990)])), at(9_002), "two of three have come so far");
        assert_eq!(
            clock.stamp(reading(9_003, 13, &[at(1_013), at(1_013)])),
            at(9_003),
            "and from there on it counts"
        );
        assert_eq!(clock.stamp(reading(99_000, 14, &[at(1_014), at(1_014)])), at(9_004));
        let mut alone = LogClock::start(at(1_000), Duration::ZERO);
        assert_eq!(alone.stamp(Reading { voters: 1, ..reading(700_000, 1, &[]) }), at(700_000));
    }

    #[test]
    fn only_a_leader_that_differs_from_the_middle_is_off() {
        let off =
            |wall, peers: &[Timestamp]| off_the_median(reading(wall, 0, peers)).map(|off| off.as_secs());
        assert_eq!(off(1_000, &[at(1_001), at(5_000)]), Some(1));
        assert_eq!(off(5_000, &[at(1_001), at(1_000)]), Some(3_999));
        assert_eq!(off(5_000, &[at(1_000)]), Some(0), "two that disagree: nobody is right");
        assert_eq!(off(5_000, &[]), None, "one of three is no majority");
    }
}
