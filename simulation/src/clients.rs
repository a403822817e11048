//! The clients of a simulation: they write, read, and note what they did and saw.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use carnax::{
    AlterSettingsRequest, Client, ConfigValue, Connection, Connector, FetchRequest, Offset, PartitionIndex,
    RequestError,
};
use carnax_core::error_code::SideEffects;
use carnax_core::http::AppendResponse;
use carnax_core::record::{Batch, BatchBuilder, Compression, NewRecord};
use carnax_core::time::Timestamp;
use carnax_platform::entropy::Entropy;
use carnax_platform::network::Network;
use futures::future::BoxFuture;

use crate::history::{Append, AppendOutcome, Fetch, Partition, Recorder, Value};
use crate::hosts::Ended;
use crate::scenario::{
    FAULTS, FRONTENDS, HASTE, HEALING, INPUT, PARTITIONS, PARTITIONS_OF_ALL, TOPICS, partitions_written,
    place,
};
use crate::world::{SeededEntropy, SimulatedNetwork, SplitMix, now};

#[derive(Debug)]
struct SimulatedConnector;

impl Connector for SimulatedConnector {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Connection>>> {
        Box::pin(async move {
            let connection: Box<dyn Connection> = Box::new(SimulatedNetwork.connect(address).await?);
            Ok(connection)
        })
    }
}

/// A client of some frontends. It repeats only what was refused without side effects, so that an append is in the log
/// once or not at all.
pub(crate) fn client(frontends: &[&str], seed: u64) -> Result<Client, carnax::BuildError> {
    let entropy = Arc::new(SeededEntropy::new(seed));
    Client::builder()
        .endpoints(frontends.iter().map(|name| format!("http://{name}:8080")))
        .connector(SimulatedConnector)
        .random(move || entropy.next_u64())
        .wall_clock(|| Timestamp::EPOCH.saturating_add(now()))
        .request_timeout(Duration::from_secs(12))
        .operation_timeout(Duration::from_secs(15))
        .build()
}

/// Creates the topics, however long the cluster takes to form, and makes maintenance as hasty as it can be.
pub(crate) async fn create_topics(seed: u64) -> Ended {
    let client = client(&FRONTENDS, seed)?;
    for (topic, partitions) in TOPICS {
        // Clocks leap by more than any retention, and the checker wants everything in the end.
        let config = [("retention.ms", "-1")];
        while let Err(error) = client.admin().create_topic(topic, partitions, &config).await {
            tracing::debug!(%error, "topic is not there yet");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    let settings = HASTE.map(|(name, value)| (name.to_owned(), Some(ConfigValue(value.to_owned()))));
    let settings = AlterSettingsRequest { settings: settings.into() };
    while let Err(error) = client.admin().alter_settings(&settings).await {
        tracing::debug!(%error, "settings are not altered yet");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

/// Appends records with fresh values until the faults end.
pub(crate) async fn write(seed: u64, recorder: Recorder) -> Ended {
    let mut random = SplitMix(seed);
    let clients = [client(&FRONTENDS[..1], seed)?, client(&FRONTENDS[1..], seed)?];
    create_topics(seed).await?;
    while now() < FAULTS {
        let partition = u32::try_from(random.below(u64::from(PARTITIONS)))?;
        let values: Vec<Value> = (0..=random.below(3)).map(|_| random.next()).collect();
        let chosen = usize::from(random.chance(500));
        let batch = encode(&values)?;
        let sent = clients[chosen].raw().append(INPUT, PartitionIndex(partition), batch).await;
        let (parts, outcome) = ([(partition, values)].into(), outcome(partition, sent));
        recorder.lock().appends.push(Append { parts, outcome, ended: now(), ..Append::default() });
        tokio::time::sleep(random.between(Duration::ZERO, Duration::from_millis(120))).await;
    }
    Ok(())
}

/// Fetches from anywhere, mostly the end, until the faults end.
pub(crate) async fn read(seed: u64, recorder: Recorder) -> Ended {
    let mut random = SplitMix(seed);
    let clients = [client(&FRONTENDS[..1], seed)?, client(&FRONTENDS[1..], seed)?];
    create_topics(seed).await?;
    let mut ends = vec![0_u64; usize::try_from(partitions_written())?];
    while now() < FAULTS {
        let partition = u32::try_from(random.below(u64::from(partitions_written())))?;
        let end = &mut ends[usize::try_from(partition)?];
        let from = if random.chance(700) { *end } else { random.below(*end + 1) };
        let wait = Duration::from_millis(if random.chance(300) { random.below(2_000) } else { 0 });
        let chosen = usize::from(random.chance(500));
        if let Ok(fetch) = fetch(&clients[chosen], partition, from, wait).await {
            *end = fetch.next_offset.max(*end);
            recorder.lock().fetches.push(fetch);
        }
        tokio::time::sleep(random.between(Duration::ZERO, Duration::from_millis(60))).await;
    }
    Ok(())
}

/// Reads everything once the faults are healed.
pub(crate) async fn read_all(seed: u64, recorder: Recorder) -> Ended {
    tokio::time::sleep(FAULTS + Duration::from_secs(20)).await;
    let client = client(&FRONTENDS, seed)?;
    for partition in 0..PARTITIONS_OF_ALL {
        let mut records: Vec<(u64, Value)> = Vec::new();
        let mut from = 0;
        loop {
            match fetch(&client, partition, from, Duration::ZERO).await {
                Ok(fetch) => {
                    records.extend(&fetch.records);
                    from = fetch.next_offset;
                    let (end, high_watermark) = (fetch.next_offset, fetch.high_watermark);
                    recorder.lock().fetches.push(fetch);
                    if end == high_watermark {
                        break;
                    }
                }
                // What is lost for good does not come back by waiting.
                Err(error) if error.retryable() && now() < FAULTS + HEALING => {
                    tracing::debug!(%error, "healed cluster does not serve yet");
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                Err(error) => return Err(format!("healed cluster does not serve: {error:?}").into()),
            }
        }
        recorder.lock().finally.insert(partition, records);
    }
    crate::kept::read_all(&client, &recorder).await?;
    crate::members::read_committed(seed, &recorder).await
}

fn outcome(partition: Partition, sent: Result<AppendResponse, RequestError>) -> AppendOutcome {
    match sent {
        Ok(response) => match response.results.as_slice() {
            [result] => {
                AppendOutcome::Acknowledged { base_offsets: [(partition, result.base_offset.0)].into() }
            }
            _ => AppendOutcome::Unknown,
        },
        Err(error) if error.side_effects() == SideEffects::None => AppendOutcome::Refused,
        Err(_) => AppendOutcome::Unknown,
    }
}

async fn fetch(
    client: &Client,
    partition: Partition,
    from: u64,
    wait: Duration,
) -> Result<Fetch, RequestError> {
    let started = now();
    let (topic, index) = place(partition);
    let request = FetchRequest { wait, ..FetchRequest::new(index, Offset(from)) };
    let answer = client.raw().fetch(topic, &request).await?;
    let records = decode(answer.batches).into_iter().filter(|(offset, _)| *offset >= from).collect();
    Ok(Fetch {
        partition,
        from,
        started,
        ended: now(),
        high_watermark: answer.high_watermark.0,
        next_offset: answer.next_offset.0,
        records,
    })
}

fn encode(values: &[Value]) -> Result<Bytes, carnax_core::record::RecordRefused> {
    let mut builder = BatchBuilder::new(64 * 1024);
    for value in values {
        let value = value.to_be_bytes();
        builder.push(&NewRecord {
            timestamp: Timestamp::EPOCH,
            key: None,
            value: Some(&value),
            headers: &[],
        })?;
    }
    Ok(builder.build(Compression::None))
}

/// What batches hold; bytes that cannot be read count as a value that nobody wrote, which the checker will find.
fn decode(mut batches: Bytes) -> Vec<(u64, Value)> {
    let mut records = Vec::new();
    while let Ok(Some(batch)) = Batch::parse_next(&mut batches) {
        let base = u64::try_from(batch.header().base_offset).unwrap_or(u64::MAX);
        let Ok(decoded) = batch.records() else { continue };
        for record in decoded.flatten() {
            let bytes: Option<[u8; 8]> = record.value.as_deref().and_then(|value| value.try_into().ok());
            records.push((base + u64::from(record.offset_delta), bytes.map_or(0, Value::from_be_bytes)));
        }
    }
    records
}
