//! Every process is killed at the same moment while flights are written, and started again.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Sizes, create_client};
use crate::process::Process;
use crate::report::Report;
use crate::traffic::{self, Progress};

pub(super) async fn run(sizes: &Sizes) -> Result<Report> {
    let mut report = Report::new("restart-all");
    let mut cluster = sizes.cluster(Duration::from_millis(20)).await?;
    let clients = [create_client(&cluster, &[0, 1]).await?, create_client(&cluster, &[1, 0]).await?];
    let progress = Progress::new(&sizes.flights);
    let writing = traffic::write_in_turn(&clients, &sizes.flights, sizes.chunk, &progress);
    let faults = async {
        for round in 1..=sizes.rounds {
            progress.reaches(90 * round / sizes.rounds.max(1) - 10).await?;
            cluster.processes().try_for_each(Process::send_kill)?;
            cluster.processes().for_each(Process::reap);
            report.say(format!(
                "all processes were killed with {} records acknowledged",
                progress.acknowledged()
            ));
            cluster.start_all().await.context("the cluster does not come back")?;
        }
        Ok(())
    };
    let (written, ()) = tokio::try_join!(writing, faults)?;
    let summary = sizes.check(&cluster, &written.ledger, &mut report).await?;
    ensure!(summary.acknowledged == sizes.flights.0.len(), "not all was acknowledged: {summary:?}");
    report.say(format!(
        "{} requests with {} records had an unknown outcome and were sent again; {} of these records are stored twice",
        progress.unknown_requests(), summary.unknown, summary.duplicates
    ));
    cluster.end()?;
    Ok(report)
}
