//! `carnax doctor`: walks the whole way that a record takes, says where it ends, and what to do about it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use carnax::{Client, ClusterResponse, Record, Start, Timestamp};
use carnax_core::metadata::NodeRole;
use carnax_object_store::{GetRange, ObjectStoreSettings, ObjectStoreUrl};
use clap::Args;
use serde::Serialize;

use crate::arguments::Global;
use crate::output::Output;

/// Records that a doctor's look needs are small.
const PROBE: &str = "carnax doctor was here";
/// A clock that is further off than this confuses whoever reads timestamps; a minute off, and a leader steps down.
const SKEW_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Check this object store too, from this machine: s3://bucket/prefix or file:///dir
    #[arg(long, env = "CARNAX_OBJECT_STORE", value_name = "URL")]
    object_store: Option<ObjectStoreUrl>,
    /// Put the bucket into the path of S3 requests
    #[arg(long)]
    s3_path_style: bool,
    /// Do not append to a temporary topic
    #[arg(long)]
    read_only: bool,
}

#[derive(Debug, Serialize)]
struct Finding {
    check: String,
    ok: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<&'static str>,
}

/// Writes findings as they are made.
struct Findings<'a> {
    out: &'a mut Output,
    failed: usize,
    /// The first failure, whose kind decides on the exit code.
    first: Option<anyhow::Error>,
}

impl Findings<'_> {
    fn add(
        &mut self,
        check: &str,
        result: anyhow::Result<String>,
        advice: &'static str,
    ) -> anyhow::Result<()> {
        let (ok, detail) = match &result {
            Ok(detail) => (true, detail.clone()),
            Err(error) => (false, format!("{error:#}")),
        };
        let finding = Finding { check: check.to_owned(), ok, detail, advice: (!ok).then_some(advice) };
        self.out.show(&finding, describe)?;
        self.out.flush()?;
        if let Err(error) = result {
            self.failed += 1;
            self.first.get_or_insert(error);
        }
        Ok(())
    }
}

fn describe(finding: &Finding) -> String {
    let Finding { check, ok, detail, advice } = finding;
    let advice = advice.map(|advice| format!("\n         do: {advice}")).unwrap_or_default();
    let mark = if *ok { "ok  " } else { "FAIL" };
    format!("{mark}  {check}: {detail}{advice}\n")
}

impl Doctor {
    pub(crate) async fn run(self, global: &Global, out: &mut Output) -> anyhow::Result<()> {
        let mut findings = Findings { out, failed: 0, first: None };
        for endpoint in &global.endpoint {
            let check = format!("endpoint {endpoint}");
            let result = ready(global, endpoint).await;
            let advice =
                "start a frontend there, or correct --endpoint; if it runs, its log says what it waits for";
            findings.add(&check, result, advice)?;
        }
        let client = global.client()?;
        let cluster = client.admin().cluster().await;
        let quorum = cluster.as_ref().map_err(|error| error.clone().into()).and_then(quorum);
        let advice = "start the metadata nodes that are away; more than half of the voters must run and reach each other";
        findings.add("metadata quorum", quorum, advice)?;
        if let Some(url) = &self.object_store {
            let advice =
                "check bucket, region, credentials and permissions (put, get, delete) of this machine";
            findings.add("object store", self.probe_store(url).await, advice)?;
            let same = cluster.map_err(Into::into).and_then(|cluster| same_store(&cluster, url));
            let advice = "give frontends and this command the same object store";
            findings.add("object store of the frontends", same, advice)?;
        }
        if !self.read_only {
            let (append, skew) = round_trip(&client).await;
            let advice = "the checks above say which part is missing; the log of the frontend says more";
            findings.add("append and fetch", append, advice)?;
            if let Some(skew) = skew {
                let advice = "synchronize the clocks of this machine and of the metadata nodes (NTP)";
                findings.add("clock", skew, advice)?;
            }
        }
        match findings.first {
            None => Ok(()),
            Some(first) => {
                Err(first.context(format!("{} checks failed, the first one of them", findings.failed)))
            }
        }
    }

    async fn probe_store(&self, url: &ObjectStoreUrl) -> anyhow::Result<String> {
        let settings = ObjectStoreSettings { s3_path_style: self.s3_path_style };
        let store = carnax_object_store::open(url, &settings).await?;
        let key = format!("doctor/{}-{}", wall().millis(), std::process::id());
        let probe = Bytes::from_static(PROBE.as_bytes());
        let put = store.put_if_absent(&key, probe.clone().into()).await.context("cannot put");
        let got = match &put {
            Ok(()) => store
                .get(&key, GetRange::WholeUpTo(1_000))
                .await
                .context("cannot get")
                .map(|(bytes, _)| bytes),
            Err(_) => Ok(probe.clone()),
        };
        let deleted = store.delete_many(&[key]).await.into_iter().collect::<Result<Vec<_>, _>>();
        put?;
        ensure!(got? == probe, "an object came back with other bytes");
        deleted.context("cannot delete")?;
        Ok(format!("put, got and deleted an object in {url}"))
    }
}

async fn ready(global: &Global, endpoint: &str) -> anyhow::Result<String> {
    let one = Global { timeout: global.timeout.min(Duration::from_secs(5)), ..global.clone() };
    one.client_of(&[endpoint.to_owned()])?.admin().ready().await?;
    Ok("is ready".to_owned())
}

fn quorum(cluster: &ClusterResponse) -> anyhow::Result<String> {
    let metadata = &cluster.metadata;
    let voters = metadata.nodes.iter().filter(|node| node.role == NodeRole::Voter).count();
    let Some(leader) = metadata.leader else { bail!("no leader among {voters} voters") };
    let wanted = usize::try_from(metadata.voters_wanted).unwrap_or(usize::MAX);
    ensure!(voters >= wanted, "{voters} voters of {wanted} have joined: appends are refused until all have");
    Ok(format!("node {leader} leads {voters} voters"))
}

fn same_store(cluster: &ClusterResponse, url: &ObjectStoreUrl) -> anyhow::Result<String> {
    let theirs = cluster.object_store.trim_end_matches('/');
    ensure!(theirs == url.to_string().trim_end_matches('/'), "they use {theirs}, not {url}");
    Ok("is the same".to_owned())
}

/// Appends to a temporary topic and reads it back; tells also what the clocks say, if that was found out.
async fn round_trip(client: &Client) -> (anyhow::Result<String>, Option<anyhow::Result<String>>) {
    let topic = format!("carnax-doctor-{}-{}", wall().millis(), std::process::id());
    if let Err(error) = client.admin().create_topic(&topic, 1, &[]).await.context("cannot create a topic") {
        return (Err(error), None);
    }
    let mut skew = None;
    let result = append_and_fetch(client, &topic, &mut skew).await;
    let deleted = client.admin().delete_topic(&topic).await;
    let result = result.and_then(|detail| {
        deleted.with_context(|| format!("cannot delete the temporary topic {topic}"))?;
        Ok(detail)
    });
    (result, skew)
}

async fn append_and_fetch(
    client: &Client,
    topic: &str,
    skew: &mut Option<anyhow::Result<String>>,
) -> anyhow::Result<String> {
    let producer = client.producer(topic).build().await.context("cannot describe the topic")?;
    let (before, started) = (wall(), tokio::time::Instant::now());
    let stored = producer.send(Record::new(PROBE)).await?.await.context("cannot append")?;
    let (after, took) = (wall(), started.elapsed());
    *skew = Some(compare_clocks(before, stored.append_time, after));
    let mut consumer = client.consumer(topic).start(Start::Earliest).build().await?;
    let records = consumer.poll(1, Duration::from_secs(30)).await.context("cannot fetch")?;
    let value = records.first().and_then(|record| record.value.clone());
    ensure!(
        value.as_deref() == Some(PROBE.as_bytes()),
        "an acknowledged record was not there when it was read"
    );
    Ok(format!("a record was stored in {} ms and read back", took.as_millis()))
}

fn compare_clocks(before: Timestamp, append_time: Timestamp, after: Timestamp) -> anyhow::Result<String> {
    let off = before.since(append_time).max(append_time.since(after));
    ensure!(off <= SKEW_MAX, "the cluster's log time and the clock of this machine are {off:?} apart");
    Ok("agrees with the cluster's log time".to_owned())
}

fn wall() -> Timestamp {
    Timestamp::EPOCH.saturating_add(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_compared_with_the_whole_time_of_the_append() {
        let at = Timestamp::from_millis;
        assert!(compare_clocks(at(0), at(20_000), at(30_000)).is_ok(), "a slow append is not a wrong clock");
        assert!(compare_clocks(at(10_000), at(4_000), at(11_000)).is_err());
        assert!(compare_clocks(at(0), at(7_000), at(1_000)).is_err());
    }
}
