//! The sessions of group members, as soft state at the leader: nothing of it is in the Raft log but who was taken out.
//!
//! A heartbeat goes **hear → read → tell**: it is noted first, then a quorum confirms this node as the leader, then the answer
//! comes from a state that is newer than the note. So a member is either taken out by somebody who knew of the heartbeat, or
//! learns that it is out. While taking it out is under way, its heartbeats wait for the outcome.
//!
//! What the session clock guarantees, and what it does not, stands in `docs/adr/0014-session-clock.md`.

mod table;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use carnax_core::error_code::SideEffects;
use carnax_core::id::LogIndex;
use carnax_core::limits;
use carnax_core::metadata::{Heartbeat, JoinGroup};
use carnax_metadata_state::{Command, Reply, answer};
use carnax_platform::clock::Clock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(crate) use self::table::Heard;
use self::table::{Expulsion, SessionTable};
use crate::handle::Handle;

/// How often the leader moves the session clock.
const TICK: Duration = Duration::from_millis(200);
/// How long a quorum may take to confirm a tick or a heartbeat. No longer than the shortest session: a member that is new to
/// the table cannot come and go while its heartbeat is being answered.
pub(crate) const CONFIRM: Duration = limits::MEMBER_SESSION_MIN;
/// How often the table is compared with the state.
const SYNC: Duration = Duration::from_secs(1);
/// Members that are taken out by one command: a group that dies at once is shared out once.
const EXPEL_MAX: usize = 500;

/// The sessions, for those who answer members. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct GroupSessions(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    table: Mutex<SessionTable>,
    clock: Arc<dyn Clock>,
    /// Changes when something that heartbeats wait for is decided.
    settled: watch::Sender<u64>,
}

impl GroupSessions {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Shared { table: Mutex::default(), clock, settled: watch::Sender::default() }))
    }

    /// What is decided from now on; to be taken before [`hear`](Self::hear) or [`join`](Self::join) says that somebody waits.
    pub(crate) fn watch_settled(&self) -> watch::Receiver<u64> {
        self.0.settled.subscribe()
    }

    /// Notes a heartbeat.
    pub(crate) fn hear(&self, heartbeat: &Heartbeat) -> Heard {
        self.with(|table| table.hear(&heartbeat.group, &heartbeat.member, heartbeat.epoch))
    }

    /// Whether a heartbeat that was [heard](Self::hear) may be answered; otherwise it is to be heard again.
    pub(crate) fn tell(&self, heartbeat: &Heartbeat, timeout: Duration, heard: Heard) -> bool {
        let Heartbeat { group, member, epoch, .. } = heartbeat;
        self.with(|table| table.tell(group, member, *epoch, timeout, heard))
    }

    /// Notes that somebody joins; none if that must wait until it is known whether its earlier self is out.
    pub(crate) fn join(&self, request: &JoinGroup) -> Option<Joining> {
        let may = self.with(|table| table.join(&request.group, &request.member));
        may.then(|| Joining { sessions: self.clone(), request: request.clone(), session: None })
    }

    /// How long ago a quorum last confirmed a tick; none while nobody is watched.
    pub(crate) fn tick_age(&self) -> Option<Duration> {
        let at = self.with(|table| table.last_confirmed())?;
        Some(self.0.clock.monotonic().saturating_sub(at))
    }

    fn with<T>(&self, work: impl FnOnce(&mut SessionTable) -> T) -> T {
        work(&mut self.0.table.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Wakes those who wait.
    fn settled(&self) {
        self.0.settled.send_modify(|count| *count += 1);
    }
}

/// A join under way. Until it is dropped nobody judges the member's session.
#[derive(Debug)]
pub(crate) struct Joining {
    sessions: GroupSessions,
    request: JoinGroup,
    session: Option<(u32, Duration)>,
}

impl Joining {
    /// The join is done, with this epoch and session.
    pub(crate) fn done(mut self, epoch: u32, timeout: Duration) {
        self.session = Some((epoch, timeout));
    }
}

impl Drop for Joining {
    fn drop(&mut self) {
        let JoinGroup { group, member, .. } = &self.request;
        self.sessions.with(|table| table.joined(group, member, self.session));
    }
}

/// Watches the sessions while this node leads, until `shutdown`.
pub(crate) async fn watch(handle: Handle, shutdown: CancellationToken) {
    let mut synced = Synced::default();
    let ticks = async {
        loop {
            tokio::time::sleep(TICK).await;
            tick(&handle, &mut synced).await;
        }
    };
    // Dropped half-way, a proposal may still be applied: the node stops, and nobody is answered any more.
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = ticks => {}
    }
}

/// With which state the table was last compared, and when.
#[derive(Debug, Default)]
struct Synced {
    at: Duration,
    applied: Option<LogIndex>,
}

async fn tick(handle: &Handle, synced: &mut Synced) {
    let (sessions, raft) = (handle.sessions(), handle.raft());
    let Some(term) = raft.leading_term() else {
        if sessions.with(SessionTable::follow) {
            sessions.settled();
        }
        return;
    };
    let begins = sessions.with(|table| table.term() != Some(term));
    let nobody = || answer::sessions(&raft.state().state).next().is_none();
    if !begins && sessions.with(|table| table.is_empty()) && nobody() {
        return sessions.with(|table| table.rest(sessions.0.clock.monotonic()));
    }
    let view = match handle.linearizable_within(CONFIRM).await {
        // Otherwise it may be another leader that was confirmed.
        Ok(view) if raft.leading_term() == Some(term) => view,
        _ => return sessions.with(SessionTable::tick_unconfirmed),
    };
    sessions.with(|table| {
        // Read under the lock: what is heard after this tick is not older than it.
        let now = sessions.0.clock.monotonic();
        if begins {
            table.lead(term, answer::sessions(&view.state), now);
        } else {
            table.tick(now);
            if now.saturating_sub(synced.at) < SYNC || synced.applied == Some(view.applied) {
                return;
            }
            table.sync(answer::sessions(&view.state));
        }
        *synced = Synced { at: now, applied: Some(view.applied) };
    });
    if begins {
        sessions.settled();
    }
    expel(handle).await;
}

/// Takes out those who were silent for too long.
async fn expel(handle: &Handle) {
    let sessions = handle.sessions();
    loop {
        let picked = sessions.with(|table| table.pick(EXPEL_MAX));
        if picked.is_empty() {
            return;
        }
        let expulsion = match handle.propose(Command::ExpireMembers { members: picked.clone() }).await {
            Ok(Reply::MembersExpired { count }) => {
                tracing::info!(count, "group members were silent for too long and are out");
                handle.metrics().members_expelled.inc_by(count);
                Expulsion::Done
            }
            Ok(_) => Expulsion::Done,
            Err(problem) => {
                tracing::info!(%problem, count = picked.len(), "silent group members could not be taken out");
                match problem.code.side_effects() {
                    SideEffects::None => Expulsion::Refused,
                    SideEffects::Possible => Expulsion::Unknown,
                }
            }
        };
        sessions.with(|table| table.settle(&picked, expulsion));
        sessions.settled();
        if expulsion != Expulsion::Done {
            return;
        }
    }
}
