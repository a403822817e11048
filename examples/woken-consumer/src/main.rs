//! An example to copy: a Lambda function that a wake-up's queue invokes when a topic has grown. It counts flights, and how many
//! of them were late, into another topic: each flight exactly once, whoever is killed when.
//!
//! ```text
//!  commits ──▶ wake-up ──▶ SQS ──▶ this function ──▶ where is the group? ──▶ read ──▶ count ──▶ append counts + move the group
//!                           ▲            │                                                        in one command
//!                           └─ what is not done goes back
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `wakeup` | what the queue hands over, and what goes back to it; pure |
//! | `catch_up` | reads, and appends with the group's offsets |
//! | `late` | what is made of the records; pure: put yours here |
//!
//! Why it is exactly once: an event only says *that* there is something to read, and up to where. *From* where is said by the
//! group's committed offset, and it moves in the very command that stores the counts. So an event may come twice, late, or
//! to two functions at once: the second one finds the work done. A function that dies before that command has done nothing,
//! and one that dies after it is done, but for the message, which comes again and finds nothing to do.
//!
//! | variable | says |
//! |---|---|
//! | `CARNAX_ENDPOINT` | where frontends listen: `http://HOST:PORT[,…]` |
//! | `CARNAX_INPUT`, `CARNAX_OUTPUT` | the topics (`flights`, `late-flights`) |
//! | `CARNAX_GROUP` | the group, which must have no members (`late-flights`) |
//! | `CARNAX_RECORDS_MAX` | how many records an invocation takes about (10000); what is left goes back to the queue |

mod catch_up;
mod late;
mod wakeup;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use carnax::Client;
use lambda_runtime::{Error, LambdaEvent, service_fn};
use tokio::time::Instant;

use catch_up::Progress;
use wakeup::{Answer, Batch};

/// How long before it would be cut off an invocation stops and answers.
const MARGIN: Duration = Duration::from_millis(500);

struct Settings {
    endpoints: Vec<String>,
    input: String,
    output: String,
    group: String,
    records_max: usize,
}

impl Settings {
    fn read() -> anyhow::Result<Self> {
        let or = |name, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
        let endpoints = std::env::var("CARNAX_ENDPOINT").context("CARNAX_ENDPOINT is missing")?;
        Ok(Self {
            endpoints: endpoints.split(',').map(str::to_owned).collect(),
            input: or("CARNAX_INPUT", "flights"),
            output: or("CARNAX_OUTPUT", "late-flights"),
            group: or("CARNAX_GROUP", "late-flights"),
            records_max: or("CARNAX_RECORDS_MAX", "10000")
                .parse()
                .context("CARNAX_RECORDS_MAX is a number")?,
        })
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    tracing_subscriber::fmt().json().with_writer(std::io::stderr).init();
    let settings = Arc::new(Settings::read()?);
    let handle = move |event: LambdaEvent<Batch>| {
        let settings = Arc::clone(&settings);
        async move { handle(&settings, event).await }
    };
    lambda_runtime::run(service_fn(handle)).await
}

async fn handle(settings: &Settings, event: LambdaEvent<Batch>) -> Result<Answer, Error> {
    let time = time_left(event.context.deadline).saturating_sub(MARGIN);
    let until = Instant::now() + time;
    let wakeups = event.payload.wakeups(&settings.input);
    // Lambda freezes a function between two events, for hours perhaps, and no connection outlives that unnoticed: a client
    // for each event costs a connect. It gives up when the function must.
    let client = Client::builder()
        .endpoints(&settings.endpoints)
        .request_timeout(Duration::from_secs(5))
        .operation_timeout(time)
        .build()?;
    let mut progress = Progress::default();
    // Dropping it half-way is as safe as being killed.
    let done = catch_up::run(&client, settings, &wakeups, &mut progress);
    match tokio::time::timeout_at(until, Box::pin(done)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(error = format!("{error:#}"), "stopped; the rest comes again"),
        Err(_) => tracing::warn!("the time is up; the rest comes again"),
    }
    // Messages of which everything is done are deleted from the queue, whoever did it; the others come again.
    Ok(event.payload.answer(&wakeups, |wakeup| progress.covers(wakeup)))
}

/// Until the invocation is cut off, which is said in milliseconds since 1970.
fn time_left(deadline: u64) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Duration::from_millis(deadline).saturating_sub(now)
}
