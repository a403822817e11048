//! The certificates of a node: for the RPC, both ways, and for its HTTP port.

use std::sync::Arc;
use std::time::Duration;

use carnax_platform::clock::Clock;
use carnax_platform::network::{Listener, Network};
use carnax_platform::tls::{
    ClusterTls, IncompleteTls, Part, ServerTls, Speaks, TlsError, TlsFiles, TlsMetrics,
};
use tokio_util::sync::CancellationToken;

use crate::config::Settings;

/// What the settings turned on; clones share the certificates.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    cluster: Option<ClusterTls>,
    http: Option<ServerTls>,
    look_every: Duration,
}

impl Tls {
    pub(crate) fn open(settings: &Settings, clock: &Arc<dyn Clock>) -> Result<Self, TlsError> {
        let advertised = settings.node_advertise.iter().chain(&settings.bootstrap);
        let ours = advertised.chain([&settings.node_listen]).map(String::as_str);
        settings.tls.check_cluster("where metadata nodes listen", ours)?;
        let remedy = "--http-tls, --tls-cert and --tls-key";
        settings.tls.check_open(settings.http_tls, "the HTTP port", &settings.http_listen, remedy)?;
        let cluster = ClusterTls::open(&settings.tls, Part::Node, Arc::clone(clock))?;
        let http = if settings.http_tls { Some(http(settings, clock)?) } else { None };
        Ok(Self { cluster, http, look_every: settings.tls.look_every })
    }

    /// The network for the RPC.
    pub(crate) fn network(&self, plain: Arc<dyn Network>) -> Arc<dyn Network> {
        match &self.cluster {
            Some(cluster) => Arc::new(cluster.network(plain)),
            None => plain,
        }
    }

    /// The listener of the HTTP port.
    pub(crate) fn http(&self, plain: Box<dyn Listener>) -> Box<dyn Listener> {
        match &self.http {
            Some(http) => http.listener(plain),
            None => plain,
        }
    }

    /// Looks for new certificates until it is told to stop.
    pub(crate) async fn keep_fresh(self, stop: CancellationToken) {
        let cluster = async {
            match self.cluster {
                Some(cluster) => cluster.keep_fresh(self.look_every).await,
                None => std::future::pending().await,
            }
        };
        let http = async {
            match self.http {
                Some(http) => http.keep_fresh(self.look_every).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            _ = cluster => {}
            _ = http => {}
        }
    }

    /// Shows how the certificates are getting on, until it is told to stop.
    pub(crate) async fn show(self, metrics: TlsMetrics, stop: CancellationToken) {
        loop {
            let cluster = self.cluster.as_ref().map(|tls| ("cluster", tls.status()));
            let http = self.http.as_ref().map(|tls| ("http", tls.status()));
            for (certificate, status) in cluster.into_iter().chain(http) {
                metrics.show(certificate, &status);
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.look_every) => {}
            }
        }
    }
}

fn http(settings: &Settings, clock: &Arc<dyn Clock>) -> Result<ServerTls, TlsError> {
    let given = "--http-tls";
    let cert = settings.tls.tls_cert.clone().ok_or(IncompleteTls { missing: "--tls-cert", given })?;
    let key = settings.tls.tls_key.clone().ok_or(IncompleteTls { missing: "--tls-key", given })?;
    ServerTls::open(TlsFiles { cert, key }, Speaks::Http1, Arc::clone(clock))
}
