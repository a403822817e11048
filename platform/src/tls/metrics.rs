//! How certificates are getting on, as metrics: the same for every server, under names of its own.

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

use super::TlsStatus;

/// What the metrics of a server are called.
#[derive(Debug, Clone, Copy)]
pub struct TlsMetricNames {
    /// When the certificate in use ends, in seconds since 1970.
    pub expires: &'static str,
    /// When it was taken from its files, in seconds since 1970.
    pub loaded: &'static str,
    /// Handshakes that failed.
    pub failed: &'static str,
}

/// One value for each certificate of a server, by its name.
#[derive(Debug, Clone)]
pub struct TlsMetrics {
    expires: IntGaugeVec,
    loaded: IntGaugeVec,
    failed: IntCounterVec,
}

impl TlsMetrics {
    /// Registers the metrics.
    ///
    /// # Panics
    /// If a name is none, or taken: a constant that is wrong.
    pub fn new(registry: &Registry, names: TlsMetricNames) -> Self {
        let options = |name, help| (Opts::new(name, help), &["certificate"]);
        let gauges = |name, help| {
            let (options, labels) = options(name, help);
            let gauges = IntGaugeVec::new(options, labels).expect("metric names are valid");
            registry.register(Box::new(gauges.clone())).expect("metric names are unique");
            gauges
        };
        let (failed, labels) =
            options(names.failed, "TLS handshakes that failed, of connections taken and made.");
        let failed = IntCounterVec::new(failed, labels).expect("metric names are valid");
        registry.register(Box::new(failed.clone())).expect("metric names are unique");
        let loaded = "When the certificate in use was taken from its files, in seconds since 1970.";
        Self {
            expires: gauges(names.expires, "When the certificate in use ends, in seconds since 1970."),
            loaded: gauges(names.loaded, loaded),
            failed,
        }
    }

    /// Shows how a certificate is getting on.
    pub fn show(&self, certificate: &str, status: &TlsStatus) {
        let of = |gauges: &IntGaugeVec| gauges.with_label_values(&[certificate]);
        if let Some(expires) = status.expires {
            of(&self.expires).set(expires.millis() / 1_000);
        }
        of(&self.loaded).set(status.loaded.millis() / 1_000);
        let failed = self.failed.with_label_values(&[certificate]);
        failed.inc_by(status.handshakes_failed.saturating_sub(failed.get()));
    }
}
