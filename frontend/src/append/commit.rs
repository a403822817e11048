//! The session with the metadata core: numbered segment commits, one at a time.
//!
//! | what came back | what it means |
//! |---|---|
//! | a reply | decided; the next commit has the next number |
//! | no answer, or a refusal with possible side effects | unknown: sent again under the same number |
//! | a refusal without side effects, or nothing was sent | this try did nothing; what earlier tries did stays unknown |
//! | `session_expired` on the first try | nothing was done: a new session is opened |
//! | `session_expired` or `stale_incarnation` after an unknown try | the earlier try may have been done: unknown for good |

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use carnax_core::error_code::{ErrorCode, SideEffects};
use carnax_core::id::{CommitNumber, Incarnation, SessionId};
use carnax_core::metadata::{CommitSegments, OpenSession, SegmentCommit, SegmentOutcome};
use carnax_core::problem::Problem;
use carnax_platform::rpc::CallError;
use tokio::time::Instant;

use super::AppendContext;
use super::upload::Epoch;
use crate::deliberate_bugs::DeliberateBug;
use crate::metadata_client::{BackOff, another_node_may_know, no_quorum};

/// The sender of commits. It lives where one commit at a time is sent.
#[derive(Debug)]
pub(crate) struct Committer {
    context: Arc<AppendContext>,
    epoch: Epoch,
    session: Option<Session>,
}

#[derive(Debug, Clone, Copy)]
struct Session {
    id: SessionId,
    incarnation: Incarnation,
    next: CommitNumber,
}

/// How a commit ended.
#[derive(Debug)]
pub(crate) enum CommitEnd {
    /// One outcome for each segment.
    Decided(Vec<SegmentOutcome>),
    /// Nothing was done and nothing will be.
    NotDone(Problem),
    /// It may have been done. The session is abandoned.
    Unknown,
}

/// What one try says.
enum Verdict {
    End(CommitEnd),
    TryAgain(CallError),
    /// The session is gone and nothing was ever sent in it that may have been done.
    OpenSession(CallError),
}

impl Committer {
    pub(crate) fn new(context: Arc<AppendContext>, epoch: Epoch) -> Self {
        Self { context, epoch, session: None }
    }

    /// Opens a session unless there is one, so that incarnation and time are known before the first upload.
    ///
    /// # Errors
    /// No metadata node could open one in time.
    pub(crate) async fn open(&mut self) -> Result<(), Problem> {
        self.open_until(Instant::now() + self.context.settings.commit_deadline).await
    }

    async fn open_until(&mut self, end: Instant) -> Result<(), Problem> {
        if self.session.is_none() || !self.epoch.is_known() {
            let frontend = self.context.name.clone();
            // A session that was opened without our knowing expires by itself.
            let opened = self.open_session(OpenSession { frontend }, end).await?;
            self.session = Some(opened);
        }
        Ok(())
    }

    /// Commits segments, at most for the deadline of the settings.
    ///
    /// Must not be dropped half-way: whether it was done would stay unknown, and the number would be used again.
    ///
    /// The metadata core finds objects under the incarnation of the session: what was uploaded under another one must not
    /// be committed in it, since nobody could read it.
    pub(crate) async fn commit(
        &mut self,
        uploaded_under: &BTreeSet<Incarnation>,
        segments: Vec<SegmentCommit>,
    ) -> CommitEnd {
        let started = Instant::now();
        let end = started + self.context.settings.commit_deadline;
        let mut back_off = BackOff::new(2);
        let mut may_be_done = false;
        loop {
            if let Err(problem) = self.open_until(end).await {
                return CommitEnd::NotDone(problem);
            }
            let Some(session) = self.session else { continue };
            if uploaded_under.iter().any(|incarnation| *incarnation != session.incarnation) {
                return self.finish(CommitEnd::NotDone(Problem::new(
                    ErrorCode::StaleIncarnation,
                    "the cluster was restored after the records were uploaded",
                )));
            }
            let verdict = self.try_commit(session, segments.clone(), end, &mut may_be_done).await;
            let error = match verdict {
                Verdict::End(outcome) => {
                    self.context.metrics.commit_seconds.observe(started.elapsed().as_secs_f64());
                    return self.finish(outcome);
                }
                Verdict::OpenSession(error) => {
                    self.session = None;
                    error
                }
                Verdict::TryAgain(error) => error,
            };
            tracing::debug!(%error, number = %session.next, may_be_done, "segment commit is tried again");
            if !back_off.wait_until(end).await {
                let outcome = if may_be_done {
                    CommitEnd::Unknown
                } else {
                    CommitEnd::NotDone(no_quorum("the segment commit", &error))
                };
                return self.finish(outcome);
            }
        }
    }

    async fn try_commit(
        &mut self,
        session: Session,
        segments: Vec<SegmentCommit>,
        end: Instant,
        may_be_done: &mut bool,
    ) -> Verdict {
        let Session { id, incarnation, next } = session;
        let request = CommitSegments { incarnation, session: id, number: next, segments };
        let timeout = end.duration_since(Instant::now()).min(self.context.try_timeout);
        let timeout = timeout.max(Duration::from_millis(1));
        let error = match self.context.client.try_command(request, timeout).await {
            Ok(reply) => {
                self.epoch.tell(incarnation, reply.log_time, self.context.clock.as_ref());
                self.session = Some(Session { next: next.next(), ..session });
                return Verdict::End(CommitEnd::Decided(reply.outcomes));
            }
            Err(error) => error,
        };
        if self.context.bugs.makes(DeliberateBug::TakeUnknownForFailure)
            && error.code().side_effects() == SideEffects::Possible
        {
            self.session = None;
            return Verdict::End(CommitEnd::NotDone(Problem::new(ErrorCode::NoQuorum, &error)));
        }
        judge(error, may_be_done)
    }

    /// After an unknown outcome the session may not go on; after another incarnation nothing may.
    fn finish(&mut self, outcome: CommitEnd) -> CommitEnd {
        match &outcome {
            CommitEnd::Unknown => {
                tracing::warn!("the outcome of a segment commit stays unknown; the session is abandoned");
                self.context.metrics.sessions_abandoned.inc();
                self.session = None;
            }
            CommitEnd::NotDone(problem) if problem.code == ErrorCode::StaleIncarnation => {
                self.session = None;
                self.epoch.forget();
            }
            CommitEnd::NotDone(_) | CommitEnd::Decided(_) => {}
        }
        outcome
    }

    async fn open_session(&self, request: OpenSession, end: Instant) -> Result<Session, Problem> {
        let context = &self.context;
        let mut back_off = BackOff::new(2);
        loop {
            let timeout = end.duration_since(Instant::now()).min(context.try_timeout);
            match context.client.try_command(request.clone(), timeout).await {
                Ok(opened) => {
                    self.epoch.tell(opened.incarnation, opened.log_time, context.clock.as_ref());
                    let (id, incarnation) = (opened.session, opened.incarnation);
                    return Ok(Session { id, incarnation, next: CommitNumber::FIRST });
                }
                Err(CallError::Refused(problem))
                    if problem.code.side_effects() == SideEffects::None
                        && !another_node_may_know(problem.code) =>
                {
                    return Err(problem);
                }
                Err(error) => {
                    if !back_off.wait_until(end).await {
                        return Err(no_quorum("the opening of a session", &error));
                    }
                }
            }
        }
    }
}

/// Says what a failed try means, given whether an earlier one may have been done.
fn judge(error: CallError, may_be_done: &mut bool) -> Verdict {
    let problem = match error {
        CallError::NotSent { .. } => return Verdict::TryAgain(error),
        CallError::NoAnswer { .. } => {
            *may_be_done = true;
            return Verdict::TryAgain(error);
        }
        CallError::Refused(problem) => problem,
    };
    match problem.code {
        // Only a number that was used, or skipped, is refused like this: the session is of no use any more.
        ErrorCode::StaleCommitNumber => Verdict::End(CommitEnd::Unknown),
        code if code.side_effects() == SideEffects::Possible => {
            *may_be_done = true;
            Verdict::TryAgain(CallError::Refused(problem))
        }
        code if another_node_may_know(code) => Verdict::TryAgain(CallError::Refused(problem)),
        _ if *may_be_done => Verdict::End(CommitEnd::Unknown),
        ErrorCode::SessionExpired => Verdict::OpenSession(CallError::Refused(problem)),
        _ => Verdict::End(CommitEnd::NotDone(problem)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: ErrorCode) -> CallError {
        CallError::Refused(Problem::new(code, "test"))
    }

    fn no_answer() -> CallError {
        CallError::NoAnswer { address: "a:1".to_owned(), call: "CommitSegments", reason: "test".to_owned() }
    }

    #[test]
    fn only_what_never_was_unknown_is_a_definite_failure() {
        let mut may_be_done = false;
        assert!(matches!(judge(refused(ErrorCode::NotLeader), &mut may_be_done), Verdict::TryAgain(_)));
        assert!(matches!(judge(refused(ErrorCode::NoQuorum), &mut may_be_done), Verdict::TryAgain(_)));
        assert!(matches!(
            judge(refused(ErrorCode::SessionExpired), &mut may_be_done),
            Verdict::OpenSession(_)
        ));
        let end = judge(refused(ErrorCode::StaleIncarnation), &mut may_be_done);
        assert!(matches!(end, Verdict::End(CommitEnd::NotDone(_))));
        assert!(!may_be_done);

        assert!(matches!(judge(no_answer(), &mut may_be_done), Verdict::TryAgain(_)));
        assert!(may_be_done);
        for code in [ErrorCode::SessionExpired, ErrorCode::StaleIncarnation, ErrorCode::TooLarge] {
            let end = judge(refused(code), &mut may_be_done);
            assert!(matches!(end, Verdict::End(CommitEnd::Unknown)), "{code}");
        }
        assert!(matches!(judge(refused(ErrorCode::NotLeader), &mut may_be_done), Verdict::TryAgain(_)));
        assert!(may_be_done, "a later definite refusal does not undo what an earlier try may have done");
    }
}
