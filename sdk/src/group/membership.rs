//! What a member of a group may hold, and what it has to say next: pure, with time as an argument.
//!
//! ```text
//!           joined                       answer with another assignment
//!   Out ─────────────▶ In ──────────────────────────────────────────────┐
//!    ▲                 │ ▲                                              ▼
//!    │ expired by its  │ └── reached: let go of what is not in it ── change
//!    └── own clock, or expelled
//! ```
//!
//! Two sides share it. The *speaker* (a task) asks what to send and tells what was answered. The *holder* (whoever polls)
//! asks what has changed, and tells what it has let go of.
//!
//! Invariants: the holder holds nothing once the session time has passed since the sending of the last answered request; an
//! assignment counts as reached only after the holder has let go of everything that it does not name; what was lost is told
//! before anything new is given.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use carnax_core::http::AssignmentResponse;
use carnax_core::id::TopicPartition;
use carnax_core::topic::TopicName;
use tokio::time::Instant;

use crate::error::RequestError;

/// Partitions with the names of their topics.
pub(super) type Assignment = BTreeMap<TopicPartition, TopicName>;

/// What the speaker has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Join, and wait for the answer no longer than this.
    Join { patience: Duration },
    /// Send a heartbeat, and wait for the answer no longer than this.
    Heartbeat { epoch: u32, assignment_epoch: u64, patience: Duration },
    /// Nothing before this time.
    Wait(Instant),
    /// Nothing until the holder says something.
    Idle,
}

/// What the holder has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// Forget these partitions: they may belong to somebody else by now.
    Lost(Assignment),
    /// Let go of `revoked`, say so, and then begin with `added`.
    Assigned { reach: Reach, revoked: Assignment, added: Assignment },
}

/// An assignment that the holder is to reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reach {
    pub(super) epoch: u32,
    pub(super) assignment_epoch: u64,
}

#[derive(Debug)]
pub(super) struct Membership {
    phase: Phase,
    /// What the holder has: stays through a loss until the holder was told.
    held: Assignment,
    /// The holder has something that it may not have any more, and was not told yet.
    lost: bool,
    /// Of a session that is not known to the server yet.
    session_timeout: Duration,
}

#[derive(Debug)]
enum Phase {
    Out {
        join_at: Instant,
    },
    In(Session),
    /// Joining was refused for good.
    Refused(Arc<RequestError>),
    Closed,
}

#[derive(Debug)]
struct Session {
    epoch: u32,
    assignment_epoch: u64,
    assignment: Assignment,
    reached: Option<u64>,
    interval: Duration,
    timeout: Duration,
    /// When the last answered request was sent.
    answered: Instant,
    next: Instant,
    /// Somebody waits for the server to hear what was reached.
    urgent: bool,
}

impl Session {
    fn deadline(&self) -> Instant {
        self.answered + self.timeout
    }
}

impl Membership {
    pub(super) fn new(session_timeout: Duration, now: Instant) -> Self {
        Self { phase: Phase::Out { join_at: now }, held: Assignment::new(), lost: false, session_timeout }
    }

    /// What to send now.
    pub(super) fn next(&mut self, now: Instant) -> Action {
        self.expire(now);
        match &mut self.phase {
            Phase::Out { join_at } if *join_at <= now => {
                Action::Join { patience: patience(self.session_timeout) }
            }
            Phase::Out { join_at } => Action::Wait(*join_at),
            Phase::In(session) if !session.urgent && session.next > now => {
                Action::Wait(session.next.min(session.deadline()))
            }
            Phase::In(session) => {
                session.urgent = false;
                Action::Heartbeat {
                    epoch: session.epoch,
                    assignment_epoch: session.reached.unwrap_or(0),
                    patience: patience(session.timeout),
                }
            }
            Phase::Refused(_) | Phase::Closed => Action::Idle,
        }
    }

    /// Takes note of the answer to a join that was sent at `sent`. Tells whether there is something for the holder.
    pub(super) fn joined(&mut self, sent: Instant, answer: &AssignmentResponse) -> bool {
        if !matches!(self.phase, Phase::Out { .. }) {
            return false;
        }
        let interval = interval(answer);
        self.phase = Phase::In(Session {
            epoch: answer.epoch,
            assignment_epoch: answer.assignment_epoch,
            assignment: read_assignment(answer),
            reached: None,
            interval,
            timeout: Duration::from_millis(answer.session_timeout_ms),
            answered: sent,
            next: sent + interval,
            urgent: false,
        });
        true
    }

    /// Takes note of the answer to a heartbeat that was sent at `sent`. Tells whether there is something for the holder.
    pub(super) fn heartbeat_answered(
        &mut self,
        sent: Instant,
        now: Instant,
        answer: &AssignmentResponse,
    ) -> bool {
        // An answer that comes too late does not bring back what is lost by then.
        self.expire(now);
        let Phase::In(session) = &mut self.phase else { return self.lost };
        if session.epoch != answer.epoch {
            return false;
        }
        session.answered = session.answered.max(sent);
        session.interval = interval(answer);
        session.timeout = Duration::from_millis(answer.session_timeout_ms);
        session.next = sent + session.interval;
        if answer.assignment_epoch <= session.assignment_epoch {
            return false;
        }
        session.assignment_epoch = answer.assignment_epoch;
        session.assignment = read_assignment(answer);
        true
    }

    /// Takes note that a request brought no answer that counts.
    pub(super) fn failed(&mut self, again_at: Instant) {
        match &mut self.phase {
            Phase::Out { join_at } => *join_at = again_at,
            Phase::In(session) => session.next = again_at,
            Phase::Refused(_) | Phase::Closed => {}
        }
    }

    /// Takes note that joining is refused, whatever is tried.
    pub(super) fn refused(&mut self, error: Arc<RequestError>) {
        if matches!(self.phase, Phase::Out { .. }) {
            self.phase = Phase::Refused(error);
        }
    }

    /// Why joining was refused; afterwards it is tried again.
    pub(super) fn take_refusal(&mut self, now: Instant) -> Option<Arc<RequestError>> {
        let Phase::Refused(error) = &self.phase else { return None };
        let error = Arc::clone(error);
        self.phase = Phase::Out { join_at: now };
        Some(error)
    }

    /// Takes note that the server knows no member of this epoch.
    pub(super) fn expelled(&mut self, epoch: u32, now: Instant) {
        if matches!(&self.phase, Phase::In(session) if session.epoch == epoch) {
            self.leave_session(now);
        }
    }

    /// Takes note that another process is this member now: what is refused to this one, until somebody insists.
    pub(super) fn replaced(&mut self, epoch: u32, now: Instant, error: Arc<RequestError>) {
        if matches!(&self.phase, Phase::In(session) if session.epoch == epoch) {
            self.leave_session(now);
            self.phase = Phase::Refused(error);
        }
    }

    /// What the holder has to do first; none if all is as it should be.
    pub(super) fn change(&mut self, now: Instant) -> Option<Change> {
        self.expire(now);
        if std::mem::take(&mut self.lost) {
            return Some(Change::Lost(std::mem::take(&mut self.held)));
        }
        let Phase::In(session) = &self.phase else { return None };
        if session.reached == Some(session.assignment_epoch) {
            return None;
        }
        let without = |all: &Assignment, some: &Assignment| -> Assignment {
            let left = all.iter().filter(|(on, _)| !some.contains_key(on));
            left.map(|(on, topic)| (*on, topic.clone())).collect()
        };
        Some(Change::Assigned {
            reach: Reach { epoch: session.epoch, assignment_epoch: session.assignment_epoch },
            revoked: without(&self.held, &session.assignment),
            added: without(&session.assignment, &self.held),
        })
    }

    /// The holder has let go of `revoked`, commits included, and takes `added`. Tells whether it may: not if the session
    /// ended meanwhile.
    pub(super) fn reached(
        &mut self,
        reach: Reach,
        revoked: &Assignment,
        added: &Assignment,
        now: Instant,
    ) -> bool {
        self.expire(now);
        revoked.keys().for_each(|on| drop(self.held.remove(on)));
        let Phase::In(session) = &mut self.phase else { return false };
        if session.epoch != reach.epoch || self.lost {
            return false;
        }
        let first = session.reached.replace(reach.assignment_epoch).is_none();
        self.held.extend(added.iter().map(|(on, topic)| (*on, topic.clone())));
        // Others wait for what was let go of; after joining, perhaps for what an earlier process of this member held.
        if first || !revoked.is_empty() {
            session.urgent = true;
        }
        true
    }

    /// The epoch under which the holder may act now; none if it holds nothing, or may not any more.
    pub(super) fn epoch(&mut self, now: Instant) -> Option<u32> {
        self.expire(now);
        match &self.phase {
            Phase::In(session) if !self.lost => Some(session.epoch),
            _ => None,
        }
    }

    /// What the holder has now.
    pub(super) fn held(&mut self, now: Instant) -> Assignment {
        self.expire(now);
        if self.lost { Assignment::new() } else { self.held.clone() }
    }

    /// When the session ends unless another request is answered before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::In(session) => Some(session.deadline()),
            _ => None,
        }
    }

    /// Ends it; tells the epoch to leave with.
    pub(super) fn close(&mut self) -> Option<u32> {
        let epoch = match &self.phase {
            Phase::In(session) => Some(session.epoch),
            _ => None,
        };
        self.phase = Phase::Closed;
        self.held.clear();
        epoch
    }

    fn expire(&mut self, now: Instant) {
        if matches!(&self.phase, Phase::In(session) if session.deadline() <= now) {
            self.leave_session(now);
        }
    }

    fn leave_session(&mut self, now: Instant) {
        self.phase = Phase::Out { join_at: now };
        self.lost |= !self.held.is_empty();
    }
}

/// How long one request is waited for: several must fit into a session.
fn patience(session: Duration) -> Duration {
    (session / 5).clamp(Duration::from_millis(100), Duration::from_secs(10))
}

/// Never so short that it floods the server, whatever an answer says.
fn interval(answer: &AssignmentResponse) -> Duration {
    Duration::from_millis(answer.heartbeat_interval_ms).max(Duration::from_millis(10))
}

fn read_assignment(answer: &AssignmentResponse) -> Assignment {
    let topics = answer.assignment.iter();
    let partitions =
        topics.flat_map(|topic| topic.partitions.iter().map(move |partition| (topic, *partition)));
    let place = |(topic, partition): (&carnax_core::metadata::AssignedTopic, _)| {
        (TopicPartition { topic: topic.topic_id, partition }, topic.topic.clone())
    };
    partitions.map(place).collect()
}

#[cfg(test)]
mod tests;
