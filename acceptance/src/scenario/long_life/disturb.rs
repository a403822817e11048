//! Killing and pausing processes at random, and a bucket that is slow now and then.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::cluster::{NODES, ProcessCluster};
use crate::random::Random;
use crate::scenario::Sizes;

/// Between two disturbances, in milliseconds.
const BETWEEN: std::ops::Range<u64> = 100..1_200;
/// How long somebody is away: from nothing to beyond the grace of dead objects and the deadline of commits.
const AWAY: std::ops::Range<u64> = 50..3_000;
/// How late a slow bucket answers: longer than the grace of dead objects.
const SLOW: Duration = Duration::from_millis(1_500);

/// A frontend and the leader are killed, the bucket is slow, a frontend is paused, the leader is paused, another node is killed.
const FIRST: [usize; 6] = [0, 45, 99, 70, 85, 60];

/// How often what was done.
#[derive(Debug, Default)]
pub(super) struct Disturbances {
    frontends_killed: u32,
    leaders_killed: u32,
    nodes_killed: u32,
    frontends_paused: u32,
    leaders_paused: u32,
    slow_times: u32,
}

impl fmt::Display for Disturbances {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "meanwhile a frontend was killed {} times, the metadata leader {} times, another node {} times; a frontend was paused {} times, \
             the leader {} times, and {} times the bucket was slower than dead objects are kept",
            self.frontends_killed,
            self.leaders_killed,
            self.nodes_killed,
            self.frontends_paused,
            self.leaders_paused,
            self.slow_times
        )
    }
}

/// Disturbs for as many seconds as there are rounds; everybody lives in the end.
pub(super) async fn at_random(cluster: &mut ProcessCluster, sizes: &Sizes) -> Result<Disturbances> {
    let (mut random, mut done) = (Random::new(sizes.seed), Disturbances::default());
    let (started, time) = (Instant::now(), Duration::from_secs(u64::try_from(sizes.rounds)?));
    let mut turn = 0;
    while started.elapsed() < time {
        tokio::time::sleep(random.millis(BETWEEN)).await;
        let leader = cluster.leader().await?;
        let frontend = random.below(cluster.frontends.len());
        let away = random.millis(AWAY);
        // Each once, and then by chance.
        let kind = FIRST.get(turn).copied().unwrap_or_else(|| random.below(100));
        turn += 1;
        match kind {
            0..45 => {
                done.frontends_killed += 1;
                kill(cluster, Victim::Frontend(frontend), away).await?;
            }
            45..60 => {
                done.leaders_killed += 1;
                kill(cluster, Victim::Node(leader), away).await?;
            }
            60..70 => {
                done.nodes_killed += 1;
                kill(cluster, Victim::Node((leader + 1) % NODES), away).await?;
            }
            70..85 => {
                done.frontends_paused += 1;
                let process = &mut cluster.frontends[frontend].process;
                process.pause()?;
                tokio::time::sleep(away).await;
                process.go_on()?;
            }
            85..92 => {
                done.leaders_paused += 1;
                let process = &mut cluster.nodes[leader].process;
                process.pause()?;
                tokio::time::sleep(away).await;
                process.go_on()?;
            }
            _ => {
                done.slow_times += 1;
                let store = cluster.store.as_ref().context("the store lives in this process")?;
                store.set_latency(SLOW);
                tokio::time::sleep(SLOW).await;
                store.set_latency(Duration::ZERO);
            }
        }
    }
    cluster.wait_for_voters().await?;
    cluster.wait_ready().await?;
    Ok(done)
}

#[derive(Debug, Clone, Copy)]
enum Victim {
    Frontend(usize),
    Node(usize),
}

async fn kill(cluster: &mut ProcessCluster, victim: Victim, away: Duration) -> Result<()> {
    let process = match victim {
        Victim::Frontend(place) => &mut cluster.frontends[place].process,
        Victim::Node(place) => &mut cluster.nodes[place].process,
    };
    process.kill()?;
    tokio::time::sleep(away).await;
    process.start()?;
    if matches!(victim, Victim::Node(_)) {
        cluster.wait_for_voters().await?;
    }
    cluster.wait_ready().await
}
