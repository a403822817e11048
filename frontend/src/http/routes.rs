//! The table of all routes: who may call what.
//!
//! There is no other way to add a route: whatever has no permission here is not served. A permission that depends on what a body or
//! a query names is [`Permission::Checked`]: the handler asks the [`Caller`], without which it cannot be written.

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, RawPathParams, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, patch, post, put};
use carnax_core::access::{Operation, Resource};
use carnax_core::error_code::ErrorCode;
use carnax_core::http::content_type;
use carnax_core::problem::Problem;
use futures::StreamExt;
use http::HeaderMap;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::request::Parts;
use tokio::time::Instant;

use super::problem::Failure;
use super::{
    Api, append, atomic, cluster, fencing, fetch, groups, operations, producers, tokens, topics, usage,
    wakeups,
};
use crate::access::{Access, Caller, FRESH};
use crate::config::Role;
use crate::console;

/// What a caller must be allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Nothing: anybody may call it, without a token.
    Public,
    /// A valid token; the rest is checked by the handler, by what the request names and the answer would show.
    Checked,
    /// An operation on the topic in the path.
    Topic(Operation),
    /// An operation on any topic, whichever.
    SomeTopic(Operation),
    /// An operation on the group in the path.
    Group(Operation),
    /// An operation on the cluster.
    Cluster(Operation),
}

use Operation::{Admin, Alter, Create, Describe, Group as Take, Read, Write};
use Permission::{Checked, Cluster, Group, Public, SomeTopic, Topic};

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// The method, in lower case.
    pub method: &'static str,
    /// The path, with parameters in braces.
    pub path: &'static str,
    /// What a caller must be allowed.
    pub permission: Permission,
}

/// Every route that there is, in no special order.
pub fn routes() -> impl Iterator<Item = &'static Route> {
    API.iter().chain(OPERATIONS)
}

macro_rules! routes {
    ($table:ident, $function:ident: $($method:ident $path:literal $permission:expr => $handler:path;)*) => {
        const $table: &[Route] = &[
            $(Route { method: stringify!($method), path: $path, permission: $permission },)*
        ];

        fn $function(api: &Arc<Api>) -> Router<Arc<Api>> {
            Router::new()$(.route($path, guarded($method($handler), api, $permission)))*
        }
    };
}

routes! { API, api_routes:
    get "/v1/topics" Checked => topics::list;
    put "/v1/topics/{topic}" Topic(Create) => topics::create;
    get "/v1/topics/{topic}" Topic(Describe) => topics::describe;
    patch "/v1/topics/{topic}" Topic(Alter) => topics::alter;
    delete "/v1/topics/{topic}" Topic(Alter) => topics::delete;
    post "/v1/topics/{topic}/records" Topic(Write) => append::to_topic;
    get "/v1/topics/{topic}/records" Topic(Read) => fetch::follow_topic;
    post "/v1/topics/{topic}/partitions/{partition}/records" Topic(Write) => append::to_partition;
    get "/v1/topics/{topic}/partitions/{partition}/records" Topic(Read) => fetch::records;
    delete "/v1/topics/{topic}/partitions/{partition}/records" Topic(Alter) => topics::trim;
    post "/v1/append" Checked => atomic::append;
    get "/v1/topics/{topic}/wakeups" Topic(Describe) => wakeups::list;
    put "/v1/topics/{topic}/wakeups/{wakeup}" Topic(Alter) => wakeups::put;
    delete "/v1/topics/{topic}/wakeups/{wakeup}" Topic(Alter) => wakeups::delete;
    put "/v1/topics/{topic}/partitions/{partition}/fencing-token" Topic(Write) => fencing::set;
    get "/v1/topics/{topic}/partitions/{partition}/fencing-token" Topic(Describe) => fencing::describe;
    get "/v1/topics/{topic}/partitions/{partition}/offsets" Topic(Describe) => fetch::offsets;
    get "/v1/topics/{topic}/offsets" Topic(Describe) => fetch::topic_offsets;
    get "/v1/producers/{producer}" SomeTopic(Write) => producers::describe;
    post "/v1/producers/{producer}/epoch" SomeTopic(Write) => producers::raise_epoch;
    get "/v1/groups" Checked => groups::list;
    get "/v1/groups/{group}" Group(Describe) => groups::describe;
    delete "/v1/groups/{group}" Group(Take) => groups::delete;
    post "/v1/groups/{group}/members" Group(Take) => groups::join;
    delete "/v1/groups/{group}/members/{member}" Group(Take) => groups::leave;
    post "/v1/groups/{group}/members/{member}/heartbeat" Group(Take) => groups::heartbeat;
    get "/v1/groups/{group}/offsets" Group(Describe) => groups::offsets::tell;
    post "/v1/groups/{group}/offsets" Group(Take) => groups::offsets::commit;
    post "/v1/groups/{group}/offsets/reset" Group(Take) => groups::reset::reset;
    get "/v1/cluster" Cluster(Describe) => cluster::describe;
    get "/v1/cluster/settings" Cluster(Describe) => cluster::settings;
    patch "/v1/cluster/settings" Cluster(Alter) => cluster::alter_settings;
    get "/v1/cluster/maintenance" Cluster(Describe) => cluster::maintenance;
    get "/v1/usage" Cluster(Describe) => usage::describe;
    post "/v1/cluster/nodes" Cluster(Admin) => cluster::add_node;
    delete "/v1/cluster/nodes/{node}" Cluster(Admin) => cluster::remove_node;
    post "/v1/cluster/leader" Cluster(Admin) => cluster::transfer_leadership;
    post "/v1/cluster/upgrade" Cluster(Admin) => cluster::upgrade;
    get "/v1/tokens" Cluster(Admin) => tokens::list;
    post "/v1/tokens" Cluster(Admin) => tokens::create;
    patch "/v1/tokens/{token}" Cluster(Admin) => tokens::alter;
    delete "/v1/tokens/{token}" Cluster(Admin) => tokens::revoke;
    get "/console" Public => console::page;
    get "/console/" Public => console::redirect;
    get "/console/{asset}" Public => console::asset;
}

routes! { OPERATIONS, operation_routes:
    get "/healthz" Public => operations::health;
    get "/readyz" Public => operations::readiness;
    get "/openapi.json" Public => operations::openapi;
    get "/metrics" Cluster(Describe) => operations::metrics;
}

/// All routes of the roles that the frontend plays, each behind its permission.
pub(super) fn all(api: &Arc<Api>) -> Router<Arc<Api>> {
    let operations = operation_routes(api);
    if api.settings.roles.contains(&Role::Serve) { operations.merge(api_routes(api)) } else { operations }
}

fn guarded(route: MethodRouter<Arc<Api>>, api: &Arc<Api>, permission: Permission) -> MethodRouter<Arc<Api>> {
    route.route_layer(middleware::from_fn_with_state((Arc::clone(api), permission), guard))
}

/// Lets a request through if its caller is allowed what the route asks for.
async fn guard(
    State((api, permission)): State<(Arc<Api>, Permission)>,
    params: RawPathParams,
    mut request: Request,
    next: Next,
) -> Response {
    if permission == Public {
        return next.run(request).await;
    }
    let path = Path::of(&params);
    let caller = match authorize(&api.access, request.headers(), permission, &path).await {
        Ok(caller) => caller,
        Err(problem) => return Failure(problem).into_response(),
    };
    // Nobody behind this needs the secret, and what is not there cannot be logged.
    request.headers_mut().remove(AUTHORIZATION);
    request.extensions_mut().insert(caller.clone());
    let (reads, started) = (request.method().is_safe(), Instant::now());
    let response = next.run(request).await;
    // What is read after a long wait is read by whoever may read it then. A refusal shows nothing, and has taken its time already.
    if reads
        && started.elapsed() >= FRESH
        && response.extensions().get::<Problem>().is_none()
        && let Err(problem) = still_allowed(&api.access, &caller, permission, &path).await
    {
        return Failure(problem).into_response();
    }
    if is_stream(&response) { until_refused(response, api, caller, permission, path) } else { response }
}

/// The names in a path that permissions depend on.
#[derive(Debug, Default)]
struct Path {
    topic: Option<String>,
    group: Option<String>,
}

impl Path {
    fn of(params: &RawPathParams) -> Self {
        let named = |wanted: &str| {
            let found = params.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| value.to_owned())
        };
        Self { topic: named("topic"), group: named("group") }
    }
}

async fn authorize(
    access: &Access,
    headers: &HeaderMap,
    permission: Permission,
    path: &Path,
) -> Result<Caller, Problem> {
    let caller = access.authenticate(headers).await?;
    check(&caller, permission, path)?;
    Ok(caller)
}

fn check(caller: &Caller, permission: Permission, path: &Path) -> Result<(), Problem> {
    let missing = || Problem::new(ErrorCode::Internal, "the route has no name of what its permission is on");
    match permission {
        Public | Checked => Ok(()),
        Topic(operation) => {
            caller.check(operation, Resource::Topic(path.topic.as_deref().ok_or_else(missing)?))
        }
        Group(operation) => {
            caller.check(operation, Resource::Group(path.group.as_deref().ok_or_else(missing)?))
        }
        SomeTopic(operation) => caller.check_some_topic(operation),
        Cluster(operation) => caller.check(operation, Resource::Cluster),
    }
}

async fn still_allowed(
    access: &Access,
    caller: &Caller,
    permission: Permission,
    path: &Path,
) -> Result<(), Problem> {
    check(&access.again(caller).await?, permission, path)
}

fn is_stream(response: &Response) -> bool {
    let kind = response.headers().get(CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(content_type::EVENT_STREAM.as_bytes()))
}

/// Ends a stream when its reader is allowed to read no longer; whoever reads on is told why by the next request.
fn until_refused(
    response: Response,
    api: Arc<Api>,
    caller: Caller,
    permission: Permission,
    path: Path,
) -> Response {
    let (parts, body) = response.into_parts();
    let refused = async move {
        loop {
            tokio::time::sleep(FRESH).await;
            if let Err(problem) = still_allowed(&api.access, &caller, permission, &path).await {
                tracing::debug!(%problem, ?caller, "a stream ends: its reader is not let in any more");
                return;
            }
        }
    };
    let pieces = body.into_data_stream().take_until(Box::pin(refused));
    Response::from_parts(parts, Body::from_stream(pieces))
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Public => f.write_str("nothing"),
            Self::Checked => f.write_str("by what it names"),
            Self::Topic(operation) => write!(f, "`{operation}` on the topic"),
            Self::SomeTopic(operation) => write!(f, "`{operation}` on any topic"),
            Self::Group(operation) => write!(f, "`{operation}` on the group"),
            Self::Cluster(operation) => write!(f, "`{operation}` on the cluster"),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let missing =
            || Failure(Problem::new(ErrorCode::Internal, "a handler asks who calls, on a public route"));
        parts.extensions.get::<Self>().cloned().ok_or_else(missing)
    }
}
