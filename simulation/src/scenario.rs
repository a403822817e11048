//! Which faults a seed brings, and when. Swarm style: each seed draws which kinds are on at all, so that some seeds have
//! few kinds in strange numbers (Groce et al., "Swarm testing", ISSTA 2012).

use std::fmt;
use std::time::Duration;

use carnax_core::id::PartitionIndex;
use carnax_object_store::FaultRates;

use crate::history::{Kept, Partition, Retention, Rules};
use crate::world::SplitMix;

/// How long the faults go on.
pub(crate) const FAULTS: Duration = Duration::from_secs(40);
/// How long a healed cluster may take to serve again, and the readers to read everything.
pub(crate) const HEALING: Duration = Duration::from_secs(120);
/// The topic that everybody writes to, and that groups read.
pub(crate) const INPUT: &str = TOPICS[0].0;
/// Partitions of that topic.
pub(crate) const PARTITIONS: u32 = TOPICS[0].1;
/// All topics: one that all write to, one more for units over several topics, and one for outputs: for each partition of
/// the input, one of the members of a group, and one of those who go alone.
pub(crate) const TOPICS: [(&str, u32); 3] = [("simulated", 3), ("aside", 2), ("handled", 6)];
/// The first partition of outputs.
pub(crate) const HANDLED: Partition = TOPICS[0].1 + TOPICS[1].1;
/// Partitions of all topics.
pub(crate) const PARTITIONS_OF_ALL: u32 = HANDLED + TOPICS[2].1;

pub(crate) const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];
pub(crate) const FRONTENDS: [&str; 2] = ["frontend-1", "frontend-2"];
pub(crate) const WRITERS: [&str; 3] = ["writer-1", "writer-2", "writer-3"];
pub(crate) const READERS: [&str; 2] = ["reader-1", "reader-2"];
pub(crate) const PRODUCERS: [&str; 2] = ["producer-1", "producer-2"];
pub(crate) const MEMBERS: [&str; 3] = ["member-1", "member-2", "member-3"];
pub(crate) const LONERS: [&str; 2] = ["loner-1", "loner-2"];

/// How often the log goes to the archive, in milliseconds, where there is one.
pub(crate) const BACKUP_INTERVAL_MS: u64 = 500;

/// After a leap so long is waited for another one: what nodes know of each other's clocks is older then than they believe.
pub(crate) const BETWEEN_LEAPS: Duration = Duration::from_secs(8);
/// How far a clock leaps that is altogether wrong: longer than anything is remembered.
pub(crate) const LEAP: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// One partition each, with a long life: records that go, and records that are superseded.
pub(crate) const KEPT: [(Kept, &str); 2] = [(Kept::Fleeting, "fleeting"), (Kept::Table, "table")];
pub(crate) const KEEPERS: [&str; 2] = ["keeper-1", "keeper-2"];
/// How long it takes at most to upload what a merge wrote, where that is slow.
const MERGE_DELAY_MAX: Duration = Duration::from_millis(2_500);
/// How long tombstones stay.
pub(crate) const TOMBSTONES: Duration = Duration::from_secs(6);
/// How long dead objects stay: `delete.grace.ms`.
pub(crate) const GRACE: Duration = Duration::from_secs(2);

/// Settings under which forty seconds are a long life: what is committed is soon merged, paged out and deleted.
pub(crate) const HASTE: [(&str, &str); 7] = [
    ("merge.slices", "6"),
    ("page.slices", "2"),
    ("delete.grace.ms", "2000"),
    ("commit.deadline.ms", "8000"),
    ("orphan.age.ms", "9000"),
    ("orphan.scan.interval.ms", "1000"),
    ("compact.interval.ms", "3000"),
];

/// The topic and the index of a partition.
pub(crate) fn place(partition: Partition) -> (&'static str, PartitionIndex) {
    let mut first = 0;
    for (topic, count) in TOPICS {
        if partition < first + count {
            return (topic, PartitionIndex(partition - first));
        }
        first += count;
    }
    unreachable!("there are {first} partitions, and {partition} is none of them")
}

/// The partition of a topic and an index.
pub(crate) fn partition_of(topic: &str, index: PartitionIndex) -> Option<Partition> {
    (0..PARTITIONS_OF_ALL).find(|partition| place(*partition) == (topic, index))
}

/// Partitions that anybody may write to; the others take outputs only.
pub(crate) const fn partitions_written() -> u32 {
    HANDLED
}

/// What a seed brings.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    /// The slowest message, in milliseconds.
    pub(crate) latency_max: u64,
    /// Links that break for a while, both ways or one way.
    pub(crate) partitions: bool,
    pub(crate) node_crashes: bool,
    pub(crate) frontend_crashes: bool,
    pub(crate) clock_steps: bool,
    /// Slow fsyncs of the Raft log, in milliseconds.
    pub(crate) fsync_max: u64,
    pub(crate) store: FaultRates,
    pub(crate) linger: Duration,
    /// Clients that send again, with producer ids and keys.
    pub(crate) producers: usize,
    /// Members of a group.
    pub(crate) members: usize,
    /// Those that read and write in one unit without being members.
    pub(crate) loners: usize,
    /// Clocks that leap by a month: one at a time.
    pub(crate) leaps: bool,
    /// Frontends maintain the log as well.
    pub(crate) maintains: bool,
    /// Objects that merges write hold so little that each is of one partition: such slices are paged out.
    pub(crate) small_merges: bool,
    /// What merges upload takes up to so long, as large objects do: much may change meanwhile.
    pub(crate) merge_delay_max: Duration,
    /// All metadata disks are lost at this time, and what they held comes back from the bucket.
    pub(crate) disks_lost_at: Option<Duration>,
    /// What becomes of old records where they go.
    pub(crate) retention: Retention,
    /// After so many bytes of log a node writes a snapshot.
    pub(crate) snapshot_log_bytes: u64,
}

/// Something that the driver does at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Partition { from: &'static str, to: &'static str, one_way: bool, lasts: Duration },
    CrashNode { node: usize, down: Duration, kept: usize },
    CrashFrontend { frontend: usize, down: Duration },
    StepClock { node: usize, millis: i64 },
    LeapClock { node: usize, lasts: Duration },
    SlowFsync { node: usize, millis: u64 },
}

impl Scenario {
    pub(crate) fn draw(seed: u64) -> Self {
        let mut random = SplitMix(seed ^ 0x5ce7_a210);
        let mut often = |per_mille: u64, most: u64| {
            if random.chance(per_mille) { random.below(most) } else { 0 }
        };
        let rate = |value: u64| u16::try_from(value).unwrap_or(u16::MAX);
        let store = FaultRates {
            before_per_mille: rate(often(400, 80)),
            throttled_per_mille: rate(often(400, 80)),
            lost_per_mille: rate(often(400, 40)),
            after_per_mille: rate(often(400, 40)),
            delay_max: Duration::from_millis(often(600, 300)),
        };
        let mut scenario = Self {
            seed,
            latency_max: 2 + often(500, 120),
            partitions: often(600, 2) == 1,
            node_crashes: often(900, 3) > 0,
            frontend_crashes: often(900, 2) == 1,
            clock_steps: often(600, 2) == 1,
            fsync_max: often(400, 40),
            store,
            linger: Duration::from_millis(often(500, 50)),
            producers: 0,
            members: 0,
            loners: 0,
            leaps: false,
            maintains: false,
            small_merges: false,
            merge_delay_max: Duration::ZERO,
            disks_lost_at: None,
            retention: Retention::Trims,
            snapshot_log_bytes: 0,
        };
        scenario.producers = index(&mut random, PRODUCERS.len() + 1);
        scenario.members = if random.chance(600) { MEMBERS.len() } else { 0 };
        scenario.loners = if random.chance(400) { LONERS.len() } else { 0 };
        scenario.leaps = random.chance(500);
        scenario.snapshot_log_bytes = 4_000 + random.below(40_000);
        scenario.maintains = random.chance(800);
        scenario.small_merges = random.chance(700);
        scenario.retention = match random.below(3) {
            0 => Retention::Trims,
            1 => Retention::Age(random.between(Duration::from_secs(3), Duration::from_secs(12))),
            _ => Retention::Bytes(1_000 + random.below(6_000)),
        };
        if random.chance(500) {
            scenario.merge_delay_max = MERGE_DELAY_MAX;
        }
        if random.chance(250) {
            scenario.disks_lost_at = Some(random.between(Duration::from_secs(12), Duration::from_secs(22)));
            // What the lost tail means to those who send again, and to groups, is for them to sort out.
            (scenario.producers, scenario.members, scenario.loners) = (0, 0, 0);
            scenario.clock_steps = false;
        }
        scenario
    }

    /// By what a long life is judged.
    pub(crate) const fn rules(&self) -> Rules {
        let (retention, clocks_are_right) = (self.retention, !self.clock_steps);
        Rules { retention, tombstones: TOMBSTONES, grace: GRACE, clocks_are_right }
    }

    /// How a topic with a long life is configured.
    pub(crate) fn config_of(&self, topic: Kept) -> Vec<(&'static str, String)> {
        let text = |value: u128| value.to_string();
        match (topic, self.retention) {
            (Kept::Table, _) => vec![
                ("cleanup.policy", "compact".to_owned()),
                ("min.cleanable.dirty.ratio", "0.5".to_owned()),
                ("delete.retention.ms", text(TOMBSTONES.as_millis())),
            ],
            (Kept::Fleeting, Retention::Trims) => vec![("retention.ms", "-1".to_owned())],
            (Kept::Fleeting, Retention::Age(age)) => vec![("retention.ms", text(age.as_millis()))],
            (Kept::Fleeting, Retention::Bytes(bytes)) => {
                vec![("retention.ms", "-1".to_owned()), ("retention.bytes", bytes.to_string())]
            }
        }
    }

    /// Draws what happens next and how long to wait before it.
    pub(crate) fn next_fault(&self, random: &mut SplitMix) -> (Duration, Option<Fault>) {
        let wait = random.between(Duration::from_millis(100), Duration::from_millis(2_500));
        if self.leaps && random.chance(250) {
            let node = index(random, NODES.len());
            let lasts = random.between(Duration::from_millis(500), Duration::from_secs(3));
            return (wait, Some(Fault::LeapClock { node, lasts }));
        }
        let fault = match random.below(10) {
            0..=3 if self.partitions => Some(draw_partition(random)),
            4..=5 if self.node_crashes => Some(Fault::CrashNode {
                node: index(random, NODES.len()),
                down: random.between(Duration::from_millis(50), Duration::from_secs(6)),
                kept: index(random, 4),
            }),
            6..=7 if self.frontend_crashes => Some(Fault::CrashFrontend {
                frontend: index(random, FRONTENDS.len()),
                down: random.between(Duration::from_millis(50), Duration::from_secs(5)),
            }),
            8 if self.clock_steps => {
                let seconds = i64::try_from(random.below(7_200)).unwrap_or(0) - 3_600;
                Some(Fault::StepClock { node: index(random, NODES.len()), millis: seconds * 1_000 })
            }
            9 if self.fsync_max > 0 => Some(Fault::SlowFsync {
                node: index(random, NODES.len()),
                millis: random.below(self.fsync_max),
            }),
            _ => None,
        };
        (wait, fault)
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            seed,
            latency_max,
            partitions,
            node_crashes,
            frontend_crashes,
            clock_steps,
            fsync_max,
            leaps,
            maintains,
            producers,
            members,
            loners,
            retention,
            small_merges,
            merge_delay_max,
            disks_lost_at,
            ..
        } = self;
        write!(
            f,
            "seed {seed}: latency ≤ {latency_max} ms, partitions {partitions}, node crashes {node_crashes}, frontend \
             crashes {frontend_crashes}, clock steps {clock_steps}, leaps {leaps}, fsync ≤ {fsync_max} ms, store {:?}, linger \
             {:?}; {producers} producers, {members} members, {loners} loners, maintains {maintains}, small merges \
             {small_merges}, uploads of merges ≤ {merge_delay_max:?}, disks lost at {disks_lost_at:?}, retention {retention:?}",
            self.store, self.linger
        )
    }
}

/// Often the way back from a node to a frontend alone: a change is made and nobody hears of it.
fn draw_partition(random: &mut SplitMix) -> Fault {
    if random.chance(400) {
        let (from, to) = (NODES[index(random, NODES.len())], FRONTENDS[index(random, FRONTENDS.len())]);
        let lasts = random.between(Duration::from_millis(500), Duration::from_secs(5));
        return Fault::Partition { from, to, one_way: true, lasts };
    }
    let servers: Vec<&'static str> = NODES.into_iter().chain(FRONTENDS).chain(["bucket"]).collect();
    let from = servers[index(random, servers.len())];
    let others: Vec<&'static str> = servers.into_iter().filter(|server| *server != from).collect();
    let to = others[index(random, others.len())];
    let lasts = random.between(Duration::from_millis(200), Duration::from_secs(8));
    Fault::Partition { from, to, one_way: random.chance(400), lasts }
}

fn index(random: &mut SplitMix, length: usize) -> usize {
    usize::try_from(random.below(length as u64)).unwrap_or(0)
}
