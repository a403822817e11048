//! From an event's request to its answer, within the time of the invocation.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use carnax_core::error_code::ErrorCode;
use carnax_core::http::content_type;
use carnax_core::problem::{Problem, ProblemDocument};
use carnax_frontend::Deadline;
use futures::StreamExt;
use http::header::CONTENT_TYPE;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use lambda_http::{Request, RequestExt};
use tokio::time::Instant;
use tower::ServiceExt;

use crate::environment::{Environment, Invocation, Times};

/// The whole answer; of a stream of events what came until the time was up.
pub(crate) async fn buffered(
    environment: &Environment,
    request: Request,
    deadline: Instant,
) -> Response<Full<Bytes>> {
    let method = request.method().clone();
    let (invocation, response) = answered(environment, request, deadline).await;
    let (parts, body) = response.into_parts();
    let times = Times::until(environment, deadline);
    let complete = if is_stream(&parts) {
        Ok(pieces_until(body, times.waits_end).await)
    } else {
        whole_until(body, times.answer).await
    };
    if let Some(invocation) = invocation {
        environment.settle(invocation, deadline).await;
    }
    match complete {
        Ok(body) => Response::from_parts(parts, Full::new(body.into())),
        Err(error) => {
            tracing::warn!(error, "an answer could not be completed within the invocation");
            problem(&out_of_time(&method)).map(Full::new)
        }
    }
}

/// What came of a stream until its time was up; pieces may be there for ever.
async fn pieces_until(body: Body, end: Instant) -> Vec<u8> {
    let mut pieces = std::pin::pin!(body.into_data_stream().take_until(tokio::time::sleep_until(end)));
    let mut taken = Vec::new();
    while let Some(Ok(piece)) = pieces.next().await {
        taken.extend_from_slice(&piece);
    }
    taken
}

/// All of an answer. What is there is taken whatever the clock says after a freeze: it may tell of an append that is done.
async fn whole_until(body: Body, end: Instant) -> Result<Vec<u8>, String> {
    match tokio::time::timeout_at(end, body.collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes().to_vec()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the time was up".to_owned()),
    }
}

/// The answer as it comes; a stream of events ends when the time is up.
pub(crate) async fn streamed(
    environment: &Arc<Environment>,
    request: Request,
    deadline: Instant,
) -> Response<Body> {
    let (invocation, response) = answered(environment, request, deadline).await;
    let Some(invocation) = invocation else { return response };
    let (parts, body) = response.into_parts();
    let end = tokio::time::sleep_until(Times::until(environment, deadline).waits_end);
    let pieces = body.into_data_stream().take_until(end);
    let environment = Arc::clone(environment);
    // The invocation lasts as long as its answer: the answer ends when all is quiet.
    let settled = futures::stream::once(async move {
        environment.settle(invocation, deadline).await;
        Ok(Bytes::new())
    });
    Response::from_parts(parts, Body::from_stream(pieces.chain(settled)))
}

/// Lets the router answer, within an invocation that is to be settled; none if there is no frontend.
async fn answered(
    environment: &Environment,
    request: Request,
    deadline: Instant,
) -> (Option<Invocation>, Response<Body>) {
    let invocation = match environment.begin().await {
        Ok(invocation) => invocation,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "no frontend can be made");
            let detail = format!("the function is not set up right: {error:#}");
            return (None, problem(&Problem::new(ErrorCode::Unavailable, detail)).map(Body::from));
        }
    };
    let times = Times::until(environment, deadline);
    let method = request.method().clone();
    let request = without_stage(request, times.waits_end);
    let response = match tokio::time::timeout_at(times.answer, invocation.router().oneshot(request)).await {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(_) => {
            // Whatever it was is left behind, and must not go on when the next event thaws this environment.
            environment.discard(&invocation.frontend).await;
            problem(&out_of_time(&method)).map(Body::from)
        }
    };
    (Some(invocation), response)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may")]

    use std::time::Duration;

    use futures::stream;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_there_is_taken_when_the_time_is_up_and_a_stream_ends_then() {
        let now = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        for _ in 0..100 {
            assert_eq!(whole_until(Body::from("done"), now).await.unwrap(), b"done");
        }
        let piece = || Ok::<_, std::io::Error>(Bytes::from("x"));
        let never_whole = Body::from_stream(stream::iter([piece()]).chain(stream::pending()));
        assert!(whole_until(never_whole, now + Duration::from_secs(2)).await.is_err());

        assert!(pieces_until(Body::from_stream(stream::repeat_with(piece)), now).await.is_empty());
        let waiting = Body::from_stream(stream::iter([piece()]).chain(stream::pending()));
        assert_eq!(pieces_until(waiting, Instant::now() + Duration::from_secs(2)).await, b"x");
    }

    #[test]
    fn what_may_have_been_done_is_never_answered_as_not_done() {
        assert_eq!(out_of_time(&Method::GET).code, ErrorCode::Unavailable);
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            assert_eq!(out_of_time(&method).code, ErrorCode::OutcomeUnknown, "{method}");
        }
    }
}
