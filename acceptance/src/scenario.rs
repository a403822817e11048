//! The stories. Each starts a cluster of its own and says in its report what it counted.

mod certificates;
mod cold_starts;
mod conditional;
mod console;
mod exactly_once;
mod failover;
mod flights;
mod frozen_function;
mod groups;
mod history;
mod idempotent;
mod idle;
mod long_life;
mod minority;
mod probe;
mod quota;
mod read_your_writes;
mod restart_all;
mod restore;
mod rolling_restart;
mod stale_leader;
mod steady;
mod throttled;
mod upgrade;
mod usage;
mod wakeups;
mod woken_consumer;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use carnax::Client;
use clap::ValueEnum;

use crate::binaries::Binaries;
use crate::cluster::{Plan, ProcessCluster};
use crate::flights::{Flights, TOPIC};
use crate::ledger::{Ledger, Summary};
use crate::report::Report;
use crate::traffic;
use crate::wait;

const PARTITIONS: u32 = 12;

/// What can be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Writes all flights through two frontends and reads them back through both.
    Flights,
    /// The same, while the metadata leader, a frontend and a disk are lost.
    Failover,
    /// Two of three metadata nodes are down.
    Minority,
    /// A leader is paused, deposed, and asked at once when it goes on.
    StaleLeader,
    /// Reads through one frontend what was just written through the other, also with a bad connection to the metadata.
    ReadYourWrites,
    /// Nothing is asked of the object store, or of queues, while nobody writes.
    Idle,
    /// Every process is killed at once while flights are written.
    RestartAll,
    /// All metadata disks are lost under load, and a new cluster is made from the bucket.
    Restore,
    /// Every process is restarted in order while flights are written.
    RollingRestart,
    /// Every process is replaced by a newer version while flights are written, and the feature level is raised.
    Upgrade,
    /// All certificates and their authority are replaced under load.
    Certificates,
    /// Four idempotent producers write the flights while frontends and leaders are killed.
    Idempotent,
    /// A group counts flights per carrier while anybody is killed.
    ExactlyOnce,
    /// Two writers race for offsets, and fence each other.
    Conditional,
    /// Members of a group join, leave, die and sleep at random.
    Groups,
    /// The metadata leader is killed between commits and the events that tell queues of them.
    Wakeups,
    /// Commits wake the example consumer, a Lambda function, which is killed all the time.
    WokenConsumer,
    /// Records expire, are merged and deleted under readers that lag, while frontends and metadata nodes are killed.
    LongLife,
    /// Many small appends over many partitions, at a steady rate: nothing grows for ever.
    Steady,
    /// A partition with a long past: what it costs to keep, and to read at the start, in the middle and at the end.
    History,
    /// The object store refuses half of all requests for a while.
    Throttled,
    /// The frontend as a Lambda function stands still between upload and commit, and goes on.
    FrozenFunction,
    /// Compares what the cluster says that it asked of the object store with what arrived there.
    Usage,
    /// A token that is used for many times its quota, beside one that is used within it.
    Quota,
    /// Measures the frontend as a Lambda function, under an emulator.
    ColdStarts,
    /// The console in headless Chromium, by keyboard alone.
    Console,
}

/// The sizes of a scenario.
#[derive(Debug, Clone)]
pub struct Sizes {
    /// The servers.
    pub binaries: Binaries,
    /// The servers of the version before, for `upgrade`; none: `binaries`, told to know less.
    pub old_binaries: Option<Binaries>,
    /// The records.
    pub flights: Arc<Flights>,
    /// How often to do what is done many times; in `idle`, `long-life`, `steady`, `throttled` and `quota`, how many seconds it takes; in
    /// `history`, slices.
    pub rounds: usize,
    /// Records of a key in one request, where there is one request in flight per key.
    pub chunk: usize,
    /// Where chance begins.
    pub seed: u64,
    /// Where to write tables and plots.
    pub output: Option<PathBuf>,
}

impl Scenario {
    /// How many rounds prove something.
    pub fn rounds(self) -> usize {
        match self {
            Self::Flights
            | Self::Failover
            | Self::Minority
            | Self::RollingRestart
            | Self::Upgrade
            | Self::Console => 1,
            Self::StaleLeader => 200,
            Self::ReadYourWrites => 10_000,
            Self::Idle | Self::LongLife => 60,
            Self::Steady => 600,
            Self::Throttled | Self::Quota => 30,
            Self::History => 1_000_000,
            Self::RestartAll | Self::Certificates => 3,
            Self::Usage => 10,
            Self::Restore => 2_000,
            Self::Idempotent | Self::ColdStarts => 20,
            Self::Wakeups | Self::FrozenFunction => 100,
            Self::ExactlyOnce => 30,
            Self::Conditional => 10_000,
            Self::Groups | Self::WokenConsumer => 1_000,
        }
    }

    /// Runs it.
    ///
    /// # Errors
    /// The first promise that is broken, or whatever made it impossible to find out.
    pub async fn run(self, sizes: &Sizes) -> Result<Report> {
        match self {
            Self::Flights => Box::pin(flights::run(sizes)).await,
            Self::Failover => Box::pin(failover::run(sizes)).await,
            Self::Minority => Box::pin(minority::run(sizes)).await,
            Self::StaleLeader => Box::pin(stale_leader::run(sizes)).await,
            Self::ReadYourWrites => Box::pin(read_your_writes::run(sizes)).await,
            Self::Idle => Box::pin(idle::run(sizes)).await,
            Self::RestartAll => Box::pin(restart_all::run(sizes)).await,
            Self::Restore => Box::pin(restore::run(sizes)).await,
            Self::RollingRestart => Box::pin(rolling_restart::run(sizes)).await,
            Self::Upgrade => Box::pin(upgrade::run(sizes)).await,
            Self::Certificates => Box::pin(certificates::run(sizes)).await,
            Self::Idempotent => Box::pin(idempotent::run(sizes)).await,
            Self::ExactlyOnce => Box::pin(exactly_once::run(sizes)).await,
            Self::Conditional => Box::pin(conditional::run(sizes)).await,
            Self::Groups => Box::pin(groups::run(sizes)).await,
            Self::Wakeups => Box::pin(wakeups::run(sizes)).await,
            Self::WokenConsumer => Box::pin(woken_consumer::run(sizes)).await,
            Self::LongLife => Box::pin(long_life::run(sizes)).await,
            Self::Steady => Box::pin(steady::run(sizes)).await,
            Self::History => Box::pin(history::run(sizes)).await,
            Self::Usage => Box::pin(usage::run(sizes)).await,
            Self::Quota => Box::pin(quota::run(sizes)).await,
            Self::Throttled => Box::pin(throttled::run(sizes)).await,
            Self::FrozenFunction => Box::pin(frozen_function::run(sizes)).await,
            Self::ColdStarts => Box::pin(cold_starts::run(sizes)).await,
            Self::Console => Box::pin(console::run(sizes)).await,
        }
    }
}

impl Sizes {
    /// A cluster with two frontends and the topic.
    async fn cluster(&self, linger: Duration) -> Result<ProcessCluster> {
        self.cluster_with_queues(linger, None).await
    }

    /// The same, with an SQS server.
    async fn cluster_with_queues(
        &self,
        linger: Duration,
        sqs_endpoint: Option<String>,
    ) -> Result<ProcessCluster> {
        let plan = Plan { linger, sqs_endpoint, ..Plan::new(&self.binaries) };
        let cluster = ProcessCluster::start(&plan).await.context("cannot start a cluster")?;
        let client = cluster.client(&[0, 1])?;
        // Some records here have timestamps of long ago.
        let config = [("retention.ms", "-1")];
        client.admin().create_topic(TOPIC, PARTITIONS, &config).await.context("cannot create the topic")?;
        Ok(cluster)
    }

    /// Reads everything through each of two frontends, checks it, and that both say the same.
    async fn check(&self, cluster: &ProcessCluster, ledger: &Ledger, report: &mut Report) -> Result<Summary> {
        let mut seen = None;
        for frontend in [0, 1] {
            let found = traffic::read_all(&cluster.client(&[frontend])?, &self.flights)
                .await
                .with_context(|| format!("cannot read through frontend {frontend}"))?;
            let summary = ledger.check(&self.flights, &found)?;
            let last = seen.get_or_insert_with(|| (found.clone(), summary));
            ensure!(last.0 == found, "the two frontends show different records");
        }
        let (_, summary) = seen.context("something was read")?;
        let Summary { read, acknowledged, partitions, keys, duplicates, .. } = summary;
        report.say(format!(
            "read {read} records through each of 2 frontends from {partitions} partitions with records (of {PARTITIONS}): \
             offsets are 0…n−1 in each, {acknowledged} of {} lines were acknowledged and stand where the answer said, \
             all {keys} keys are in the order of the input, {duplicates} records are duplicates",
            self.flights.0.len()
        ));
        Ok(summary)
    }
}

async fn create_client(cluster: &ProcessCluster, order: &[usize]) -> Result<Client> {
    let client = cluster.client(order)?;
    client.admin().ready().await.context("the frontend is not ready")?;
    Ok(client)
}

/// Waits until the queues of all wake-ups of the topic were told of everything.
async fn all_is_told(client: &Client) -> Result<()> {
    wait::until("all queues are told of everything", async || {
        let wakeups = client.admin().wakeups(TOPIC).await?;
        Ok(wakeups.iter().all(|wakeup| wakeup.pending_records == 0).then_some(()))
    })
    .await
}
