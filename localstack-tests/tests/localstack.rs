//! What a user does, on real processes and the S3 of a LocalStack.
//!
//! Goal: every way in and out works against S3 as another program speaks it, and nothing acknowledged is lost or doubled when a
//! leader and a frontend are killed. Method: one cluster for one story, since starting it costs more than the story; every
//! count is exact. `CARNAX_LOCALSTACK=skip` leaves it out.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use carnax::{Client, GroupConsumer, OffsetReset, Record, Start};
use carnax_acceptance::api::{Api, Call};
use carnax_acceptance::{binaries, wait};
use carnax_localstack_tests::stack::{Stack, blocking};
use serde_json::{Value, json};

#[path = "localstack/serverless.rs"]
mod serverless;

const TOPIC: &str = "departures";
const PARTITIONS: u32 = 4;
const RECORDS: usize = 500;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_user_does_works_on_localstack_though_a_leader_and_a_frontend_are_killed() -> Result<()> {
    if std::env::var("CARNAX_LOCALSTACK").is_ok_and(|value| value == "skip") {
        say("left out: CARNAX_LOCALSTACK=skip")?;
        return Ok(());
    }
    let started = Instant::now();
    let mut stack = Stack::start().await?;
    say(&format!(
        "LocalStack {}; templates applied and all ready after {:?}",
        stack.localstack.origin(),
        started.elapsed()
    ))?;

    plain_http(&stack).await.context("plain HTTP")?;
    produce(&stack.cluster.client(&[0])?, 0..RECORDS).await.context("the SDK produces")?;
    expect_records(&stack.cluster.client(&[1])?, RECORDS).await.context("the SDK consumes")?;
    group(&stack.cluster.client(&[1, 0])?).await.context("a group")?;
    command_line(&stack).await.context("the command line")?;
    serverless::function_url(&stack).await.context("the function's URL")?;
    serverless::messages_as_records(&stack).await.context("messages as records")?;
    serverless::wakeups(&stack).await.context("wake-ups")?;
    serverless::woken_consumer(&stack).await.context("a consumer that is woken")?;
    serverless::maintenance(&stack).await.context("maintenance by a function")?;
    // The group's story added one.
    let total = killed_leader(&mut stack, RECORDS + 1).await.context("a killed leader")?;
    replaced_frontend(&mut stack, total).await.context("a replaced frontend")?;

    let keys = stack.localstack.keys(&stack.outputs.bucket).await?;
    ensure!(!keys.is_empty(), "records were kept, and not in the bucket");
    say(&format!("all passed after {:?}; {} objects in the bucket", started.elapsed(), keys.len()))?;
    leave_nothing(stack).await.context("taking it all away")?;
    say(&format!("all is gone after {:?}", started.elapsed()))
}

/// A second apply would change nothing; after the end nothing is left.
async fn leave_nothing(stack: Stack) -> Result<()> {
    let Stack { cluster, outputs, templates, localstack } = stack;
    let (is_settled, mut templates) =
        blocking(move || Ok((templates.templates.is_settled()?, templates))).await?;
    ensure!(is_settled, "another apply would change something");
    cluster.end()?;
    blocking(move || templates.destroy()).await?;
    let buckets = localstack.buckets().await?;
    ensure!(!buckets.contains(&outputs.bucket), "the bucket is still there: {buckets:?}");
    Ok(())
}

fn say(line: &str) -> Result<()> {
    writeln!(std::io::stderr(), "localstack-tests: {line}").context("cannot write to standard error")
}

async fn plain_http(stack: &Stack) -> Result<()> {
    let api = Api::new(stack.cluster.frontends.iter().map(|frontend| frontend.address.clone()));
    let _: Value = api.call(0, &Call::put("/v1/topics/plain", &json!({ "partitions": 1 }))?).await?;
    let records =
        json!({ "records": [{ "key": "UA", "value": "on time" }, { "key": "DL", "value": "late" }] });
    let _: Value = api.call(0, &Call::post("/v1/topics/plain/records", &records)?).await?;
    let path = "/v1/topics/plain/partitions/0/records";
    let fetched: Value = api.call(1, &Call::get(format!("{path}?offset=0"))).await?;
    ensure!(values(&fetched) == ["on time", "late"], "fetched {fetched}");

    let tail = Call::get(format!("{path}?offset=2&wait_ms=10000"));
    let append = Call::post("/v1/topics/plain/records", &json!({ "records": [{ "value": "cancelled" }] }))?;
    let (tailed, appended) = tokio::join!(api.call::<Value>(1, &tail), api.call::<Value>(0, &append));
    appended?;
    let tailed = tailed?;
    ensure!(values(&tailed) == ["cancelled"], "the long-poll saw {tailed}");
    Ok(())
}

fn values(fetched: &Value) -> Vec<&str> {
    let records = fetched["records"].as_array().into_iter().flatten();
    records.filter_map(|record| record["value"].as_str()).collect()
}

async fn produce(client: &Client, numbers: std::ops::Range<usize>) -> Result<()> {
    client.admin().create_topic(TOPIC, PARTITIONS, &[]).await?;
    let producer = client.producer(TOPIC).build().await?;
    let mut deliveries = Vec::new();
    for number in numbers {
        let record = Record::new(number.to_string()).with_key(format!("carrier-{}", number % 17));
        deliveries.push(producer.send(record).await?);
    }
    for delivery in deliveries {
        delivery.await?;
    }
    producer.close().await;
    Ok(())
}

/// The topic holds the numbers below `count`, each once.
async fn expect_records(client: &Client, count: usize) -> Result<()> {
    let partitions = client.admin().describe_topic(TOPIC).await?.partition_offsets;
    let stored: u64 = partitions.iter().map(|partition| partition.high_watermark.0).sum();
    ensure!(stored == u64::try_from(count)?, "{stored} records are stored, not {count}");
    let mut consumer = client.consumer(TOPIC).start(Start::Earliest).build().await?;
    let mut seen = BTreeSet::new();
    wait::until("all records are read", async || {
        for record in consumer.poll(1_000, Duration::from_secs(1)).await? {
            let number: usize = String::from_utf8_lossy(&record.value.context("a value")?).parse()?;
            ensure!(number < count && seen.insert(number), "{number} was not expected, or came twice");
        }
        Ok((seen.len() == count).then_some(()))
    })
    .await
}

async fn group(client: &Client) -> Result<()> {
    let mut members = [member(client).await?, member(client).await?];
    let mut seen = BTreeSet::new();
    wait::until("two members share the partitions and read everything", async || {
        for member in &mut members {
            for record in member.poll(1_000, Duration::from_millis(200)).await? {
                seen.insert((record.partition, record.offset));
            }
            member.commit().await?;
        }
        let shared = members.iter().all(|member| member.assignment().len() == 2);
        Ok((shared && seen.len() == RECORDS).then_some(()))
    })
    .await?;
    for member in members {
        member.close().await?;
    }

    produce(client, RECORDS..RECORDS + 1).await?;
    let mut successor = member(client).await?;
    let records = wait::until("the successor reads on", async || {
        let records = successor.poll(1_000, Duration::from_secs(1)).await?;
        Ok((!records.is_empty()).then_some(records))
    })
    .await?;
    let values: Vec<_> = records.iter().map(|record| record.value.as_deref().unwrap_or_default()).collect();
    ensure!(values == [RECORDS.to_string().as_bytes()], "read again what was committed: {records:?}");
    successor.close().await?;
    Ok(())
}

async fn member(client: &Client) -> Result<GroupConsumer> {
    let group = client.group("gates").topics([TOPIC]).offset_reset(OffsetReset::Earliest);
    Ok(group.session_timeout(Duration::from_secs(10)).build().await?)
}

async fn command_line(stack: &Stack) -> Result<()> {
    let program = tokio::task::spawn_blocking(binaries::command_line).await??;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("lines");
    let lines: String = (0..100).map(|number| format!("line {number}\n")).collect();
    std::fs::write(&file, &lines)?;
    let file = file.to_str().context("a path in UTF-8")?;
    let endpoint = format!("http://{}", stack.cluster.frontends[0].address);
    let carnax = |arguments: &[&str]| {
        let output = Command::new(&program).args(["--endpoint", &endpoint]).args(arguments).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "carnax {arguments:?} ended with {}: {said}", output.status);
        Ok(String::from_utf8(output.stdout)?)
    };
    carnax(&["topic", "create", "lines"])?;
    ensure!(carnax(&["topic", "list"])?.contains("lines"), "the topic is not listed");
    carnax(&["produce", "lines", "--file", file])?;
    ensure!(carnax(&["consume", "lines"])? == lines, "the command line does not print what it stored");
    Ok(())
}

/// Gives how many records there are now.
async fn killed_leader(stack: &mut Stack, before: usize) -> Result<usize> {
    let client = stack.cluster.client(&[0, 1])?;
    let killed = stack.cluster.leader().await?;
    produce(&client, before..before + 100).await?;
    stack.cluster.nodes[killed].process.kill()?;
    produce(&client, before + 100..before + 200).await?;
    let next = stack.cluster.leader().await?;
    ensure!(next != killed, "a dead node leads");
    stack.cluster.start_all().await?;
    expect_records(&client, before + 200).await?;
    Ok(before + 200)
}

async fn replaced_frontend(stack: &mut Stack, before: usize) -> Result<()> {
    let client = stack.cluster.client(&[0, 1])?;
    stack.cluster.frontends[0].process.kill()?;
    produce(&client, before..before + 100).await?;
    let metadata: Vec<_> = stack.cluster.nodes.iter().map(|node| node.address.clone()).collect();
    let replacement = stack.cluster.add_frontend(&metadata)?;
    stack.cluster.frontends[replacement].process.start()?;
    stack.cluster.wait_ready().await?;
    let client = stack.cluster.client(&[replacement])?;
    produce(&client, before + 100..before + 200).await?;
    expect_records(&client, before + 200).await
}
