//! Three processes of one group count flights per carrier into a second topic, in the same command that commits how far they
//! are, while members, frontends and metadata nodes are killed at random: the counts must be exact.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use carnax_core::http::{GroupOffsetsResponse, GroupResponse};
use tokio::sync::watch;

use super::{PARTITIONS, Sizes, create_client};
use crate::api::{Api, Call};
use crate::binaries;
use crate::cluster::{NODES, ProcessCluster};
use crate::counts;
use crate::flights::TOPIC;
use crate::random::Random;
use crate::report::Report;
use crate::traffic::{self, Progress};
use crate::wait;

const COUNTS: &str = "counts";
const GROUP: &str = "counters";
const MEMBERS: usize = 3;
/// Writers of the flights: they are not what this is about.
const PRODUCERS: usize = 2;

pub(super) async fn run(sizes: &Sizes) -> Result<Report> {
    let mut report = Report::new("exactly-once");
    let mut cluster = sizes.cluster(Duration::from_millis(20)).await?;
    let mut clients = Vec::new();
    for producer in 0..PRODUCERS {
        clients.push(create_client(&cluster, &[producer % 2, (producer + 1) % 2]).await?);
    }
    clients[0].admin().create_topic(COUNTS, 4, &[]).await.context("cannot create a topic")?;
    start_members(&mut cluster, sizes.chunk)?;
    let progress = Progress::new(&sizes.flights);
    let (kills, killed) = watch::channel(0);
    let writing = traffic::write_once(&clients, sizes, &progress, &killed);
    let killing = kill_at_random(&mut cluster, sizes, &progress, &kills);
    let (ledger, victims) = tokio::try_join!(writing, killing)?;
    report.say(format!("while {MEMBERS} members counted, {} were killed and came back", victims.join(", ")));
    sizes.check(&cluster, &ledger, &mut report).await?;
    all_is_counted(&cluster).await?;
    for member in &mut cluster.others {
        member.terminate().await?;
    }
    let call = Call::get(format!("/v1/groups/{GROUP}"));
    let group: GroupResponse = api(&cluster).call(1, &call).await.context("cannot describe the group")?;
    ensure!(group.members.is_empty(), "members ended in order, and are still there: {group:?}");

    let found = traffic::read_all(&clients[0], &sizes.flights).await?;
    let counts = traffic::read_json(&clients[1], COUNTS).await?;
    let sums = counts::check(&counts::keys(&sizes.flights, &found)?, &counts)?;
    ensure!(sums.values().sum::<u64>() == sizes.flights.0.len() as u64, "sums are wrong: {sums:?}");
    report.say(format!(
        "{} counts cover every record of {TOPIC} once: {}",
        counts.len(),
        sums.iter().map(|(carrier, count)| format!("{carrier} {count}")).collect::<Vec<_>>().join(", ")
    ));
    cluster.end()?;
    Ok(report)
}

fn api(cluster: &ProcessCluster) -> Api {
    Api::new(cluster.frontends.iter().map(|frontend| frontend.address.clone()))
}

fn start_members(cluster: &mut ProcessCluster, batch: usize) -> Result<()> {
    let program = binaries::example("count_carriers")?;
    for member in 0..MEMBERS {
        let mut endpoints: Vec<String> =
            cluster.frontends.iter().map(|frontend| format!("http://{}", frontend.address)).collect();
        endpoints.rotate_left(member % 2);
        let name = format!("counter-{member}");
        let arguments = [
            ("--endpoint", endpoints.join(",")),
            ("--group", GROUP.to_owned()),
            ("--member", name.clone()),
            ("--from", TOPIC.to_owned()),
            ("--to", COUNTS.to_owned()),
            ("--batch", batch.to_string()),
            ("--session-ms", "6000".to_owned()),
        ];
        cluster.start_other(&name, &program, &arguments)?;
    }
    Ok(())
}

/// As with idempotent producers, but it may hit anybody.
async fn kill_at_random(
    cluster: &mut ProcessCluster,
    sizes: &Sizes,
    progress: &Progress,
    kills: &watch::Sender<usize>,
) -> Result<Vec<String>> {
    let (mut random, mut counts) = (Random::new(sizes.seed), [0, 0, 0]);
    for round in 0..sizes.rounds {
        progress.part_begins(round, sizes.rounds).await?;
        let kind = random.below(3);
        counts[kind] += 1;
        let process = match kind {
            0 => &mut cluster.others[random.below(MEMBERS)],
            1 => &mut cluster.frontends[random.below(2)].process,
            _ => &mut cluster.nodes[random.below(NODES)].process,
        };
        process.kill()?;
        kills.send_replace(round + 1);
        tokio::time::sleep(random.millis(50..1_500)).await;
        for process in cluster.processes().filter(|process| !process.should_run()) {
            process.start()?;
        }
        cluster.wait_for_voters().await?;
        cluster.wait_ready().await.context("a killed process does not come back")?;
    }
    let [members, frontends, nodes] = counts;
    Ok(vec![
        format!("{members} times a member"),
        format!("{frontends} times a frontend"),
        format!("{nodes} times a metadata node"),
    ])
}

async fn all_is_counted(cluster: &ProcessCluster) -> Result<()> {
    let api = api(cluster);
    let call = Call::get(format!("/v1/groups/{GROUP}/offsets?topic={TOPIC}&limit=1000"));
    wait::until("all flights are counted", async || {
        let page: GroupOffsetsResponse = api.call(0, &call).await?;
        ensure!(page.offsets.len() == usize::try_from(PARTITIONS)?, "partitions are missing: {page:?}");
        Ok((page.lag == 0).then_some(()))
    })
    .await
}
