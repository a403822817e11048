//! `/v1/topics`: create, change, delete, describe, list, trim.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use carnax_core::access::{Operation, Resource};
use carnax_core::http::{
    AlterTopicRequest, CreateTopicRequest, DeletedTopicResponse, PartitionResponse, TopicResponse,
    TopicsResponse, TrimResponse,
};
use carnax_core::id::PartitionIndex;
use carnax_core::metadata::{
    AlterTopic, CreateTopic, DeleteTopic, DescribeTopic, ListTopics, TopicDescription, TopicRef,
    TrimPartition,
};
use carnax_core::offset::Offset;
use carnax_core::problem::Problem;
use carnax_core::topic::{TopicConfig, TopicName};
use http::{HeaderMap, StatusCode, Uri};
use serde::Deserialize;

use super::problem::Failure;
use super::{Api, parameters};
use crate::access::Caller;
use crate::metadata_client::CommandError;

const PAGE_TOPICS_MAX: u32 = 1_000;
/// Topics that are asked for at once: whoever may see few of them is not to need many questions.
const PAGE_TOPICS_MIN: u32 = 100;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    #[serde(default)]
    prefix: String,
    after: Option<String>,
    limit: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TrimQuery {
    before: u64,
}

/// Lists topics in order of their names.
#[utoipa::path(
    get, path = "/v1/topics", tag = "topics",
    params(("prefix" = Option<String>, Query), ("after" = Option<String>, Query), ("limit" = Option<u32>, Query)),
    responses((status = 200, body = TopicsResponse), (status = "default", body = carnax_core::problem::ProblemDocument))
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<TopicsResponse>, Failure> {
    let ListQuery { prefix, after, limit } = parameters::query(&uri)?;
    let after = after.as_deref().map(parameters::topic).transpose()?;
    let limit = limit.unwrap_or(PAGE_TOPICS_MAX);
    if limit == 0 || limit > PAGE_TOPICS_MAX {
        return Err(parameters::invalid(&format!("limit is 1 to {PAGE_TOPICS_MAX}")).into());
    }
    let topics = visible(&api, &caller, (prefix, after), limit).await?;
    let more = topics.len() > limit as usize;
    let topics: Vec<_> = topics.into_iter().take(limit as usize).map(response).collect();
    let next_after = topics.last().filter(|_| more).map(|topic| topic.name.clone());
    Ok(Json(TopicsResponse { topics, next_after }))
}

/// The topics that a caller may see, one more than the limit if there are more: whether there are others is not said, either.
async fn visible(
    api: &Api,
    caller: &Caller,
    (prefix, mut after): (String, Option<TopicName>),
    limit: u32,
) -> Result<Vec<TopicDescription>, Problem> {
    let mut visible = Vec::new();
    let page_limit = limit.saturating_add(1).clamp(PAGE_TOPICS_MIN, PAGE_TOPICS_MAX);
    loop {
        let question = ListTopics { prefix: prefix.clone(), after, limit: page_limit };
        let page = api.client.query(question).await?;
        after = page.topics.last().map(|topic| topic.name.clone());
        let seen =
            |topic: &TopicDescription| caller.may(Operation::Describe, Resource::Topic(topic.name.as_str()));
        visible.extend(page.topics.into_iter().filter(seen));
        if !page.more || visible.len() > limit as usize {
            return Ok(visible);
        }
    }
}

/// Creates a topic; an equal one that exists is answered 200, a different one 409.
#[utoipa::path(
    put, path = "/v1/topics/{topic}", tag = "topics", params(("topic" = String, Path)),
    request_body = CreateTopicRequest,
    responses(
        (status = 201, body = TopicResponse, description = "It was created"),
        (status = 200, body = TopicResponse, description = "It was there"),
        (status = "default", body = carnax_core::problem::ProblemDocument))
)]
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    Path(topic): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let name = parameters::topic(&topic)?;
    let CreateTopicRequest { partitions, config } = api.document(body, &headers).await?;
    let config = config.into_iter().map(|(name, value)| (name, value.0)).collect();
    check_config(&config)?;
    let command = CreateTopic { name, partitions, config };
    let created = api.client.command(command).await.map_err(CommandError::into_problem)?;
    api.topics.remember(&created);
    let status = if created.newly_created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(response(created))).into_response())
}

/// Describes a topic, with the bounds of its partitions.
#[utoipa::path(
    get, path = "/v1/topics/{topic}", tag = "topics", params(("topic" = String, Path)),
    responses((status = 200, body = TopicResponse), (status = "default", body = carnax_core::problem::ProblemDocument))
)]
pub(super) async fn describe(
    State(api): State<Arc<Api>>,
    Path(topic): Path<String>,
    headers: HeaderMap,
) -> Result<Json<TopicResponse>, Failure> {
    let topic = topic_ref(&topic, &headers)?;
    let described = api.client.query(DescribeTopic { topic, with_offsets: true }).await?;
    api.topics.remember(&described);
    Ok(Json(response(described)))
}

/// Changes a topic: more partitions, other configuration.
#[utoipa::path(
    patch, path = "/v1/topics/{topic}", tag = "topics", params(("topic" = String, Path)),
    request_body = AlterTopicRequest,
    responses((status = 200, body = TopicResponse), (status = "default", body = carnax_core::problem::ProblemDocument))
)]
pub(super) async fn alter(
    State(api): State<Arc<Api>>,
    Path(topic): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<TopicResponse>, Failure> {
    let topic = topic_ref(&topic, &headers)?;
    let AlterTopicRequest { partitions, config } = api.document(body, &headers).await?;
    let set =
        config.iter().filter_map(|(name, value)| Some((name.clone(), value.as_ref()?.0.clone()))).collect();
    check_config(&set)?;
    let config = config.into_iter().map(|(name, value)| (name, value.map(|value| value.0))).collect();
    let command = AlterTopic { topic, partitions, config };
    let altered = api.client.command(command).await.map_err(CommandError::into_problem)?;
    api.topics.remember(&altered);
    Ok(Json(response(altered)))
}

/// Deletes a topic with all its records.
#[utoipa::path(
    delete, path = "/v1/topics/{topic}", tag = "topics", params(("topic" = String, Path)),
    responses((status = 200, body = DeletedTopicResponse), (status = "default", body = carnax_core::problem::ProblemDocument))
)]
pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    Path(topic): Path<String>,
    headers: HeaderMap,
) -> Result<Json<DeletedTopicResponse>, Failure> {
    let topic = topic_ref(&topic, &headers)?;
    let name = topic.name.clone();
    let deleted = api.client.command(DeleteTopic { topic }).await.map_err(CommandError::into_problem)?;
    api.topics.forget(&name);
    Ok(Json(DeletedTopicResponse { topic_id: deleted.topic_id }))
}

/// Deletes the records of a partition before an offset.
#[utoipa::path(
    delete, path = "/v1/topics/{topic}/partitions/{partition}/records", tag = "records",
    params(("topic" = String, Path), ("partition" = u32, Path), ("before" = u64, Query)),
    responses((status = 200, body = TrimResponse), (status = "default", body = carnax_core::problem::ProblemDocument))
)]
pub(super) async fn trim(
    State(api): State<Arc<Api>>,
    Path((topic, partition)): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Json<TrimResponse>, Failure> {
    let topic = topic_ref(&topic, &headers)?;
    let partition: PartitionIndex = parameters::partition(&partition)?;
    let TrimQuery { before } = parameters::query(&uri)?;
    let before =
        Offset::ZERO.checked_add(before).ok_or_else(|| parameters::invalid("before is no offset"))?;
    let command = TrimPartition { topic, partition, before };
    let trimmed = api.client.command(command).await.map_err(CommandError::into_problem)?;
    Ok(Json(TrimResponse { log_start_offset: trimmed.log_start }))
}

pub(super) fn topic_ref(name: &str, headers: &HeaderMap) -> Result<TopicRef, Problem> {
    Ok(TopicRef { name: parameters::topic(name)?, id: parameters::topic_id(headers)? })
}

fn check_config(entries: &carnax_core::topic::ConfigEntries) -> Result<(), Problem> {
    TopicConfig::from_entries(entries).map(|_| ()).map_err(|error| parameters::invalid(&error.to_string()))
}

fn response(topic: TopicDescription) -> TopicResponse {
    let partition_offsets = (0u32..)
        .zip(&topic.offsets)
        .map(|(partition, bounds)| PartitionResponse {
            partition: PartitionIndex(partition),
            log_start_offset: bounds.log_start,
            high_watermark: bounds.high_watermark,
            bytes: bounds.bytes,
        })
        .collect();
    // Entries of a later version are shown as they are stored.
    let config = TopicConfig::from_entries(&topic.config).map_or(topic.config, |config| config.to_entries());
    TopicResponse {
        name: topic.name,
        topic_id: topic.topic_id,
        partitions: topic.partition_count,
        config,
        created: topic.created,
        partition_offsets,
    }
}
