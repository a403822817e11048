//! The certificates of a frontend: the one it shows to metadata nodes, and the one it shows to clients.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use carnax_platform::clock::Clock;
use carnax_platform::network::{Listener, Network};
use carnax_platform::tls::{ClusterTls, IncompleteTls, Part, ServerTls, Speaks, TlsError, TlsFiles};
use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use crate::metrics::Metrics;

/// What the settings turned on; clones share the certificates.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    cluster: Option<ClusterTls>,
    https: Option<ServerTls>,
    look_every: Duration,
}

impl Tls {
    pub(crate) fn open(settings: &Settings, clock: &Arc<dyn Clock>) -> Result<Self, TlsError> {
        let nodes = settings.metadata.iter().map(String::as_str);
        settings.tls.check_cluster("where metadata nodes listen", nodes)?;
        let (encrypted, remedy) = (settings.https.https_cert.is_some(), "--https-cert and --https-key");
        settings.tls.check_open(encrypted, "where this frontend listens", &settings.listen, remedy)?;
        let cluster = ClusterTls::open(&settings.tls, Part::Frontend, Arc::clone(clock))?;
        let files = settings.https.files()?;
        let https =
            files.map(|files| ServerTls::open(files, Speaks::Http1And2, Arc::clone(clock))).transpose()?;
        Ok(Self { cluster, https, look_every: settings.tls.look_every })
    }

    /// The network on which metadata nodes are.
    pub(crate) fn network(&self, plain: Arc<dyn Network>) -> Arc<dyn Network> {
        match &self.cluster {
            Some(cluster) => Arc::new(cluster.network(plain)),
            None => plain,
        }
    }

    /// The listener for clients.
    pub(crate) fn listener(&self, plain: Box<dyn Listener>) -> Box<dyn Listener> {
        match &self.https {
            Some(https) => https.listener(plain),
            None => plain,
        }
    }

    /// Looks for new certificates, and shows how they are getting on, until it is told to stop.
    pub(crate) async fn tend(self, metrics: Arc<Metrics>, stop: CancellationToken) {
        let every = self.look_every;
        let cluster = async {
            match self.cluster.clone() {
                Some(cluster) => cluster.keep_fresh(every).await,
                None => std::future::pending().await,
            }
        };
        let https = async {
            match self.https.clone() {
                Some(https) => https.keep_fresh(every).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            _ = cluster => {}
            _ = https => {}
            () = self.show(&metrics) => {}
        }
    }

    async fn show(&self, metrics: &Metrics) {
        loop {
            let cluster = self.cluster.as_ref().map(|tls| ("cluster", tls.status()));
            let https = self.https.as_ref().map(|tls| ("https", tls.status()));
            for (certificate, status) in cluster.into_iter().chain(https) {
                metrics.tls.show(certificate, &status);
            }
            tokio::time::sleep(self.look_every).await;
        }
    }
}

/// The certificate of the HTTP listener.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "HTTPS")]
pub struct HttpsSettings {
    /// Serve HTTPS with this certificate, PEM, followed by those of the authorities between it and a root.
    #[arg(long, env = "CARNAX_HTTPS_CERT", value_name = "FILE", requires = "https_key")]
    pub https_cert: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(long, env = "CARNAX_HTTPS_KEY", value_name = "FILE", requires = "https_cert")]
    pub https_key: Option<PathBuf>,
}

impl HttpsSettings {
    fn files(&self) -> Result<Option<TlsFiles>, TlsError> {
        let incomplete = |missing, given| Err(IncompleteTls { missing, given }.into());
        match (&self.https_cert, &self.https_key) {
            (Some(cert), Some(key)) => Ok(Some(TlsFiles { cert: cert.clone(), key: key.clone() })),
            (None, None) => Ok(None),
            (Some(_), None) => incomplete("--https-key", "--https-cert"),
            (None, Some(_)) => incomplete("--https-cert", "--https-key"),
        }
    }
}

#[cfg(test)]
mod tests {
    use carnax_platform::clock::SystemClock;

    use super::*;

    #[tokio::test]
    async fn a_frontend_speaks_openly_to_other_machines_only_with_the_words() {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let open = |metadata: &str, listen: &str, said: bool| {
            let mut settings = Settings::new(vec![metadata.to_owned()], "memory://x".parse().unwrap());
            listen.clone_into(&mut settings.listen);
            settings.tls.plaintext_between_machines = said;
            Tls::open(&settings, &clock)
        };
        let here = "127.0.0.1:1";
        assert!(open(here, here, false).is_ok());
        for (metadata, listen, remedy) in
            [("node-1:7001", here, "--tls-cert"), (here, "0.0.0.0:8080", "--https-cert")]
        {
            let refused = open(metadata, listen, false).unwrap_err().to_string();
            assert!(refused.contains(remedy), "{refused}");
            assert!(open(metadata, listen, true).is_ok());
        }
    }
}
