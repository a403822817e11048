//! Applies committed entries to the state and shows it to readers.
//!
//! `apply` never waits for a disk, a lock that anyone holds for long, or a task. A snapshot is a clone of the state (cheap:
//! persistent maps) that a blocking thread writes while entries go on being applied.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use carnax_core::id::LogIndex;
use carnax_core::time::Timestamp;
use carnax_metadata_state::archive::ArchivedEntry;
use carnax_metadata_state::{Entry, EntryError, FeatureLevel, Outcome, State};
use futures::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use tokio::sync::{broadcast, watch};

use crate::applied_log::{AppliedLog, is_worth_archiving};
use crate::snapshot_store::{SnapshotData, SnapshotStore};
use crate::types::{
    LogId, Outcomes, RaftPayload, Snapshot, SnapshotMeta, StoredMembership, Types, invalid_data,
};

/// Entries that a slow follower of [`AppliedEntry`]s may be behind before it is told that it lags.
const FEED_ENTRIES_MAX: usize = 1_024;
/// What an entry costs beside its bytes when the log is opened again, in bytes: many small ones are as slow as a few large.
const ENTRY_OVERHEAD_BYTES: u64 = 256;

/// The state at one moment.
#[derive(Debug, Clone)]
pub struct StateView {
    /// What commands have made of it.
    pub state: State,
    /// The last entry that is in it; 0 if there is none.
    pub applied: LogIndex,
}

/// An entry that was applied just now.
#[derive(Debug, Clone)]
pub struct AppliedEntry {
    /// Where it stands in the log.
    pub index: LogIndex,
    /// Log time with it.
    pub log_time: Timestamp,
    /// What came of its commands, in order.
    pub outcomes: Arc<Vec<Outcome>>,
}

/// What the rest of the node sees of the state machine. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Watches {
    pub(crate) view: watch::Receiver<Arc<StateView>>,
    pub(crate) feed: broadcast::Sender<AppliedEntry>,
    /// Bytes of log applied since the last snapshot.
    pub(crate) log_bytes: watch::Receiver<u64>,
    pub(crate) applied_log: AppliedLog,
}

#[derive(Debug)]
pub(crate) struct StateMachine {
    state: State,
    applied: Option<LogId>,
    membership: StoredMembership,
    snapshot: Newest,
    store: SnapshotStore,
    view: watch::Sender<Arc<StateView>>,
    feed: broadcast::Sender<AppliedEntry>,
    log_bytes: watch::Sender<u64>,
    applied_log: AppliedLog,
    /// The highest feature level that this node knows.
    level_max: FeatureLevel,
}

impl StateMachine {
    /// Starts from the newest snapshot; keeps so many bytes of applied entries. Blocks.
    pub(crate) fn open(
        store: SnapshotStore,
        archive_bytes: u64,
        level_max: FeatureLevel,
    ) -> io::Result<(Self, Watches)> {
        let view = watch::Sender::new(Arc::new(StateView { state: State::default(), applied: LogIndex(0) }));
        let feed = broadcast::Sender::new(FEED_ENTRIES_MAX);
        let log_bytes = watch::Sender::new(0);
        let (state, applied, membership, snapshot) = match store.load()? {
            Some((meta, state, data)) => {
                check_level(&state, level_max)?;
                (state, meta.last_log_id, meta.last_membership.clone(), Some((meta, data)))
            }
            None => Default::default(),
        };
        let applied_log = AppliedLog::new(index_of(applied), archive_bytes);
        let readers = Watches {
            view: view.subscribe(),
            feed: feed.clone(),
            log_bytes: log_bytes.subscribe(),
            applied_log: applied_log.clone(),
        };
        let snapshot = Newest(Arc::new(Mutex::new(snapshot)));
        let machine = Self {
            state,
            applied,
            membership,
            snapshot,
            store,
            view,
            feed,
            log_bytes,
            applied_log,
            level_max,
        };
        machine.publish();
        Ok((machine, readers))
    }

    fn publish(&self) {
        let applied = index_of(self.applied);
        self.view.send_replace(Arc::new(StateView { state: self.state.clone(), applied }));
    }

    /// Applies one entry.
    ///
    /// # Errors
    /// If the entry cannot be read: written by a newer version, or damaged. The node stops rather than skip it.
    fn apply_one(&mut self, id: LogId, payload: RaftPayload, done: &mut Done) -> io::Result<Outcomes> {
        let mut outcomes = Outcomes::default();
        let (index, term) = (LogIndex(id.index), id.leader_id.term);
        let mut bytes = Bytes::new();
        match payload {
            EntryPayload::Blank => {}
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(id), membership);
            }
            EntryPayload::Normal(encoded) => {
                let entry = Entry::decode_up_to(&encoded.0, self.level_max)
                    .map_err(|error| invalid_data(format!("entry {id} cannot be applied: {error}")))?;
                let decided = Arc::new(self.state.apply(index, &entry));
                // Not the entry's own: log time never goes back, whatever a leader's clock says.
                let log_time = self.state.log_time();
                if self.feed.receiver_count() > 0 {
                    // Fails if the last receiver has just gone.
                    let _ = self.feed.send(AppliedEntry { index, log_time, outcomes: Arc::clone(&decided) });
                }
                outcomes = Outcomes(Some((log_time, decided)));
                self.log_bytes.send_modify(|bytes| *bytes += encoded.0.len() as u64 + ENTRY_OVERHEAD_BYTES);
                done.worth = is_worth_archiving(&entry).then_some(index).or(done.worth);
                bytes = encoded.0;
            }
        }
        done.entries.push(ArchivedEntry { index, term, bytes });
        self.applied = Some(id);
        Ok(outcomes)
    }
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        let (mut answers, mut done) = (Vec::new(), Done::default());
        while let Some((entry, responder)) = entries.try_next().await? {
            let outcomes = self.apply_one(entry.log_id, entry.payload, &mut done)?;
            answers.extend(responder.map(|responder| (responder, outcomes)));
        }
        // Readers see the entries before their proposers hear of them.
        self.publish();
        self.applied_log.push(done.entries, done.worth);
        for (responder, outcomes) in answers {
            responder.send(outcomes);
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        let meta = SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() };
        self.log_bytes.send_replace(0);
        let (store, newest) = (self.store.clone(), self.snapshot.clone());
        SnapshotBuilder { store, newest, meta, state: self.state.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: SnapshotData) -> io::Result<()> {
        let (state, data) = self.store.install(meta.clone(), data).await?;
        check_level(&state, self.level_max)?;
        self.state = state;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.snapshot.offer(meta, data);
        self.log_bytes.send_replace(0);
        self.applied_log.restart(index_of(self.applied));
        self.publish();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        Ok(self.snapshot.get())
    }
}

/// Entries that were applied together.
#[derive(Debug, Default)]
struct Done {
    entries: Vec<ArchivedEntry>,
    /// The last one that is a reason to archive.
    worth: Option<LogIndex>,
}

/// Whether this node may go on from a state: a newer build would have written what it does not understand.
fn check_level(state: &State, level_max: FeatureLevel) -> io::Result<()> {
    match state.feature_level() {
        Some(level) if level > level_max => {
            let error = EntryError::UnknownLevel { level, max: level_max };
            Err(invalid_data(format!("snapshot cannot be used: {error}")))
        }
        _ => Ok(()),
    }
}

fn index_of(applied: Option<LogId>) -> LogIndex {
    LogIndex(applied.map_or(0, |id| id.index))
}

/// Writes one snapshot.
#[derive(Debug)]
pub(crate) struct SnapshotBuilder {
    store: SnapshotStore,
    newest: Newest,
    meta: SnapshotMeta,
    state: State,
}

impl RaftSnapshotBuilder<Types> for SnapshotBuilder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let data = self.store.save(self.meta.clone(), self.state.clone()).await?;
        self.newest.offer(&self.meta, data.clone());
        Ok(Snapshot { meta: self.meta.clone(), snapshot: data })
    }
}

/// The newest snapshot: a builder and an installation may finish in any order. Clones share it.
#[derive(Debug, Clone)]
struct Newest(Arc<Mutex<Option<(SnapshotMeta, SnapshotData)>>>);

impl Newest {
    fn offer(&self, meta: &SnapshotMeta, data: SnapshotData) {
        let mut newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if newest.as_ref().is_none_or(|(before, _)| before.last_log_id <= meta.last_log_id) {
            *newest = Some((meta.clone(), data));
        }
    }

    fn get(&self) -> Option<Snapshot> {
        let newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        newest.clone().map(|(meta, snapshot)| Snapshot { meta, snapshot })
    }
}
