//! Measures the frontend as a Lambda function: from the start of its process to its first question for an event, and a warm
//! append beside the same append through a process. Nothing is judged.
//!
//! Under an emulator of the runtime API on this machine: what Lambda does before it starts a process, and the way of an event
//! through Lambda, are not in it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use carnax_core::http::AppendResponse;
use carnax_lambda_runtime_emulator::{Function, front};
use serde_json::{Value, json};

use super::Sizes;
use crate::api::{Api, Call};
use crate::flights::TOPIC;
use crate::function;
use crate::report::Report;

/// Appends before those that are measured.
const WARM_UP: usize = 20;
/// Appends that are measured, for each cold start.
const APPENDS: usize = 25;

pub(super) async fn run(sizes: &Sizes) -> Result<Report> {
    let mut report = Report::new("cold-starts");
    let cluster = sizes.cluster(Duration::ZERO).await?;
    let settings = function::carnax_lambda(&cluster)?;
    let (mut inits, mut firsts) = (Vec::new(), Vec::new());
    for _ in 0..sizes.rounds {
        let function = Function::start(&settings).await.context("cannot start the function")?;
        inits.push(function.ready().await?);
        firsts.push(append_through(&function).await?);
    }
    report.say(format!(
        "init time of carnax-lambda over {} cold starts, under an emulator of the runtime API: {}",
        sizes.rounds,
        spread(inits)?
    ));
    report.say(format!(
        "its first append, which connects to the metadata and the object store: {}",
        spread(firsts)?
    ));

    let function = Function::start(&settings).await.context("cannot start the function")?;
    let api = Api::new(cluster.frontends.iter().map(|frontend| frontend.address.clone()));
    let (mut through_function, mut through_process) = (Vec::new(), Vec::new());
    let appends = sizes.rounds * APPENDS;
    for round in 0..WARM_UP + appends {
        let times = (append_through(&function).await?, append_beside(&api).await?);
        if round >= WARM_UP {
            through_function.push(times.0);
            through_process.push(times.1);
        }
    }
    let ratio = median(&mut through_function)?.as_secs_f64() / median(&mut through_process)?.as_secs_f64();
    report.say(format!("{appends} warm appends through it, one at a time: {}", spread(through_function)?));
    report.say(format!(
        "the same in turn through carnax-frontend, without linger: {}; the medians are as {ratio:.2} to 1",
        spread(through_process)?
    ));
    cluster.end()?;
    Ok(report)
}

fn document() -> Value {
    json!({ "records": [{ "key": "UA", "value": "{\"carrier\":\"UA\",\"arr_delay\":11}" }] })
}

/// One append as the event of a function URL.
async fn append_through(function: &Function) -> Result<Duration> {
    let event = front::function_url(
        "POST",
        &format!("/v1/topics/{TOPIC}/records"),
        "",
        Some(&document().to_string()),
    );
    let started = Instant::now();
    let answer = function.invoke(&event).await?;
    let elapsed = started.elapsed();
    ensure!(answer["statusCode"] == 200, "the append was refused: {answer}");
    Ok(elapsed)
}

/// The same append through the process.
async fn append_beside(api: &Api) -> Result<Duration> {
    let call = Call::post(format!("/v1/topics/{TOPIC}/records"), &document())?;
    let started = Instant::now();
    api.call::<AppendResponse>(0, &call).await?;
    Ok(started.elapsed())
}

/// The least, the median and the most.
fn spread(mut times: Vec<Duration>) -> Result<String> {
    let middle = median(&mut times)?;
    let millis = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1_000.0);
    let (least, middle, most) = (millis(times.first()), millis(Some(&middle)), millis(times.last()));
    Ok(format!("min {least:.1} ms, median {middle:.1} ms, max {most:.1} ms"))
}

/// Sorts, and takes the middle.
fn median(times: &mut [Duration]) -> Result<Duration> {
    times.sort_unstable();
    times.get(times.len() / 2).copied().context("nothing was measured")
}
