//! Clients that send again what they do not know the fate of: with producer ids and sequences, several in flight, and with
//! idempotency keys; over several partitions and topics, by key and under conditions; through one frontend or the other.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use carnax_core::http::{AppendCondition, AtomicAppendResponse, ProducerResponse, RaiseEpochRequest, header};
use carnax_core::offset::Offset;
use carnax_core::partitioner;
use futures::future::join_all;
use serde_json::{Value as Json, json};

use crate::history::{Answer, Append, AppendOutcome, Attempt, Identity, Partition, Recorder, Value};
use crate::hosts::Ended;
use crate::http::{Call, Failure};
use crate::scenario::{FAULTS, FRONTENDS, TOPICS, partition_of, partitions_written, place};
use crate::world::{SplitMix, now};

/// After the faults, so long is it tried to learn what became of what was sent; the last reader reads later.
const SETTLING: Duration = Duration::from_secs(15);
/// Requests in flight: no more than answers are kept.
const IN_FLIGHT_MAX: u64 = 5;
/// Units that are sent once more, long after.
const REMEMBERED: usize = 6;

/// Sends until the faults end, and then until everything is known.
pub(crate) async fn produce(name: &'static str, seed: u64, recorder: Recorder) -> Ended {
    let mut random = SplitMix(seed);
    crate::clients::create_topics(random.next()).await?;
    let mut producer = Producer {
        name,
        epoch: 0,
        next: 0,
        ends: BTreeMap::new(),
        random,
        settled: Vec::new(),
        open: Vec::new(),
    };
    while now() < FAULTS && producer.known_to_all() {
        match producer.random.below(10) {
            0..=4 => producer.send_several().await?,
            5 => producer.repeat_old_one().await?,
            6 => producer.raise().await?,
            _ => producer.send_with_key().await?,
        }
        let pause = producer.random.between(Duration::ZERO, Duration::from_millis(300));
        tokio::time::sleep(pause).await;
    }
    producer.settle().await;
    recorder.lock().appends.append(&mut producer.settled);
    recorder.lock().appends.append(&mut producer.open);
    Ok(())
}

struct Producer {
    name: &'static str,
    epoch: u32,
    next: u128,
    /// Where partitions end, as far as this client knows.
    ends: BTreeMap<Partition, u64>,
    random: SplitMix,
    settled: Vec<Append>,
    /// Sent, and not known to be stored or refused.
    open: Vec<Append>,
}

impl Producer {
    /// Several requests at once, each tried a few times; the next ones wait until all are stored.
    async fn send_several(&mut self) -> Ended {
        for _ in 0..=self.random.below(IN_FLIGHT_MAX - 1) {
            let sequence = self.next;
            self.next += 1;
            let mut unit = self.draw();
            let producer = self.name.to_owned();
            unit.identity = Some(Identity::Sequence { producer, epoch: self.epoch, sequence });
            self.open.push(unit);
        }
        let seeds: Vec<SplitMix> = self.open.iter().map(|_| SplitMix(self.random.next())).collect();
        join_all(self.open.iter_mut().zip(seeds).map(|(unit, random)| try_some_times(unit, random))).await;
        self.note_ends();
        // Sometimes the client gives up here, and finds out by raising its epoch.
        if self.random.chance(700) {
            self.settle().await;
        }
        Ok(())
    }

    /// Sends what is open again, in order, until it is stored.
    async fn settle(&mut self) {
        while self.known_to_all() {
            let random = SplitMix(self.random.next());
            let Some(unit) = self.open.first_mut() else { return };
            if matches!(unit.outcome, AppendOutcome::Acknowledged { .. }) {
                self.settled.push(self.open.remove(0));
            } else if now() > FAULTS + SETTLING {
                return;
            } else {
                try_some_times(unit, random).await;
            }
        }
    }

    /// A unit with a key is sent until it is stored or refused for good.
    async fn send_with_key(&mut self) -> Ended {
        let mut unit = self.draw();
        if self.random.chance(300) {
            let known = self.ends.iter().find(|(partition, _)| unit.parts.contains_key(*partition));
            unit.condition = known.map(|(partition, end)| (*partition, *end));
        }
        unit.identity = Some(Identity::Key(format!("{}-{:x}", self.name, self.random.next())));
        while unit.outcome == AppendOutcome::Unknown && now() < FAULTS + SETTLING {
            try_some_times(&mut unit, SplitMix(self.random.next())).await;
        }
        self.settled.push(unit);
        self.note_ends();
        Ok(())
    }

    /// A unit that was stored long ago is sent once more.
    async fn repeat_old_one(&mut self) -> Ended {
        let epoch = self.epoch;
        let may_be_repeated = |unit: &Append| match unit.identity {
            Some(Identity::Sequence { epoch: of_unit, .. }) => of_unit == epoch,
            Some(Identity::Key(_)) => unit.outcome != AppendOutcome::Refused,
            None => false,
        };
        let old: Vec<usize> =
            (0..self.settled.len()).filter(|place| may_be_repeated(&self.settled[*place])).collect();
        let recent = &old[old.len().saturating_sub(REMEMBERED)..];
        let Some(chosen) = recent.get(usize::try_from(self.random.below(recent.len() as u64))?) else {
            return Ok(());
        };
        let random = SplitMix(self.random.next());
        try_some_times(&mut self.settled[*chosen], random).await;
        Ok(())
    }

    /// Raises the epoch, and learns from the answer what became of everything that is open.
    async fn raise(&mut self) -> Ended {
        let stored = |unit: &Append| matches!(&unit.identity, Some(Identity::Sequence { .. }));
        if self.epoch == 0 && !self.settled.iter().any(stored) {
            return Ok(());
        }
        let call = Call::post(
            format!("/v1/producers/{}/epoch", self.name),
            &RaiseEpochRequest { from: Some(self.epoch) },
        )?;
        let raised: ProducerResponse = loop {
            let frontend = FRONTENDS[usize::from(self.random.chance(500))];
            match call
                .send(frontend, self.random.between(Duration::from_millis(200), Duration::from_secs(4)))
                .await
            {
                Ok(raised) => break raised,
                Err(_) if now() > FAULTS => return Ok(()),
                Err(failure) => tracing::debug!(?failure, "epoch is not raised yet"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        let last =
            raised.before.filter(|before| before.epoch == self.epoch).and_then(|before| before.last_sequence);
        let last: Option<u128> = last.map(|text| text.parse()).transpose()?;
        for mut unit in self.open.drain(..) {
            let Some(Identity::Sequence { sequence, .. }) = unit.identity else { continue };
            unit.ended = now();
            if last.is_some_and(|last| sequence <= last) {
                if unit.outcome == AppendOutcome::Unknown {
                    unit.outcome = AppendOutcome::Acknowledged { base_offsets: BTreeMap::new() };
                }
            } else {
                // Nothing of it is stored, and nothing will be.
                unit.outcome = AppendOutcome::Refused;
            }
            self.settled.push(unit);
        }
        (self.epoch, self.next) = (raised.epoch, 0);
        Ok(())
    }

    /// One to three partitions of one or two topics, some of them chosen by a key.
    fn draw(&mut self) -> Append {
        let mut unit = Append::default();
        for _ in 0..=self.random.below(3) {
            let partition = u32::try_from(self.random.below(u64::from(partitions_written()))).unwrap_or(0);
            let values = (0..=self.random.below(2)).map(|_| self.random.next()).collect();
            unit.parts.insert(partition, values);
        }
        unit
    }

    fn note_ends(&mut self) {
        for unit in self.settled.iter().rev().take(REMEMBERED).chain(&self.open) {
            let AppendOutcome::Acknowledged { base_offsets } = &unit.outcome else { continue };
            for (partition, base) in base_offsets {
                let end = base + unit.parts.get(partition).map_or(0, Vec::len) as u64;
                let known = self.ends.entry(*partition).or_default();
                *known = end.max(*known);
            }
        }
    }

    /// A producer that was forgotten does not go on: the checker has what it needs.
    fn known_to_all(&self) -> bool {
        let forgotten = |unit: &Append| {
            unit.attempts
                .iter()
                .any(|attempt| attempt.answer == Answer::Refused("unknown_producer".to_owned()))
        };
        !self.open.iter().any(forgotten)
    }
}

/// Sends a unit up to three times, until there is an answer; if it is stored already, once more.
async fn try_some_times(unit: &mut Append, mut random: SplitMix) {
    let mut frontend = usize::from(random.chance(500));
    for _ in 0..3 {
        let patience = random.between(Duration::from_millis(100), Duration::from_secs(3));
        let definite = attempt(unit, FRONTENDS[frontend], patience).await;
        // Sometimes an answer is taken for lost.
        if definite && random.chance(800) {
            return;
        }
        frontend = 1 - frontend;
        tokio::time::sleep(random.between(Duration::from_millis(10), Duration::from_millis(400))).await;
    }
}

/// Sends a unit once and notes the answer. True if it says what became of the unit.
async fn attempt(unit: &mut Append, frontend: &str, patience: Duration) -> bool {
    let started = now();
    let answer = match request(unit) {
        Ok(call) => call.send::<AtomicAppendResponse>(frontend, patience).await,
        Err(_) => return false,
    };
    let answer = match answer {
        Ok(answer) => Answer::Stored { duplicate: answer.duplicate, base_offsets: base_offsets(&answer) },
        Err(failure) => refusal(&failure),
    };
    let definite = match &answer {
        Answer::Stored { base_offsets, .. } => {
            let without = AppendOutcome::Acknowledged { base_offsets: BTreeMap::new() };
            if unit.outcome == AppendOutcome::Unknown || unit.outcome == without {
                unit.outcome = AppendOutcome::Acknowledged { base_offsets: base_offsets.clone() };
                unit.ended = now();
            }
            true
        }
        // The partition has grown beyond what was expected: a sending that is still under way will be refused, too.
        Answer::Refused(code) if code == "condition_failed" && unit.outcome == AppendOutcome::Unknown => {
            (unit.outcome, unit.ended) = (AppendOutcome::Refused, now());
            true
        }
        Answer::Refused(_) | Answer::Unknown => false,
    };
    unit.attempts.push(Attempt { started, ended: now(), answer });
    definite
}

fn refusal(failure: &Failure) -> Answer {
    failure.code().map_or(Answer::Unknown, |code| Answer::Refused(code.to_owned()))
}

fn base_offsets(answer: &AtomicAppendResponse) -> BTreeMap<Partition, u64> {
    let offset = |result: &carnax_core::http::AtomicAppendResult| {
        let topic = result.topic.as_ref()?;
        Some((partition_of(topic.as_str(), result.partition)?, result.base_offset.0))
    };
    answer.results.iter().filter_map(offset).collect()
}

fn request(unit: &Append) -> Result<Call, Box<dyn std::error::Error>> {
    let parts =
        unit.parts.iter().flat_map(|(partition, values)| values.iter().map(|value| (*partition, *value)));
    let records: Vec<Json> = parts.map(|(partition, value)| record(partition, value)).collect();
    let mut conditions = Vec::new();
    if let Some((partition, expected)) = unit.condition {
        let (topic, partition) = place(partition);
        conditions.push(AppendCondition {
            topic: topic.parse()?,
            topic_id: None,
            partition,
            expected_next_offset: Some(Offset(expected)),
            fencing_token: None,
        });
    }
    let body = json!({"records": records, "conditions": conditions});
    let call = Call::post("/v1/append?encoding=base64".to_owned(), &body)?;
    Ok(match &unit.identity {
        Some(Identity::Sequence { producer, epoch, sequence }) => call
            .header(header::PRODUCER_ID, producer)
            .header(header::PRODUCER_EPOCH, epoch)
            .header(header::SEQUENCE, sequence),
        Some(Identity::Key(key)) => call.header(header::IDEMPOTENCY_KEY, key),
        None => call,
    })
}

/// A record for a partition: of every second value, the key says which.
fn record(partition: Partition, value: Value) -> Json {
    let (topic, index) = place(partition);
    let encoded = BASE64_STANDARD.encode(value.to_be_bytes());
    if value.is_multiple_of(2) {
        return json!({"topic": topic, "partition": index, "value": encoded});
    }
    let count = TOPICS.iter().find(|(name, _)| *name == topic).map_or(1, |(_, count)| *count);
    let keys = (0_u64..).map(|number| format!("{value:x}-{number}"));
    let key = keys.into_iter().find(|key| partitioner::partition_of(key.as_bytes(), count) == index);
    json!({"topic": topic, "key": BASE64_STANDARD.encode(key.unwrap_or_default()), "value": encoded})
}
