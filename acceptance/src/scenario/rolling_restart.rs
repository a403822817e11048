//! Every process in turn is told to end with SIGTERM while flights are written, and started again: an upgrade, as an operator
//! does it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Sizes, create_client};
use crate::cluster::NODES;
use crate::report::Report;
use crate::traffic::{self, Progress};

pub(super) async fn run(sizes: &Sizes) -> Result<Report> {
    let mut report = Report::new("rolling-restart");
    let mut cluster = sizes.cluster(Duration::from_millis(20)).await?;
    let clients = [create_client(&cluster, &[0, 1]).await?, create_client(&cluster, &[1, 0]).await?];
    let progress = Progress::new(&sizes.flights);
    let writing = traffic::write_in_turn(&clients, &sizes.flights, sizes.chunk, &progress);
    let steps = sizes.rounds * (NODES + 2);
    let restarts = async {
        for step in 0..steps {
            progress.reaches(90 * step / steps.max(1)).await?;
            let number = step % (NODES + 2);
            let process = match number.checked_sub(NODES) {
                None => &mut cluster.nodes[number].process,
                Some(frontend) => &mut cluster.frontends[frontend].process,
            };
            process.terminate().await?;
            process.start()?;
            cluster.wait_for_voters().await?;
            cluster.wait_ready().await.context("a process does not come back")?;
        }
        Ok(())
    };
    let (written, ()) = tokio::try_join!(writing, restarts)?;
    report.say(format!("{steps} times a process was told to end, ended in order, and was started again"));
    let summary = sizes.check(&cluster, &written.ledger, &mut report).await?;
    ensure!(summary.acknowledged == sizes.flights.0.len(), "not all was acknowledged: {summary:?}");
    report.say(format!(
        "{} requests had an unknown outcome and were sent again; {} records are stored twice for it",
        progress.unknown_requests(),
        summary.duplicates
    ));
    cluster.end()?;
    Ok(report)
}
