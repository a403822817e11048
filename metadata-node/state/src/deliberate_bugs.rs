//! Mistakes that the simulation's checker has to find. Without the feature `deliberate-bugs` they cannot be switched on.
//!
//! The mistake is one of the whole process and not of a state: a state comes out of a snapshot or out of nothing in places
//! that should not have to know of this.

#[cfg(feature = "deliberate-bugs")]
use std::sync::OnceLock;

#[cfg(feature = "deliberate-bugs")]
static MADE: OnceLock<DeliberateBug> = OnceLock::new();

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
