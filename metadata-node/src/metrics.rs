//! The metrics of a metadata node; all their names stand here, their meaning in `docs/metrics.md`.

use std::time::Duration;

use carnax_platform::tls::{TlsMetricNames, TlsMetrics};
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// What the metrics of certificates are called.
const TLS: TlsMetricNames = TlsMetricNames {
    expires: "carnax_metadata_tls_certificate_expires_timestamp_seconds",
    loaded: "carnax_metadata_tls_certificate_loaded_timestamp_seconds",
    failed: "carnax_metadata_tls_handshakes_failed_total",
};

/// One node's metrics, in a registry of its own: several nodes may live in one process.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    pub(crate) registry: Registry,
    pub(crate) commit: Histogram,
    pub(crate) read_index: Histogram,
    pub(crate) refused: IntCounterVec,
    pub(crate) units_refused: IntCounterVec,
    pub(crate) leading: IntGauge,
    pub(crate) term: IntGauge,
    pub(crate) applied: IntGauge,
    pub(crate) log_entries: IntGauge,
    pub(crate) unfinished_fsync_age: IntGauge,
    pub(crate) clock_offset: IntGauge,
    pub(crate) disk: DiskMetrics,
    pub(crate) state: StateGauges,
    pub(crate) heartbeats: IntCounterVec,
    pub(crate) members_expelled: IntCounter,
    pub(crate) session_tick_age: IntGauge,
    pub(crate) wakeups: WakeupMetrics,
    pub(crate) jobs: JobMetrics,
    pub(crate) backup: BackupMetrics,
    pub(crate) tls: TlsMetrics,
}

/// How the backup is getting on.
#[derive(Debug, Clone)]
pub(crate) struct BackupMetrics {
    pub(crate) age: IntGauge,
    pub(crate) waiting: IntGauge,
    pub(crate) archived: IntGauge,
    pub(crate) bytes: IntCounterVec,
    pub(crate) failures: IntCounter,
}

/// How much room there is.
#[derive(Debug, Clone)]
pub(crate) struct DiskMetrics {
    pub(crate) free: IntGauge,
    pub(crate) full: IntGauge,
}

/// How queues are told about commits.
#[derive(Debug, Clone)]
pub(crate) struct WakeupMetrics {
    pub(crate) attempts: IntCounterVec,
    pub(crate) age: IntGauge,
}

/// How maintenance is getting on.
#[derive(Debug, Clone)]
pub(crate) struct JobMetrics {
    pub(crate) announcements: IntCounterVec,
    pub(crate) age: IntGaugeVec,
    pub(crate) due: IntGaugeVec,
    pub(crate) backlog: IntGaugeVec,
    pub(crate) retention_age: IntGauge,
    pub(crate) retained: IntCounter,
    pub(crate) dead_segments: IntGauge,
}

/// How much there is of what the state keeps.
#[derive(Debug, Clone)]
pub(crate) struct StateGauges {
    pub(crate) topics: IntGauge,
    pub(crate) partitions: IntGauge,
    pub(crate) slices: IntGauge,
    pub(crate) pages: IntGauge,
    pub(crate) segments: IntGauge,
    pub(crate) sessions: IntGauge,
    pub(crate) producers: IntGauge,
    pub(crate) idempotency_keys: IntGauge,
    pub(crate) remembered_slices: IntGauge,
    pub(crate) groups: IntGauge,
    pub(crate) group_members: IntGauge,
}

impl Metrics {
    /// # Panics
    /// If two metrics have one name, which a test would show.
    pub(crate) fn new() -> Self {
        let registry = Registry::new();
        let gauge = |name: &'static str, help: &'static str| {
            let gauge = IntGauge::new(name, help).expect("metric names are valid");
            registry.register(Box::new(gauge.clone())).expect("metric names are unique");
            gauge
        };
        let histogram = |name, help| {
            let buckets = prometheus::exponential_buckets(0.000_25, 2.0, 16).expect("buckets grow");
            let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets));
            let histogram = histogram.expect("metric names are valid");
            registry.register(Box::new(histogram.clone())).expect("metric names are unique");
            histogram
        };
        let counters = |name, help, label| {
            let counters =
                IntCounterVec::new(Opts::new(name, help), &[label]).expect("metric names are valid");
            registry.register(Box::new(counters.clone())).expect("metric names are unique");
            counters
        };
        let counter = |name, help| {
            let counter = IntCounter::new(name, help).expect("metric names are valid");
            registry.register(Box::new(counter.clone())).expect("metric names are unique");
            counter
        };
        let by_code = |name, help| counters(name, help, "code");
        Self {
            commit: histogram("carnax_metadata_commit_seconds", "From a proposal to its reply."),
            read_index: histogram(
                "carnax_metadata_read_index_seconds",
                "Until a linearizable read may be answered.",
            ),
            leading: gauge("carnax_metadata_leading", "1 while this node leads."),
            term: gauge("carnax_metadata_term", "The Raft term."),
            applied: gauge("carnax_metadata_applied_index", "The last Raft log entry that is applied."),
            log_entries: gauge("carnax_metadata_log_entries", "Raft log entries kept on this disk."),
            unfinished_fsync_age: gauge(
                "carnax_metadata_unfinished_fsync_age_milliseconds",
                "Age of the oldest write to the Raft log that is not durable yet.",
            ),
            clock_offset: gauge(
                "carnax_metadata_clock_offset_milliseconds",
                "Distance of this node's wall clock from the median of the voters', seen while leading.",
            ),
            disk: DiskMetrics::new(&gauge),
            state: StateGauges::new(&gauge),
            heartbeats: counters(
                "carnax_metadata_heartbeats_total",
                "Heartbeats of group members at this leader, answered or refused.",
                "result",
            ),
            members_expelled: counter(
                "carnax_metadata_members_expelled_total",
                "Group members that this leader took out since they were silent.",
            ),
            session_tick_age: gauge(
                "carnax_metadata_session_tick_age_milliseconds",
                "Since a quorum last confirmed the clock of group sessions; 0 where there are none.",
            ),
            wakeups: WakeupMetrics::new(&gauge, &counters),
            jobs: JobMetrics::new(&registry, &gauge, &counter, &counters),
            backup: BackupMetrics::new(&gauge, &counter, &counters),
            tls: TlsMetrics::new(&registry, TLS),
            refused: by_code("carnax_metadata_refused_total", "Calls answered with a problem, by its code."),
            units_refused: by_code(
                "carnax_metadata_units_refused_total",
                "Append units that were refused alone, by their code.",
            ),
            registry,
        }
    }
}

impl DiskMetrics {
    fn new(gauge: &impl Fn(&'static str, &'static str) -> IntGauge) -> Self {
        Self {
            free: gauge(
                "carnax_metadata_disk_free_bytes",
                "What may still be written to the disk of the Raft log.",
            ),
            full: gauge(
                "carnax_metadata_disk_full",
                "1 while the disk is nearly full, so that this node proposes nothing.",
            ),
        }
    }
}

impl WakeupMetrics {
    fn new(
        gauge: &impl Fn(&'static str, &'static str) -> IntGauge,
        counters: &impl Fn(&'static str, &'static str, &'static str) -> IntCounterVec,
    ) -> Self {
        Self {
            attempts: counters(
                "carnax_metadata_wakeups_total",
                "Attempts of this leader to tell a queue about commits, sent or failed.",
                "result",
            ),
            age: gauge(
                "carnax_metadata_wakeup_age_seconds",
                "How long the wake-up at work for longest has been at it; 0 if all queues know everything.",
            ),
        }
    }
}

impl BackupMetrics {
    fn new(
        gauge: &impl Fn(&'static str, &'static str) -> IntGauge,
        counter: &impl Fn(&'static str, &'static str) -> IntCounter,
        counters: &impl Fn(&'static str, &'static str, &'static str) -> IntCounterVec,
    ) -> Self {
        Self {
            age: gauge(
                "carnax_metadata_backup_age_seconds",
                "Since this leader last wrote the backup; -1 if it never did.",
            ),
            waiting: gauge(
                "carnax_metadata_backup_waiting_seconds",
                "How long something has waited to be archived; 0 if nothing does.",
            ),
            archived: gauge(
                "carnax_metadata_backup_archived_index",
                "The last log entry that this node knows to be in the archive.",
            ),
            bytes: counters(
                "carnax_metadata_backup_bytes_total",
                "Bytes that this leader wrote, of the archive or of snapshots.",
                "kind",
            ),
            failures: counter(
                "carnax_metadata_backup_failures_total",
                "Attempts of this leader to write the backup that failed.",
            ),
        }
    }
}

impl JobMetrics {
    fn new(
        registry: &Registry,
        gauge: &impl Fn(&'static str, &'static str) -> IntGauge,
        counter: &impl Fn(&'static str, &'static str) -> IntCounter,
        counters: &impl Fn(&'static str, &'static str, &'static str) -> IntCounterVec,
    ) -> Self {
        let gauges = |name, help| {
            let gauges = IntGaugeVec::new(Opts::new(name, help), &["job"]).expect("metric names are valid");
            registry.register(Box::new(gauges.clone())).expect("metric names are unique");
            gauges
        };
        Self {
            announcements: counters(
                "carnax_metadata_job_announcements_total",
                "Attempts of this leader to wake maintenance workers through a queue, sent or failed.",
                "result",
            ),
            age: gauges(
                "carnax_metadata_job_age_seconds",
                "Since a maintenance job was last finished; -1 if it never was. Seen while leading.",
            ),
            due: gauges(
                "carnax_metadata_job_due_seconds",
                "How long a maintenance job has been due; 0 if it is not. Seen while leading.",
            ),
            backlog: gauges(
                "carnax_metadata_job_backlog",
                "Dead objects that may be deleted, partitions to merge or to compact. Seen while leading.",
            ),
            retention_age: gauge(
                "carnax_metadata_retention_age_seconds",
                "Since retention was last looked after; -1 if it never was. Seen while leading.",
            ),
            retained: counter(
                "carnax_metadata_retained_total",
                "Partitions whose log start this leader moved up, as their retention says.",
            ),
            dead_segments: gauge(
                "carnax_metadata_dead_segments",
                "Segments that nothing refers to any more and that are not deleted yet.",
            ),
        }
    }
}

impl StateGauges {
    fn new(gauge: &impl Fn(&'static str, &'static str) -> IntGauge) -> Self {
        Self {
            topics: gauge("carnax_metadata_topics", "Topics in the state."),
            partitions: gauge("carnax_metadata_partitions", "Partitions in the state."),
            slices: gauge("carnax_metadata_slices", "Slices in the state."),
            pages: gauge("carnax_metadata_pages", "Manifest pages, in which old slices are."),
            segments: gauge("carnax_metadata_segments", "Segments in the state."),
            sessions: gauge("carnax_metadata_sessions", "Open sessions of frontends."),
            producers: gauge("carnax_metadata_producers", "Producers that are remembered."),
            idempotency_keys: gauge(
                "carnax_metadata_idempotency_keys",
                "Idempotency keys that are remembered.",
            ),
            remembered_slices: gauge(
                "carnax_metadata_remembered_slices",
                "Slices in the answers that are kept for repeats.",
            ),
            groups: gauge("carnax_metadata_groups", "Consumer groups in the state."),
            group_members: gauge("carnax_metadata_group_members", "Members of all consumer groups."),
        }
    }
}

/// A gauge's value: gauges are signed.
pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A gauge's value, in whole milliseconds.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
