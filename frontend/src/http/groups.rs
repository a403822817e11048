//! `/v1/groups`: members, offsets, description.
//!
//! Nothing is kept here between two calls: any frontend serves any of them.

pub(super) mod offsets;
pub(super) mod reset;

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use carnax_core::access::{Operation, Resource};
use carnax_core::http::{
    AssignmentResponse, DeletedGroupResponse, GroupResponse, GroupsResponse, HeartbeatRequest,
    JoinGroupRequest, LeftGroupResponse, MemberResponse,
};
use carnax_core::limits;
use carnax_core::metadata::{
    DeleteGroup, DescribeGroup, GroupDescription, GroupSummary, Heartbeat, JoinGroup, LeaveGroup, ListGroups,
    MemberAssignment, MemberDescription,
};
use carnax_core::name::{GroupName, MemberId};
use carnax_core::problem::Problem;
use http::{HeaderMap, Uri};
use serde::Deserialize;

use super::problem::Failure;
use super::{Api, parameters};
use crate::access::Caller;
use crate::metadata_client::CommandError;

const PAGE_GROUPS_MAX: u32 = 1_000;
/// Groups that are asked for at once: whoever may see few of them is not to need many questions.
const PAGE_GROUPS_MIN: u32 = 100;
/// What a member may say of itself has the length of an address, which it often is.
const CLIENT_BYTES_MAX: usize = limits::ADDRESS_BYTES_MAX;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LeaveQuery {
    epoch: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    #[serde(default)]
    prefix: String,
    after: Option<String>,
    limit: Option<u32>,
}

/// Joins a group, which the first member makes. Idempotent for a member id that the client chose.
#[utoipa::path(
    post, path = "/v1/groups/{group}/members", tag = "groups", params(("group" = String, Path)),
    request_body = JoinGroupRequest,
    responses((status = 200, body = AssignmentResponse), (status = "default", body = carnax_core::problem::ProblemDocument))
)]
pub(super) async fn join(
    State(api): State<Arc<Api>>,
    Path(group): Path<String>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<AssignmentResponse>, Failure> {
    let group = parameters::group(&group)?;
    let request: JoinGroupRequest = api.document(body, &headers).await?;
    let session_timeout_millis = session_timeout(&request)?;
    check_subscription(&request)?;
    check_readable(&caller, &request)?;
    let member = request.member.unwrap_or_else(|| new_member(&api));
    let command = JoinGroup {
        group,
        member: member.clone(),
        client: request.client,
        topics: request.topics,
        patterns: request.patterns,
        assignor: request.assignor,
        session_timeout_millis,
    };
    // Joining twice is joining once, so no answer is no reason to give up.
    let joined = api.client.repeat(command).await.map_err(CommandError::into_problem)?;
    Ok(Json(assignment(member, joined)))
}

/// Says that a member lives and which assignment it has reached; answered with its assignment now.
#[utoipa::path(
    post, path = "/v1/groups/{group}/members/{member}/heartbeat", tag = "groups",
    params(("group" = String, Path), ("member" = String, Path)), request_body = HeartbeatRequest,
    responses((status = 200, body = AssignmentResponse), (status = "default", body = carnax_core::problem::ProblemDocument))
)]
pub(super) async fn heartbeat(
    State(api): State<Arc<Api>>,
    Path((group, member)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<AssignmentResponse>, Failure> {
    let (group, member) = (parameters::group(&group)?, parameters::member(&member)?);
    let HeartbeatRequest { epoch, assignment_epoch } = api.document(body, &headers).await?;
    let command = Heartbeat { group, member: member.clone(), epoch, assignment_epoch };
    let heard = api.client.repeat(command).await.map_err(CommandError::into_problem)?;
    Ok(Json(assignment(member, heard)))
}

/// Leaves a group: the member's partitions are free at once. A member that is not there is well, too.
#[utoipa::path(
    delete, path = "/v1/groups/{group}/members/{member}", tag = "groups",
    params(
        ("group" = String, Path), ("member" = String, Path),
        ("epoch" = Option<u32>, Query, description = "The member's epoch; absent: whichever it has")),
    responses((status = 200, body = LeftGroupResponse), (status = "default", body = carnax_core::problem::ProblemDocument))
)]
pub(super) async fn leave(
    State(api): State<Arc<Api>>,
    Path((group, member)): Path<(String, String)>,
    uri: Uri,
) -> Result<Json<LeftGroupResponse>, Failure> {
    let (group, member) = (parameters::group(&group)?, parameters::member(&member)?);
    let LeaveQuery { epoch } = parameters::query(&uri)?;
    let command = LeaveGroup { group, member, epoch };
    let left = api.client.repeat(command).await.map_err(CommandError::into_problem)?;
    Ok(Json(LeftGroupResponse { was_member: left.was_member }))
}

/// Lists groups in order of their names.
#[utoipa::path(
    get, path = "/v1/groups", tag = "groups",
    params(("prefix" = Option<String>, Query), ("after" = Option<String>, Query), ("limit" = Option<u32>, Query)),
    responses((status = 200, body = GroupsResponse), (status = "default", body = carnax_core::problem::ProblemDocument))
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<GroupsResponse>, Failure> {
    let ListQuery { prefix, after, limit } = parameters::query(&uri)?;
    let after = after.as_deref().map(parameters::group).transpose()?;
    let limit = parameters::limit(limit, PAGE_GROUPS_MAX, PAGE_GROUPS_MAX)?;
    let mut groups = visible(&api, &caller, (prefix, after), limit).await?;
    let more = groups.len() > limit as usize;
    groups.truncate(limit as usize);
    let next_after = groups.last().filter(|_| more).map(|group| group.group.clone());
    Ok(Json(GroupsResponse { groups, next_after }))
}

/// The groups that a caller may see, one more than the limit if there are more: whether there are others is not said, either.
async fn visible(
    api: &Api,
    caller: &Caller,
    (prefix, mut after): (String, Option<GroupName>),
    limit: u32,
) -> Result<Vec<GroupSummary>, Problem> {
    let mut visible = Vec::new();
    let page_limit = limit.saturating_add(1).clamp(PAGE_GROUPS_MIN, PAGE_GROUPS_MAX);
    loop {
        let question = ListGroups { prefix: prefix.clone(), after, limit: page_limit };
        let page = api.client.query(question).await?;
        after = page.groups.last().map(|group| group.group.clone());
        let seen =
            |group: &GroupSummary| caller.may(Operation::Describe, Resource::Group(group.group.as_str()));
        visible.extend(page.groups.into_iter().filter(seen));
        if !page.more || visible.len() > limit as usize {
            return Ok(visible);
        }
    }
}

/// Describes a group, with what each of its members holds, lets go of and waits for.
#[utoipa::path(
    get, path = "/v1/groups/{group}", tag = "groups", params(("group" = String, Path)),
    responses((status = 200, body = GroupResponse), (status = "default", body = carnax_core::problem::ProblemDocument))
)]
pub(super) async fn describe(
    State(api): State<Arc<Api>>,
    Path(group): Path<String>,
) -> Result<Json<GroupResponse>, Failure> {
    let group = parameters::group(&group)?;
    Ok(Json(response(api.client.query(DescribeGroup { group }).await?)))
}

/// Deletes a group that has no members, with its offsets.
#[utoipa::path(
    delete, path = "/v1/groups/{group}", tag = "groups", params(("group" = String, Path)),
    responses((status = 200, body = DeletedGroupResponse), (status = "default", body = carnax_core::problem::ProblemDocument))
)]
pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    Path(group): Path<String>,
) -> Result<Json<DeletedGroupResponse>, Failure> {
    let group: GroupName = parameters::group(&group)?;
    let deleted = api.client.command(DeleteGroup { group }).await.map_err(CommandError::into_problem)?;
    Ok(Json(DeletedGroupResponse { offsets: deleted.offsets }))
}

fn session_timeout(request: &JoinGroupRequest) -> Result<u64, Problem> {
    let millis = |duration: std::time::Duration| duration.as_secs() * 1_000;
    let (min, max) = (millis(limits::MEMBER_SESSION_MIN), millis(limits::MEMBER_SESSION_MAX));
    let timeout = request.session_timeout_ms.unwrap_or(millis(limits::MEMBER_SESSION_DEFAULT));
    if (min..=max).contains(&timeout) {
        return Ok(timeout);
    }
    let problem = parameters::invalid(&format!("session_timeout_ms is {min} to {max}, not {timeout}"));
    Err(problem.with(|facts| facts.limit = Some(if timeout < min { min } else { max })))
}

fn check_subscription(request: &JoinGroupRequest) -> Result<(), Problem> {
    if request.client.len() > CLIENT_BYTES_MAX {
        let problem = parameters::invalid(&format!("client has at most {CLIENT_BYTES_MAX} bytes"));
        return Err(problem.with(|facts| facts.limit = Some(CLIENT_BYTES_MAX as u64)));
    }
    let wanted = request.topics.len() + request.patterns.len();
    if wanted == 0 || wanted > limits::SUBSCRIPTION_TOPICS_MAX {
        let max = limits::SUBSCRIPTION_TOPICS_MAX;
        let problem =
            parameters::invalid(&format!("topics and patterns are 1 to {max} together, not {wanted}"));
        return Err(problem.with(|facts| facts.limit = Some(max as u64)));
    }
    Ok(())
}

/// Assignments name topics: whoever subscribes may read them, all that a pattern may ever match.
fn check_readable(caller: &Caller, request: &JoinGroupRequest) -> Result<(), Problem> {
    let topics = &request.topics;
    topics.iter().try_for_each(|topic| caller.check(Operation::Read, Resource::Topic(topic.as_str())))?;
    request.patterns.iter().try_for_each(|pattern| caller.check_pattern(Operation::Read, pattern))
}

fn new_member(api: &Api) -> MemberId {
    let made = format!("{:032x}", api.entropy.next_u128());
    made.parse().expect("hex digits are a member id")
}

fn assignment(member: MemberId, assigned: MemberAssignment) -> AssignmentResponse {
    AssignmentResponse {
        member,
        epoch: assigned.epoch,
        assignment_epoch: assigned.assignment_epoch,
        assignment: assigned.partitions,
        heartbeat_interval_ms: assigned.heartbeat_interval_millis,
        session_timeout_ms: assigned.session_timeout_millis,
    }
}

fn response(group: GroupDescription) -> GroupResponse {
    let member = |member: MemberDescription| MemberResponse {
        member: member.member,
        epoch: member.epoch,
        assignment_epoch: member.assignment_epoch,
        client: member.client,
        topics: member.topics,
        patterns: member.patterns,
        session_timeout_ms: member.session_timeout_millis,
        assignment: member.assigned,
        releasing: member.releasing,
        awaiting: member.awaiting,
    };
    GroupResponse {
        group: group.group,
        phase: group.phase,
        assignor: group.assignor,
        epoch: group.epoch,
        members: group.members.into_iter().map(member).collect(),
        offsets: group.offsets,
        last_active: group.last_active,
    }
}
