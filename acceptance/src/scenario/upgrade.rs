//! A new version is brought in while flights are written: one server after the other, old and new side by side, then the feature
//! level is raised; and there is no way back.
//!
//! The old version is the build of `--old-bin-dir`, or this one told to know one level less.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use carnax::{AlterTopic, Client, ErrorCode};

use super::{PARTITIONS, Sizes, create_client};
use crate::cluster::renew::Server;
use crate::cluster::{NODES, Plan, ProcessCluster};
use crate::flights::TOPIC;
use crate::report::Report;
use crate::traffic::{self, Progress};
use crate::wait;

/// The level of the old version, and the one that the new version raises it to.
const OLD: u32 = 5;
const NEW: u32 = 6;
/// In this order old frontends meet new nodes and the other way round.
const ORDER: [Server; NODES + 2] =
    [Server::Frontend(0), Server::Node(0), Server::Node(1), Server::Frontend(1), Server::Node(2)];

pub(super) async fn run(sizes: &Sizes) -> Result<Report> {
    let mut report = Report::new("upgrade");
    let old = sizes.old_binaries.as_ref().unwrap_or(&sizes.binaries);
    let as_old = [("CARNAX_FEATURE_LEVEL_MAX", OLD.to_string())];
    let (linger, variables) = (Duration::from_millis(20), as_old.to_vec());
    let mut cluster = ProcessCluster::start(&Plan { linger, variables, ..Plan::new(old) }).await?;
    cluster.client(&[0])?.admin().create_topic(TOPIC, PARTITIONS, &[("retention.ms", "-1")]).await?;
    let clients = [create_client(&cluster, &[0, 1]).await?, create_client(&cluster, &[1, 0]).await?];
    let progress = Progress::new(&sizes.flights);
    let writing = traffic::write_in_turn(&clients, &sizes.flights, sizes.chunk, &progress);
    let upgrading = async {
        for (step, server) in ORDER.into_iter().enumerate() {
            progress.reaches(80 * step / ORDER.len()).await?;
            cluster.renew(server, &sizes.binaries, &[]).await?;
            cluster.wait_for_voters().await?;
            cluster.wait_ready().await.with_context(|| format!("{server:?} does not come back"))?;
            if step + 1 < ORDER.len() {
                refuses_early(&cluster.client(&[0])?).await.with_context(|| format!("after {server:?}"))?;
            }
        }
        progress.reaches(90).await?;
        raise(&cluster.client(&[1])?).await
    };
    let (written, ()) = tokio::try_join!(writing, upgrading)?;
    report.say(format!(
        "{} servers were renewed one by one, and the level was raised from {OLD} to {NEW}",
        ORDER.len()
    ));
    new_things_work(&cluster.client(&[0, 1])?).await?;
    let why = goes_back(&mut cluster, sizes, &as_old).await?;
    report.say(format!("lower levels are refused, and a node of the old version ends: {why}"));
    let summary = sizes.check(&cluster, &written.ledger, &mut report).await?;
    ensure!(summary.acknowledged == sizes.flights.0.len(), "not all was acknowledged: {summary:?}");
    ensure!(summary.duplicates == 0, "records are stored twice: {summary:?}");
    report.say(format!("{} requests had an unknown outcome", progress.unknown_requests()));
    cluster.end()?;
    Ok(report)
}

/// While any node is old, the level stays, and nothing of the new one is done.
async fn refuses_early(client: &Client) -> Result<()> {
    let refused = client.admin().upgrade_cluster(Some(NEW), false).await;
    let refused = refused.err().context("the level was raised among old nodes")?;
    let told = refused.to_string().contains("knows feature levels up to");
    // An old leader does not know the question.
    ensure!(told || refused.is(ErrorCode::RouteNotFound), "it does not say which node is old: {refused}");
    let early = client.admin().alter_topic(TOPIC, &unlimited()).await;
    ensure!(early.is_err(), "a topic got an entry of the new level among old nodes: {early:?}");
    Ok(())
}

async fn raise(client: &Client) -> Result<()> {
    // The last node was heard of a moment ago at the latest.
    let raised = wait::until("the level is raised", async || {
        match client.admin().upgrade_cluster(None, false).await {
            Ok(raised) => Ok(Some(raised)),
            Err(error) if error.is(ErrorCode::Conflict) => Ok(None),
            Err(error) => Err(error.into()),
        }
    });
    let raised = raised.await?;
    ensure!((raised.from, raised.to, raised.raised) == (OLD, NEW, true), "{raised:?}");
    Ok(())
}

async fn new_things_work(client: &Client) -> Result<()> {
    let topic = client.admin().alter_topic(TOPIC, &unlimited()).await.context("of the new level")?;
    ensure!(topic.config.contains_key(QUOTA), "{topic:?}");
    let lower = client.admin().upgrade_cluster(Some(OLD), false).await;
    let lower = lower.err().context("the level was lowered")?;
    ensure!(lower.is(ErrorCode::Conflict) && lower.to_string().contains("never lowered"), "{lower}");
    Ok(())
}

const QUOTA: &str = "quota.produce.bytes.per.second";

fn unlimited() -> AlterTopic {
    AlterTopic::default().set(QUOTA, "-1")
}

/// Starts a node of the old version, which must end and say why; then the new one again.
async fn goes_back(
    cluster: &mut ProcessCluster,
    sizes: &Sizes,
    as_old: &[(&'static str, String)],
) -> Result<String> {
    let old = sizes.old_binaries.as_ref().unwrap_or(&sizes.binaries);
    let before = cluster.nodes[0].process.log().len();
    cluster.renew(Server::Node(0), old, as_old).await?;
    wait::until("the node of the old version ends", async || {
        Ok((cluster.nodes_that_ended()? == [0]).then_some(()))
    })
    .await?;
    let log = cluster.nodes[0].process.log();
    let told = log.get(before..).context("a log grows")?;
    // A build from before levels were raised does not know that it is told so.
    let reasons = [format!("needs feature level {NEW}"), "log entry is not understood".to_owned()];
    let why = told.lines().find(|line| reasons.iter().any(|reason| line.contains(reason)));
    let why =
        why.with_context(|| format!("the old node does not say why it ended:\n{told}"))?.trim().to_owned();
    cluster.renew(Server::Node(0), &sizes.binaries, &[]).await?;
    cluster.wait_for_voters().await?;
    cluster.wait_ready().await?;
    Ok(why)
}
