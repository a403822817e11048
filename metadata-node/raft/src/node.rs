//! One node of the replicated log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use carnax_core::error_code::ErrorCode;
use carnax_core::id::{LogIndex, NodeId};
use carnax_core::problem::Problem;
use carnax_metadata_state::Command;
use carnax_metadata_state::archive::ArchivedEntry;
use carnax_platform::rpc::Router;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{InitializeError, RaftError};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::applied_log::ArchiveProgress;
use crate::log_store::{DiskLog, Flushes, MemoryLog, OpenLogError};
use crate::network::{Connections, Desk, PeerClock, router};
use crate::proposer::{Applied, Proposer, Stamper};
use crate::read::Reader;
use crate::settings::{Components, RaftSettings, Storage};
use crate::snapshot_store::{SnapshotStore, blocking};
use crate::state_machine::{AppliedEntry, StateMachine, StateView, Watches};
use crate::status::{self, Leadership, RaftStatus};
use crate::types::{Peer, Raft};
use crate::{membership, proposer, tasks};

/// A node that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its log refuses.
    #[error(transparent)]
    Log(#[from] OpenLogError),
    /// Its snapshots cannot be read.
    #[error("snapshots cannot be opened")]
    Snapshots(#[source] std::io::Error),
    /// Its settings contradict each other.
    #[error("settings do not fit together: {0}")]
    Settings(#[from] openraft::ConfigError),
    /// openraft refuses what it found.
    #[error("raft does not start: {0}")]
    Raft(String),
}

/// A running node. Clones share it; it stops at [`shutdown`](Self::shutdown), or when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct RaftNode(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    node: NodeId,
    raft: Raft,
    desk: Desk,
    store: SnapshotStore,
    watches: Watches,
    flushes: Flushes,
    proposer: Proposer,
    reader: Reader,
    leadership: watch::Receiver<Leadership>,
    fatal: watch::Receiver<Option<String>>,
    turn: membership::Turn,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl RaftNode {
    /// Opens log and snapshots and starts to follow, or to stand for election if it has a vote. An empty node does
    /// neither: it waits to be [initialized](Self::initialize) or to be let in by a leader.
    ///
    /// Its peers reach it once its [`router`](Self::router) is served.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(settings: RaftSettings, components: Components) -> Result<Self, OpenError> {
        let config = Arc::new(settings.config()?);
        let flushes = Flushes::default();
        let desk = Desk::new(&settings, Arc::clone(&components.clock));
        let connections =
            Connections::new(desk.clone(), Arc::clone(&components.network), settings.election_max);
        let id = settings.node.0;
        let started = |error: openraft::errors::Fatal<_>| OpenError::Raft(error.to_string());
        let (raft, store, watches) = match components.storage {
            Storage::Directory(directory) => {
                let (log_directory, log_flushes) = (directory.join("log"), flushes.clone());
                let log = blocking(move || Ok(DiskLog::open(&log_directory, log_flushes)));
                let log = log.await.map_err(OpenError::Snapshots)??;
                let snapshots = directory.join("snapshots");
                let (archive_bytes, level_max) = (settings.archive_bytes, settings.level_max);
                let opened = blocking(move || {
                    let store = SnapshotStore::open(snapshots)?;
                    Ok((store.clone(), StateMachine::open(store, archive_bytes, level_max)?))
                });
                let (store, (machine, watches)) = opened.await.map_err(OpenError::Snapshots)?;
                let raft = Raft::new(id, config, connections.clone(), log, machine).await.map_err(started)?;
                (raft, store, watches)
            }
            Storage::Memory(disk) => {
                let log = MemoryLog::open(disk.clone(), flushes.clone());
                let store = SnapshotStore::Memory(disk);
                let opened = StateMachine::open(store.clone(), settings.archive_bytes, settings.level_max);
                let (machine, watches) = opened.map_err(OpenError::Snapshots)?;
                let raft = Raft::new(id, config, connections.clone(), log, machine).await.map_err(started)?;
                (raft, store, watches)
            }
        };
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let stamper =
            Stamper { log_time: components.stamp, view: watches.view.clone(), level_max: settings.level_max };
        let (proposer, propose) = Proposer::new(raft.clone(), stamper, stop.clone());
        let (reader, read) =
            Reader::new(raft.clone(), connections.clone(), watches.view.clone(), stop.clone());
        let (leadership, fatal) = (watch::Sender::default(), watch::Sender::default());
        let node = Inner {
            node: settings.node,
            desk,
            store,
            flushes: flushes.clone(),
            proposer,
            reader,
            leadership: leadership.subscribe(),
            fatal: fatal.subscribe(),
            turn: membership::Turn::default(),
            tasks: tasks.clone(),
            stop: stop.clone(),
            raft: raft.clone(),
            watches: watches.clone(),
        };
        let until_stopped = |stop: &CancellationToken| stop.clone().cancelled_owned();
        tasks.spawn(tasks::vital("proposer", propose, fatal.clone()));
        tasks.spawn(tasks::vital("reader", read, fatal.clone()));
        let (bounds, floor) = (settings.clone(), connections.floor.clone());
        let snapshot_ends = move |index| floor.set(bounds.floor(index));
        tasks.spawn(tasks::leadership(raft.clone(), leadership, fatal.clone(), snapshot_ends, stop.clone()));
        let snapshots = tasks::snapshots(raft.clone(), watches.log_bytes, settings.snapshot_log_bytes);
        let disk = tasks::watch_disk(raft, flushes, settings.fsync_age_max, fatal);
        tasks.spawn(futures::future::select(Box::pin(snapshots), Box::pin(until_stopped(&stop))));
        tasks.spawn(futures::future::select(Box::pin(disk), Box::pin(until_stopped(&stop))));
        Ok(Self(Arc::new(node)))
    }

    /// The node's id.
    pub fn id(&self) -> NodeId {
        self.0.node
    }

    /// The calls that its peers make, to be mounted on its server.
    pub fn router(&self) -> Router {
        router(&self.0.raft, &self.0.desk, &self.0.store)
    }

    /// Begins the life of a cluster with this node as its only member. Idempotent for the same node.
    ///
    /// # Errors
    /// `conflict` if the node has a log of another beginning.
    pub async fn initialize(&self, address: &str) -> Result<(), Problem> {
        let members = BTreeMap::from([(self.0.node.0, Peer { address: address.to_owned() })]);
        match self.0.raft.initialize(members).await {
            Ok(()) => Ok(()),
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) if self.is_member() => Ok(()),
            Err(RaftError::APIError(error)) => Err(Problem::new(ErrorCode::Conflict, error)),
            Err(RaftError::Fatal(fatal)) => Err(Problem::new(ErrorCode::Unavailable, fatal)),
        }
    }

    /// Proposes a command and waits until it is applied. Dropped half-way, the command may still be applied.
    ///
    /// # Errors
    /// Without side effects: `too_many_requests`, `not_leader`, `no_quorum` (also just after an election),
    /// `unavailable`. With possible side effects: `outcome_unknown`; only the same command, recognised as a repeat by
    /// the state machine, may be sent again.
    pub async fn propose(&self, command: Command, deadline: Duration) -> Result<Applied, Problem> {
        self.0.proposer.propose(command, deadline).await
    }

    /// The state with everything that was acknowledged anywhere before the call; on a leader or a follower.
    ///
    /// # Errors
    /// `no_quorum`, `not_leader` (leadership just moved), `too_many_requests`: all retryable.
    pub async fn linearizable(&self, deadline: Duration) -> Result<Arc<StateView>, Problem> {
        self.0.reader.linearizable(deadline).await
    }

    /// The state as this node has it; may be behind.
    pub fn state(&self) -> Arc<StateView> {
        Arc::clone(&self.0.watches.view.borrow())
    }

    /// The state once it holds an entry that [`watch_applied`](Self::watch_applied) told of: readers see it a little later.
    pub async fn state_with(&self, entry: LogIndex) -> Arc<StateView> {
        let mut view = self.0.watches.view.clone();
        // Fails only when the node has shut down, and then nothing more will be applied.
        let _ = view.wait_for(|view| view.applied >= entry).await;
        self.state()
    }

    /// Entries as they are applied, from now on. A receiver that falls behind is told so and misses some; an installed
    /// snapshot skips the entries in it.
    pub fn watch_applied(&self) -> broadcast::Receiver<AppliedEntry> {
        self.0.watches.feed.subscribe()
    }

    /// How far the log has come, as it grows, for whoever archives it.
    pub fn watch_archivable(&self) -> watch::Receiver<ArchiveProgress> {
        self.0.watches.applied_log.progress()
    }

    /// The applied entries behind `after`, at least one and no more than `bytes_max` by much; none if there is none yet. No answer if
    /// this node has them no longer, or was told to keep none.
    pub fn applied_entries(&self, after: LogIndex, bytes_max: u64) -> Option<Vec<ArchivedEntry>> {
        self.0.watches.applied_log.after(after, bytes_max)
    }

    /// Who leads, as it changes.
    pub fn watch_leadership(&self) -> watch::Receiver<Leadership> {
        self.0.leadership.clone()
    }

    /// Who leads now, as far as this node knows.
    pub fn leadership(&self) -> Leadership {
        self.0.leadership.borrow().clone()
    }

    /// The term in which this node leads, as Raft itself has it now: never later than a
    /// [linearizable](Self::linearizable) read. If it is the same before and after such a read, a quorum has confirmed *this* node.
    pub fn leading_term(&self) -> Option<u64> {
        let leadership = status::leadership(&self.0.raft.metrics().borrow_watched());
        leadership.leads.then_some(leadership.term)
    }

    /// What the node knows of itself and its cluster.
    pub fn status(&self) -> RaftStatus {
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow_watched();
        status::status(&metrics, self.0.flushes.oldest())
    }

    /// The wall clocks of the peers that have spoken, against ours.
    pub fn peer_clocks(&self) -> BTreeMap<NodeId, PeerClock> {
        self.0.desk.clocks()
    }

    /// Lets a node in without a vote (leader only). Idempotent; a known node gets a new address.
    ///
    /// # Errors
    /// `not_leader`, `no_quorum`, `conflict` (another change is under way), `outcome_unknown`.
    pub async fn add_learner(&self, node: NodeId, address: &str, deadline: Duration) -> Result<(), Problem> {
        membership::add_learner(&self.0.raft, &self.0.turn, node, address, deadline).await
    }

    /// Waits until a learner has nearly the whole log and gives it a vote (leader only). Idempotent.
    ///
    /// # Errors
    /// As [`add_learner`](Self::add_learner); `unavailable` if it does not catch up in time, `node_not_found`.
    pub async fn promote(&self, node: NodeId, deadline: Duration) -> Result<(), Problem> {
        membership::promote(&self.0.raft, &self.0.turn, node, deadline).await
    }

    /// Takes a node out (leader only). Idempotent.
    ///
    /// # Errors
    /// As [`add_learner`](Self::add_learner); `conflict` for the last voter.
    pub async fn remove(&self, node: NodeId, deadline: Duration) -> Result<(), Problem> {
        membership::remove(&self.0.raft, &self.0.turn, node, deadline).await
    }

    /// Ends a change of the voters whose caller or leader went away between its two steps; does nothing if there is none, or
    /// if somebody works on it (leader only).
    ///
    /// # Errors
    /// As [`add_learner`](Self::add_learner).
    pub async fn finish_change(&self, deadline: Duration) -> Result<(), Problem> {
        membership::finish(&self.0.raft, &self.0.turn, deadline).await
    }

    /// Hands leadership to `to`, or to the voter with the longest log; says who leads then.
    ///
    /// # Errors
    /// `not_leader`, `no_quorum`, `node_not_found`, `unavailable` (it did not take over in time; it still may).
    pub async fn transfer_leadership(
        &self,
        to: Option<NodeId>,
        deadline: Duration,
    ) -> Result<NodeId, Problem> {
        membership::transfer(&self.0.raft, to, deadline).await
    }

    /// Writes an entry without commands through openraft alone: what the benchmark compares the proposer with.
    ///
    /// # Errors
    /// Any of openraft's.
    #[doc(hidden)]
    pub async fn write_bare(&self) -> Result<(), Problem> {
        proposer::write_bare(&self.0.raft).await
    }

    /// Resolves with the reason when the node can no longer work: its process is to end and to be started again. Never
    /// resolves for a node that is shut down.
    pub async fn fatal(&self) -> String {
        let mut fatal = self.0.fatal.clone();
        match fatal.wait_for(Option::is_some).await.map(|reason| reason.clone()) {
            Ok(Some(reason)) => reason,
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Stops the node and waits until it has.
    pub async fn shutdown(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
        if let Err(error) = self.0.raft.shutdown().await {
            tracing::warn!(%error, "raft did not stop cleanly");
        }
    }

    /// Takes the first step towards removing a voter, and no second one.
    #[cfg(test)]
    pub(crate) async fn half_remove(&self, node: NodeId) {
        membership::half_remove(&self.0.raft, node).await;
    }

    /// Makes the core of openraft panic, as its own bugs would.
    #[cfg(test)]
    pub(crate) async fn panic_core(&self) {
        self.0.raft.external_request(|_| panic!("as the test wants it")).await.unwrap();
    }

    fn is_member(&self) -> bool {
        self.status().members.iter().any(|member| member.node == self.0.node)
    }
}
