//! One simulation: from a seed to a verdict.

use std::sync::Arc;
use std::time::Duration;

use carnax_frontend::deliberate_bugs::DeliberateBug;
use carnax_metadata_node::MemoryNodeDisk;
use carnax_metadata_state::deliberate_bugs;
use carnax_object_store::{FaultRates, FaultStore, MemoryStore};
use turmoil::Sim;

use crate::bucket::{self, Objects, Watched};
use crate::checker::{self, Breach};
use crate::clients;
use crate::history::{AppendOutcome, History, Kept, Recorder, Shown};
use crate::hosts::{FrontendHost, NodeHost};
use crate::kept;
use crate::members;
use crate::observer;
use crate::producers;
use crate::restorer;
use crate::scenario::{
    BETWEEN_LEAPS, FAULTS, FRONTENDS, Fault, HEALING, KEEPERS, LEAP, LONERS, MEMBERS, NODES, PRODUCERS,
    READERS, Scenario, WRITERS,
};
use crate::world::{SeededEntropy, SplitMix};

/// What came of a seed.
#[derive(Debug)]
pub struct Verdict {
    /// What the seed brought, in words.
    pub scenario: String,
    /// How often what happened; the same seed gives the same text.
    pub summary: String,
    /// Promises that were broken, and whatever else went wrong.
    pub breaches: Vec<String>,
}

/// Breaches of one promise that are told: the others say the same again.
const BREACHES_SHOWN: usize = 5;

/// A mistake that is made on purpose.
#[derive(Debug, Clone, Copy)]
pub enum Bug {
    /// In the frontends.
    Frontend(DeliberateBug),
    /// In the metadata nodes.
    State(deliberate_bugs::DeliberateBug),
}

/// Runs one seed. At most once in a process: openraft's randomness is seeded for the process.
///
/// # Errors
/// If a simulation ran in this process before.
pub fn run(seed: u64, bug: Option<Bug>) -> anyhow::Result<Verdict> {
    let bug = match bug {
        Some(Bug::Frontend(bug)) => Some(bug),
        Some(Bug::State(bug)) => {
            deliberate_bugs::make(bug);
            None
        }
        None => None,
    };
    let scenario = Scenario::draw(seed);
    let elections = carnax_metadata_raft::seed_elections(Arc::new(SeededEntropy::new(seed)));
    elections.map_err(|_| anyhow::anyhow!("one simulation a process"))?;
    let mut world = World::new(&scenario, bug);
    let ended = world.run();
    let history = world.recorder.lock().clone();
    let found = checker::check(&history);
    let of_each = found.chunk_by(|one, next| one.promise == next.promise);
    let shown = of_each.flat_map(|breaches| breaches.iter().take(BREACHES_SHOWN));
    let mut breaches: Vec<String> = shown.map(Breach::to_string).collect();
    breaches.extend(ended.err().map(|error| format!("the simulation did not end: {error}")));
    let summary = format!("{}; {}", summarize(&history), world.faults);
    Ok(Verdict { scenario: scenario.to_string(), summary, breaches })
}

struct World<'a> {
    scenario: Scenario,
    sim: Sim<'a>,
    nodes: Vec<NodeHost>,
    objects: Objects,
    recorder: Recorder,
    faults: FaultCounts,
    /// When a clock may leap again.
    leap_from: Duration,
    disks: Disks,
}

/// How many faults of each kind were brought.
#[derive(Debug, Default)]
struct FaultCounts {
    partitions: u32,
    node_crashes: u32,
    frontend_crashes: u32,
    clock_steps: u32,
    clock_leaps: u32,
    slow_fsyncs: u32,
}

impl std::fmt::Display for FaultCounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { partitions, node_crashes, frontend_crashes, clock_steps, clock_leaps, slow_fsyncs } = self;
        write!(
            f,
            "{partitions} partitions, {node_crashes} node crashes, {frontend_crashes} frontend crashes, {clock_steps} \
             clock steps, {clock_leaps} leaps, {slow_fsyncs} slow disks"
        )
    }
}

/// Whether the metadata nodes have what they wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disks {
    Sound,
    Lost,
    Restored,
}

/// How long frontends of the former incarnation go on beside the new cluster, until they are started again.
const FRONTENDS_LATE: Duration = Duration::from_secs(2);

/// Something that ends at a moment.
#[derive(Debug)]
struct Pending {
    at: Duration,
    end: Ending,
}

#[derive(Debug)]
enum Ending {
    Repair { from: &'static str, to: &'static str },
    Restart { host: &'static str },
    ClockRight { node: usize },
}

impl World<'_> {
    fn new(scenario: &Scenario, bug: Option<DeliberateBug>) -> Self {
        let seed = scenario.seed;
        let mut sim = turmoil::Builder::new()
            .rng_seed(seed)
            .simulation_duration(FAULTS + HEALING + HEALING)
            .tick_duration(Duration::from_millis(1))
            .min_message_latency(Duration::from_micros(200))
            .max_message_latency(Duration::from_millis(scenario.latency_max))
            .tcp_capacity(4_096)
            .enable_random_order()
            .build();
        let recorder = Recorder::default();
        recorder.lock().rules = scenario.rules();
        let store = Watched {
            inner: MemoryStore::new(),
            recorder: recorder.clone(),
            merge_delay_max: scenario.merge_delay_max,
            entropy: SeededEntropy::new(seed ^ 0x5_10e),
        };
        let objects: Objects = Arc::new(FaultStore::seeded(store, seed, scenario.store));
        let kept = Arc::clone(&objects);
        sim.host("bucket", move || {
            let objects = Arc::clone(&kept);
            async move { Ok(bucket::run(objects).await?) }
        });
        let nodes: Vec<NodeHost> = (1..)
            .zip(NODES)
            .map(|(number, name)| NodeHost::new(name, seed.wrapping_add(number), scenario))
            .collect();
        for node in nodes.clone() {
            sim.host(node.name, move || node.clone().run());
        }
        for name in FRONTENDS {
            let frontend = FrontendHost::new(name, scenario, bug);
            sim.host(name, move || frontend.clone().run());
        }
        let mut client_seeds = SplitMix(seed ^ 0xc11e);
        // Producers write as well: there are three in all.
        for name in WRITERS.into_iter().skip(scenario.producers) {
            sim.client(name, clients::write(client_seeds.next(), recorder.clone()));
        }
        for name in READERS {
            sim.client(name, clients::read(client_seeds.next(), recorder.clone()));
        }
        for name in PRODUCERS.into_iter().take(scenario.producers) {
            sim.client(name, producers::produce(name, client_seeds.next(), recorder.clone()));
        }
        for name in MEMBERS.into_iter().take(scenario.members) {
            sim.client(name, members::belong(name, client_seeds.next(), recorder.clone()));
        }
        for name in LONERS.into_iter().take(scenario.loners) {
            sim.client(name, members::go_alone(client_seeds.next(), recorder.clone()));
        }
        let [keeps, looks] = KEEPERS;
        sim.client(keeps, kept::keep(client_seeds.next(), scenario.clone(), recorder.clone()));
        sim.client(looks, kept::look(client_seeds.next(), recorder.clone()));
        sim.client("observer", observer::observe(client_seeds.next(), recorder.clone()));
        if let (Some(lost_at), Some(first)) = (scenario.disks_lost_at, nodes.first()) {
            let first = first.clone();
            sim.client("restorer", restorer::run(client_seeds.next(), lost_at, first, recorder.clone()));
        }
        sim.client("final-reader", clients::read_all(client_seeds.next(), recorder.clone()));
        Self {
            scenario: scenario.clone(),
            sim,
            nodes,
            objects,
            recorder,
            faults: FaultCounts::default(),
            leap_from: Duration::ZERO,
            disks: Disks::Sound,
        }
    }

    /// Steps the simulation, brings faults until their time is over, heals, and waits for the clients to end.
    fn run(&mut self) -> turmoil::Result {
        let mut random = SplitMix(self.scenario.seed ^ 0xfa_017);
        let mut pending: Vec<Pending> = Vec::new();
        let mut next = Duration::from_secs(4);
        let mut healed = false;
        loop {
            let now = self.sim.elapsed();
            if now >= FAULTS && !healed {
                self.heal(&mut pending);
                healed = true;
            }
            for due in pending.extract_if(.., |pending| pending.at <= now) {
                end(&mut self.sim, &self.nodes, &due.end);
            }
            self.lose_and_restore(now, &mut pending);
            if now >= next && !healed {
                let (wait, fault) = self.scenario.next_fault(&mut random);
                next = now + wait;
                if let Some(fault) = fault {
                    self.bring(fault, now, &mut pending);
                }
            }
            if self.sim.step()? {
                return Ok(());
            }
        }
    }

    /// All metadata nodes die and lose their disks at once; when there is a new cluster, they start again.
    fn lose_and_restore(&mut self, now: Duration, pending: &mut Vec<Pending>) {
        if self.disks == Disks::Sound && self.scenario.disks_lost_at.is_some_and(|at| at <= now) {
            self.disks = Disks::Lost;
            pending
                .retain(|pending| !matches!(pending.end, Ending::Restart { host } if NODES.contains(&host)));
            for node in &self.nodes {
                self.sim.crash(node.name);
                node.put_disk(MemoryNodeDisk::default());
            }
        }
        if self.disks == Disks::Lost && self.recorder.lock().restoration.is_some() {
            self.disks = Disks::Restored;
            for node in &self.nodes {
                self.sim.bounce(node.name);
            }
            for host in FRONTENDS {
                pending.push(Pending { at: now + FRONTENDS_LATE, end: Ending::Restart { host } });
            }
        }
    }

    fn bring(&mut self, fault: Fault, now: Duration, pending: &mut Vec<Pending>) {
        tracing::info!(?fault, ?now, "fault");
        match fault {
            Fault::Partition { from, to, one_way, lasts } => {
                self.faults.partitions += 1;
                if one_way {
                    self.sim.partition_oneway(from, to);
                } else {
                    self.sim.partition(from, to);
                }
                pending.push(Pending { at: now + lasts, end: Ending::Repair { from, to } });
            }
            Fault::CrashNode { node, down, kept } => {
                let host = NODES[node];
                if self.sim.is_host_running(host) {
                    self.faults.node_crashes += 1;
                    self.sim.crash(host);
                    self.nodes[node].disk().raft.crash(kept);
                    pending.push(Pending { at: now + down, end: Ending::Restart { host } });
                }
            }
            Fault::CrashFrontend { frontend, down } => {
                let host = FRONTENDS[frontend];
                if self.sim.is_host_running(host) {
                    self.faults.frontend_crashes += 1;
                    self.sim.crash(host);
                    pending.push(Pending { at: now + down, end: Ending::Restart { host } });
                }
            }
            Fault::StepClock { node, millis } => {
                self.faults.clock_steps += 1;
                self.nodes[node].clock.set_skew(millis);
            }
            Fault::LeapClock { node, lasts } if self.leap_from <= now => {
                self.faults.clock_leaps += 1;
                self.leap_from = now + lasts + BETWEEN_LEAPS;
                self.nodes[node].clock.set_skew(i64::try_from(LEAP.as_millis()).unwrap_or(i64::MAX));
                pending.push(Pending { at: now + lasts, end: Ending::ClockRight { node } });
            }
            Fault::LeapClock { .. } => {}
            Fault::SlowFsync { node, millis } => {
                self.faults.slow_fsyncs += 1;
                self.nodes[node].disk().raft.set_fsync_delay(Duration::from_millis(millis));
            }
        }
    }

    fn heal(&mut self, pending: &mut Vec<Pending>) {
        for due in pending.drain(..) {
            end(&mut self.sim, &self.nodes, &due.end);
        }
        for node in &self.nodes {
            node.clock.set_skew(0);
            node.disk().raft.set_fsync_delay(Duration::ZERO);
        }
        self.objects.set_rates(FaultRates::default());
    }
}

fn end(sim: &mut Sim<'_>, nodes: &[NodeHost], ending: &Ending) {
    match ending {
        Ending::ClockRight { node } => nodes[*node].clock.set_skew(0),
        Ending::Repair { from, to } => sim.repair(*from, *to),
        Ending::Restart { host } => sim.bounce(*host),
    }
}

fn summarize(history: &History) -> String {
    let count = |wanted: fn(&AppendOutcome) -> bool| {
        history.appends.iter().filter(|append| wanted(&append.outcome)).count()
    };
    let acknowledged = count(|outcome| matches!(outcome, AppendOutcome::Acknowledged { .. }));
    let refused = count(|outcome| *outcome == AppendOutcome::Refused);
    let unknown = count(|outcome| *outcome == AppendOutcome::Unknown);
    let attempts = history.appends.iter().map(|append| append.attempts.len().saturating_sub(1));
    let repeats: usize = attempts.sum();
    let records: usize = history.finally.values().map(Vec::len).sum();
    let in_bucket = |kind: &str| history.stored.keys().filter(|key| key.contains(kind)).count();
    let (merged, pages) = (in_bucket("/merged/"), in_bucket("/manifests/"));
    let retired = match history.kept_finally.get(&Kept::Fleeting).map(|seen| &seen.shown) {
        Some(Shown::Records { log_start, .. }) => *log_start,
        _ => 0,
    };
    let restored = history.restoration.as_ref().map_or_else(String::new, |restoration| {
        format!("1 restores, {:?} lost; ", restoration.lost_at.saturating_sub(restoration.archived_until))
    });
    // Everything that happened, as one number: two runs of one seed must agree on it.
    let digest = crc32c::crc32c(format!("{history:?}").as_bytes());
    format!(
        "{acknowledged} appends acknowledged, {refused} refused, {unknown} unknown, {repeats} repeats; {} fetches; {} tenures \
         with {} acts; {records} records in the end; {merged} objects merged, {pages} pages, {} objects deleted, {retired} records \
         retired, {} compacted away; {restored}digest {digest:08x}",
        history.fetches.len(),
        history.holds.len(),
        history.acts.len(),
        history.deleted.len(),
        checker::compacted(history)
    )
}
