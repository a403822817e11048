//! Commits wake the example consumer, a Lambda function under an emulator of the runtime API, in three environments at once.
//! It is killed all the time: at random points, and between its append and its answer. Its outputs must be exact.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use carnax::Client;
use carnax_lambda_runtime_emulator::{EventSource, Function, FunctionSettings, InvokeError};
use carnax_platform::clock::SystemClock;
use carnax_queue::MemoryQueue;
use carnax_sqs_test_server::SqsTestServer;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::watch;

use super::{Sizes, all_is_told, create_client};
use crate::binaries;
use crate::cluster::ProcessCluster;
use crate::counts::{self, Count};
use crate::flights::{Flights, TOPIC};
use crate::random::Random;
use crate::report::Report;
use crate::traffic;

const OUTPUT: &str = "late-flights";
const GROUP: &str = "late-flights";
const QUEUE: &str = "woken";
const ARN: &str = "arn:aws:sqs:us-east-1:000000000000:woken";
const ENVIRONMENTS: usize = 3;
const INVOCATION: Duration = Duration::from_secs(30);

/// What is read of an output.
#[derive(Deserialize)]
struct Output {
    #[serde(flatten)]
    count: Count,
    late: u64,
}

pub(super) async fn run(sizes: &Sizes) -> Result<Report> {
    let mut report = Report::new("woken-consumer");
    let queue = Arc::new(MemoryQueue::new(QUEUE, Arc::new(SystemClock::new()))?);
    let sqs = SqsTestServer::start([Arc::clone(&queue)]).await;
    let cluster = sizes.cluster_with_queues(Duration::from_millis(20), Some(sqs.endpoint())).await?;
    let client = create_client(&cluster, &[0, 1]).await?;
    client.admin().create_topic(OUTPUT, 4, &[]).await.context("cannot create a topic")?;
    client.admin().put_wakeup(TOPIC, "late", &sqs.queue_url(QUEUE), Some(Duration::ZERO)).await?;

    let (tell, told) = watch::channel(false);
    let writing = async {
        let commits = write(&client, sizes).await?;
        all_is_told(&client).await?;
        tell.send_replace(true);
        anyhow::Ok(commits)
    };
    let started = Instant::now();
    let serve = |number| {
        let environment = Environment::new(&cluster, &queue, number, sizes.seed);
        let (queue, told) = (Arc::clone(&queue), told.clone());
        async move { environment?.serve(&queue, &told).await }
    };
    let (commits, first, second, third) = tokio::try_join!(writing, serve(0), serve(1), serve(2))?;
    let mut tally = Tally::default();
    [first, second, third].iter().for_each(|one| tally.add(one));
    report.say(format!("{commits} commits, in {:.0} s: {tally}", started.elapsed().as_secs_f64()));
    ensure!(tally.killed > 0, "nobody was killed");

    let group = client.admin().group_offsets(GROUP, &[TOPIC]).await?;
    ensure!(group.lag == 0, "the queue is empty, and not all is done: {group:?}");
    let found = traffic::read_all(&client, &sizes.flights).await?;
    let (outputs, late): (Vec<Count>, Vec<(String, u64)>) = traffic::read_json::<Output>(&client, OUTPUT)
        .await?
        .into_iter()
        .map(|output| (output.count.clone(), (output.count.carrier, output.late)))
        .unzip();
    let sums = counts::check(&counts::keys(&sizes.flights, &found)?, &outputs)?;
    ensure!(sums.values().sum::<u64>() == sizes.flights.0.len() as u64, "sums are wrong: {sums:?}");
    let mut late_sums: BTreeMap<String, u64> = BTreeMap::new();
    late.into_iter().for_each(|(carrier, late)| *late_sums.entry(carrier).or_default() += late);
    ensure!(late_sums == late_flights(&sizes.flights)?, "late flights are wrong: {late_sums:?}");
    report.say(format!(
        "{} outputs cover every record of {TOPIC} once: {} flights, of which {} were late",
        outputs.len(),
        sums.values().sum::<u64>(),
        late_sums.values().sum::<u64>()
    ));
    cluster.end()?;
    Ok(report)
}

/// Writes all flights in so many commits, one after the other; gives how many there were.
async fn write(client: &Client, sizes: &Sizes) -> Result<usize> {
    let (lines, rounds) = (sizes.flights.0.len(), sizes.rounds.max(1));
    let mut commits = 0;
    for round in 0..rounds {
        let part = lines * round / rounds..lines * (round + 1) / rounds;
        if part.is_empty() {
            continue;
        }
        let append = part
            .fold(client.append(), |append, line| append.to(TOPIC, traffic::record(&sizes.flights, line)));
        append.send().await.with_context(|| format!("cannot append part {round}"))?;
        commits += 1;
    }
    Ok(commits)
}

/// How many flights of each carrier were late, by the input.
fn late_flights(flights: &Flights) -> Result<BTreeMap<String, u64>> {
    let mut late = BTreeMap::new();
    for flight in &flights.0 {
        let flight: Value = serde_json::from_slice(&flight.value)?;
        let carrier = flight["carrier"].as_str().context("a carrier")?.to_owned();
        let is_late = flight["arr_delay"].as_f64().is_some_and(|minutes| minutes >= 15.0);
        *late.entry(carrier).or_default() += u64::from(is_late);
    }
    Ok(late)
}

/// What one environment after the other did, under one number.
struct Environment {
    source: EventSource,
    settings: FunctionSettings,
    log: PathBuf,
    function: Option<Function>,
    random: Random,
    /// How long the last invocation took that nobody disturbed.
    usual: Duration,
    tally: Tally,
}

impl Environment {
    fn new(cluster: &ProcessCluster, queue: &Arc<MemoryQueue>, number: usize, seed: u64) -> Result<Self> {
        let endpoints = cluster.frontends.iter().map(|frontend| format!("http://{}", frontend.address));
        let mut endpoints: Vec<String> = endpoints.collect();
        endpoints.rotate_left(number % 2);
        // One of them leaves much of what it is told to a later invocation.
        let records_max = if number == 0 { "25" } else { "10000" };
        let log = cluster.log_of(&format!("woken-consumer-{number}"))?;
        let mut settings = FunctionSettings::new(binaries::woken_consumer()?)
            .variable("CARNAX_ENDPOINT", endpoints.join(","))
            .variable("CARNAX_INPUT", TOPIC)
            .variable("CARNAX_OUTPUT", OUTPUT)
            .variable("CARNAX_GROUP", GROUP)
            .variable("CARNAX_RECORDS_MAX", records_max);
        settings.log = Some(log.clone());
        Ok(Self {
            source: EventSource::new(Arc::clone(queue) as _, ARN),
            settings,
            log,
            function: None,
            random: Random::new(seed.wrapping_mul(ENVIRONMENTS as u64) + number as u64),
            usual: Duration::from_millis(100),
            tally: Tally::default(),
        })
    }

    /// Serves until the queue was told of everything and is empty.
    async fn serve(mut self, queue: &MemoryQueue, told: &watch::Receiver<bool>) -> Result<Tally> {
        loop {
            self.source.messages_max = 1 + self.random.below(10);
            let messages = self.source.receive(Duration::from_secs(1)).await?;
            if messages.is_empty() {
                let depth = queue.depth();
                if *told.borrow() && depth.visible + depth.in_flight == 0 {
                    return Ok(self.tally);
                }
                continue;
            }
            let function = match self.function.take() {
                Some(function) => function,
                None => Function::start(&self.settings).await.context("cannot start the consumer")?,
            };
            function.ready().await?;
            let logged = self.log.metadata().map_or(0, |found| found.len());
            let answer = self.invoke(&function, &self.source.event(&messages)).await?;
            self.count(&answer, logged)?;
            let delivery = self.source.settle(&messages, answer).await?;
            self.tally.redelivered += delivery.redelivered;
            self.tally.back += if delivery.answer.is_ok() { delivery.back } else { 0 };
            self.function = Some(function).filter(Function::is_alive);
        }
    }

    /// Half of the invocations live; a quarter is killed at random, and a quarter between its work and its answer.
    async fn invoke(&mut self, function: &Function, event: &Value) -> Result<Result<Value, InvokeError>> {
        match self.random.below(4) {
            0 => {
                let most = u64::try_from(self.usual.as_millis())? * 3 / 2 + 1;
                let delay = self.random.millis(0..most);
                let killing = async {
                    tokio::time::sleep(delay).await;
                    function.kill().await
                };
                let (answer, killed) = tokio::join!(function.invoke(event), killing);
                killed.context("cannot kill the consumer")?;
                Ok(answer)
            }
            1 => {
                let said = function.invoke_until_answer(event, INVOCATION).await;
                let killed = function.kill().await.context("cannot kill the consumer")?;
                Ok(Err(said.err().unwrap_or(InvokeError::Ended(killed))))
            }
            _ => {
                let started = Instant::now();
                let answer = function.invoke(event).await;
                self.usual = started.elapsed();
                Ok(answer)
            }
        }
    }

    fn count(&mut self, answer: &Result<Value, InvokeError>, logged: u64) -> Result<()> {
        let mut log = File::open(&self.log).context("cannot open a log")?;
        log.seek(SeekFrom::Start(logged))?;
        let mut bytes = Vec::new();
        log.read_to_end(&mut bytes)?;
        let said = String::from_utf8_lossy(&bytes);
        let appended = said.matches("\"appended\"").count();
        self.tally.invocations += 1;
        self.tally.appended += appended;
        self.tally.refused += said.matches("append refused").count();
        match answer {
            Ok(_) => {}
            Err(InvokeError::Ended(_)) => {
                self.tally.killed += 1;
                self.tally.killed_behind_append += usize::from(appended > 0);
            }
            Err(error) => bail!("nothing but a kill ends an invocation: {error}"),
        }
        Ok(())
    }
}

/// What was counted.
#[derive(Debug, Default)]
struct Tally {
    invocations: usize,
    killed: usize,
    killed_behind_append: usize,
    appended: usize,
    refused: usize,
    redelivered: usize,
    back: usize,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.invocations += other.invocations;
        self.killed += other.killed;
        self.killed_behind_append += other.killed_behind_append;
        self.appended += other.appended;
        self.refused += other.refused;
        self.redelivered += other.redelivered;
        self.back += other.back;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { invocations, killed, killed_behind_append, appended, refused, redelivered, back } = self;
        write!(
            f,
            "{invocations} invocations in {ENVIRONMENTS} environments, {killed} killed before they had answered, \
             {killed_behind_append} of them between an append and the answer; {appended} appends were accepted, {refused} refused \
             since another one was faster; {redelivered} deliveries were repeats, {back} messages were answered as not done yet"
        )
    }
}
