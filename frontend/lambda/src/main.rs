//! The frontend as an AWS Lambda function, behind a function URL, an API Gateway (HTTP or REST) or a load balancer.
//!
//! ```text
//!  event ──lambda_http──▶ request ──▶ environment: a frontend that is fresh ──▶ the router of the process ──▶ answer
//!                                                                         └─ quiet: nothing goes on after the answer
//! ```
//!
//! Invariants: requests are answered by the very router that the process serves. Nothing is asked of anybody before the first
//! event. Nothing goes on between two events: an environment is frozen then, for milliseconds or for hours, so that a
//! frontend that was not used for a while is replaced, connections and all. An append whose time is up is answered
//! `outcome_unknown`, never as done.

mod answer;
mod environment;
mod settings;

use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use lambda_http::{Error, Request, RequestExt, service_fn};
use tokio::time::Instant;
use tracing_subscriber::EnvFilter;

use environment::Environment;
use settings::{Arguments, Responses, Role};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let filter = EnvFilter::try_from_env("CARNAX_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let arguments = Arguments::try_parse()?.for_lambda(|name| std::env::var(name).ok());
    let plays = (arguments.role, arguments.responses);
    let environment = Arc::new(Environment::new(arguments));
    match plays {
        (Role::Http, Responses::Buffered) => {
            let handle = move |request: Request| {
                let environment = Arc::clone(&environment);
                async move {
                    let deadline = deadline(&request);
                    Ok::<_, Error>(answer::buffered(&environment, request, deadline).await)
                }
            };
            lambda_http::run(service_fn(handle)).await
        }
        (Role::Http, Responses::Streamed) => {
            let handle = move |request: Request| {
                let environment = Arc::clone(&environment);
                async move {
                    let deadline = deadline(&request);
                    Ok::<_, Error>(answer::streamed(&environment, request, deadline).await)
                }
            };
            lambda_http::run_with_streaming_response(service_fn(handle)).await
        }
    }
}

/// When the invocation is cut off, by our clock.
fn deadline(request: &Request) -> Instant {
    let at = request
        .lambda_context_ref()
        .map_or(Duration::ZERO, |context| Duration::from_millis(context.deadline));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Instant::now() + at.saturating_sub(now)
}
