//! Sessions of frontends: each remembers its last commit number and the reply to it, so that a repeat after an unknown
//! outcome changes nothing and gets the first answer (Ongaro, *Consensus: bridging theory and practice*, 6.3).

use std::sync::Arc;

use carnax_core::error_code::ErrorCode;
use carnax_core::id::{CommitNumber, SessionId};
use carnax_core::limits;
use carnax_core::metadata::SegmentsCommitted;
use carnax_core::problem::Problem;
use carnax_core::time::Timestamp;
use imbl::{OrdMap, OrdSet};

use crate::segment::Moment;

#[derive(Debug, Clone)]
pub(crate) struct Session {
    /// Who opened it, for operators.
    pub(crate) frontend: Arc<str>,
    /// Log time of its opening or its last commit.
    pub(crate) last_seen: Timestamp,
    /// Its last commit with the reply; none before the first.
    pub(crate) last: Option<(CommitNumber, Arc<SegmentsCommitted>)>,
}

/// What a commit number means to a session.
#[derive(Debug)]
pub(crate) enum Turn {
    /// The number after the last one.
    Next,
    /// The last one again, with its reply.
    Repeat(Arc<SegmentsCommitted>),
}

#[derive(Debug, Clone)]
pub(crate) struct Sessions {
    by_id: OrdMap<SessionId, Session>,
    /// When to look at each session: one entry a session, at or before its `last_seen`. Moved only when it comes up, so that
    /// a commit does not pay for it.
    watch: OrdSet<(Timestamp, SessionId)>,
    /// The highest id ever given out.
    last_id: SessionId,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { by_id: OrdMap::new(), watch: OrdSet::new(), last_id: SessionId(0) }
    }
}

impl Sessions {
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (SessionId, &Session)> {
        self.by_id.iter().map(|(id, session)| (*id, session))
    }

    pub(crate) fn last_id(&self) -> SessionId {
        self.last_id
    }

    pub(crate) fn watch(&self) -> &OrdSet<(Timestamp, SessionId)> {
        &self.watch
    }

    /// Opens a session. Its id is the log index, or one more than the last id where an entry opens several: unique, and a
    /// function of the log alone.
    pub(crate) fn open(&mut self, frontend: &str, at: Moment) -> Result<SessionId, Problem> {
        if frontend.len() > limits::ADDRESS_BYTES_MAX {
            let limit = Some(limits::ADDRESS_BYTES_MAX as u64);
            let problem = Problem::new(ErrorCode::TooLarge, "the frontend's name is too long");
            return Err(problem.with(|facts| facts.limit = limit));
        }
        self.expire(at.time);
        if self.by_id.len() >= limits::SESSIONS_MAX {
            let problem = Problem::new(ErrorCode::TooManyRequests, "too many sessions are open");
            return Err(problem.with(|facts| facts.limit = Some(limits::SESSIONS_MAX as u64)));
        }
        let id = SessionId(self.last_id.0.saturating_add(1).max(at.index.0));
        self.restore(id, Session { frontend: frontend.into(), last_seen: at.time, last: None });
        self.last_id = id;
        Ok(id)
    }

    /// Says what a commit number means to a session; changes nothing.
    pub(crate) fn turn(&self, id: SessionId, number: CommitNumber, now: Timestamp) -> Result<Turn, Problem> {
        let session = self.by_id.get(&id).filter(|session| !session.expired(now)).ok_or_else(|| {
            Problem::new(ErrorCode::SessionExpired, format_args!("session {id} is not open (any more)"))
        })?;
        let last = session.last.as_ref().map_or(0, |(last, _)| last.0);
        match &session.last {
            Some((last, reply)) if *last == number => Ok(Turn::Repeat(Arc::clone(reply))),
            _ if last.checked_add(1) == Some(number.0) => Ok(Turn::Next),
            _ => {
                let detail = format_args!("session {id} is at commit {last}, not before {number}");
                Err(Problem::new(ErrorCode::StaleCommitNumber, detail).with(|facts| {
                    facts.expected = last.checked_add(1).map(|next| next.to_string());
                    facts.actual = Some(number.to_string());
                }))
            }
        }
    }

    /// Stores the reply to a commit.
    pub(crate) fn record(
        &mut self,
        id: SessionId,
        number: CommitNumber,
        reply: &Arc<SegmentsCommitted>,
        now: Timestamp,
    ) {
        if let Some(session) = self.by_id.get_mut(&id) {
            session.last_seen = now;
            session.last = Some((number, Arc::clone(reply)));
        }
    }

    /// Drops the sessions that have been idle for too long; says how many.
    pub(crate) fn expire(&mut self, now: Timestamp) -> u64 {
        let mut count = 0;
        while let Some((seen, id)) = self.watch.get_min().copied().filter(|(seen, _)| idle(*seen, now)) {
            self.watch.remove(&(seen, id));
            match self.by_id.get(&id) {
                Some(session) if !session.expired(now) => {
                    self.watch.insert((session.last_seen, id));
                }
                _ => {
                    self.by_id.remove(&id);
                    count += 1;
                }
            }
        }
        count
    }

    /// Whether [`expire`](Self::expire) would have something to look at.
    pub(crate) fn due(&self, now: Timestamp) -> bool {
        self.watch.get_min().is_some_and(|(seen, _)| idle(*seen, now))
    }

    /// Puts a session where it belongs.
    pub(crate) fn restore(&mut self, id: SessionId, session: Session) {
        self.watch.insert((session.last_seen, id));
        self.by_id.insert(id, session);
    }

    pub(crate) fn restore_last_id(&mut self, id: SessionId) {
        self.last_id = id;
    }
}

impl Session {
    fn expired(&self, now: Timestamp) -> bool {
        idle(self.last_seen, now)
    }
}

fn idle(last_seen: Timestamp, now: Timestamp) -> bool {
    now.since(last_seen) >= limits::SESSION_EXPIRY
}
