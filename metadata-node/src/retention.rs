//! The leader looks after retention: it finds the partitions whose oldest records may go, and proposes that they do.
//!
//! Only log starts move here. The objects behind them die with that, and are deleted later, by workers.

use std::time::Duration;

use carnax_core::limits;
use carnax_metadata_state::{Command, Reply, answer};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::handle::Handle;

/// How often a leader looks; it takes time for every partition.
const PERIOD: Duration = Duration::from_secs(2);

/// Looks after retention while this node leads, until `shutdown`.
pub(crate) async fn run(handle: Handle, shutdown: CancellationToken) {
    let mut succeeded: Option<Instant> = None;
    loop {
        let leads = handle.raft().leadership().leads;
        if leads && retain(&handle).await {
            succeeded = Some(Instant::now());
        }
        let age = succeeded.map(|at| i64::try_from(at.elapsed().as_secs()).unwrap_or(i64::MAX));
        handle.metrics().jobs.retention_age.set(age.unwrap_or(-1));
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}

/// Moves log starts until none is due; says whether it could.
async fn retain(handle: &Handle) -> bool {
    loop {
        let (view, now) = (handle.raft().state(), handle.log_time());
        let partitions = answer::due_retention(&view.state, now, limits::RETAIN_PARTITIONS_MAX);
        if partitions.is_empty() {
            return true;
        }
        match handle.propose(Command::Retain { partitions }).await {
            Ok(Reply::Retained { moved }) => {
                tracing::debug!(partitions = moved, "log starts moved up, as retention says");
                handle.metrics().jobs.retained.inc_by(moved);
                if moved == 0 {
                    return true;
                }
            }
            Ok(_) => return false,
            Err(problem) => {
                tracing::info!(%problem, "retention waits");
                return false;
            }
        }
    }
}
