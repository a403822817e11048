//! What the templates made, as its users use it: the function behind HTTP, messages of queues as records, and wake-ups.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use carnax::{AlterSettingsRequest, ConfigValue, PartitionIndex};
use carnax_acceptance::api::{Api, Call};
use carnax_acceptance::counts::Count;
use carnax_acceptance::{binaries, traffic, wait};
use carnax_core::id::SegmentId;
use carnax_core::metadata::CommitEvent;
use carnax_core::object_key::SegmentKey;
use carnax_core::time::Timestamp;
use carnax_lambda_runtime_emulator::{EventSource, Function, FunctionSettings};
use carnax_localstack_tests::stack::Stack;
use carnax_localstack_tests::templates::{Outputs, Queue};
use carnax_queue::{MessageQueue, OutgoingMessage, Receive, ReceivedMessage, SqsQueue, SqsSettings};
use http::Method;
use serde_json::{Value, json};

/// Appends through the function's URL, and reads through it and through a process.
pub(crate) async fn function_url(stack: &Stack) -> Result<()> {
    let url = stack.outputs.function_url.as_deref().context("a function URL")?;
    let call = async |method: Method, path: &str, body: &Value| {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (status, text) = stack.localstack.call_function(url, method, path, &body).await?;
        let answer: Value =
            serde_json::from_str(&text).with_context(|| format!("answered {status}: {text}"))?;
        anyhow::Ok((status.as_u16(), answer))
    };
    let (status, created) = call(Method::PUT, "/v1/topics/by-function", &json!({ "partitions": 1 })).await?;
    ensure!(status == 201, "{status} {created}");
    let records = json!({ "records": [{ "key": "UA", "value": "through a function" }] });
    let (status, appended) = call(Method::POST, "/v1/topics/by-function/records", &records).await?;
    ensure!(status == 200 && appended["results"][0]["base_offset"] == 0, "{status} {appended}");

    let path = "/v1/topics/by-function/partitions/0/records?offset=0";
    let api = Api::new(stack.cluster.frontends.iter().map(|frontend| frontend.address.clone()));
    let by_process: Value = api.call(0, &Call::get(path)).await?;
    let (status, by_function) = call(Method::GET, path, &Value::Null).await?;
    ensure!(status == 200 && by_function == by_process, "{by_function} and {by_process}");
    ensure!(by_process["records"][0]["value"] == "through a function", "{by_process}");
    let (status, problem) = call(Method::GET, "/v1/topics/none", &Value::Null).await?;
    ensure!(status == 404 && problem["code"] == "topic_not_found", "{status} {problem}");
    Ok(())
}

/// Sends messages to a FIFO queue, some of which can be no records, and reads what came of them.
pub(crate) async fn messages_as_records(stack: &Stack) -> Result<()> {
    let admin = stack.cluster.client(&[0])?.admin();
    admin.create_topic("ordered", 2, &[]).await?;
    let queue = &stack.outputs.queues["ordered"];
    let (inbox, dead) = (open(stack, &queue.url).await?, open(stack, &queue.dead_letter_url).await?);
    let mut expected: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for number in 0..40_u64 {
        let carrier = ["UA", "AA", "DL"][usize::try_from(number % 3)?];
        let good = json!({ "carrier": carrier, "number": number }).to_string();
        let bodies = if number % 10 == 4 { vec!["no flight".to_owned(), good] } else { vec![good] };
        for body in bodies {
            let deduplication = Some(format!("{number}-{}", body.len()));
            let group = Some(carrier.to_owned());
            let message = OutgoingMessage {
                id: "m".to_owned(),
                body: body.clone(),
                group,
                deduplication,
                ..Default::default()
            };
            carnax_queue::send_one(&inbox, &message).await?;
            if body.starts_with('{') {
                expected.entry(carrier.to_owned()).or_default().push(number);
            }
        }
    }
    wait::until("all messages are records", async || {
        let mut stored: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        let consumer = stack.cluster.client(&[1])?.consumer("ordered").start(carnax::Start::Earliest);
        for record in consumer.build().await?.poll(1_000, Duration::from_millis(500)).await? {
            let key = String::from_utf8(record.key.context("a key")?.to_vec())?;
            // LocalStack writes bodies that are JSON anew, with other spaces.
            let value: Value = serde_json::from_slice(&record.value.context("a value")?)?;
            stored.entry(key).or_default().push(value["number"].as_u64().context("a number")?);
        }
        let count: usize = stored.values().map(Vec::len).sum();
        ensure!(count <= 40, "{count} records, of 40 messages: {stored:?}");
        Ok((stored == expected).then_some(()))
    })
    .await?;
    let mut letters = Vec::new();
    wait::until("what can be no record is put aside", async || {
        letters.extend(receive(&dead).await?.into_iter().map(|letter| letter.body));
        Ok((letters.len() == 4).then_some(()))
    })
    .await?;
    ensure!(letters.iter().all(|letter| letter == "no flight"), "{letters:?}");
    Ok(())
}

/// A queue is told of what is appended, and of nothing else.
pub(crate) async fn wakeups(stack: &Stack) -> Result<()> {
    let client = stack.cluster.client(&[0])?;
    client.admin().create_topic("waking", 1, &[]).await?;
    let queue: &Queue = stack.outputs.wakeup_queues.values().next().context("a queue for wake-ups")?;
    client.admin().put_wakeup("waking", "count", &queue.url, Some(Duration::ZERO)).await?;
    let producer = client.producer("waking").build().await?;
    producer.send(carnax::Record::new("one").to_partition(PartitionIndex(0))).await?.await?;
    let inbox = open(stack, &queue.url).await?;
    let event = wait::until("the queue is told", async || Ok(receive(&inbox).await?.pop())).await?;
    let event: CommitEvent = serde_json::from_str(&event.body)?;
    ensure!(event.topic.as_str() == "waking" && event.partitions.len() == 1, "{event:?}");
    ensure!((event.partitions[0].from.0, event.partitions[0].to.0) == (0, 1), "{event:?}");
    wait::until("nothing is pending", async || {
        let wakeups = client.admin().wakeups("waking").await?;
        Ok((wakeups[0].pending_records == 0).then_some(()))
    })
    .await
}

/// The example consumer, woken by the queue that LocalStack keeps, counts everything once, although each event comes twice.
pub(crate) async fn woken_consumer(stack: &Stack) -> Result<()> {
    let client = stack.cluster.client(&[0])?;
    client.admin().create_topic("counted", 2, &[]).await?;
    client.admin().create_topic("counts", 1, &[]).await?;
    let queue: &Queue = stack.outputs.wakeup_queues.values().next().context("a queue for wake-ups")?;
    client.admin().put_wakeup("counted", "count", &queue.url, Some(Duration::ZERO)).await?;
    let program = tokio::task::spawn_blocking(binaries::woken_consumer).await??;
    let endpoints: Vec<String> =
        stack.cluster.frontends.iter().map(|frontend| format!("http://{}", frontend.address)).collect();
    let mut settings = FunctionSettings::new(program)
        .variable("CARNAX_ENDPOINT", endpoints.join(","))
        .variable("CARNAX_INPUT", "counted")
        .variable("CARNAX_OUTPUT", "counts")
        .variable("CARNAX_GROUP", "counters");
    settings.log = Some(stack.cluster.log_of("woken-consumer")?);
    let function = Function::start(&settings).await?;
    let source = EventSource::new(
        Arc::new(open(stack, &queue.url).await?),
        "arn:aws:sqs:us-east-1:000000000000:wakeups",
    );

    let producer = client.producer("counted").build().await?;
    let carriers = ["UA", "AA", "DL"];
    for number in 0..60 {
        let carrier = carriers[number % 3];
        let flight = json!({ "carrier": carrier, "arr_delay": number }).to_string();
        producer.send(carnax::Record::new(flight).with_key(carrier)).await?.await?;
    }
    wait::until("the consumer has counted everything", async || {
        let messages = source.receive(Duration::from_secs(1)).await?;
        if !messages.is_empty() {
            let event = source.event(&messages);
            function.invoke(&event).await?;
            source.settle(&messages, function.invoke(&event).await).await?;
        }
        let group = client.admin().group_offsets("counters", &["counted"]).await;
        Ok(group.is_ok_and(|group| group.lag == 0).then_some(()))
    })
    .await?;
    let mut counted: BTreeMap<String, u64> = BTreeMap::new();
    for Count { carrier, count, .. } in traffic::read_json(&client, "counts").await? {
        *counted.entry(carrier).or_default() += count;
    }
    let expected = carriers.map(|carrier| (carrier.to_owned(), 20)).into();
    ensure!(counted == expected, "{counted:?}");
    Ok(())
}

/// Objects that nobody committed are collected by the function, which a queue wakes: the frontends do not maintain here.
pub(crate) async fn maintenance(stack: &Stack) -> Result<()> {
    let admin = stack.cluster.client(&[0])?.admin();
    let Outputs { bucket, object_store, .. } = &stack.outputs;
    let prefix = object_store.strip_prefix(&format!("s3://{bucket}")).context("the bucket's URL")?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let old = Timestamp::from_millis(i64::try_from(now.as_millis())? - 60_000);
    let incarnation = admin.cluster().await?.metadata.incarnation.context("an incarnation")?;
    let mut orphans = Vec::new();
    for random in 0..3 {
        let key = SegmentKey::appended(incarnation, SegmentId::from_parts(old, random));
        let key = format!("{prefix}/{key}").trim_start_matches('/').to_owned();
        stack.localstack.make_object(bucket, &key).await?;
        orphans.push(key);
    }
    let before = stack.localstack.keys(bucket).await?;
    ensure!(orphans.iter().all(|key| before.contains(key)), "{before:?}");

    let short =
        [("commit.deadline.ms", "5000"), ("orphan.age.ms", "10000"), ("orphan.scan.interval.ms", "1000")];
    let settings = short.map(|(name, value)| (name.to_owned(), Some(ConfigValue(value.to_owned()))));
    admin.alter_settings(&AlterSettingsRequest { settings: settings.into() }).await?;
    wait::until("the function has deleted what was left behind", async || {
        let keys = stack.localstack.keys(bucket).await?;
        Ok(orphans.iter().all(|key| !keys.contains(key)).then_some(()))
    })
    .await?;
    let defaults = short.map(|(name, _)| (name.to_owned(), None));
    admin.alter_settings(&AlterSettingsRequest { settings: defaults.into() }).await?;
    Ok(())
}

async fn open(stack: &Stack, url: &str) -> Result<SqsQueue> {
    Ok(SqsQueue::open(url, &SqsSettings::fixed(stack.localstack.endpoint(), "test", "test")).await?)
}

async fn receive(queue: &SqsQueue) -> Result<Vec<ReceivedMessage>> {
    let request =
        Receive { messages_max: 10, wait: Duration::from_secs(1), visibility: Duration::from_secs(600) };
    let received = queue.receive(request).await?;
    let receipts: Vec<_> = received.iter().map(|message| message.receipt.clone()).collect();
    if !receipts.is_empty() {
        queue.delete(&receipts).await?;
    }
    Ok(received)
}
