//! Groups: members, and how far they are.

use carnax_core::metadata::{
    CommitOffsets, DeleteGroup, DeletedGroup, DescribeGroup, FetchOffsets, GroupDescription, GroupPage,
    Heartbeat, JoinGroup, LeaveGroup, LeftGroup, ListGroups, MemberAssignment, OffsetPage, OffsetsCommitted,
};
use carnax_core::problem::Problem;
use carnax_metadata_state::{Command, Reply, answer};

use super::{Handle, mismatched, reply};

impl Handle {
    pub(crate) async fn join_group(&self, request: JoinGroup) -> Result<MemberAssignment, Problem> {
        reply!(self, Command::JoinGroup(request), GroupJoined)
    }

    pub(crate) async fn heartbeat(&self, request: Heartbeat) -> Result<MemberAssignment, Problem> {
        let view = self.linearizable().await?;
        if answer::must_confirm(&view.state, &request) {
            return reply!(self, Command::ConfirmAssignment(request), AssignmentConfirmed);
        }
        self.counted(answer::member_assignment(&view.state, &request))
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
