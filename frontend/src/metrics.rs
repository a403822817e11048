//! What a frontend measures. All names stand here.

use carnax_platform::tls::{TlsMetricNames, TlsMetrics};
use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

/// From half a millisecond to half a minute.
const SECONDS: [f64; 15] =
    [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];

/// What the metrics of certificates are called.
const TLS: TlsMetricNames = TlsMetricNames {
    expires: "carnax_frontend_tls_certificate_expires_timestamp_seconds",
    loaded: "carnax_frontend_tls_certificate_loaded_timestamp_seconds",
    failed: "carnax_frontend_tls_handshakes_failed_total",
};

/// The metrics of one frontend, in a registry of its own.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) acknowledge_seconds: Histogram,
    pub(crate) upload_seconds: Histogram,
    pub(crate) commit_seconds: Histogram,
    pub(crate) fetch_seconds: Histogram,
    pub(crate) appended_bytes: IntCounter,
    pub(crate) appended_units: IntCounter,
    pub(crate) duplicates: IntCounterVec,
    pub(crate) units_refused: IntCounterVec,
    pub(crate) sequence_holds: IntCounter,
    pub(crate) segments: IntCounter,
    pub(crate) fetched_bytes: IntCounter,
    pub(crate) cache_hits: IntCounter,
    pub(crate) cache_misses: IntCounter,
    pub(crate) cache_bytes: IntGauge,
    pub(crate) connections: IntGauge,
    pub(crate) problems: IntCounterVec,
    pub(crate) access: AccessMetrics,
    pub(crate) sessions_abandoned: IntCounter,
    pub(crate) maintenance: MaintenanceMetrics,
    pub(crate) polling: PollingMetrics,
    pub(crate) tls: TlsMetrics,
}

/// Who was let in, and who had to wait.
#[derive(Debug)]
pub(crate) struct AccessMetrics {
    pub(crate) authentications: IntCounterVec,
    pub(crate) token_lookups: IntCounter,
    pub(crate) quota_refusals: IntCounterVec,
}

/// How queues are polled.
#[derive(Debug)]
pub(crate) struct PollingMetrics {
    pub(crate) messages: IntCounterVec,
    pub(crate) received: IntGaugeVec,
}

/// What maintenance did here.
#[derive(Debug)]
pub(crate) struct MaintenanceMetrics {
    pub(crate) orphans_deleted: IntCounter,
    pub(crate) orphan_bytes_deleted: IntCounter,
    pub(crate) dead_deleted: IntCounter,
    pub(crate) dead_bytes_deleted: IntCounter,
    pub(crate) merges: IntCounter,
    pub(crate) merged_slices: IntCounter,
    pub(crate) merged_bytes: IntCounter,
    pub(crate) merges_lost: IntCounter,
    pub(crate) compactions: IntCounter,
    pub(crate) compacted_bytes: IntCounter,
    pub(crate) compacted_records: IntCounter,
    pub(crate) compactions_lost: IntCounter,
    pub(crate) pages: IntCounter,
    pub(crate) failures: IntCounter,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let registry = Registry::new();
        let seconds = |name: &str, help: &str| {
            let options = HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
            register(&registry, Histogram::with_opts(options))
        };
        let counter = |name: &str, help: &str| register(&registry, IntCounter::new(name, help));
        let gauge = |name: &str, help: &str| register(&registry, IntGauge::new(name, help));
        Self {
            acknowledge_seconds: seconds(
                "carnax_frontend_acknowledge_seconds",
                "From taking an append to its answer",
            ),
            upload_seconds: seconds(
                "carnax_frontend_upload_seconds",
                "Upload of one segment, retries included",
            ),
            commit_seconds: seconds("carnax_frontend_commit_seconds", "One segment commit, retries included"),
            fetch_seconds: seconds(
                "carnax_frontend_fetch_seconds",
                "One fetch without its waiting for commits",
            ),
            appended_bytes: counter("carnax_frontend_appended_bytes_total", "Bytes of committed segments"),
            appended_units: counter(
                "carnax_frontend_appended_units_total",
                "Append units that were accepted",
            ),
            duplicates: register(
                &registry,
                IntCounterVec::new(
                    Opts::new("carnax_frontend_duplicates_total", "Repeats answered with the first answer"),
                    &["by"],
                ),
            ),
            units_refused: register(
                &registry,
                IntCounterVec::new(
                    Opts::new("carnax_frontend_units_refused_total", "Append units that were refused"),
                    &["code"],
                ),
            ),
            sequence_holds: counter(
                "carnax_frontend_sequence_holds_total",
                "Requests that waited for the one before them of their producer",
            ),
            segments: counter("carnax_frontend_segments_total", "Segments that were committed"),
            fetched_bytes: counter(
                "carnax_frontend_fetched_bytes_total",
                "Bytes of record batches read for fetches",
            ),
            cache_hits: counter("carnax_frontend_cache_hits_total", "Ranges found in the read cache"),
            cache_misses: counter("carnax_frontend_cache_misses_total", "Ranges read from the object store"),
            cache_bytes: gauge("carnax_frontend_cache_bytes", "Bytes in the read cache"),
            connections: gauge("carnax_frontend_connections", "Connections that are open"),
            problems: register(
                &registry,
                IntCounterVec::new(
                    Opts::new("carnax_frontend_problems_total", "Requests answered with a problem"),
                    &["code"],
                ),
            ),
            access: AccessMetrics::new(&registry),
            sessions_abandoned: counter(
                "carnax_frontend_sessions_abandoned_total",
                "Sessions given up since the outcome of a commit stayed unknown",
            ),
            maintenance: MaintenanceMetrics::new(&counter),
            polling: PollingMetrics::new(&registry),
            tls: TlsMetrics::new(&registry, TLS),
            registry,
        }
    }

    /// All metrics in the text format of Prometheus.
    pub(crate) fn render(&self) -> String {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::warn!(%error, "metrics cannot be rendered");
        }
        String::from_utf8(text).unwrap_or_default()
    }
}

impl AccessMetrics {
    fn new(registry: &Registry) -> Self {
        let outcomes = Opts::new(
            "carnax_frontend_authentications_total",
            "Requests by what came of asking who makes them",
        );
        let refusals = Opts::new(
            "carnax_frontend_quota_refusals_total",
            "Requests refused since the quota of a token or a topic was used up",
        );
        Self {
            quota_refusals: register(registry, IntCounterVec::new(refusals, &["of", "direction", "measure"])),
            authentications: register(registry, IntCounterVec::new(outcomes, &["outcome"])),
            token_lookups: register(
                registry,
                IntCounter::new(
                    "carnax_frontend_token_lookups_total",
                    "Questions to the metadata core about access tokens",
                ),
            ),
        }
    }
}

impl PollingMetrics {
    fn new(registry: &Registry) -> Self {
        let messages = Opts::new(
            "carnax_frontend_polled_messages_total",
            "Messages of polled queues, done (committed, known already or put aside) or given back",
        );
        let received = Opts::new(
            "carnax_frontend_poll_success_timestamp_seconds",
            "When a queue last answered a poll, in seconds since 1970",
        );
        Self {
            messages: register(registry, IntCounterVec::new(messages, &["queue", "result"])),
            received: register(registry, IntGaugeVec::new(received, &["queue"])),
        }
    }
}

impl MaintenanceMetrics {
    fn new(counter: &impl Fn(&str, &str) -> IntCounter) -> Self {
        Self {
            orphans_deleted: counter(
                "carnax_frontend_orphans_deleted_total",
                "Objects deleted that were uploaded and never committed",
            ),
            orphan_bytes_deleted: counter("carnax_frontend_orphan_bytes_deleted_total", "Their bytes"),
            dead_deleted: counter(
                "carnax_frontend_dead_objects_deleted_total",
                "Objects deleted that nothing referred to any more",
            ),
            dead_bytes_deleted: counter("carnax_frontend_dead_bytes_deleted_total", "Their bytes"),
            merges: counter("carnax_frontend_merges_total", "Objects written by merges"),
            merged_slices: counter("carnax_frontend_merged_slices_total", "Slices that merges replaced"),
            merged_bytes: counter("carnax_frontend_merged_bytes_total", "Bytes written by merges"),
            merges_lost: counter(
                "carnax_frontend_merges_lost_total",
                "Parts of merges that came too late: their slices were no longer what they were",
            ),
            compactions: counter(
                "carnax_frontend_compactions_total",
                "Rounds of key compaction that were finished",
            ),
            compacted_bytes: counter(
                "carnax_frontend_compacted_bytes_total",
                "Bytes written by key compaction",
            ),
            compacted_records: counter(
                "carnax_frontend_compacted_records_total",
                "Records that key compaction removed",
            ),
            compactions_lost: counter(
                "carnax_frontend_compactions_lost_total",
                "Rounds of key compaction that came too late: slices were no longer what they were",
            ),
            pages: counter("carnax_frontend_pages_total", "Manifest pages written"),
            failures: counter(
                "carnax_frontend_maintenance_failures_total",
                "Maintenance jobs laid down since something failed",
            ),
        }
    }
}

fn register<M: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    metric: prometheus::Result<M>,
) -> M {
    let metric = metric.expect("metric names and buckets are constants that are valid");
    registry.register(Box::new(metric.clone())).expect("each metric is registered once");
    metric
}
