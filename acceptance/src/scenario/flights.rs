//! All flights through both frontends, each carrier through one of them, and back through both.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Sizes, create_client};
use crate::report::Report;
use crate::traffic;

pub(super) async fn run(sizes: &Sizes) -> Result<Report> {
    let mut report = Report::new("flights");
    let cluster = sizes.cluster(Duration::from_millis(250)).await?;
    let clients = [create_client(&cluster, &[0]).await?, create_client(&cluster, &[1]).await?];
    let started = Instant::now();
    let ledger = traffic::write_fast(&clients, &sizes.flights).await.context("cannot write")?;
    let (count, seconds) = (sizes.flights.0.len(), started.elapsed().as_secs_f64());
    report.say(format!("{count} records written through 2 frontends in {seconds:.1} s"));
    let summary = sizes.check(&cluster, &ledger, &mut report).await?;
    ensure!(summary.read == count && summary.acknowledged == count, "counts differ: {summary:?}");
    ensure!(summary.duplicates == 0, "nothing failed, and yet there are duplicates: {summary:?}");
    let store = cluster.store.as_ref().context("the store lives in this process")?;
    report.say(format!("the store holds {} objects", store.keys().len()));
    cluster.end()?;
    Ok(report)
}
