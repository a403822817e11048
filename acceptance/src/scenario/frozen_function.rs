//! The frontend as a Lambda function stands still (SIGSTOP) in the middle of appends, longer than its deadlines are, and goes
//! on: between the upload of a segment and its commit, and at random. What it acknowledges must be stored where it says, what it
//! refuses without side effects must never be, and nothing twice. What it left behind in the bucket is collected in the end.
//!
//! Between upload and commit: the object store has stored the segment, and does not answer until the function has stood still.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use carnax::{AlterSettingsRequest, Client, ConfigValue, Offset, PartitionIndex, Record, SideEffects, Start};
use carnax_core::http::AppendResponse;
use carnax_core::problem::ProblemDocument;
use carnax_lambda_runtime_emulator::{Function, front};
use carnax_s3_test_server::{Fault, Operation};
use serde_json::{Value, json};

use super::{Sizes, create_client};
use crate::cluster::ProcessCluster;
use crate::flights::TOPIC;
use crate::function;
use crate::random::Random;
use crate::report::Report;
use crate::wait::{self, PATIENCE};

/// Of an upload, and of a commit, instead of several seconds.
const DEADLINE: Duration = Duration::from_millis(800);
/// For how many milliseconds the function stands still: mostly longer than a deadline.
const PAUSE: std::ops::Range<u64> = 500..1_500;
const PARTITION: PartitionIndex = PartitionIndex(0);

/// What became of an append.
#[derive(Debug)]
enum Outcome {
    Acknowledged(Offset),
    Refused(SideEffects),
}

pub(super) async fn run(sizes: &Sizes) -> Result<Report> {
    let mut report = Report::new("frozen-function");
    let cluster = sizes.cluster(Duration::from_millis(5)).await?;
    let client = create_client(&cluster, &[0, 1]).await?;
    shorten_deadlines(&client).await?;
    let deadline = DEADLINE.as_millis().to_string();
    let settings = function::carnax_lambda(&cluster)?
        .variable("CARNAX_UPLOAD_DEADLINE_MS", &deadline)
        .variable("CARNAX_COMMIT_DEADLINE_MS", &deadline);
    let function = Function::start(&settings).await.context("cannot start the function")?;
    // What is to be met half-way must not be connecting.
    append(&function, "warm", Duration::from_secs(30)).await?;
    let (mut random, mut outcomes) = (Random::new(sizes.seed), Vec::new());
    let mut codes: BTreeMap<String, usize> = BTreeMap::new();
    for round in 0..sizes.rounds {
        let value = format!("{round}");
        // In some rounds the invocation is over before the function goes on.
        let time = if random.chance(30) { DEADLINE } else { Duration::from_secs(30) };
        let answered = AtomicBool::new(false);
        let appending = async {
            let said = append(&function, &value, time).await;
            answered.store(true, Ordering::Relaxed);
            tracing::info!(value, ?time, ?said, "answered");
            said
        };
        let freezing = freeze(&cluster, &function, &mut random, &answered, round % 3 > 0);
        let ((code, outcome), ()) =
            tokio::try_join!(appending, freezing).with_context(|| format!("round {round}"))?;
        *codes.entry(code).or_default() += 1;
        outcomes.push((value, outcome));
    }
    let stored = read(&client).await?;
    let late = check(&outcomes, &stored)?;
    report.say(format!(
        "{} appends in which the function stood still for {} to {} ms, two of three of them between upload and commit, with \
         deadlines of {DEADLINE:?}; answers: {codes:?}",
        sizes.rounds, PAUSE.start, PAUSE.end
    ));
    report.say(format!(
        "what was acknowledged is stored where the answer said, what was refused without side effects is not stored, nothing is \
         stored twice; {late} of unknown outcome are stored"
    ));
    drop(function);
    let collected = until_nothing_is_left_behind(&cluster, &client, stored).await?;
    report.say(format!("{collected} objects that nothing refers to were left behind, and are collected"));
    cluster.end()?;
    Ok(report)
}

/// The metadata core takes segments that are as young as a pause is long, and objects are orphans soon after.
async fn shorten_deadlines(client: &Client) -> Result<()> {
    let settings =
        [("commit.deadline.ms", 1_000), ("orphan.age.ms", 2_000), ("orphan.scan.interval.ms", 1_000)];
    let settings =
        settings.map(|(name, millis)| (name.to_owned(), Some(ConfigValue(millis.to_string())))).into();
    client.admin().alter_settings(&AlterSettingsRequest { settings }).await?;
    Ok(())
}

/// Every record has a segment of its own here: as many objects stay. Gives how many did not.
async fn until_nothing_is_left_behind(
    cluster: &ProcessCluster,
    client: &Client,
    mut stored: Vec<String>,
) -> Result<usize> {
    let store = cluster.store.as_ref().context("the store lives in this process")?;
    let segments = || store.keys().iter().filter(|key| key.contains("/segments/")).count();
    // Orphans are looked for when somebody wrote after them.
    let producer = client.producer(TOPIC).build().await?;
    producer.send(Record::new("end").to_partition(PARTITION)).await?.await?;
    stored.push("end".to_owned());
    let before = segments();
    wait::until("no object is left that nothing refers to", async || {
        Ok((segments() <= stored.len()).then_some(()))
    })
    .await?;
    ensure!(read(client).await? == stored, "records were collected");
    Ok(before.saturating_sub(stored.len()))
}

/// Stops the function in its append, and lets it go on.
async fn freeze(
    cluster: &ProcessCluster,
    function: &Function,
    random: &mut Random,
    answered: &AtomicBool,
    behind_upload: bool,
) -> Result<()> {
    let store = cluster.store.as_ref().context("the store lives in this process")?;
    if behind_upload {
        let segments = || store.keys().iter().filter(|key| key.contains("/segments/")).count();
        let before = segments();
        store.script(Operation::Put, [Fault::HangAfter]);
        wait::until("the segment is in the bucket", async || {
            Ok((segments() > before || answered.load(Ordering::Relaxed)).then_some(()))
        })
        .await?;
    } else {
        tokio::time::sleep(random.millis(0..20)).await;
    }
    function.pause().await?;
    tokio::time::sleep(random.millis(PAUSE)).await;
    function.go_on().await?;
    Ok(())
}

async fn append(function: &Function, value: &str, time: Duration) -> Result<(String, Outcome)> {
    let body = json!({ "records": [{ "value": value, "partition": PARTITION }] });
    let event =
        front::function_url("POST", &format!("/v1/topics/{TOPIC}/records"), "", Some(&body.to_string()));
    let said = function.invoke_for(&event, time).await?;
    let answer: Value = serde_json::from_slice(&said)?;
    let body = answer["body"].as_str().context("an answer has a body")?;
    if answer["statusCode"] == 200 {
        let appended: AppendResponse = serde_json::from_str(body)?;
        let result = appended.results.first().context("one partition has a result")?;
        return Ok(("200".to_owned(), Outcome::Acknowledged(result.base_offset)));
    }
    let problem: ProblemDocument = serde_json::from_str(body).context("a problem")?;
    ensure!(problem.retryable, "an append that was late may be tried again: {problem:?}");
    let code = format!("{} {}", problem.status, problem.code);
    Ok((code, Outcome::Refused(problem.side_effects)))
}

async fn read(client: &Client) -> Result<Vec<String>> {
    let end = client.admin().offset(TOPIC, PARTITION, Start::Latest).await?.offset;
    let mut consumer = client.consumer(TOPIC).partitions([PARTITION]).start(Start::Earliest).build().await?;
    let mut values = Vec::new();
    while (values.len() as u64) < end.0 {
        let records = consumer.poll(1_000, PATIENCE).await?;
        ensure!(!records.is_empty(), "nothing came for {PATIENCE:?}");
        for record in records {
            values.push(String::from_utf8(record.value.context("a record has a value")?.to_vec())?);
        }
    }
    Ok(values)
}

/// Gives how many records of unknown outcome are stored.
fn check(outcomes: &[(String, Outcome)], stored: &[String]) -> Result<usize> {
    let mut late = 0;
    for (value, outcome) in outcomes {
        let places: Vec<usize> = (0..stored.len()).filter(|place| stored[*place] == *value).collect();
        ensure!(places.len() <= 1, "{value} is stored at {places:?}");
        match outcome {
            Outcome::Acknowledged(offset) => {
                let there = usize::try_from(offset.0)?;
                ensure!(
                    places == [there],
                    "{value} was acknowledged at {offset}, and is stored at {places:?}"
                );
            }
            Outcome::Refused(SideEffects::None) => {
                ensure!(
                    places.is_empty(),
                    "{value} was refused without side effects, and is stored at {places:?}"
                );
            }
            Outcome::Refused(SideEffects::Possible) => late += places.len(),
        }
    }
    Ok(late)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_false_acknowledgement_a_false_refusal_and_a_doubled_record_are_found() {
        let check = |outcome: Outcome, stored: &[&str]| {
            let stored: Vec<String> = stored.iter().map(|value| (*value).to_owned()).collect();
            check(&[("a".to_owned(), outcome)], &stored)
        };
        assert_eq!(check(Outcome::Acknowledged(Offset(1)), &["b", "a"]).unwrap(), 0);
        assert_eq!(check(Outcome::Refused(SideEffects::None), &["b"]).unwrap(), 0);
        assert_eq!(check(Outcome::Refused(SideEffects::Possible), &["a"]).unwrap(), 1);
        assert_eq!(check(Outcome::Refused(SideEffects::Possible), &[]).unwrap(), 0);
        assert!(check(Outcome::Acknowledged(Offset(1)), &["a", "b"]).is_err(), "elsewhere");
        assert!(check(Outcome::Acknowledged(Offset(1)), &["b"]).is_err(), "nowhere");
        assert!(check(Outcome::Refused(SideEffects::None), &["a"]).is_err(), "stored all the same");
        assert!(check(Outcome::Refused(SideEffects::Possible), &["a", "a"]).is_err(), "twice");
    }
}
