//! Mistakes that the simulation's checker has to find. Without the feature `deliberate-bugs` they cannot be switched on.

/// Which mistakes are made; by default none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeliberateBugs {
    #[cfg(feature = "deliberate-bugs")]
    enabled: Option<DeliberateBug>,
}

/// A mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliberateBug {
    /// Appends are answered before their segment is committed, with offsets that are guessed.
    AcknowledgeBeforeCommit,
    /// Fetches that find nothing new are answered from the last plan of the partition.
    AnswerFromOldPlan,
    /// A segment commit without an answer is taken for one that failed.
    TakeUnknownForFailure,
    /// A merge leaves out the second of its slices, and puts the others into the place of all.
    MergeLosesSlice,
}

impl DeliberateBugs {
    /// Makes one mistake.
    #[cfg(feature = "deliberate-bugs")]
    pub const fn only(bug: DeliberateBug) -> Self {
        Self { enabled: Some(bug) }
    }

    #[cfg(feature = "deliberate-bugs")]
    pub(crate) fn makes(self, bug: DeliberateBug) -> bool {
        self.enabled == Some(bug)
    }

    #[cfg(not(feature = "deliberate-bugs"))]
    #[expect(clippy::unused_self, reason = "the same signature with and without the feature")]
    pub(crate) const fn makes(self, _: DeliberateBug) -> bool {
        false
    }
}
