//! What this node itself sends to the object store: reported to the leader, whoever that is.
//!
//! A report is no reason for the archive to write (`is_worth_archiving` in `carnax-metadata-raft`): it would be with a request
//! that is reported in turn, and an idle cluster would never come to rest. What the leader has not reported yet it tells all the
//! same when it is [asked](OwnUsage::unreported).

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use carnax_core::metadata::ReportUsage;
use carnax_core::problem::Problem;
use carnax_core::usage::StoreRequests;
use carnax_metadata_state::{State, answer};
use carnax_object_store::ObjectStore;
use carnax_platform::entropy::Entropy;
use carnax_platform::network::Network;
use carnax_platform::rpc::{CallError, Channel, ChannelSettings};
use tokio_util::sync::CancellationToken;

use crate::handle::Handle;
use crate::rpc::DEADLINE;

/// How often a node reports at most.
const PERIOD: Duration = Duration::from_secs(10);

/// What was sent and not reported yet.
pub(crate) struct OwnUsage {
    store: Arc<dyn ObjectStore>,
    reporter: u128,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    open: StoreRequests,
    /// The report whose outcome is not known.
    sent: Option<StoreRequests>,
    /// The number of the last report.
    number: u64,
}

impl fmt::Debug for OwnUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnUsage").field("counts", &*self.counts()).finish_non_exhaustive()
    }
}

impl OwnUsage {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, entropy: &dyn Entropy) -> Self {
        Self { store, reporter: entropy.next_u128(), counts: Mutex::default() }
    }

    /// What a state does not know of yet.
    pub(crate) fn unreported(&self, state: &State) -> StoreRequests {
        let counts = self.counts();
        match counts.sent {
            Some(sent) if !answer::has_usage_report(state, self.reporter, counts.number) => {
                counts.open.plus(sent)
            }
            _ => counts.open,
        }
    }

    /// The report to send now, if there is one: an earlier one comes first, as it was.
    fn next(&self) -> Option<ReportUsage> {
        let mut counts = self.counts();
        if counts.sent.is_none() {
            if counts.open.is_zero() {
                return None;
            }
            counts.sent = Some(std::mem::take(&mut counts.open));
            counts.number += 1;
        }
        let requests = counts.sent?;
        let (topics, tokens) = Default::default();
        Some(ReportUsage { reporter: self.reporter, number: counts.number, requests, topics, tokens })
    }

    fn arrived(&self) {
        self.counts().sent = None;
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.open = counts.open.plus(self.store.take_requests());
        counts
    }
}

/// Reports until `shutdown`.
pub(crate) async fn run(handle: Handle, network: Arc<dyn Network>, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
        let Some(report) = handle.own_usage().next() else { continue };
        match send(&handle, &network, report).await {
            Ok(()) => handle.own_usage().arrived(),
            Err(reason) => tracing::debug!(reason, "a report of usage waits"),
        }
    }
}

async fn send(handle: &Handle, network: &Arc<dyn Network>, report: ReportUsage) -> Result<(), String> {
    let leadership = handle.raft().leadership();
    if leadership.leads {
        return handle.report_usage(report).await.map(drop).map_err(|problem: Problem| problem.to_string());
    }
    let (_, address) = leadership.leader.ok_or("no node leads")?;
    let channel = Channel::new(Arc::clone(network), &address, &ChannelSettings::default());
    let channel = channel.map_err(|error| error.to_string())?;
    channel.call(report, DEADLINE).await.map(drop).map_err(|error: CallError| error.to_string())
}
