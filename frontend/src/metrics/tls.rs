//! How certificates are getting on.

use carnax_platform::tls::TlsStatus;
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

/// One value for each certificate: `cluster` (what is shown to metadata nodes) and `https`.
#[derive(Debug, Clone)]
pub(crate) struct TlsMetrics {
    expires: IntGaugeVec,
    loaded: IntGaugeVec,
    failed: IntCounterVec,
}

impl TlsMetrics {
    /// # Panics
    /// If two metrics have one name, which a test would show.
    pub(super) fn new(registry: &Registry) -> Self {
        let gauges = |name, help| {
            let gauges =
                IntGaugeVec::new(Opts::new(name, help), &["certificate"]).expect("metric names are valid");
            registry.register(Box::new(gauges.clone())).expect("metric names are unique");
            gauges
        };
        let failed = Opts::new(
            "carnax_frontend_tls_handshakes_failed_total",
            "TLS handshakes that failed, of connections taken and made.",
        );
        let failed = IntCounterVec::new(failed, &["certificate"]).expect("metric names are valid");
        registry.register(Box::new(failed.clone())).expect("metric names are unique");
        Self {
            expires: gauges(
                "carnax_frontend_tls_certificate_expires_timestamp_seconds",
                "When the certificate in use ends, in seconds since 1970.",
            ),
            loaded: gauges(
                "carnax_frontend_tls_certificate_loaded_timestamp_seconds",
                "When the certificate in use was taken from its files, in seconds since 1970.",
            ),
            failed,
        }
    }

    pub(crate) fn show(&self, certificate: &str, status: &TlsStatus) {
        let of = |gauges: &IntGaugeVec| gauges.with_label_values(&[certificate]);
        if let Some(expires) = status.expires {
            of(&self.expires).set(expires.millis() / 1_000);
        }
        of(&self.loaded).set(status.loaded.millis() / 1_000);
        let failed = self.failed.with_label_values(&[certificate]);
        failed.inc_by(status.handshakes_failed.saturating_sub(failed.get()));
    }
}
