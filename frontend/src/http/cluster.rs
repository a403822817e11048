//! `/v1/cluster`: who the metadata nodes are, and how to change that.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use carnax_core::http::{
    AddNodeRequest, AlterSettingsRequest, ClusterResponse, SettingsResponse, TransferLeadershipRequest,
    UpgradeClusterRequest,
};
use carnax_core::id::NodeId;
use carnax_core::metadata::{
    AddNode, AlterSettings, ClusterSettings, ClusterUpgraded, DescribeCluster, DescribeMaintenance,
    DescribeSettings, MaintenanceDescription, MembershipChanged, RemoveNode, SettingsDescription,
    TransferLeadership, UpgradeCluster,
};
use carnax_core::problem::Problem;
use carnax_core::topic::ConfigEntries;
use http::HeaderMap;

use super::problem::Failure;
use super::{Api, parameters};
use crate::metadata_client::CommandError;

/// The metadata cluster as one of its nodes sees it, and this frontend.
#[utoipa::path(
    get, path = "/v1/cluster", tag = "cluster",
    responses((status = 200, description = "Nodes, leader, sizes"), (status = "default", body = carnax_core::problem::ProblemDocument))
)]
pub(super) async fn describe(State(api): State<Arc<Api>>) -> Result<Json<ClusterResponse>, Failure> {
    let metadata = api.client.query(DescribeCluster {}).await?;
    Ok(Json(ClusterResponse {
        metadata,
        frontend_version: env!("CARGO_PKG_VERSION").to_owned(),
        object_store: api.settings.object_store.to_string(),
    }))
}

/// Gives a metadata node that has joined as a learner its vote.
#[utoipa::path(
    post, path = "/v1/cluster/nodes", tag = "cluster", request_body = AddNodeRequest,
    responses((status = 200, description = "The nodes now"), (status = "default", body = carnax_core::problem::ProblemDocument))
)]
pub(super) async fn add_node(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<MembershipChanged>, Failure> {
    let AddNodeRequest { address, promote } = api.document(body, &headers).await?;
    let command = AddNode { address, disk: None, promote, level_max: None };
    Ok(Json(api.client.command(command).await.map_err(CommandError::into_problem)?))
}

/// Takes a metadata node out of the cluster for good.
#[utoipa::path(
    delete, path = "/v1/cluster/nodes/{node}", tag = "cluster", params(("node" = u64, Path)),
    responses((status = 200, description = "The nodes now"), (status = "default", body = carnax_core::problem::ProblemDocument))
)]
pub(super) async fn remove_node(
    State(api): State<Arc<Api>>,
    Path(node): Path<String>,
) -> Result<Json<MembershipChanged>, Failure> {
    let wrong = |_| parameters::invalid(&format!("a node is a number, not {}", parameters::shown(&node)));
    let node = node.parse().map(NodeId).map_err(wrong)?;
    Ok(Json(api.client.command(RemoveNode { node }).await.map_err(CommandError::into_problem)?))
}

/// Hands leadership of the metadata cluster over.
#[utoipa::path(
    post, path = "/v1/cluster/leader", tag = "cluster", request_body = TransferLeadershipRequest,
    responses((status = 200, description = "The nodes now"), (status = "default", body = carnax_core::problem::ProblemDocument))
)]
pub(super) async fn transfer_leadership(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<MembershipChanged>, Failure> {
    let TransferLeadershipRequest { to } = api.document(body, &headers).await?;
    let command = TransferLeadership { to };
    Ok(Json(api.client.command(command).await.map_err(CommandError::into_problem)?))
}

/// Raises the feature level of the cluster, once every metadata node knows the new one.
#[utoipa::path(
    post, path = "/v1/cluster/upgrade", tag = "cluster", request_body = UpgradeClusterRequest,
    responses((status = 200, body = ClusterUpgraded), (status = "default", body = carnax_core::problem::ProblemDocument))
)]
pub(super) async fn upgrade(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<ClusterUpgraded>, Failure> {
    let UpgradeClusterRequest { to, dry_run } = api.document(body, &headers).await?;
    // Raised twice is raised once.
    let upgraded = api.client.repeat(UpgradeCluster { to, dry_run }).await;
    Ok(Json(upgraded.map_err(CommandError::into_problem)?))
}

/// How maintenance is getting on: what is due, who is at it, when it was last finished.
#[utoipa::path(
    get, path = "/v1/cluster/maintenance", tag = "cluster",
    responses((status = 200, body = MaintenanceDescription), (status = "default", body = carnax_core::problem::ProblemDocument))
)]
pub(super) async fn maintenance(
    State(api): State<Arc<Api>>,
) -> Result<Json<MaintenanceDescription>, Failure> {
    Ok(Json(api.client.query(DescribeMaintenance {}).await?))
}

/// The settings of the cluster, defaults included.
#[utoipa::path(
    get, path = "/v1/cluster/settings", tag = "cluster",
    responses((status = 200, body = SettingsResponse), (status = "default", body = carnax_core::problem::ProblemDocument))
)]
pub(super) async fn settings(State(api): State<Arc<Api>>) -> Result<Json<SettingsResponse>, Failure> {
    Ok(Json(response(api.client.query(DescribeSettings {}).await?)))
}

/// Changes settings of the cluster; what is absent stays, `null` brings the default back.
#[utoipa::path(
    patch, path = "/v1/cluster/settings", tag = "cluster", request_body = AlterSettingsRequest,
    responses((status = 200, body = SettingsResponse), (status = "default", body = carnax_core::problem::ProblemDocument))
)]
pub(super) async fn alter_settings(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<SettingsResponse>, Failure> {
    let AlterSettingsRequest { settings } = api.document(body, &headers).await?;
    let entries: BTreeMap<_, _> =
        settings.into_iter().map(|(name, value)| (name, value.map(|value| value.0))).collect();
    check_settings(&entries)?;
    let altered = api.client.command(AlterSettings { entries }).await.map_err(CommandError::into_problem)?;
    Ok(Json(response(altered)))
}

/// Values that are set have to be right, and names that are brought back to their defaults have to be there.
fn check_settings(entries: &BTreeMap<String, Option<String>>) -> Result<(), Problem> {
    let defaults = ClusterSettings::default().to_entries();
    let with_default = |(name, value): (&String, &Option<String>)| {
        let value = value.as_ref().or_else(|| defaults.get(name));
        (name.clone(), value.cloned().unwrap_or_default())
    };
    let entries: ConfigEntries = entries.iter().map(with_default).collect();
    ClusterSettings::check_each(&entries).map_err(|error| parameters::invalid(&error.to_string()))
}

fn response(described: SettingsDescription) -> SettingsResponse {
    // Entries of a later version are shown as they are stored.
    let settings = ClusterSettings::from_entries(&described.entries)
        .map_or(described.entries, ClusterSettings::to_entries);
    SettingsResponse { settings }
}
