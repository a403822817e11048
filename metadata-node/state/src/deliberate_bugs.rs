//! Mistakes that the simulation's checker has to find. Without the feature `deliberate-bugs` they cannot be switched on.
//!
//! The mistake is one of the whole process and not of a state: a state comes out of a snapshot or out of nothing in places
//! that should not have to know of this.

#[cfg(feature = "deliberate-bugs")]
use std::sync::OnceLock;
#[cfg(feature = "deliberate-bugs")]
use std::sync::atomic::{AtomicI64, Ordering};

use carnax_core::time::Timestamp;

#[cfg(feature = "deliberate-bugs")]
static MADE: OnceLock<DeliberateBug> = OnceLock::new();

/// The latest time that any wall clock has shown, for the mistake that needs it.
#[cfg(feature = "deliberate-bugs")]
static LATEST: AtomicI64 = AtomicI64::new(i64::MIN);

/// A mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliberateBug {
    /// A state that was restored from a snapshot knows no producers and no idempotency keys.
    ForgetDuplicates,
    /// Group offsets of a unit move whatever is committed.
    SkipFromCheck,
    /// A partition is given to its next member before the last one has let go of it.
    GiveBeforeRelease,
    /// Log time follows the leader's clock, whatever the others' clocks say.
    FollowAnyClock,
    /// The search for orphans does not hear of the manifest pages that may refer to what it found.
    CollectorForgetsPages,
    /// Objects may be deleted as soon as nothing refers to them any more.
    DeletesOneGraceEarly,
    /// A replacement is put where as many slices stand as it was made of, whichever they are.
    MergeLosesSliceOnLostRace,
    /// Whether the grace period of an object is over is judged by the latest time that any wall clock has shown.
    CollectorJudgesByAnotherClock,
}

/// Makes one mistake from now on, in every state of this process; the first one wins.
#[cfg(feature = "deliberate-bugs")]
pub fn make(bug: DeliberateBug) {
    // A second one is not made: a test that wants two finds out.
    let _ = MADE.set(bug);
}

/// Whether this mistake is to be made.
#[cfg(feature = "deliberate-bugs")]
pub fn makes(bug: DeliberateBug) -> bool {
    MADE.get() == Some(&bug)
}

/// Whether this mistake is to be made: never.
#[cfg(not(feature = "deliberate-bugs"))]
pub const fn makes(_: DeliberateBug) -> bool {
    false
}

/// Takes in what a wall clock shows, and tells the latest time that any has shown.
#[cfg(feature = "deliberate-bugs")]
pub fn latest(reading: Timestamp) -> Timestamp {
    let before = LATEST.fetch_max(reading.millis(), Ordering::Relaxed);
    Timestamp::from_millis(before.max(reading.millis()))
}

/// Nothing is taken in.
#[cfg(not(feature = "deliberate-bugs"))]
pub const fn latest(reading: Timestamp) -> Timestamp {
    reading
}
