//! Metadata nodes and frontends show each other certificates, and frontends their clients; all certificates and the authority that
//! signs them are replaced while records are appended over new connections, and no append fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use carnax::{PartitionIndex, RequestError, RetrySettings, Start};
use carnax_core::metadata::DescribeCluster;
use carnax_platform::network::{Network, TcpNetwork};
use carnax_platform::rpc::{Channel, ChannelSettings};
use carnax_test_certificates::Authority;

use super::{PARTITIONS, Sizes, probe};
use crate::certificates::{self, Certificates};
use crate::cluster::{NODES, Plan, ProcessCluster};
use crate::flights::TOPIC;
use crate::report::Report;
use crate::wait;

/// How long a node may take to answer.
const ASK: Duration = Duration::from_secs(10);
/// Of a server's `/metrics`.
const LOADED: &str = "tls_certificate_loaded_timestamp_seconds{certificate=\"cluster\"}";

pub(super) async fn run(sizes: &Sizes) -> Result<Report> {
    let mut report = Report::new("certificates");
    let folder = tempfile::tempdir()?;
    let mut authority = Authority::new("authority 0");
    let files = Certificates::write(folder.path(), &authority)?;
    let certificates = Some(files.clone());
    let plan = Plan { certificates, ..Plan::new(&sizes.binaries) };
    let mut cluster = ProcessCluster::start(&plan).await.context("cannot start a cluster")?;
    cluster.client(&[0, 1])?.admin().create_topic(TOPIC, PARTITIONS, &[]).await?;
    refuses(&cluster, &authority, &Authority::new("a stranger")).await?;
    report.say("nodes and frontends refuse whoever has a certificate of another authority, or none");
    let mut appended = 0;
    for round in 1..=sizes.rounds {
        let next = Authority::new(&format!("authority {round}"));
        let replaced = AtomicBool::new(false);
        let replacing = async {
            replace(&cluster, &files, &authority, &next).await?;
            replaced.store(true, Ordering::Relaxed);
            Ok(())
        };
        let (written, ()) = tokio::try_join!(append(&cluster, &files, &replaced), replacing)?;
        appended += written;
        refuses(&cluster, &next, &authority).await?;
        authority = next;
        // Whoever stood by old connections has to make new ones.
        let node = &mut cluster.nodes[round % NODES].process;
        node.terminate().await?;
        node.start()?;
        cluster.wait_for_voters().await?;
        cluster.wait_ready().await?;
    }
    let (client, mut stored) = (cluster.client(&[1])?, 0);
    for partition in (0..PARTITIONS).map(PartitionIndex) {
        stored += client.admin().offset(TOPIC, partition, Start::Latest).await?.offset.0;
    }
    ensure!(stored == appended, "{appended} records were acknowledged, {stored} are there");
    report.say(format!(
        "{} times all certificates and their authority were replaced, while {appended} records were appended, twelve to a \
         connection: none failed, none was tried twice, all are there",
        sizes.rounds
    ));
    cluster.end()?;
    Ok(report)
}

/// Both authorities are trusted, then certificates are replaced, then the old authority is trusted no more; each step is taken when
/// all servers have taken the one before.
async fn replace(
    cluster: &ProcessCluster,
    files: &Certificates,
    old: &Authority,
    new: &Authority,
) -> Result<()> {
    let before = loaded(cluster, files).await?;
    files.trust(&[old, new])?;
    let both = loaded_since(cluster, files, &before).await?;
    files.issue(new)?;
    let renewed = loaded_since(cluster, files, &both).await?;
    let wanted = files.of_site()?;
    for frontend in &cluster.frontends {
        wait::until("a new connection sees the new certificate", async || {
            let (shown, _) = certificates::get(&frontend.address, "/readyz", &files.authorities()?).await?;
            Ok((shown == wanted).then_some(()))
        })
        .await?;
    }
    files.trust(&[new])?;
    loaded_since(cluster, files, &renewed).await.map(drop)
}

/// When each server took what it uses from its files, as it says.
async fn loaded(cluster: &ProcessCluster, files: &Certificates) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for node in &cluster.nodes {
        let (_, metrics) = wait::get(&node.http, "/metrics").await.context("a node shows no metrics")?;
        all.push(metrics);
    }
    for frontend in &cluster.frontends {
        all.push(certificates::get(&frontend.address, "/metrics", &files.authorities()?).await?.1);
    }
    let line = |metrics: &String| metrics.lines().find(|line| line.contains(LOADED)).map(str::to_owned);
    all.iter().map(|metrics| line(metrics).context("a server does not say since when")).collect()
}

async fn loaded_since(
    cluster: &ProcessCluster,
    files: &Certificates,
    before: &[String],
) -> Result<Vec<String>> {
    wait::until("all servers take what is new", async || {
        let now = loaded(cluster, files).await?;
        Ok(now.iter().zip(before).all(|(now, before)| now != before).then_some(now))
    })
    .await
}

/// Appends over one new connection after the other, and tries nothing twice.
async fn append(cluster: &ProcessCluster, files: &Certificates, ended: &AtomicBool) -> Result<u64> {
    let longer_than_any_call = Duration::from_secs(600);
    let mut appended = 0;
    for frontend in cluster.frontends.iter().cycle() {
        if ended.load(Ordering::Relaxed) {
            break;
        }
        let retry = RetrySettings { backoff_min: longer_than_any_call, backoff_max: longer_than_any_call };
        let builder = Certificates::client(std::slice::from_ref(&frontend.address), files.authorities()?)?;
        let client = builder.retry(retry).build()?;
        for partition in (0..PARTITIONS).map(PartitionIndex) {
            let appending = probe::append(&client, partition, &appended.to_string()).await;
            appending.with_context(|| format!("append {appended} while certificates were replaced"))?;
            appended += 1;
        }
    }
    Ok(appended)
}

/// That nodes and frontends hear whom `trusted` has signed for, and nobody for whom `other` has; and that clients who trust
/// `other` alone refuse frontends.
async fn refuses(cluster: &ProcessCluster, trusted: &Authority, other: &Authority) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let friend = certificates::frontend_network(folder.path(), trusted, &[trusted])?;
    ask(cluster, Arc::new(friend)).await.context("a member of the cluster is refused")?;
    let stranger = certificates::frontend_network(folder.path(), other, &[trusted])?;
    ensure!(ask(cluster, Arc::new(stranger)).await.is_err(), "a node hears a stranger");
    ensure!(ask(cluster, Arc::new(TcpNetwork)).await.is_err(), "a node hears whoever comes without TLS");
    for frontend in &cluster.frontends {
        let address = std::slice::from_ref(&frontend.address);
        let client = Certificates::client(address, other.pem().into_bytes())?.build()?;
        let refused = client.admin().ready().await;
        ensure!(
            matches!(refused, Err(RequestError::Untrusted { .. })),
            "a client trusts anybody: {refused:?}"
        );
    }
    Ok(())
}

async fn ask(cluster: &ProcessCluster, network: Arc<dyn Network>) -> Result<()> {
    for node in &cluster.nodes {
        let channel = Channel::new(Arc::clone(&network), &node.address, &ChannelSettings::default())?;
        channel.call(DescribeCluster {}, ASK).await?;
    }
    Ok(())
}
