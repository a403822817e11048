//! The frontend as an AWS Lambda function: behind a function URL, an API Gateway (HTTP or REST) or a load balancer, or behind
//! SQS queues; or its maintenance.
//!
//! ```text
//!  event ──▶ environment: a frontend that is fresh ──▶ http: the router of the process   ──▶ quiet: nothing goes on ──▶ answer
//!                                                 ├▶ sqs-ingest: messages become records
//!                                                 └▶ maintenance: jobs that are due
//! ```
//!
//! Invariants: requests are answered by the very router that the process serves. Nothing is asked of anybody before the first
//! event. Nothing goes on between two events: an environment is frozen then, for milliseconds or for hours, so that a
//! frontend that was not used for a while is replaced, connections and all. An append whose time is up is answered
//! `outcome_unknown`, never as done.

mod answer;
mod environment;
mod ingest;
mod maintenance;
mod settings;

use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use lambda_http::{Error, Request, RequestExt, service_fn};
use lambda_runtime::LambdaEvent;
use tokio::time::Instant;
use tracing_subscriber::EnvFilter;

use environment::Environment;
use settings::{Arguments, Responses, Role};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let filter = EnvFilter::try_from_env("CARNAX_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let arguments = Arguments::try_parse()?.for_lambda(|name| std::env::var(name).ok());
    let (role, responses, rules) = (arguments.role, arguments.responses, arguments.ingest.clone());
    let environment = Arc::new(Environment::new(arguments));
    match (role, responses) {
        (Role::Http, Responses::Buffered) => {
            let handle = move |request: Request| {
                let environment = Arc::clone(&environment);
                async move {
                    let end = end_of(&request);
                    Ok::<_, Error>(answer::buffered(&environment, request, end).await)
                }
            };
            lambda_http::run_concurrent(service_fn(handle)).await
        }
        (Role::Http, Responses::Streamed) => {
            let handle = move |request: Request| {
                let environment = Arc::clone(&environment);
                async move {
                    let end = end_of(&request);
                    Ok::<_, Error>(answer::streamed(&environment, request, end).await)
                }
            };
            lambda_http::run_with_streaming_response_concurrent(service_fn(handle)).await
        }
        (Role::SqsIngest, _) => {
            let rules = Arc::new(rules.ok_or("CARNAX_INGEST is missing")?);
            let handle = move |event: LambdaEvent<ingest::Batch>| {
                let (environment, rules) = (Arc::clone(&environment), Arc::clone(&rules));
                async move { Ok::<_, Error>(ingest::take(&environment, &rules, event).await) }
            };
            lambda_runtime::run_concurrent(service_fn(handle)).await
        }
        (Role::Maintenance, _) => {
            let handle = move |event: LambdaEvent<serde_json::Value>| {
                let environment = Arc::clone(&environment);
                async move { maintenance::work(&environment, event.context.deadline).await }
            };
            lambda_runtime::run_concurrent(service_fn(handle)).await
        }
    }
}

fn end_of(request: &Request) -> Instant {
    deadline(request.lambda_context_ref().map_or(0, |context| context.deadline))
}

/// When the invocation is cut off, by our clock; `at` is in milliseconds since 1970.
fn deadline(at: u64) -> Instant {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Instant::now() + Duration::from_millis(at).saturating_sub(now)
}
