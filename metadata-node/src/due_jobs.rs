//! The leader looks after maintenance: it exports how jobs are getting on, and wakes workers through a queue, if there is one.
//!
//! A message says only that there is something to do. Who does it, and whether it still has to be done, is decided when a
//! worker [takes the job](carnax_core::metadata::TakeJob), so that a message which is lost, doubled or late does no harm:
//! one is sent again and again while a job is due and nobody is at it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use carnax_core::metadata::{JobAnnouncement, JobKind};
use carnax_metadata_state::answer::{self, DueJob};
use carnax_queue::{OutgoingMessage, Queues, send_one};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::handle::Handle;
use crate::metrics;

/// How often a leader looks; it takes time for every partition.
const PERIOD: Duration = Duration::from_secs(2);
/// After what time a job that is still due, with nobody at it, is announced once more.
const ANNOUNCE_AGAIN: Duration = Duration::from_secs(120);
/// The same where the queue did not take the message.
const TRY_AGAIN: Duration = Duration::from_secs(10);
/// How long the queue may take.
const SEND_TIME: Duration = Duration::from_secs(10);

/// Looks after jobs while this node leads, until `shutdown`.
pub(crate) async fn run(
    handle: Handle,
    queues: Arc<dyn Queues>,
    queue: Option<String>,
    shutdown: CancellationToken,
) {
    let mut announced: BTreeMap<JobKind, Instant> = BTreeMap::new();
    loop {
        let due = if handle.raft().leadership().leads { look(&handle) } else { Vec::new() };
        // What is no longer due, or has a worker, is announced at once when it is due again.
        announced.retain(|kind, _| due.iter().any(|job| job.kind == *kind));
        if let Some(url) = &queue {
            for job in due {
                if announced.get(&job.kind).is_none_or(|again| *again <= Instant::now()) {
                    let again = announce(&handle, &*queues, url, job).await;
                    announced.insert(job.kind, Instant::now() + again);
                }
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}

fn look(handle: &Handle) -> Vec<DueJob> {
    let (view, now) = (handle.raft().state(), handle.log_time());
    let metrics = &handle.metrics().jobs;
    for job in answer::describe_maintenance(&view.state, now, handle.archived()).jobs {
        let name = [job.job.as_str()];
        let seconds = |since| i64::try_from(now.since(since).as_secs()).unwrap_or(i64::MAX);
        metrics.age.with_label_values(&name).set(job.last_success.map_or(-1, seconds));
        metrics.due.with_label_values(&name).set(job.due_since.map_or(0, seconds));
        metrics.backlog.with_label_values(&name).set(metrics::signed(job.backlog));
    }
    answer::due_jobs(&view.state, now, handle.archived())
}

/// Tells the queue; says when to tell it again.
async fn announce(handle: &Handle, queues: &dyn Queues, url: &str, job: DueJob) -> Duration {
    let sending = async {
        let queue = queues.open(url).await.map_err(|error| error.to_string())?;
        let body = serde_json::to_string(&JobAnnouncement { job: job.kind, due_since: job.since })
            .map_err(|error| error.to_string())?;
        let fifo = url.ends_with(".fifo");
        let message = OutgoingMessage {
            id: "job".to_owned(),
            body,
            group: fifo.then(|| job.kind.as_str().to_owned()),
            deduplication: fifo.then(|| format!("{}-{}", job.kind.as_str(), handle.log_time())),
            ..OutgoingMessage::default()
        };
        send_one(&*queue, &message).await.map_err(|error| error.to_string())
    };
    let sent = tokio::time::timeout(SEND_TIME, sending).await;
    let sent = sent.unwrap_or_else(|_| Err(format!("no answer within {SEND_TIME:?}")));
    let result = if sent.is_ok() { "sent" } else { "failed" };
    handle.metrics().jobs.announcements.with_label_values(&[result]).inc();
    let Err(error) = sent else { return ANNOUNCE_AGAIN };
    tracing::warn!(error, queue = url, job = job.kind.as_str(), "no worker was told of a job; trying again");
    TRY_AGAIN
}
