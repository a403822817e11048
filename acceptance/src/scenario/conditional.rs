//! Two writers, each through a frontend of its own, race for every offset; then they take a partition from each other with
//! fencing tokens while both write as fast as they can.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use carnax::{ErrorCode, PartitionIndex, Start};
use carnax_core::http::{AtomicAppendResponse, FencingTokenResponse, SetFencingTokenRequest};
use carnax_core::name::FencingToken;
use serde_json::json;
use tokio::sync::watch;

use super::{Sizes, create_client};
use crate::api::{Api, Call, Failure};
use crate::cluster::ProcessCluster;
use crate::flights::TOPIC;
use crate::race::{self, Decision, Round, Takeover};
use crate::report::Report;
use crate::wait::PATIENCE;

use std::time::Duration;

const WRITERS: usize = 2;
const RACED: PartitionIndex = PartitionIndex(0);
const FENCED: PartitionIndex = PartitionIndex(1);
/// So many races for each takeover: a takeover costs more.
const RACES_PER_TAKEOVER: usize = 50;

pub(super) async fn run(sizes: &Sizes) -> Result<Report> {
    let mut report = Report::new("conditional");
    let cluster = sizes.cluster(Duration::ZERO).await?;
    create_client(&cluster, &[0]).await?;
    create_client(&cluster, &[1]).await?;
    let api = Api::new(cluster.frontends.iter().map(|frontend| frontend.address.clone()));

    let mut rounds = Vec::with_capacity(sizes.rounds);
    for expected in 0..u64::try_from(sizes.rounds)? {
        let (first, second) = tokio::join!(claim(&api, 0, expected), claim(&api, 1, expected));
        rounds.push(Round { expected, answers: vec![first?, second?] });
    }
    race::check(&rounds, &read(&cluster, RACED).await?)?;
    let won = |writer: usize| {
        rounds.iter().filter(|round| matches!(round.answers[writer], Decision::Won(_))).count()
    };
    report.say(format!(
        "{} races for an offset: each was won by one of two writers ({} and {}), the other was told the next offset",
        sizes.rounds,
        won(0),
        won(1)
    ));

    let takeovers = (sizes.rounds / RACES_PER_TAKEOVER).max(4);
    let fought = fight(&api, takeovers).await?;
    let log = read(&cluster, FENCED).await?;
    race::check_fencing(&fought.takeovers, &log, &fought.acknowledged)?;
    ensure!(fought.refused > 0, "nobody was ever fenced: this proves nothing");
    report.say(format!(
        "{takeovers} times a writer took a partition from the other, while both wrote: {} appends were acknowledged, {} of \
         fenced writers refused, none got through",
        fought.acknowledged.len(),
        fought.refused
    ));
    cluster.end()?;
    Ok(report)
}

async fn claim(api: &Api, writer: usize, expected: u64) -> Result<Decision> {
    let condition = json!({"topic": TOPIC, "partition": RACED, "expected_next_offset": expected});
    decide(append(api, writer, RACED, &condition).await)
}

/// One record, which says who wrote it, under one condition.
async fn append(
    api: &Api,
    writer: usize,
    partition: PartitionIndex,
    condition: &serde_json::Value,
) -> Result<AtomicAppendResponse, Failure> {
    let record = json!({"topic": TOPIC, "partition": partition, "value": writer.to_string()});
    let body = json!({"records": [record], "conditions": [condition]});
    let call = Call::post("/v1/append", &body).map_err(|error| Failure::Lost(format!("{error:#}")))?;
    api.call(writer, &call).await
}

/// Nothing is broken here: an answer is yes or no.
fn decide(answer: Result<AtomicAppendResponse, Failure>) -> Result<Decision> {
    match answer {
        Ok(answer) => {
            let [result] = answer.results.as_slice() else { bail!("one record has results {answer:?}") };
            ensure!(result.count == 1 && !answer.duplicate, "one record was sent once: {answer:?}");
            Ok(Decision::Won(result.base_offset.0))
        }
        Err(failure) if failure.is(ErrorCode::ConditionFailed) => {
            let actual = failure.problem().and_then(|problem| problem.facts.actual.clone());
            Ok(Decision::Lost(actual.context("a failed condition says what is the case")?))
        }
        Err(failure) => Err(failure).context("neither yes nor no"),
    }
}

#[derive(Debug, Default)]
struct Fought {
    takeovers: Vec<Takeover>,
    acknowledged: Vec<(u64, usize)>,
    refused: usize,
}

/// Both write all the time, each with its own token, while the token of the partition changes hands.
async fn fight(api: &Api, takeovers: usize) -> Result<Fought> {
    let (answers, mut answered) = watch::channel(0_usize);
    let (end, ended) = watch::channel(false);
    let answers = Arc::new(answers);
    let mut fought = Fought::default();
    fought.takeovers.push(take_over(api, 0, None).await?);
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (api, answers, ended) = (api.clone(), Arc::clone(&answers), ended.clone());
            tokio::spawn(async move { write_until(&api, writer, &answers, &ended).await })
        })
        .collect();
    for round in 1..=takeovers {
        // Both have written under the token of now: how far they are is up to chance.
        let seen = *answered.borrow_and_update();
        let more = answered.wait_for(|answers| *answers >= seen + 4);
        tokio::time::timeout(PATIENCE, more).await.context("the writers do not go on")??;
        fought.takeovers.push(take_over(api, round % WRITERS, Some((round + 1) % WRITERS)).await?);
    }
    end.send_replace(true);
    for writer in writers {
        let (acknowledged, refused) = writer.await??;
        fought.acknowledged.extend(acknowledged);
        fought.refused += refused;
    }
    Ok(fought)
}

fn token(writer: usize) -> Result<FencingToken> {
    Ok(format!("writer-{writer}").parse()?)
}

async fn take_over(api: &Api, writer: usize, from: Option<usize>) -> Result<Takeover> {
    let from = from.map(token).transpose()?;
    let request = SetFencingTokenRequest { token: Some(token(writer)?), from: Some(from) };
    let path = format!("/v1/topics/{TOPIC}/partitions/{FENCED}/fencing-token");
    let fence: FencingTokenResponse =
        api.call(writer, &Call::put(path, &request)?).await.context("cannot take over")?;
    ensure!(fence.token == request.token, "another token was set: {fence:?}");
    Ok(Takeover { writer, high_watermark: fence.high_watermark.0 })
}

async fn write_until(
    api: &Api,
    writer: usize,
    answers: &watch::Sender<usize>,
    ended: &watch::Receiver<bool>,
) -> Result<(Vec<(u64, usize)>, usize)> {
    let condition = json!({"topic": TOPIC, "partition": FENCED, "fencing_token": token(writer)?});
    let (mut acknowledged, mut refused) = (Vec::new(), 0);
    while !*ended.borrow() {
        match decide(append(api, writer, FENCED, &condition).await)? {
            Decision::Won(offset) => acknowledged.push((offset, writer)),
            Decision::Lost(actual) => {
                ensure!(actual != token(writer)?.as_str(), "refused for the token that it has");
                refused += 1;
            }
        }
        answers.send_modify(|answers| *answers += 1);
    }
    Ok((acknowledged, refused))
}

/// Offsets and writers of a partition.
async fn read(cluster: &ProcessCluster, partition: PartitionIndex) -> Result<Vec<(u64, usize)>> {
    let client = create_client(cluster, &[1]).await?;
    let topic = client.admin().describe_topic(TOPIC).await?;
    let bounds = topic.partition_offsets.iter().find(|bounds| bounds.partition == partition);
    let end = bounds.context("the partition is there")?.high_watermark.0;
    let mut consumer = client.consumer(TOPIC).partitions([partition]).start(Start::Earliest).build().await?;
    let mut log = Vec::new();
    while (log.len() as u64) < end {
        let records = consumer.poll(5_000, PATIENCE).await?;
        ensure!(!records.is_empty(), "nothing came for {PATIENCE:?}");
        for record in records {
            let value = record.value.context("a record has a value")?;
            log.push((record.offset.0, std::str::from_utf8(&value)?.parse()?));
        }
    }
    Ok(log)
}
