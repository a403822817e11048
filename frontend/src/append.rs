//! The append path: accept → accumulate → seal → upload → commit → acknowledge.
//!
//! ```text
//! requests ──▶ accept ──submissions──▶ the line (one task)
//!                                       accumulate: the open segment
//!                                       closed segments, in the order of closing
//!                                       ├─ seal, upload   (parallel, bounded, a deadline each)
//!                                       ├─ commit         (one at a time: uploaded ones up to the first unfinished)
//!                                       └─ acknowledge
//! ```
//!
//! One task owns the open segment, the order of closing and the session, so that nothing of it needs a lock.
//!
//! Invariants: segments are committed in the order of closing. When one fails, everything behind it that was not sent
//! yet fails too, so that what a client sent later never overtakes what it sent before. Nothing is answered before the
//! reply to its segment commit.

pub(crate) mod accept;
mod accumulate;
mod acknowledge;
mod commit;
mod filling;
mod line;
mod seal;
mod sequence;
mod unit;
mod upload;

use std::sync::Arc;

use carnax_core::error_code::ErrorCode;
use carnax_core::problem::Problem;
use carnax_object_store::ObjectStore;
use carnax_platform::clock::Clock;
use carnax_platform::entropy::Entropy;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::AppendSettings;
use crate::deliberate_bugs::DeliberateBugs;
use crate::fetch::cache::ReadCache;
use crate::metadata_client::MetadataClient;
use crate::metrics::Metrics;
use crate::quota::QuotaKeeper;
use crate::usage::Usage;

pub(crate) use accept::Accept;
pub(crate) use accumulate::Submission;
pub(crate) use acknowledge::Appended;
pub(crate) use line::run_line;

/// Arrivals that wait for the line's task; their bytes are bounded by the memory for appends.
const SUBMISSIONS_MAX: usize = 4_096;

/// What the steps of the append path work with.
#[derive(Debug)]
pub(crate) struct AppendContext {
    pub(crate) settings: AppendSettings,
    pub(crate) try_timeout: std::time::Duration,
    pub(crate) bugs: DeliberateBugs,
    pub(crate) name: String,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) object_store: Arc<dyn ObjectStore>,
    pub(crate) client: Arc<MetadataClient>,
    pub(crate) cache: Arc<ReadCache>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) usage: Arc<Usage>,
    pub(crate) quotas: Arc<QuotaKeeper>,
    pub(crate) tasks: TaskTracker,
    /// Appends that were taken and not answered yet.
    pub(crate) in_progress: TaskTracker,
    pub(crate) draining: CancellationToken,
}

/// Requests that came together, in their order: they share a segment, if one can take them all.
pub(crate) type Arrival = Vec<Submission>;

/// The two ends of the way into the line.
pub(crate) fn submissions() -> (mpsc::Sender<Arrival>, mpsc::Receiver<Arrival>) {
    mpsc::channel(SUBMISSIONS_MAX)
}

pub(crate) fn draining() -> Problem {
    Problem::new(ErrorCode::Draining, "this frontend is shutting down and takes nothing new")
        .with(|facts| facts.retry_after_seconds = Some(1))
}
