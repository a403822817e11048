//! From an event's request to its answer, within the time of the invocation.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use carnax_core::error_code::ErrorCode;
use carnax_core::http::content_type;
use carnax_core::problem::{Problem, ProblemDocument};
use carnax_frontend::{Deadline, Frontend};
use futures::StreamExt;
use http::header::CONTENT_TYPE;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;
use lambda_http::{Request, RequestExt};
use tokio::time::Instant;
use tower::ServiceExt;

use crate::environment::{Environment, Times};

/// The whole answer; of a stream of events what came until the time was up.
pub(crate) async fn buffered(
    environment: &Environment,
    request: Request,
    deadline: Instant,
) -> Response<Full<Bytes>> {
    let (frontend, response) = answered(environment, request, deadline).await;
    let (parts, body) = response.into_parts();
    let mut whole = Vec::new();
    let mut pieces = body.into_data_stream();
    let times = Times::until(environment, deadline);
    let streams = is_stream(&parts);
    let end = tokio::time::sleep_until(if streams { times.waits_end } else { times.answer });
    tokio::pin!(end);
    let complete = loop {
        tokio::select! {
            piece = pieces.next() => match piece {
                Some(Ok(piece)) => whole.extend_from_slice(&piece),
                Some(Err(error)) => break Err(error.to_string()),
                None => break Ok(()),
            },
            () = &mut end => break if streams { Ok(()) } else { Err("the time was up".to_owned()) },
        }
    };
    drop(pieces);
    if let Some(frontend) = frontend {
        environment.settle(&frontend, deadline).await;
    }
    match complete {
        Ok(()) => Response::from_parts(parts, Full::new(whole.into())),
        Err(error) => {
            let detail = format!("the answer could not be completed within the invocation: {error}");
            problem(&Problem::new(ErrorCode::Unavailable, detail)).map(Full::new)
        }
    }
}

/// The answer as it comes; a stream of events ends when the time is up.
pub(crate) async fn streamed(
    environment: &Arc<Environment>,
    request: Request,
    deadline: Instant,
) -> Response<Body> {
    let (frontend, response) = answered(environment, request, deadline).await;
    let Some(frontend) = frontend else { return response };
    let (parts, body) = response.into_parts();
    let end = tokio::time::sleep_until(Times::until(environment, deadline).waits_end);
    let pieces = body.into_data_stream().take_until(end);
    let environment = Arc::clone(environment);
    // The invocation lasts as long as its answer: the answer ends when all is quiet.
    let settled = futures::stream::once(async move {
        environment.settle(&frontend, deadline).await;
        Ok(Bytes::new())
    });
    Response::from_parts(parts, Body::from_stream(pieces.chain(settled)))
}

/// Lets the router answer, and says which frontend's it was; none if there could be none.
async fn answered(
    environment: &Environment,
    request: Request,
    deadline: Instant,
) -> (Option<Arc<Frontend>>, Response<Body>) {
    let frontend = match environment.frontend().await {
        Ok(frontend) => frontend,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "no frontend can be made");
            let detail = format!("the function is not set up right: {error:#}");
            return (None, problem(&Problem::new(ErrorCode::Unavailable, detail)).map(Body::from));
        }
    };
    let times = Times::until(environment, deadline);
    let method = request.method().clone();
    let request = without_stage(request, times.waits_end);
    let response = match tokio::time::timeout_at(times.answer, frontend.router().oneshot(request)).await {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(_) => {
            // Whatever it was is left behind, and must not go on when the next event thaws this environment.
            environment.discard(&frontend).await;
            problem(&out_of_time(&method)).map(Body::from)
        }
    };
    (Some(frontend), response)
}

/// The request as the router knows it: API Gateways put the name of their stage before the path.
fn without_stage(request: Request, waits_end: Instant) -> http::Request<Body> {
    let raw = request.raw_http_path().to_owned();
    let stage = request.request_context_ref().and_then(stage_of);
    let path = stage.and_then(|stage| raw.strip_prefix('/')?.strip_prefix(stage.as_str()).map(str::to_owned));
    let path = path.filter(|rest| rest.starts_with('/')).unwrap_or(raw);
    let (mut parts, body) = request.into_parts();
    let query = parts.uri.query().map_or(String::new(), |query| format!("?{query}"));
    if let Ok(target) = PathAndQuery::try_from(format!("{path}{query}")) {
        parts.uri = target.into();
    }
    parts.extensions.insert(Deadline(waits_end));
    http::Request::from_parts(parts, Body::from(body.to_vec()))
}

fn stage_of(context: &lambda_http::request::RequestContext) -> Option<String> {
    use lambda_http::request::RequestContext;
    match context {
        RequestContext::ApiGatewayV2(context) => context.stage.clone(),
        RequestContext::ApiGatewayV1(context) => context.stage.clone(),
        _ => None,
    }
}

fn is_stream(parts: &http::response::Parts) -> bool {
    parts
        .headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes() == content_type::EVENT_STREAM.as_bytes())
}

fn out_of_time(method: &Method) -> Problem {
    if method.is_safe() {
        return Problem::new(ErrorCode::Unavailable, "the invocation had not enough time for an answer");
    }
    let detail = "the invocation had not enough time to learn what became of the request";
    Problem::new(ErrorCode::OutcomeUnknown, detail)
}

fn problem(problem: &Problem) -> Response<Bytes> {
    let document = serde_json::to_vec(&ProblemDocument::from_problem(problem, None)).unwrap_or_default();
    let mut response = Response::new(Bytes::from(document));
    *response.status_mut() =
        StatusCode::from_u16(problem.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type::PROBLEM));
    response
}
