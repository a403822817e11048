//! `/v1/producers`: what is known of a producer, and how to take over from it.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use carnax_core::http::{
    AtomicAppendResult, FencedEpochResponse, KeptReplyResponse, ProducerResponse, RaiseEpochRequest,
};
use carnax_core::metadata::{
    DescribeProducer, FencedEpoch, KeptReply, ProducerDescription, RaiseProducerEpoch,
};
use http::HeaderMap;

use super::problem::Failure;
use super::{Api, parameters};
use crate::metadata_client::CommandError;

/// Tells a producer's epoch and what was accepted of it last.
#[utoipa::path(
    get, path = "/v1/producers/{producer}", tag = "producers", params(("producer" = String, Path)),
    responses((status = 200, body = ProducerResponse), (status = "default", body = carnax_core::problem::ProblemDocument))
)]
pub(super) async fn describe(
    State(api): State<Arc<Api>>,
    Path(producer): Path<String>,
) -> Result<Json<ProducerResponse>, Failure> {
    let producer = parameters::producer(&producer)?;
    let described = api.client.query(DescribeProducer { producer }).await?;
    Ok(Json(response(described)))
}

/// Raises a producer's epoch: nothing of the epochs before is accepted any more, and the answer says what was.
#[utoipa::path(
    post, path = "/v1/producers/{producer}/epoch", tag = "producers", params(("producer" = String, Path)),
    request_body = RaiseEpochRequest,
    responses((status = 200, body = ProducerResponse), (status = "default", body = carnax_core::problem::ProblemDocument))
)]
pub(super) async fn raise_epoch(
    State(api): State<Arc<Api>>,
    Path(producer): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<ProducerResponse>, Failure> {
    let producer = parameters::producer(&producer)?;
    let RaiseEpochRequest { from } = api.document(body, &headers).await?;
    let command = RaiseProducerEpoch { producer, from };
    // Without `from`, to raise it twice is to raise it by two, and the second answer hides what the first one told.
    let raised = match from {
        Some(_) => api.client.repeat(command).await,
        None => api.client.command(command).await,
    };
    Ok(Json(response(raised.map_err(CommandError::into_problem)?)))
}

fn response(producer: ProducerDescription) -> ProducerResponse {
    let ProducerDescription { epoch, last_sequence, before, last_seen } = producer;
    let before = before.map(|FencedEpoch { epoch, last_sequence, replies }| FencedEpochResponse {
        epoch,
        last_sequence: last_sequence.map(|sequence| sequence.to_string()),
        replies: replies.into_iter().map(kept).collect(),
    });
    let last_sequence = last_sequence.map(|sequence| sequence.to_string());
    ProducerResponse { epoch, last_sequence, before, last_seen }
}

fn kept(reply: KeptReply) -> KeptReplyResponse {
    let KeptReply { sequence, slices, append_time } = reply;
    let results = slices.into_iter().map(|slice| AtomicAppendResult {
        topic: None,
        topic_id: slice.topic,
        partition: slice.partition,
        base_offset: slice.base_offset,
        count: slice.records,
        append_time,
    });
    KeptReplyResponse { sequence: sequence.to_string(), results: results.collect() }
}
