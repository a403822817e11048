//! Groups commands into log entries.
//!
//! ```text
//! propose ─▶ bounded queue ─▶ one entry of all that wait ─▶ log, quorum, apply ─▶ each caller its own outcome
//!                             (few entries under way: while they are, the next one fills)
//! ```
//!
//! No timer: an idle proposer sends a lone command at once, a busy one fills entries while their predecessors are being
//! fsynced. Nothing is decided here; offsets are given out by `apply` alone.

mod queue;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use carnax_core::error_code::ErrorCode;
use carnax_core::id::LogIndex;
use carnax_core::limits::COMMAND_BYTES_MAX;
use carnax_core::problem::Problem;
use carnax_core::time::Timestamp;
use carnax_metadata_state::{Command, Entry, FeatureLevel, Outcome};
use futures::stream::{FuturesUnordered, StreamExt};
use openraft::errors::ClientWriteError;
use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResult;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use self::queue::{Caller, Claim, Proposal, estimated_bytes};
use crate::read::{not_leader, stopped};
use crate::settings::StampEntry;
use crate::state_machine::StateView;
use crate::types::{EncodedEntry, Raft, Types};

/// Commands that may wait.
const QUEUE_MAX: usize = 4_096;
/// Bytes of commands that may wait.
const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// An entry takes no further command once it has about this many bytes.
const ENTRY_BYTES: usize = 64 * 1024;
/// Entries under way. More would only make them smaller: the disk takes one fsync at a time.
const ENTRIES_MAX: usize = 6;

/// A command that was applied: it is in the log for ever, whatever its outcome.
#[derive(Debug, Clone)]
pub struct Applied {
    /// Where its entry stands in the log.
    pub index: LogIndex,
    /// Log time with it.
    pub log_time: Timestamp,
    /// What the state machine made of it.
    pub outcome: Outcome,
}

/// Says what entries are stamped with.
pub(crate) struct Stamper {
    pub(crate) log_time: StampEntry,
    pub(crate) view: watch::Receiver<Arc<StateView>>,
    /// The level of a cluster that begins here.
    pub(crate) level_max: FeatureLevel,
}

/// What an entry is stamped with.
#[derive(Debug, Clone, Copy)]
struct Stamp {
    level: FeatureLevel,
    log_time: Timestamp,
}

impl Stamper {
    /// The level is that of the cluster, as far as this node has applied its log: one that was raised beyond that only has
    /// commands refused that need it.
    fn stamp(&self) -> Stamp {
        let level = self.view.borrow().state.feature_level().unwrap_or(self.level_max);
        Stamp { level, log_time: (self.log_time)() }
    }
}

/// Takes commands to the log. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Proposer {
    queue: mpsc::Sender<Proposal>,
    room: Arc<tokio::sync::Semaphore>,
}

impl Proposer {
    /// A proposer and the work that it needs done.
    pub(crate) fn new(
        raft: Raft,
        stamp: Stamper,
        stop: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        let room = Arc::new(tokio::sync::Semaphore::new(QUEUE_BYTES_MAX));
        (Self { queue: sender, room }, serve(raft, stamp, receiver, stop))
    }

    /// Proposes a command and waits until it is applied.
    pub(crate) async fn propose(&self, command: Command, deadline: Duration) -> Result<Applied, Problem> {
        let overloaded = || Problem::new(ErrorCode::TooManyRequests, "too many commands wait for the log");
        let bytes = u32::try_from(estimated_bytes(&command)).map_err(|_| overloaded())?;
        let room = Arc::clone(&self.room).try_acquire_many_owned(bytes).map_err(|_| overloaded())?;
        let (reply, applied) = oneshot::channel();
        let claim = Claim::new();
        let proposal = Proposal::new(command, reply, claim.clone(), room);
        self.queue.try_send(proposal).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => overloaded(),
            mpsc::error::TrySendError::Closed(_) => stopped(),
        })?;
        match tokio::time::timeout(deadline, applied).await {
            Ok(Ok(result)) => result,
            // The proposer has stopped; what it had taken may be in the log.
            Ok(Err(_)) if claim.withdraw() => Err(stopped()),
            Err(_) if claim.withdraw() => Err(Problem::new(
                ErrorCode::NoQuorum,
                format!("the command could not be proposed within {deadline:?}"),
            )),
            Ok(Err(_)) => Err(unknown("the node stopped before the command was applied")),
            Err(_) => Err(unknown(&format!("the command was not applied within {deadline:?}"))),
        }
    }
}

async fn serve(raft: Raft, stamp: Stamper, mut queue: mpsc::Receiver<Proposal>, stop: CancellationToken) {
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            Some(()) = under_way.next(), if !under_way.is_empty() => {}
            first = queue.recv(), if under_way.len() < ENTRIES_MAX => {
                let Some(first) = first else { return };
                // Whoever is about to propose shares the entry.
                tokio::task::yield_now().await;
                let group = collect(first, &mut queue);
                if !group.is_empty() {
                    under_way.push(commit(&raft, stamp.stamp(), group));
                }
            }
        }
    }
}

/// The first command and those behind it, without the ones whose callers have given up.
fn collect(first: Proposal, queue: &mut mpsc::Receiver<Proposal>) -> Vec<Proposal> {
    let mut bytes = 0;
    let mut group = Vec::new();
    let mut next = Some(first);
    while let Some(proposal) = next {
        if proposal.take() {
            bytes += proposal.bytes();
            group.push(proposal);
        }
        next = if bytes < ENTRY_BYTES { queue.try_recv().ok() } else { None };
    }
    group
}

/// Proposes a group and tells each caller. As one entry, unless that would be too large.
async fn commit(raft: &Raft, stamp: Stamp, group: Vec<Proposal>) {
    let mut groups = vec![group];
    while let Some(mut group) = groups.pop() {
        let (callers, commands) = group.drain(..).map(Proposal::into_parts).unzip();
        let entry = Entry { level: stamp.level, log_time: stamp.log_time, commands };
        let encoded = EncodedEntry(Bytes::from(entry.encode()));
        if encoded.0.len() <= COMMAND_BYTES_MAX {
            answer(callers, write(raft, encoded).await);
            continue;
        }
        // The log takes no such entry: find the command that is to blame.
        let bytes = encoded.0.len();
        group.extend(callers.into_iter().zip(entry.commands).map(Proposal::from));
        if group.len() == 1 {
            let problem = Problem::new(ErrorCode::TooLarge, format!("a command of {bytes} bytes"));
            answer(group.drain(..).map(|proposal| proposal.into_parts().0).collect(), Err(problem));
        } else {
            let rest = group.split_off(group.len() / 2);
            groups.extend([rest, group]);
        }
    }
}

fn answer(callers: Vec<Caller>, result: Result<Written, Problem>) {
    match result {
        Ok(Written { index, log_time, outcomes }) => {
            assert_eq!(outcomes.len(), callers.len(), "each command has one outcome");
            // Shared only while somebody follows what is applied.
            let outcomes = Arc::try_unwrap(outcomes).unwrap_or_else(|shared| (*shared).clone());
            for (caller, outcome) in callers.into_iter().zip(outcomes) {
                caller.tell(Ok(Applied { index, log_time, outcome }));
            }
        }
        Err(problem) => {
            for caller in callers {
                caller.tell(Err(problem.clone()));
            }
        }
    }
}

/// An entry in the log.
struct Written {
    index: LogIndex,
    log_time: Timestamp,
    outcomes: Arc<Vec<Outcome>>,
}

async fn write(raft: &Raft, entry: EncodedEntry) -> Result<Written, Problem> {
    let leader = raft.as_leader().map_err(|forward| not_leader(&forward))?;
    let (responder, done) = ProgressResponder::<Types, ClientWriteResult<Types>>::complete_only();
    // Only under this leadership: proposed by a successor of ourselves, the stamp would be out of order.
    let write = raft.write(entry).with_leader(leader.to_committed_leader_id()).responder(responder);
    write.await.map_err(|_| stopped())?;
    match done.await {
        Ok(Ok(response)) => {
            let (log_time, outcomes) = response.data.0.expect("an entry of commands has outcomes");
            Ok(Written { index: LogIndex(response.log_id.index), log_time, outcomes })
        }
        // Refused before it was appended.
        Ok(Err(ClientWriteError::ForwardToLeader(forward))) => Err(not_leader(&forward)),
        Ok(Err(error)) => Err(unknown(&error.to_string())),
        Err(_) => Err(unknown("the node stopped before the command was applied")),
    }
}

/// An entry without commands, as openraft writes it without any help from here.
pub(crate) async fn write_bare(raft: &Raft) -> Result<(), Problem> {
    let entry = Entry { level: FeatureLevel(0), log_time: Timestamp::MIN, commands: Vec::new() };
    let written = raft.client_write(EncodedEntry(Bytes::from(entry.encode()))).await;
    written.map(drop).map_err(|error| Problem::new(ErrorCode::Unavailable, error))
}

fn unknown(why: &str) -> Problem {
    Problem::new(ErrorCode::OutcomeUnknown, why)
}
