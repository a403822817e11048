//! Clients of topics with a long life: one whose old records go, and one that keeps the newest record of each key.

use std::time::Duration;

use bytes::Bytes;
use carnax::{AlterSettingsRequest, Client, ConfigValue, FetchRequest, Offset, PartitionIndex, RequestError};
use carnax_core::error_code::{ErrorCode, SideEffects};
use carnax_core::record::{Batch, BatchBuilder, Compression, NewRecord, RecordRefused};

use crate::clients::{client, create_topics};
use crate::history::{Kept, KeptRecord, Recorder, Retention, Seen, Shown, Trimmed, Written};
use crate::hosts::Ended;
use crate::scenario::{FAULTS, FRONTENDS, HEALING, KEPT, Scenario};
use crate::world::{BEGINNING, SplitMix, now};

/// Keys of the table.
const KEYS: u64 = 6;
const ONLY: PartitionIndex = PartitionIndex(0);

/// Writes to both topics until the faults end, and has old records deleted if that is a client's part.
pub(crate) async fn keep(seed: u64, scenario: Scenario, recorder: Recorder) -> Ended {
    let mut random = SplitMix(seed);
    let clients = [client(&FRONTENDS[..1], seed)?, client(&FRONTENDS[1..], seed)?];
    prepare(seed, &scenario).await?;
    let mut end = 0;
    while now() < FAULTS {
        let client = &clients[usize::from(random.chance(500))];
        let topic = if random.chance(600) { Kept::Fleeting } else { Kept::Table };
        let records = draw(topic, &mut random);
        let written = write(client, topic, records).await?;
        if let Some(base) = written.base_offset.filter(|_| topic == Kept::Fleeting) {
            end = base;
        }
        recorder.lock().written.push(written);
        if scenario.retention == Retention::Trims && random.chance(60) {
            let before = end.saturating_sub(random.below(16));
            recorder.lock().trimmed.push(Trimmed { before, started: now() });
            let trimmed = client.admin().trim(name(Kept::Fleeting), ONLY, Offset(before)).await;
            tracing::debug!(before, ?trimmed, "records are to be deleted");
        }
        tokio::time::sleep(random.between(Duration::ZERO, Duration::from_millis(70))).await;
    }
    Ok(())
}

/// Reads both topics from anywhere until the faults end.
pub(crate) async fn look(seed: u64, recorder: Recorder) -> Ended {
    let mut random = SplitMix(seed);
    let clients = [client(&FRONTENDS[..1], seed)?, client(&FRONTENDS[1..], seed)?];
    let mut bounds = [(0_u64, 0_u64); KEPT.len()];
    while now() < FAULTS {
        let place = usize::from(random.chance(500));
        let (start, end) = bounds[place];
        // Often at the log start, which moves away.
        let from = if random.chance(500) { start } else { start + random.below(end - start + 1) };
        let fetched = fetch(&clients[usize::from(random.chance(500))], KEPT[place].0, from).await;
        if let Ok(seen) = fetched {
            bounds[place] = match &seen.shown {
                Shown::Gone => ((from + 1).min(end), end),
                Shown::Records { log_start, high_watermark, .. } => (*log_start, end.max(*high_watermark)),
            };
            recorder.lock().seen.push(seen);
        }
        tokio::time::sleep(random.between(Duration::ZERO, Duration::from_millis(150))).await;
    }
    Ok(())
}

/// Reads everything that is left, once the faults are healed.
pub(crate) async fn read_all(client: &Client, recorder: &Recorder) -> Ended {
    for (topic, _) in KEPT {
        let (started, mut from, mut first, mut all) = (now(), 0, None, Vec::new());
        loop {
            let shown = match fetch(client, topic, from).await {
                Ok(seen) => seen.shown,
                Err(_) if now() < FAULTS + HEALING => {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    continue;
                }
                Err(error) => {
                    return Err(format!("healed cluster does not serve {topic:?}: {error:?}").into());
                }
            };
            let Shown::Records { log_start, high_watermark, next_offset, records } = shown else {
                // Retention goes on: whatever was read before is below the log start by now, or will be soon.
                (first, from) = (None, earliest(client, topic).await.unwrap_or(from));
                all.clear();
                continue;
            };
            let from_there = *first.get_or_insert(from);
            all.extend(records);
            from = next_offset;
            if next_offset == high_watermark {
                let shown = Shown::Records { log_start, high_watermark, next_offset, records: all };
                let seen = Seen { topic, from: from_there, started, ended: now(), shown };
                recorder.lock().kept_finally.insert(topic, seen);
                break;
            }
        }
    }
    Ok(())
}

async fn earliest(client: &Client, topic: Kept) -> Result<u64, RequestError> {
    let offset = client.admin().offset(name(topic), ONLY, carnax::Start::Earliest).await?;
    Ok(offset.offset.0)
}

/// Creates the topics, and sees to it that slices are paged out in seeds that want it.
async fn prepare(seed: u64, scenario: &Scenario) -> Ended {
    create_topics(seed).await?;
    let client = client(&FRONTENDS, seed)?;
    for (topic, name) in KEPT {
        let config = scenario.config_of(topic);
        let config: Vec<(&str, &str)> = config.iter().map(|(name, value)| (*name, value.as_str())).collect();
        while let Err(error) = client.admin().create_topic(name, 1, &config).await {
            tracing::debug!(%error, "topic is not there yet");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    if scenario.small_merges {
        let entry = ("merge.bytes".to_owned(), Some(ConfigValue("800".to_owned())));
        let settings = AlterSettingsRequest { settings: [entry].into() };
        while let Err(error) = client.admin().alter_settings(&settings).await {
            tracing::debug!(%error, "settings are not altered yet");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    Ok(())
}

fn name(topic: Kept) -> &'static str {
    KEPT.into_iter().find(|(kept, _)| *kept == topic).map_or("", |(_, name)| name)
}

fn draw(topic: Kept, random: &mut SplitMix) -> Vec<KeptRecord> {
    let record = |random: &mut SplitMix| match topic {
        Kept::Fleeting => (None, Some(random.next())),
        Kept::Table => {
            let key = u8::try_from(random.below(KEYS)).ok();
            (key, (!random.chance(150)).then(|| random.next()))
        }
    };
    (0..=random.below(2)).map(|_| record(random)).collect()
}

async fn write(client: &Client, topic: Kept, records: Vec<KeptRecord>) -> Result<Written, RecordRefused> {
    let started = now();
    let batch = encode(&records, started)?;
    let bytes = batch.len() as u64;
    let sent = client.raw().append(name(topic), ONLY, batch).await;
    let base_offset = sent.as_ref().ok().and_then(|answer| Some(answer.results.first()?.base_offset.0));
    let refused = sent.as_ref().is_err_and(|error| error.side_effects() == SideEffects::None);
    Ok(Written { topic, records, bytes, base_offset, refused, started, ended: now() })
}

async fn fetch(client: &Client, topic: Kept, from: u64) -> Result<Seen, RequestError> {
    let started = now();
    let fetched = client.raw().fetch(name(topic), &FetchRequest::new(ONLY, Offset(from))).await;
    let shown = match fetched {
        Ok(answer) => Shown::Records {
            log_start: answer.log_start_offset.0,
            high_watermark: answer.high_watermark.0,
            next_offset: answer.next_offset.0,
            records: decode(answer.batches).into_iter().filter(|(offset, _)| *offset >= from).collect(),
        },
        Err(error) if error.is(ErrorCode::OffsetBelowLogStart) => Shown::Gone,
        Err(error) => return Err(error),
    };
    Ok(Seen { topic, from, started, ended: now(), shown })
}

fn encode(records: &[KeptRecord], at: Duration) -> Result<Bytes, RecordRefused> {
    let mut builder = BatchBuilder::new(64 * 1024);
    for (key, value) in records {
        let (key, value) = (key.map(|key| [key]), value.map(u64::to_be_bytes));
        builder.push(&NewRecord {
            timestamp: BEGINNING.saturating_add(at),
            key: key.as_ref().map(|key| &key[..]),
            value: value.as_ref().map(|value| &value[..]),
            headers: &[],
        })?;
    }
    Ok(builder.build(Compression::None))
}

/// What batches hold; a value that nobody wrote stands for bytes that cannot be read.
fn decode(mut batches: Bytes) -> Vec<(u64, KeptRecord)> {
    let mut records = Vec::new();
    while let Ok(Some(batch)) = Batch::parse_next(&mut batches) {
        let base = u64::try_from(batch.header().base_offset).unwrap_or(u64::MAX);
        let Ok(decoded) = batch.records() else { continue };
        for record in decoded.flatten() {
            let key = record.key.as_deref().and_then(|key| key.first().copied());
            let value = record.value.as_deref().map(|bytes| bytes.try_into().map_or(0, u64::from_be_bytes));
            records.push((base + u64::from(record.offset_delta), (key, value)));
        }
    }
    records
}
