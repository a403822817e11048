//! The HTTP API: routes, what they take and give, and how failures look.
//!
//! Handlers only translate: they read parameters, call the append or the fetch path or the metadata core, and write the
//! answer. Every failure becomes an `application/problem+json` in [`problem`], nowhere else.

mod append;
mod atomic;
pub(crate) mod body;
mod cluster;
mod fencing;
mod fetch;
mod groups;
pub(crate) mod json_record;
mod operations;
mod parameters;
mod patience;
pub(crate) mod problem;
mod producers;
pub(crate) mod routes;
pub(crate) mod server;
mod stamp;
mod tokens;
mod topics;
mod usage;
mod wakeups;

use std::sync::Arc;

use axum::Router;
use axum::middleware;
use carnax_platform::clock::Clock;
use carnax_platform::entropy::Entropy;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi;

pub use routes::{Permission, Route, routes};

use crate::access::Access;
use crate::append::Accept;
use crate::config::Settings;
use crate::fetch::Fetch;
use crate::metadata_client::MetadataClient;
use crate::metadata_client::topics::Topics;
use crate::metrics::Metrics;
use crate::usage::Usage;

/// When nobody waits for records any longer: in the extensions of a request to an embedded frontend, it ends a long-poll
/// with what there is then. To answer takes a little time after it.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(pub tokio::time::Instant);

/// What handlers work with.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) settings: Settings,
    pub(crate) access: Access,
    pub(crate) accept: Accept,
    pub(crate) fetch: Arc<Fetch>,
    pub(crate) client: Arc<MetadataClient>,
    pub(crate) topics: Arc<Topics>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) usage: Arc<Usage>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    /// Bytes that appends may take.
    pub(crate) append_memory: Arc<Semaphore>,
    /// Bytes that bodies which are not records may take.
    pub(crate) document_memory: Arc<Semaphore>,
    pub(crate) draining: CancellationToken,
}

/// All routes of the roles that the frontend plays.
pub(crate) fn router(api: Arc<Api>) -> Router {
    routes::all(&api)
        .fallback(problem::no_such_route)
        .method_not_allowed_fallback(problem::no_such_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&api), problem::render))
        .with_state(api)
}

/// The description of the API, generated from the handlers.
#[derive(OpenApi)]
#[openapi(
    info(title = "Carnax", description = "A distributed commit log in object storage"),
    paths(
        append::to_topic,
        append::to_partition,
        atomic::append,
        fencing::set,
        fencing::describe,
        producers::describe,
        producers::raise_epoch,
        fetch::records,
        fetch::follow_topic,
        fetch::offsets,
        fetch::topic_offsets,
        groups::join,
        groups::heartbeat,
        groups::leave,
        groups::list,
        groups::describe,
        groups::delete,
        groups::offsets::tell,
        groups::offsets::commit,
        groups::reset::reset,
        topics::list,
        topics::create,
        topics::describe,
        topics::alter,
        topics::delete,
        topics::trim,
        wakeups::put,
        wakeups::list,
        wakeups::delete,
        cluster::describe,
        cluster::settings,
        cluster::alter_settings,
        cluster::add_node,
        cluster::remove_node,
        cluster::transfer_leadership,
        cluster::upgrade,
        cluster::maintenance,
        tokens::list,
        tokens::create,
        tokens::alter,
        tokens::revoke,
        usage::describe,
        operations::health,
        operations::readiness,
        operations::metrics,
    ),
    components(schemas(carnax_core::problem::ProblemDocument))
)]
pub(crate) struct ApiDescription;
