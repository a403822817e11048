//! What the state says of groups.

use std::time::Duration;

use carnax_core::error_code::ErrorCode;
use carnax_core::metadata::{
    DescribeGroup, FetchOffsets, GroupDescription, GroupPage, Heartbeat, ListGroups, MemberAssignment,
    OffsetPage,
};
use carnax_core::name::{GroupName, MemberId};
use carnax_core::problem::Problem;

use crate::State;

/// A member whose session the leader watches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The group.
    pub group: GroupName,
    /// The member.
    pub member: MemberId,
    /// The member's epoch.
    pub epoch: u32,
    /// How long it may be silent.
    pub timeout: Duration,
}

/// What a member has to do now.
///
/// # Errors
/// `group_not_found`, `unknown_member`, `fenced` with both epochs in the facts.
pub fn member_assignment(_state: &State, _heartbeat: &Heartbeat) -> Result<MemberAssignment, Problem> {
    Err(Problem::new(ErrorCode::Unavailable, "not there yet"))
}

/// Whether a heartbeat frees something, so that [`Command::ConfirmAssignment`](crate::Command::ConfirmAssignment) is worth
/// proposing.
pub fn must_confirm(_state: &State, _heartbeat: &Heartbeat) -> bool {
    false
}

/// All members of all groups, in order of group and member.
pub fn sessions(_state: &State) -> impl Iterator<Item = Session> {
    std::iter::empty()
}

/// Tells the committed offsets of a group; takes time for the page only.
///
/// # Errors
/// `topic_not_found`, `topic_recreated` for a named topic; `invalid_value` for a limit outside 1 to 10,000.
pub fn fetch_offsets(_state: &State, _request: &FetchOffsets) -> Result<OffsetPage, Problem> {
    Err(Problem::new(ErrorCode::Unavailable, "not there yet"))
}

/// Describes a group.
///
/// # Errors
/// `group_not_found`.
pub fn describe_group(_state: &State, _request: &DescribeGroup) -> Result<GroupDescription, Problem> {
    Err(Problem::new(ErrorCode::Unavailable, "not there yet"))
}

/// Lists groups in order of their names; takes time for the page only.
///
/// # Errors
/// `invalid_value` for a limit outside 1 to 1,000.
pub fn list_groups(_state: &State, _request: &ListGroups) -> Result<GroupPage, Problem> {
    Err(Problem::new(ErrorCode::Unavailable, "not there yet"))
}
