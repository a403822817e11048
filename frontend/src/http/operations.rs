//! `/healthz`, `/readyz`, `/metrics`, `/openapi.json`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use carnax_core::error_code::ErrorCode;
use carnax_core::metadata::DescribeCluster;
use carnax_core::problem::Problem;
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

use super::problem::Failure;
use super::{Api, ApiDescription};
use crate::append::draining;

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    status: &'static str,
}

/// Says that the process lives.
#[utoipa::path(get, path = "/healthz", tag = "operations", responses((status = 200, body = Health)))]
pub(super) async fn health() -> Json<Health> {
    Json(Health { status: "alive" })
}

/// Says whether the frontend can serve, and if not, why.
#[utoipa::path(
    get, path = "/readyz", tag = "operations",
    responses((status = 200, body = Health), (status = 503, body = carnax_core::problem::ProblemDocument))
)]
pub(super) async fn readiness(State(api): State<Arc<Api>>) -> Result<Json<Health>, Failure> {
    if api.draining.is_cancelled() {
        return Err(draining().into());
    }
    // Not the object store: being asked whether one is ready must cost nothing there.
    let status = api.client.query(DescribeCluster {}).await?;
    if status.cluster.is_none() {
        let detail = "the metadata cluster has not been started yet";
        return Err(Failure(Problem::new(ErrorCode::Unavailable, detail)));
    }
    if status.leader.is_none() {
        return Err(Failure(Problem::new(ErrorCode::NoQuorum, "the metadata cluster has no leader now")));
    }
    Ok(Json(Health { status: "ready" }))
}

/// Metrics in the text format of Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "operations", responses((status = 200, body = String)))]
pub(super) async fn metrics(State(api): State<Arc<Api>>) -> Response {
    let headers = [(http::header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (headers, api.metrics.render()).into_response()
}

pub(super) async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(ApiDescription::openapi())
}
