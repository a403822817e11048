//! `/v1/groups/{group}/offsets`: how far a group is.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use carnax_core::access::{Operation, Resource};
use carnax_core::error_code::ErrorCode;
use carnax_core::http::{
    CommitOffsetsRequest, CommitOffsetsResponse, GroupOffsetResponse, GroupOffsetsResponse, OffsetEntry,
};
use carnax_core::id::{PartitionIndex, TopicId, TopicPartition};
use carnax_core::limits;
use carnax_core::metadata::{
    CommitOffsets, CommittedNow, CommittedOffset, FetchOffsets, OffsetCommit, OffsetsCommitted, TopicRef,
};
use carnax_core::name::MemberId;
use carnax_core::offset::Offset;
use carnax_core::problem::Problem;
use carnax_core::topic::TopicName;
use http::{HeaderMap, Uri};

use crate::access::Caller;
use crate::append::accept::check_partition;
use crate::http::problem::Failure;
use crate::http::{Api, parameters};
use crate::metadata_client::CommandError;
use crate::metadata_client::topics::Topic;

/// Offsets of a page that does not say how long it wants to be.
const PAGE_OFFSETS_DEFAULT: u32 = 1_000;
/// Offsets of a page: with all that clients may have said about them they still fit into a message.
const PAGE_OFFSETS_MAX: u32 = 5_000;

const _: () = assert!(
    PAGE_OFFSETS_MAX as usize * (limits::OFFSET_METADATA_BYTES_MAX + 1_024) < limits::RPC_MESSAGE_BYTES_MAX
);

/// Tells the committed offsets of a group, with the lag. A group that does not exist has none.
#[utoipa::path(
    get, path = "/v1/groups/{group}/offsets", tag = "groups",
    params(
        ("group" = String, Path),
        ("topic" = Option<String>, Query, description = "Only these topics, all their partitions: may be repeated, or a list with commas"),
        ("after" = Option<String>, Query, description = "next_after of the page before"),
        ("limit" = Option<u32>, Query, description = "Partitions of a page: 1 to 5,000, by default 1,000")),
    responses((status = 200, body = GroupOffsetsResponse), (status = "default", body = carnax_core::problem::ProblemDocument))
)]
pub(in crate::http) async fn tell(
    State(api): State<Arc<Api>>,
    Path(group): Path<String>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<GroupOffsetsResponse>, Failure> {
    let group = parameters::group(&group)?;
    let (topics, after, limit) = question(&uri)?;
    let page = api.client.query(FetchOffsets { group, topics, after, limit }).await?;
    let next_after = page.offsets.last().filter(|_| page.more).map(|last| cursor(last.on));
    // Of topics that the caller may not see, a page only shows that it is shorter.
    let seen =
        |offset: &CommittedOffset| caller.may(Operation::Describe, Resource::Topic(offset.topic.as_str()));
    let offsets: Vec<_> = page.offsets.into_iter().filter(seen).map(response).collect();
    let lag = offsets.iter().fold(0, |sum: u64, offset| sum.saturating_add(offset.lag));
    Ok(Json(GroupOffsetsResponse { offsets, next_after, lag }))
}

/// Commits offsets, all or none: as a member those that it owns, or, without one, those that nobody owns.
///
/// With a number, or with `from` for each offset, the frontend sends the commit again if it gets no answer. `ignored` may
/// then be told of the commit itself: it, or a later one, was done.
#[utoipa::path(
    post, path = "/v1/groups/{group}/offsets", tag = "groups", params(("group" = String, Path)),
    request_body = CommitOffsetsRequest,
    responses((status = 200, body = CommitOffsetsResponse), (status = "default", body = carnax_core::problem::ProblemDocument))
)]
pub(in crate::http) async fn commit(
    State(api): State<Arc<Api>>,
    Path(group): Path<String>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<CommitOffsetsResponse>, Failure> {
    let group = parameters::group(&group)?;
    let CommitOffsetsRequest { member, epoch, number, offsets: entries } =
        api.document(body, &headers).await?;
    let member = with_epoch(member, epoch)?;
    check(&entries, number.is_some() && member.is_none())?;
    let readable = |entry: &OffsetEntry| caller.check(Operation::Read, Resource::Topic(entry.topic.as_str()));
    entries.iter().try_for_each(readable)?;
    let mut command = CommitOffsets { group, member, number, only_if_empty: false, offsets: Vec::new() };
    command.offsets = resolve(&api, &entries, false).await?;
    let committed = match send(&api, command.clone()).await {
        // What is known of the topics may be old.
        Err(problem) if depends_on_topics(problem.code) => {
            let fresh = resolve(&api, &entries, true).await?;
            if fresh == command.offsets {
                return Err(problem.into());
            }
            command.offsets = fresh;
            send(&api, command).await?
        }
        other => other?,
    };
    Ok(Json(CommitOffsetsResponse { ignored: committed.ignored }))
}

/// Commits offsets; again where there was no answer, if that cannot undo what came after.
///
/// # Errors
/// As the state machine says; `outcome_unknown` also for a refusal after a try that may have been done.
pub(super) async fn send(api: &Api, command: CommitOffsets) -> Result<OffsetsCommitted, Problem> {
    let conditional = command.offsets.iter().all(|offset| offset.from != CommittedNow::Any);
    if command.number.is_none() && !conditional {
        return api.client.command(command).await.map_err(CommandError::into_problem);
    }
    match api.client.repeat(command).await {
        // The first try may be the very reason of the refusal: it has moved the offsets away from where they were.
        Err(CommandError::RefusedRepeat(problem)) => Err(Problem::new(
            ErrorCode::OutcomeUnknown,
            format!("the commit had no answer, and when it was sent again it was refused: {problem}"),
        )),
        other => other.map_err(CommandError::into_problem),
    }
}

/// The next page begins behind this partition.
fn cursor(last: TopicPartition) -> String {
    format!("{}.{}", last.topic, last.partition)
}

fn question(uri: &Uri) -> Result<(Vec<TopicRef>, Option<TopicPartition>, u32), Problem> {
    let (mut topics, mut after, mut limit) = (Vec::new(), None, None);
    for (name, value) in parameters::query::<Vec<(String, String)>>(uri)? {
        match name.as_str() {
            "topic" => {
                for topic in value.split(',') {
                    topics.push(TopicRef { name: parameters::topic(topic)?, id: None });
                }
            }
            "after" if after.is_none() => after = Some(parse_cursor(&value)?),
            "limit" if limit.is_none() => {
                let wrong = |_| parameters::invalid(&format!("limit is 1 to {PAGE_OFFSETS_MAX}"));
                limit = Some(value.parse().map_err(wrong)?);
            }
            "after" | "limit" => return Err(parameters::invalid(&format!("{name} stands twice"))),
            other => {
                let shown = parameters::shown(other);
                return Err(parameters::invalid(&format!("{shown} is none of topic, after, limit")));
            }
        }
    }
    Ok((topics, after, parameters::limit(limit, PAGE_OFFSETS_DEFAULT, PAGE_OFFSETS_MAX)?))
}

fn parse_cursor(text: &str) -> Result<TopicPartition, Problem> {
    let parts = text.split_once('.');
    let parsed = parts.and_then(|(topic, partition)| {
        let (topic, partition) = (topic.parse::<TopicId>().ok()?, partition.parse().ok()?);
        Some(TopicPartition { topic, partition: PartitionIndex(partition) })
    });
    parsed.ok_or_else(|| parameters::invalid("after is not what a page said as next_after"))
}

fn response(committed: CommittedOffset) -> GroupOffsetResponse {
    let from = committed.offset.unwrap_or(committed.log_start).max(committed.log_start);
    GroupOffsetResponse {
        topic: committed.topic,
        topic_id: committed.on.topic,
        partition: committed.on.partition,
        offset: committed.offset,
        metadata: committed.metadata,
        committed: committed.committed,
        log_start_offset: committed.log_start,
        high_watermark: committed.high_watermark,
        lag: committed.high_watermark.0.saturating_sub(from.0),
        owner: committed.owner,
    }
}

fn with_epoch(member: Option<MemberId>, epoch: Option<u32>) -> Result<Option<(MemberId, u32)>, Problem> {
    match (member, epoch) {
        (Some(member), Some(epoch)) => Ok(Some((member, epoch))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(parameters::invalid("a member says its epoch")),
        (None, Some(_)) => Err(parameters::invalid("an epoch says nothing without its member")),
    }
}

fn check(entries: &[OffsetEntry], number_of_nobody: bool) -> Result<(), Problem> {
    if number_of_nobody {
        return Err(parameters::invalid("a number counts the commits of a member, and none is named"));
    }
    if entries.is_empty() {
        return Err(parameters::invalid("offsets is empty"));
    }
    let max = limits::GROUP_COMMIT_OFFSETS_MAX;
    if entries.len() > max {
        let problem = Problem::new(ErrorCode::TooLarge, format!("one commit has at most {max} offsets"));
        return Err(problem.with(|facts| facts.limit = Some(max as u64)));
    }
    entries.iter().try_for_each(|entry| {
        check_values(entry).map_err(|problem| {
            problem.with(|facts| {
                facts.topic = Some(entry.topic.to_string());
                facts.partition = Some(entry.partition);
            })
        })
    })
}

fn check_values(entry: &OffsetEntry) -> Result<(), Problem> {
    for (name, offset) in [("offset", entry.offset), ("from", entry.from.flatten())] {
        if offset.is_some_and(|offset| offset > Offset::MAX) {
            let problem = parameters::invalid(&format!("{name} is larger than any offset can be"));
            return Err(problem.with(|facts| facts.limit = Some(Offset::MAX.0)));
        }
    }
    let max = limits::OFFSET_METADATA_BYTES_MAX;
    if entry.metadata.len() > max {
        let problem = parameters::invalid(&format!("metadata has at most {max} bytes"));
        return Err(problem.with(|facts| facts.limit = Some(max as u64)));
    }
    Ok(())
}

/// Whether a refusal may come from names that mean other topics by now.
fn depends_on_topics(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::TopicNotFound
            | ErrorCode::TopicRecreated
            | ErrorCode::PartitionNotFound
            | ErrorCode::NotOwner
    )
}

/// The offsets with the ids of their topics; `fresh`: whatever was known before.
async fn resolve(api: &Api, entries: &[OffsetEntry], fresh: bool) -> Result<Vec<OffsetCommit>, Problem> {
    let mut topics: BTreeMap<&TopicName, (Arc<Topic>, bool)> = BTreeMap::new();
    let mut offsets = Vec::with_capacity(entries.len());
    for entry in entries {
        let (mut topic, mut is_fresh) = match topics.get(&entry.topic) {
            Some(known) => known.clone(),
            None if fresh => (api.topics.refresh(&entry.topic).await?, true),
            None => (api.topics.get(&entry.topic).await?, false),
        };
        if !is_fresh && check_entry(&topic, entry).is_err() {
            (topic, is_fresh) = (api.topics.refresh(&entry.topic).await?, true);
        }
        check_entry(&topic, entry)?;
        offsets.push(OffsetCommit {
            on: TopicPartition { topic: topic.id, partition: entry.partition },
            offset: entry.offset,
            from: match entry.from {
                None => CommittedNow::Any,
                Some(None) => CommittedNow::Nothing,
                Some(Some(offset)) => CommittedNow::Offset(offset),
            },
            metadata: entry.metadata.clone(),
        });
        topics.insert(&entry.topic, (topic, is_fresh));
    }
    Ok(offsets)
}

fn check_entry(topic: &Topic, entry: &OffsetEntry) -> Result<(), Problem> {
    if entry.topic_id.is_some_and(|known| known != topic.id) {
        let detail = format!("topic {} is another one now: it was deleted and created again", topic.name);
        return Err(Problem::new(ErrorCode::TopicRecreated, detail).with(|facts| {
            facts.topic = Some(topic.name.to_string());
            facts.topic_id = Some(topic.id);
        }));
    }
    check_partition(topic, entry.partition)
}
