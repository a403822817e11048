//! How failures look: the one place where a problem becomes an answer.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use carnax_core::error_code::ErrorCode;
use carnax_core::http::{content_type, header};
use carnax_core::problem::{Problem, ProblemDocument};
use http::{HeaderValue, Method, StatusCode, Uri};

use super::Api;

/// Characters of a request id that is taken from a client.
const REQUEST_ID_MAX: usize = 128;

/// A problem on its way out of a handler.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) Problem);

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for Failure {
    /// Only carries the problem: [`render`] writes it, since it knows the request's id.
    fn into_response(self) -> Response {
        let mut response = Response::default();
        response.extensions_mut().insert(self.0);
        response
    }
}

/// Gives every request an id, and writes the document of a problem.
pub(super) async fn render(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let id = request_id(&api, &request);
    let mut response = next.run(request).await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        api.metrics.problems.with_label_values(&[problem.code.as_str()]).inc();
        if problem.code == ErrorCode::Internal {
            tracing::error!(%problem, request_id = ?id, "a request failed by our own fault");
        } else {
            tracing::debug!(%problem, request_id = ?id, "a request was answered with a problem");
        }
        response = write(&problem, id.to_str().ok().map(str::to_owned));
    }
    response.headers_mut().insert(header::REQUEST_ID, id);
    response
}

/// The answer that a problem is.
pub(super) fn write(problem: &Problem, request_id: Option<String>) -> Response {
    let document = ProblemDocument::from_problem(problem, request_id);
    let body = serde_json::to_vec(&document).unwrap_or_default();
    let status = StatusCode::from_u16(problem.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static(content_type::PROBLEM));
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(http::header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    let retry_after = match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            Some(problem.facts.retry_after_seconds.unwrap_or(1))
        }
        _ => problem.facts.retry_after_seconds,
    };
    if let Some(seconds) = retry_after {
        headers.insert(http::header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn request_id(api: &Api, request: &Request) -> HeaderValue {
    let given = request.headers().get(header::REQUEST_ID).filter(|id| {
        let visible = |id: &str| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_graphic());
        id.len() <= REQUEST_ID_MAX && id.to_str().is_ok_and(visible)
    });
    given.cloned().unwrap_or_else(|| {
        let made = format!("{:032x}", api.entropy.next_u128());
        HeaderValue::try_from(made).expect("hex digits are a header value")
    })
}

pub(super) async fn no_such_route(uri: Uri) -> Failure {
    let path: String = uri.path().chars().take(200).collect();
    Failure(Problem::new(ErrorCode::RouteNotFound, format!("there is nothing at {path}")))
}

pub(super) async fn no_such_method(method: Method, uri: Uri) -> Failure {
    let path: String = uri.path().chars().take(200).collect();
    Failure(Problem::new(ErrorCode::MethodNotAllowed, format!("{path} does not take {method}")))
}
