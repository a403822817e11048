//! What this frontend used: records and bytes by topic, and requests to the object store. Reported to the metadata core.
//!
//! Counts are kept in memory until they are reported, so that a process that dies takes those of up to [`PERIOD`] with it. A report
//! without an answer is sent again as it was, and counted once.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use carnax_core::id::TopicId;
use carnax_core::limits::{USAGE_REPEAT_MAX, USAGE_REPORT_ROWS_MAX};
use carnax_core::metadata::ReportUsage;
use carnax_core::name::TokenId;
use carnax_core::problem::Problem;
use carnax_core::usage::{StoreRequests, Traffic};
use carnax_object_store::ObjectStore;
use carnax_platform::entropy::Entropy;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::metadata_client::{CommandError, MetadataClient};

/// How often a frontend reports at most by itself.
pub(crate) const PERIOD: Duration = Duration::from_secs(10);

/// Counts and reports.
pub(crate) struct Usage {
    client: Arc<MetadataClient>,
    object_store: Arc<dyn ObjectStore>,
    reporter: u128,
    counts: Mutex<Counts>,
    /// Held by whoever sends: one report at a time.
    sending: Semaphore,
}

#[derive(Debug)]
struct Counts {
    requests: StoreRequests,
    topics: BTreeMap<TopicId, Traffic>,
    tokens: BTreeMap<TokenId, Traffic>,
    /// The report whose outcome is not known, and since when.
    sent: Option<(ReportUsage, Instant)>,
    /// The number of the last report.
    number: u64,
    reported: Instant,
}

impl fmt::Debug for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Usage").field("counts", &*self.counts()).finish_non_exhaustive()
    }
}

impl Usage {
    pub(crate) fn new(
        client: Arc<MetadataClient>,
        object_store: Arc<dyn ObjectStore>,
        entropy: &dyn Entropy,
    ) -> Self {
        let (requests, topics, tokens) = Default::default();
        let counts = Counts { requests, topics, tokens, sent: None, number: 0, reported: Instant::now() };
        Self {
            client,
            object_store,
            reporter: entropy.next_u128(),
            counts: Mutex::new(counts),
            sending: Semaphore::new(1),
        }
    }

    /// Counts records of a topic that are in the log now.
    pub(crate) fn appended(&self, topic: TopicId, records: u64, bytes: u64) {
        let traffic = Traffic { records_in: records, bytes_in: bytes, ..Traffic::default() };
        add(&mut self.held().topics, topic, traffic);
    }

    /// Counts those of them that came with a token.
    pub(crate) fn appended_with(&self, token: &TokenId, records: u64, bytes: u64) {
        let traffic = Traffic { records_in: records, bytes_in: bytes, ..Traffic::default() };
        add(&mut self.held().tokens, token.clone(), traffic);
    }

    /// Counts records that were read for a client.
    pub(crate) fn fetched(&self, topic: TopicId, token: Option<&TokenId>, records: u64, bytes: u64) {
        let traffic = Traffic { records_out: records, bytes_out: bytes, ..Traffic::default() };
        let mut counts = self.held();
        add(&mut counts.topics, topic, traffic);
        if let Some(token) = token {
            add(&mut counts.tokens, token.clone(), traffic);
        }
    }

    /// Reports until `stop`.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
            self.report_or_wait().await;
        }
    }

    /// Reports if that was not done for a while: for processes that may stand still at any time.
    pub(crate) async fn report_if_due(&self) {
        if self.counts().reported.elapsed() >= PERIOD {
            self.report_or_wait().await;
        }
    }

    /// Reports, and leaves what cannot be reported for the next time.
    pub(crate) async fn report_or_wait(&self) {
        if let Err(problem) = self.report().await {
            tracing::debug!(%problem, "a report of usage waits");
        }
    }

    /// Reports all that was counted before this call, if there is anything. Dropping the future leaves the rest for the next
    /// time.
    ///
    /// # Errors
    /// Why a report is not known to have arrived; it will be sent again.
    pub(crate) async fn report(&self) -> Result<(), Problem> {
        let Ok(_sending) = self.sending.acquire().await else { return Ok(()) };
        while let Some(report) = self.next() {
            match self.client.repeat(report).await {
                Ok(_) => self.counts().sent = None,
                Err(error) => return Err(CommandError::into_problem(error)),
            }
        }
        self.counts().reported = Instant::now();
        Ok(())
    }

    /// The report to send now, if there is one: an earlier one comes first, as it was.
    fn next(&self) -> Option<ReportUsage> {
        let mut counts = self.counts();
        if counts.sent.as_ref().is_some_and(|(_, since)| since.elapsed() >= USAGE_REPEAT_MAX) {
            tracing::warn!("a report of usage did not arrive for too long and is given up");
            counts.sent = None;
        }
        if counts.sent.is_none() {
            if counts.requests.is_zero() && counts.topics.is_empty() && counts.tokens.is_empty() {
                return None;
            }
            counts.number += 1;
            let (topics, tokens) = (take_rows(&mut counts.topics), take_rows(&mut counts.tokens));
            let (number, requests) = (counts.number, std::mem::take(&mut counts.requests));
            let report = ReportUsage { reporter: self.reporter, number, requests, topics, tokens };
            counts.sent = Some((report, Instant::now()));
        }
        counts.sent.as_ref().map(|(report, _)| report.clone())
    }

    fn held(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// With what the store sent meanwhile.
    fn counts(&self) -> MutexGuard<'_, Counts> {
        let mut counts = self.held();
        counts.requests = counts.requests.plus(self.object_store.take_requests());
        counts
    }
}

fn add<K: Ord>(counts: &mut BTreeMap<K, Traffic>, of: K, traffic: Traffic) {
    if !traffic.is_zero() {
        let sum = counts.entry(of).or_default();
        *sum = sum.plus(traffic);
    }
}

/// As many rows as a report has; the rest stays.
fn take_rows<K: Ord + Clone>(counts: &mut BTreeMap<K, Traffic>) -> Vec<(K, Traffic)> {
    let rest = counts.keys().nth(USAGE_REPORT_ROWS_MAX).cloned();
    let rest = rest.map(|first| counts.split_off(&first)).unwrap_or_default();
    std::mem::replace(counts, rest).into_iter().collect()
}
