//! Writers and readers of partitions whose records are known.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Error, Result};
use carnax::{Delivery, Producer, Record};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::api::{Api, Call};
use crate::cluster::ProcessCluster;
use crate::known::{Known, Outcome};
use crate::random::Random;
use crate::wait::PATIENCE;

/// Between two rounds of a writer over its partitions.
const PAUSE: Duration = Duration::from_millis(40);
/// Records of one partition in one round, at most.
const RECORDS_MAX: u64 = 4;
/// Records of a writer without an answer.
const UNANSWERED_MAX: usize = 2_000;

/// How a reader behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// At the end.
    Follow,
    /// At the beginning, slowly, and again there when it comes far.
    Lag,
    /// Anywhere.
    Jump,
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Follow => "follow",
            Self::Lag => "lag behind",
            Self::Jump => "jump about",
        })
    }
}

/// What a reader was told.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    answers: u64,
    records: u64,
    gone: u64,
    refused: u64,
}

impl Tally {
    pub(super) fn add(&mut self, other: &Self) {
        self.answers += other.answers;
        self.records += other.records;
        self.gone += other.gone;
        self.refused += other.refused;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { answers, records, gone, refused } = self;
        write!(
            f,
            "{answers} answers with {records} records, {gone} times the records were gone, {refused} times nobody could answer"
        )
    }
}

/// Tasks, of which the first failure is told at once.
#[derive(Debug)]
pub(super) struct Tasks<T> {
    tasks: Vec<JoinHandle<Option<T>>>,
    failures: tokio::sync::Mutex<mpsc::Receiver<Error>>,
    failing: mpsc::Sender<Error>,
}

impl<T: Send + 'static> Tasks<T> {
    fn new() -> Self {
        let (failing, failures) = mpsc::channel(100);
        Self { tasks: Vec::new(), failures: tokio::sync::Mutex::new(failures), failing }
    }

    fn spawn(&mut self, task: impl Future<Output = Result<T>> + Send + 'static) {
        let failing = self.failing.clone();
        self.tasks.push(tokio::spawn(async move {
            match task.await {
                Ok(done) => Some(done),
                Err(error) => {
                    // Where the first failures were told, the others are not missed.
                    let _ = failing.try_send(error);
                    None
                }
            }
        }));
    }

    /// Waits for a failure, for ever if there is none.
    pub(super) async fn failed(&self) -> Error {
        match self.failures.lock().await.recv().await {
            Some(error) => error,
            None => std::future::pending().await,
        }
    }

    /// Waits for all, which were told to stop.
    pub(super) async fn end(self) -> Result<Vec<T>> {
        let mut done = Vec::new();
        for task in self.tasks {
            done.extend(tokio::time::timeout(4 * PATIENCE, task).await.context("does not stop")??);
        }
        match self.failures.into_inner().try_recv() {
            Ok(error) => Err(error),
            Err(_) => Ok(done),
        }
    }
}

/// The first of two failures.
pub(super) async fn first_error(
    one: impl Future<Output = Error>,
    other: impl Future<Output = Error>,
) -> Error {
    tokio::select! {
        error = one => error,
        error = other => error,
    }
}

/// Starts a writer a topic.
pub(super) async fn write(
    cluster: &ProcessCluster,
    logs: &[Arc<Known>],
    stopped: &watch::Receiver<bool>,
) -> Result<Tasks<()>> {
    let mut tasks = Tasks::new();
    for (place, of_topic) in logs.chunk_by(|one, other| one.topic == other.topic).enumerate() {
        let client = cluster.client(&[place % 2, (place + 1) % 2])?;
        let producer = client.producer(&of_topic[0].topic).producer_id(format!("writer-{place}"));
        let producer = producer.linger(Duration::from_millis(2)).delivery_timeout(4 * PATIENCE);
        let producer = producer.build().await.context("cannot start a producer")?;
        let (sent, deliveries) = mpsc::channel(UNANSWERED_MAX);
        let (of_topic, stopped) = (of_topic.to_vec(), stopped.clone());
        tasks.spawn(async move {
            let sending = send(&producer, &of_topic, &stopped, sent);
            tokio::try_join!(sending, receive(deliveries)).map(drop)
        });
    }
    Ok(tasks)
}

type Sent = (Arc<Known>, u64, Delivery);

async fn send(
    producer: &Producer,
    logs: &[Arc<Known>],
    stopped: &watch::Receiver<bool>,
    sent: mpsc::Sender<Sent>,
) -> Result<()> {
    let mut round = 0;
    while !*stopped.borrow() {
        for log in logs {
            round += 1;
            for _ in 0..=round % RECORDS_MAX {
                let (offset, value) = log.next(now_ms());
                let delivery = producer.send(Record::new(value).to_partition(log.partition)).await?;
                sent.send((Arc::clone(log), offset, delivery)).await.context("the receiver has ended")?;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

async fn receive(mut deliveries: mpsc::Receiver<Sent>) -> Result<()> {
    while let Some((log, offset, delivery)) = deliveries.recv().await {
        let stored = delivery.await.with_context(|| format!("record {offset} of {}", log.topic))?;
        log.acknowledge(offset, stored.offset.0)?;
    }
    Ok(())
}

/// Starts a reader of each kind for each partition.
pub(super) fn read(
    api: &Api,
    logs: &[Arc<Known>],
    stopped: &watch::Receiver<bool>,
    seed: u64,
) -> Tasks<(Reading, Tally)> {
    let mut tasks = Tasks::new();
    for (place, log) in (1_000..).zip(logs) {
        for reading in [Reading::Follow, Reading::Lag, Reading::Jump] {
            let (api, log, stopped) = (api.clone(), Arc::clone(log), stopped.clone());
            let random = Random::new(seed * place);
            tasks.spawn(async move {
                let tally = follow(&api, &log, reading, &stopped, random).await;
                tally.map(|tally| (reading, tally)).with_context(|| format!("a reader to {reading}"))
            });
        }
    }
    tasks
}

async fn follow(
    api: &Api,
    log: &Known,
    reading: Reading,
    stopped: &watch::Receiver<bool>,
    mut random: Random,
) -> Result<Tally> {
    let (mut tally, mut from, mut frontend) = (Tally::default(), 0, 0);
    while !*stopped.borrow() {
        frontend = (frontend + 1) % api.count();
        let (records, pause) = match reading {
            Reading::Follow => (500, random.millis(20..60)),
            Reading::Lag => (1 + random.draw() % 8, random.millis(20..100)),
            Reading::Jump => {
                let end = usize::try_from(log.acknowledged())?;
                from = random.below(end + 3) as u64;
                (1 + random.draw() % 50, random.millis(20..100))
            }
        };
        tally.answers += 1;
        match fetch(api, frontend, log, from, records).await? {
            Outcome::Records(count, next) => {
                tally.records += count;
                from = next;
            }
            Outcome::Gone(start) => {
                tally.gone += 1;
                from = start;
            }
            Outcome::NotYet => {}
            Outcome::TryAgain => tally.refused += 1,
        }
        // Now and then to where records were first, and have been merged, or are gone.
        if reading == Reading::Lag && random.chance(2) {
            from = 0;
        }
        tokio::time::sleep(pause).await;
    }
    Ok(tally)
}

/// Fetches once and judges the answer.
pub(super) async fn fetch(
    api: &Api,
    frontend: usize,
    log: &Known,
    from: u64,
    records: u64,
) -> Result<Outcome> {
    let acknowledged = log.acknowledged();
    let path = format!(
        "/v1/topics/{}/partitions/{}/records?offset={from}&max_records={records}",
        log.topic, log.partition
    );
    let answered = api.call(frontend, &Call::get(path)).await;
    log.judge(from, acknowledged, answered, now_ms())
}

/// The time of the wall clock.
pub(in crate::scenario) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
