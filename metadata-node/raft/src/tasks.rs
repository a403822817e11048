//! What a node does beside answering: snapshots when the log has grown, and a watch over its disk.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use openraft::async_runtime::WatchReceiver;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::log_store::Flushes;
use crate::membership;
use crate::status::{self, Leadership};
use crate::types::Raft;

/// How often a snapshot is asked for that does not begin.
const SNAPSHOT_RETRY: Duration = Duration::from_secs(1);
/// How long a leader whose disk hangs tries to hand over.
const HAND_OVER: Duration = Duration::from_secs(2);

/// Asks for a snapshot each time that so many bytes of log were applied.
pub(crate) async fn snapshots(raft: Raft, mut log_bytes: watch::Receiver<u64>, bytes_max: u64) {
    while log_bytes.wait_for(|bytes| *bytes >= bytes_max).await.is_ok() {
        if raft.trigger().snapshot().await.is_err() {
            return;
        }
        // The count starts anew when the snapshot begins; it does not if the one before is still being written.
        let begun = log_bytes.wait_for(|bytes| *bytes < bytes_max);
        if let Ok(Err(_)) = tokio::time::timeout(SNAPSHOT_RETRY, begun).await {
            return;
        }
    }
}

/// Tells who leads and up to where the newest snapshot reaches, until the node stops; then why it stopped.
pub(crate) async fn leadership(
    raft: Raft,
    leadership: watch::Sender<Leadership>,
    fatal: watch::Sender<Option<String>>,
    snapshot_ends: impl Fn(u64) + Send,
    stop: CancellationToken,
) {
    let mut metrics = raft.metrics();
    loop {
        let running = {
            let metrics = metrics.borrow_watched();
            snapshot_ends(metrics.snapshot.map_or(0, |id| id.index));
            let now = status::leadership(&metrics);
            leadership.send_if_modified(|before| {
                let changed = *before != now;
                *before = now;
                changed
            });
            metrics.running_state.clone()
        };
        if let Err(reason) = running {
            if !stop.is_cancelled() {
                fatal.send_replace(Some(reason.to_string()));
            }
            return;
        }
        let changed = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = metrics.changed() => changed,
        };
        if changed.is_err() {
            // openraft says why it stops, unless it panics: then it is just gone.
            fatal.send_replace(Some("the core of Raft has panicked".to_owned()));
            return;
        }
    }
}

/// Does work without which the node is of no use; if it panics, the node says that it cannot go on.
pub(crate) async fn vital(
    what: &'static str,
    work: impl Future<Output = ()> + Send,
    fatal: watch::Sender<Option<String>>,
) {
    if AssertUnwindSafe(work).catch_unwind().await.is_err() {
        fatal.send_replace(Some(format!("the {what} has panicked")));
    }
}

/// Watches for an fsync that does not end: its node goes on sending heartbeats, so nobody else would notice.
pub(crate) async fn watch_disk(
    raft: Raft,
    flushes: Flushes,
    age_max: Duration,
    fatal: watch::Sender<Option<String>>,
) {
    loop {
        tokio::time::sleep(age_max / 4).await;
        let Some(age) = flushes.oldest().filter(|age| *age > age_max) else { continue };
        tracing::error!(?age, "the disk of this node hangs: handing over");
        if let Err(problem) = membership::transfer(&raft, None, HAND_OVER).await {
            tracing::warn!(%problem, "leadership was not handed over");
        }
        fatal.send_replace(Some(format!("an fsync has not ended for {age:?}")));
        return;
    }
}
