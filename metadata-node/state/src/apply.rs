//! The only way in which the state changes.

use carnax_core::error_code::ErrorCode;
use carnax_core::id::LogIndex;
use carnax_core::problem::Problem;
use carnax_core::time::Timestamp;

use crate::command::Outcome;
use crate::entry::Entry;

/// Everything that the metadata core knows. Cloning is cheap: a clone shares its content until either changes.
#[derive(Debug, Clone, Default)]
pub struct State {
    applied: LogIndexOrNone,
}

type LogIndexOrNone = Option<LogIndex>;

impl State {
    /// Applies one log entry and answers each of its commands, in order.
    ///
    /// Deterministic; never panics; a refused command leaves no trace.
    pub fn apply(&mut self, index: LogIndex, entry: &Entry) -> Vec<Outcome> {
        self.applied = Some(index);
        let refused = || Err(Problem::new(ErrorCode::Unavailable, "the cluster is not bootstrapped"));
        entry.commands.iter().map(|_| refused()).collect()
    }
}

/// Whether a tick is worth proposing.
pub fn due(_state: &State, _now: Timestamp) -> bool {
    false
}
