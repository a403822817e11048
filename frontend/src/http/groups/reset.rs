//! `POST /v1/groups/{group}/offsets/reset`: moves the offsets of a group without members.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use carnax_core::access::{Operation, Resource};
use carnax_core::error_code::ErrorCode;
use carnax_core::http::{ResetOffset, ResetOffsetsRequest, ResetOffsetsResponse, ResetTo};
use carnax_core::id::{PartitionIndex, TopicId};
use carnax_core::limits;
use carnax_core::metadata::{
    CommitOffsets, CommittedNow, CommittedOffset, DescribeGroup, FetchFrom, FetchOffsets, GroupPhase,
    OffsetCommit, TopicRef,
};
use carnax_core::name::GroupName;
use carnax_core::offset::Offset;
use carnax_core::problem::Problem;
use carnax_core::time::Timestamp;
use carnax_core::topic::TopicName;
use http::HeaderMap;

use super::offsets::send;
use crate::access::Caller;
use crate::http::problem::Failure;
use crate::http::{Api, parameters};

/// Partitions of one reset.
const RESET_PARTITIONS_MAX: usize = 10_000;
/// Committed offsets that are read at once.
const PAGE_OFFSETS: u32 = 1_000;

/// Moves the committed offsets of a group without members, or (`dry_run`) says what would happen.
///
/// Offsets outside of a partition are moved to its nearest end. `shift_by` leaves out partitions of which nothing is
/// committed. Each offset moves only if it still is what was seen before. All offsets move in one commit if they are at
/// most 1,000; more go in several, and a failure between two of them is `outcome_unknown`: then read the offsets.
#[utoipa::path(
    post, path = "/v1/groups/{group}/offsets/reset", tag = "groups", params(("group" = String, Path)),
    request_body = ResetOffsetsRequest,
    responses((status = 200, body = ResetOffsetsResponse), (status = "default", body = carnax_core::problem::ProblemDocument))
)]
pub(in crate::http) async fn reset(
    State(api): State<Arc<Api>>,
    Path(group): Path<String>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<ResetOffsetsResponse>, Failure> {
    let group = parameters::group(&group)?;
    let request: ResetOffsetsRequest = api.document(body, &headers).await?;
    if request.partitions.as_ref().is_some_and(Vec::is_empty) {
        return Err(parameters::invalid("partitions is empty: leave it away for all").into());
    }
    let named = |topic: &TopicName| caller.check(Operation::Read, Resource::Topic(topic.as_str()));
    request.topics.iter().try_for_each(named)?;
    check_group(&api, &group, request.topics.is_empty()).await?;
    let seen = seen(&api, &group, &request).await?;
    let readable =
        |offset: &CommittedOffset| caller.check(Operation::Read, Resource::Topic(offset.topic.as_str()));
    seen.iter().try_for_each(readable)?;
    let moves = plan(&api, request.to, seen).await?;
    if !request.dry_run {
        execute(&api, &group, &moves).await?;
    }
    let offsets = moves.into_iter().map(|(seen, to)| ResetOffset {
        topic: seen.topic,
        partition: seen.on.partition,
        from: seen.offset,
        to,
    });
    Ok(Json(ResetOffsetsResponse { offsets: offsets.collect(), dry_run: request.dry_run }))
}

/// A group that does not exist may be made by naming topics: it then starts where the reset says.
async fn check_group(api: &Api, group: &GroupName, must_exist: bool) -> Result<(), Problem> {
    match api.client.query(DescribeGroup { group: group.clone() }).await {
        Ok(described) if described.phase == GroupPhase::Empty => Ok(()),
        Ok(described) => {
            let count = described.members.len();
            let detail = format!("group {group} has {count} members, which would go on from where they are");
            Err(Problem::new(ErrorCode::GroupNotEmpty, detail))
        }
        Err(problem) if problem.code == ErrorCode::GroupNotFound && !must_exist => Ok(()),
        Err(problem) => Err(problem),
    }
}

/// What is committed now of all that is to be reset, in order of topic name and partition.
async fn seen(
    api: &Api,
    group: &GroupName,
    request: &ResetOffsetsRequest,
) -> Result<Vec<CommittedOffset>, Problem> {
    let topics: BTreeSet<&TopicName> = request.topics.iter().collect();
    let refs: Vec<_> = topics.iter().map(|name| TopicRef { name: (*name).clone(), id: None }).collect();
    let wanted: Option<BTreeSet<PartitionIndex>> =
        request.partitions.as_ref().map(|partitions| partitions.iter().copied().collect());
    let mut seen: Vec<CommittedOffset> = Vec::new();
    let mut after = None;
    loop {
        let (group, topics) = (group.clone(), refs.clone());
        let question = FetchOffsets { group, topics, after, limit: PAGE_OFFSETS };
        let page = api.client.query(question).await?;
        after = page.offsets.last().filter(|_| page.more).map(|last| last.on);
        let is_wanted = |on: PartitionIndex| wanted.as_ref().is_none_or(|wanted| wanted.contains(&on));
        seen.extend(page.offsets.into_iter().filter(|offset| is_wanted(offset.on.partition)));
        if seen.len() > RESET_PARTITIONS_MAX {
            let detail = format!("one reset has at most {RESET_PARTITIONS_MAX} partitions: name topics");
            let problem = Problem::new(ErrorCode::TooLarge, detail);
            return Err(problem.with(|facts| facts.limit = Some(RESET_PARTITIONS_MAX as u64)));
        }
        if after.is_none() {
            break;
        }
    }
    seen.sort_by(|a, b| (&a.topic, a.on.partition).cmp(&(&b.topic, b.on.partition)));
    check_partitions(&topics, wanted.as_ref(), &seen)?;
    Ok(seen)
}

/// Every partition that is named has to be there in every topic that is named.
fn check_partitions(
    topics: &BTreeSet<&TopicName>,
    wanted: Option<&BTreeSet<PartitionIndex>>,
    seen: &[CommittedOffset],
) -> Result<(), Problem> {
    let there: BTreeSet<_> = seen.iter().map(|offset| (&offset.topic, offset.on.partition)).collect();
    for topic in topics {
        for partition in wanted.into_iter().flatten() {
            if !there.contains(&(*topic, *partition)) {
                let problem = Problem::new(
                    ErrorCode::PartitionNotFound,
                    format!("topic {topic} has no partition {partition}"),
                );
                return Err(problem.with(|facts| {
                    facts.topic = Some(topic.to_string());
                    facts.partition = Some(*partition);
                }));
            }
        }
    }
    Ok(())
}

/// Where each offset goes.
async fn plan(
    api: &Api,
    to: ResetTo,
    seen: Vec<CommittedOffset>,
) -> Result<Vec<(CommittedOffset, Offset)>, Problem> {
    match to {
        ResetTo::Timestamp(time) => at_time(api, time, seen).await,
        ResetTo::DurationMs(millis) => {
            let time = api.clock.wall().saturating_sub(Duration::from_millis(millis));
            at_time(api, time, seen).await
        }
        ResetTo::Earliest | ResetTo::Latest | ResetTo::Offset(_) | ResetTo::ShiftBy(_) => {
            let target = |seen: CommittedOffset| target(to, &seen).map(|target| (seen, target));
            Ok(seen.into_iter().filter_map(target).collect())
        }
    }
}

/// Where an offset goes, if that is known without looking at records; none if it stays out.
fn target(to: ResetTo, seen: &CommittedOffset) -> Option<Offset> {
    let (start, end) = (seen.log_start, seen.high_watermark.max(seen.log_start));
    match to {
        ResetTo::Earliest => Some(start),
        ResetTo::Latest => Some(end),
        ResetTo::Offset(offset) => Some(offset.clamp(start, end)),
        ResetTo::ShiftBy(by) => {
            let shifted = seen.offset?.0.saturating_add_signed(by);
            Some(Offset(shifted.min(Offset::MAX.0)).clamp(start, end))
        }
        ResetTo::Timestamp(_) | ResetTo::DurationMs(_) => None,
    }
}

async fn at_time(
    api: &Api,
    time: Timestamp,
    seen: Vec<CommittedOffset>,
) -> Result<Vec<(CommittedOffset, Offset)>, Problem> {
    let mut by_topic: BTreeMap<(TopicName, TopicId), Vec<CommittedOffset>> = BTreeMap::new();
    for offset in seen {
        by_topic.entry((offset.topic.clone(), offset.on.topic)).or_default().push(offset);
    }
    let mut moves = Vec::new();
    for ((topic, topic_id), seen) in by_topic {
        let partitions = seen.iter().map(|offset| offset.on.partition).collect();
        let from = FetchFrom::Timestamp(time);
        let positions = api.fetch.positions(&topic, topic_id, partitions, from).await?;
        moves.extend(seen.into_iter().zip(positions.into_iter().map(|position| position.offset)));
    }
    Ok(moves)
}

async fn execute(api: &Api, group: &GroupName, moves: &[(CommittedOffset, Offset)]) -> Result<(), Problem> {
    let mut done = 0;
    for part in moves.chunks(limits::GROUP_COMMIT_OFFSETS_MAX) {
        let offsets = part.iter().map(|(seen, to)| OffsetCommit {
            on: seen.on,
            offset: Some(*to),
            from: seen.offset.map_or(CommittedNow::Nothing, CommittedNow::Offset),
            metadata: String::new(),
        });
        let (group, offsets) = (group.clone(), offsets.collect());
        let command = CommitOffsets { group, member: None, number: None, only_if_empty: true, offsets };
        if let Err(problem) = send(api, command).await {
            if done == 0 {
                return Err(problem);
            }
            let detail = format!("the first {done} of {} offsets were reset, then: {problem}", moves.len());
            return Err(Problem { code: ErrorCode::OutcomeUnknown, detail, facts: problem.facts });
        }
        done += part.len();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use carnax_core::id::TopicPartition;

    use super::*;

    fn seen(offset: Option<u64>, log_start: u64, high_watermark: u64) -> CommittedOffset {
        CommittedOffset {
            topic: "t".parse().unwrap(),
            on: TopicPartition { topic: TopicId::from_bytes([1; 16]), partition: PartitionIndex(0) },
            offset: offset.map(Offset),
            metadata: String::new(),
            committed: None,
            log_start: Offset(log_start),
            high_watermark: Offset(high_watermark),
            owner: None,
        }
    }

    #[test]
    fn a_target_lies_in_its_partition_whatever_is_asked_for() {
        let to = |to: ResetTo, offset: Option<u64>| target(to, &seen(offset, 10, 20)).map(|offset| offset.0);
        assert_eq!((to(ResetTo::Earliest, None), to(ResetTo::Latest, Some(3))), (Some(10), Some(20)));
        for (asked, found) in [(0, 10), (10, 10), (15, 15), (20, 20), (21, 20), (u64::MAX, 20)] {
            assert_eq!(to(ResetTo::Offset(Offset(asked)), None), Some(found), "{asked}");
        }
        for (by, found) in [(0, 12), (-1, 11), (-2, 10), (-100, 10), (8, 20), (i64::MAX, 20), (i64::MIN, 10)]
        {
            assert_eq!(to(ResetTo::ShiftBy(by), Some(12)), Some(found), "{by}");
        }
        assert_eq!(to(ResetTo::ShiftBy(i64::MAX), Some(u64::MAX)), Some(20));
        assert_eq!(to(ResetTo::ShiftBy(1), None), None, "there is nothing to shift");
        assert_eq!(target(ResetTo::Latest, &seen(None, 7, 7)), Some(Offset(7)));
    }
}
