//! Commands that wait to be proposed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use carnax_core::problem::Problem;
use carnax_metadata_state::Command;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::Applied;

const WAITING: u8 = 0;
const TAKEN: u8 = 1;
const WITHDRAWN: u8 = 2;

/// A command with its caller.
#[derive(Debug)]
pub(super) struct Proposal {
    command: Command,
    caller: Caller,
}

/// Who waits for a command.
#[derive(Debug)]
pub(super) struct Caller {
    reply: oneshot::Sender<Result<Applied, Problem>>,
    claim: Claim,
    /// Room in the queue, given back when the command is answered.
    _room: OwnedSemaphorePermit,
}

impl Proposal {
    pub(super) fn new(
        command: Command,
        reply: oneshot::Sender<Result<Applied, Problem>>,
        claim: Claim,
        room: OwnedSemaphorePermit,
    ) -> Self {
        Self { command, caller: Caller { reply, claim, _room: room } }
    }

    /// The proposer takes the command; false if it was withdrawn.
    pub(super) fn take(&self) -> bool {
        self.caller.claim.change(TAKEN)
    }

    /// About how many bytes it takes in the log.
    pub(super) fn bytes(&self) -> usize {
        estimated_bytes(&self.command)
    }

    pub(super) fn into_parts(self) -> (Caller, Command) {
        (self.caller, self.command)
    }
}

impl From<(Caller, Command)> for Proposal {
    fn from((caller, command): (Caller, Command)) -> Self {
        Self { command, caller }
    }
}

impl Caller {
    pub(super) fn tell(self, result: Result<Applied, Problem>) {
        // Fails if the caller has given up.
        let _ = self.reply.send(result);
    }
}

/// Decides between the proposer, who takes a command, and its caller, who gives up: exactly one of them wins, so that a
/// caller knows whether its command can still reach the log.
#[derive(Debug, Clone)]
pub(super) struct Claim(Arc<AtomicU8>);

impl Claim {
    pub(super) fn new() -> Self {
        Self(Arc::new(AtomicU8::new(WAITING)))
    }

    /// The caller withdraws the command; false if it was taken.
    pub(super) fn withdraw(&self) -> bool {
        self.change(WITHDRAWN)
    }

    fn change(&self, to: u8) -> bool {
        self.0.compare_exchange(WAITING, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// About how many bytes a command takes in the log. Encoding it to find out would do the work twice.
pub(super) fn estimated_bytes(command: &Command) -> usize {
    match command {
        Command::CommitSegments(commit) => {
            let units = commit.segments.iter().flat_map(|segment| &segment.units);
            let slices: usize = units.map(|unit| 1 + unit.slices.len() + unit.conditions.len()).sum();
            256 + commit.segments.len() * 64 + slices * 128
        }
        _ => 512,
    }
}
