//! What the state says of usage.

use std::ops::Bound;

use carnax_core::error_code::ErrorCode;
use carnax_core::id::TopicId;
use carnax_core::limits;
use carnax_core::metadata::{DescribeUsage, TokenUsage, TopicUsage, UsageDescription};
use carnax_core::problem::Problem;
use carnax_core::time::Timestamp;
use carnax_core::usage::Traffic;

use crate::State;
use crate::topic::Topic;
use crate::usage::Period;

/// What was used in a month, as seen at a time, with a page of topics and tokens. Takes time for every partition.
///
/// # Errors
/// `invalid_value` for a limit outside `1..=USAGE_PAGE_MAX`.
pub fn describe_usage(
    state: &State,
    request: &DescribeUsage,
    now: Timestamp,
) -> Result<UsageDescription, Problem> {
    let max = limits::USAGE_PAGE_MAX;
    if !(1..=max).contains(&request.limit) {
        let detail = format_args!("a page has 1 to {max} topics and tokens, not {}", request.limit);
        return Err(Problem::new(ErrorCode::InvalidValue, detail));
    }
    let now = now.max(state.log_time);
    let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
    let (month, period) = state.usage.period(request.month, now);
    let nothing = Period::default();
    let period = period.unwrap_or(&nothing);
    let from = request.after_topic.map_or(Bound::Unbounded, Bound::Excluded);
    let mut topics = state.topics.by_id.range::<_, TopicId>((from, Bound::Unbounded));
    let page = topics.by_ref().take(limit);
    let topic_rows = page.map(|(id, topic)| row(*id, topic, period)).collect();
    let mut tokens = state.tokens.after(request.after_token.as_ref());
    let of_token = |id| period.tokens.get(id).copied().unwrap_or_default();
    let token_rows =
        tokens.by_ref().take(limit).map(|(id, _)| TokenUsage { id: id.clone(), traffic: of_token(id) });
    let token_rows = token_rows.collect();
    let dead = state.segments.dead().values().map(|segment| u64::from(segment.size));
    Ok(UsageDescription {
        month: month.to_string(),
        log_time: now,
        requests: period.requests,
        traffic: period.traffic,
        deleted_topics: period.of_deleted_topics(),
        other_tokens: period.of_other_tokens(),
        stored_bytes: state.topics.by_id.values().map(|topic| stored_bytes(topic)).sum(),
        dead_bytes: dead.sum(),
        topics: topic_rows,
        more_topics: topics.next().is_some(),
        tokens: token_rows,
        more_tokens: tokens.next().is_some(),
        prices: state.settings.typed.prices,
    })
}

/// Whether a report of a process is in the sums.
pub fn has_usage_report(state: &State, reporter: u128, number: u64) -> bool {
    state.usage.last_report(reporter).is_some_and(|last| number <= last)
}

fn row(id: TopicId, topic: &Topic, period: &Period) -> TopicUsage {
    let traffic: Traffic = period.topics.get(&id).copied().unwrap_or_default();
    TopicUsage { topic_id: id, name: topic.name.clone(), traffic, stored_bytes: stored_bytes(topic) }
}

fn stored_bytes(topic: &Topic) -> u64 {
    topic.partitions.iter().map(|partition| partition.bytes()).sum()
}
