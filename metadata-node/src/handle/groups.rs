//! Groups: members, and how far they are.

use std::time::Duration;

use carnax_core::error_code::ErrorCode;
use carnax_core::metadata::{
    CommitOffsets, DeleteGroup, DeletedGroup, DescribeGroup, FetchOffsets, GroupDescription, GroupPage,
    Heartbeat, JoinGroup, LeaveGroup, LeftGroup, ListGroups, MemberAssignment, OffsetPage, OffsetsCommitted,
};
use carnax_core::problem::Problem;
use carnax_metadata_state::{Command, Reply, answer};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Handle, mismatched, reply};
use crate::group_sessions::{CONFIRM, Heard};
use crate::rpc::DEADLINE;

impl Handle {
    pub(crate) async fn join_group(&self, request: JoinGroup) -> Result<MemberAssignment, Problem> {
        let sessions = self.sessions();
        let give_up = Instant::now() + DEADLINE;
        let joining = loop {
            let settled = sessions.watch_settled();
            match sessions.join(&request) {
                Some(joining) => break joining,
                None => self.counted(until(settled, give_up).await)?,
            }
        };
        let joined: MemberAssignment = reply!(self, Command::JoinGroup(request), GroupJoined)?;
        joining.done(joined.epoch, Duration::from_millis(joined.session_timeout_millis));
        Ok(joined)
    }

    /// Answers a heartbeat, as the leader that a quorum has confirmed after the heartbeat arrived.
    pub(crate) async fn heartbeat(&self, request: Heartbeat) -> Result<MemberAssignment, Problem> {
        let answer = self.hear(&request).await;
        let result = if answer.is_ok() { "answered" } else { "refused" };
        self.metrics().heartbeats.with_label_values(&[result]).inc();
        answer
    }

    async fn hear(&self, request: &Heartbeat) -> Result<MemberAssignment, Problem> {
        let sessions = self.sessions();
        let give_up = Instant::now() + DEADLINE;
        loop {
            let settled = sessions.watch_settled();
            let term = self.counted(self.raft().leading_term().ok_or_else(|| self.not_leading()))?;
            let heard = sessions.hear(request);
            if heard == Heard::Leaving {
                self.counted(until(settled, give_up).await)?;
                continue;
            }
            let view = self.linearizable_within(CONFIRM).await?;
            let assignment = self.counted(answer::member_assignment(&view.state, request))?;
            if self.raft().leading_term() != Some(term) {
                return self.counted(Err(self.not_leading()));
            }
            let timeout = assignment.session_timeout_millis;
            if !sessions.tell(request, Duration::from_millis(timeout), heard) {
                continue;
            }
            if !answer::must_confirm(&view.state, request) {
                return Ok(assignment);
            }
            let command = Command::ConfirmAssignment(request.clone());
            let confirmed: MemberAssignment = reply!(self, command, AssignmentConfirmed)?;
            // The session is the one that was noted, whatever was joined meanwhile.
            let session_timeout_millis = confirmed.session_timeout_millis.min(timeout);
            return Ok(MemberAssignment { session_timeout_millis, ..confirmed });
        }
    }

    pub(super) fn not_leading(&self) -> Problem {
        let leadership = self.raft().leadership();
        match leadership.leader {
            Some((node, address)) if node != self.raft().id() => {
                Problem::new(ErrorCode::NotLeader, format!("node {node} leads")).with(|facts| {
                    facts.leader = Some(node);
                    facts.leader_address = Some(address);
                })
            }
            _ => Problem::new(ErrorCode::NoQuorum, "no leader that a quorum has confirmed is known now"),
        }
    }

    pub(crate) async fn leave_group(&self, request: LeaveGroup) -> Result<LeftGroup, Problem> {
        reply!(self, Command::LeaveGroup(request), GroupLeft)
    }

    pub(crate) async fn commit_offsets(&self, request: CommitOffsets) -> Result<OffsetsCommitted, Problem> {
        reply!(self, Command::CommitOffsets(request), OffsetsCommitted)
    }

    pub(crate) async fn fetch_offsets(&self, request: FetchOffsets) -> Result<OffsetPage, Problem> {
        let view = self.linearizable().await?;
        self.counted(answer::fetch_offsets(&view.state, &request))
    }

    pub(crate) async fn describe_group(&self, request: DescribeGroup) -> Result<GroupDescription, Problem> {
        let view = self.linearizable().await?;
        self.counted(answer::describe_group(&view.state, &request))
    }

    pub(crate) async fn list_groups(&self, request: ListGroups) -> Result<GroupPage, Problem> {
        let view = self.linearizable().await?;
        self.counted(answer::list_groups(&view.state, &request))
    }

    pub(crate) async fn delete_group(&self, request: DeleteGroup) -> Result<DeletedGroup, Problem> {
        reply!(self, Command::DeleteGroup(request), GroupDeleted)
    }
}

/// Waits until something is decided.
async fn until(mut settled: watch::Receiver<u64>, give_up: Instant) -> Result<(), Problem> {
    let late = |_| {
        let detail = "whether the member's session has expired is being decided; ask again";
        Problem::new(ErrorCode::Unavailable, detail)
    };
    // It never closes: the handle holds its other end.
    let _ = tokio::time::timeout_at(give_up, settled.changed()).await.map_err(late)?;
    Ok(())
}
