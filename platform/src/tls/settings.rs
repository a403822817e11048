//! What a user says about TLS, and the words without which nothing travels openly between machines.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::TlsClusterName;
use crate::network::is_loopback;

/// How often files are looked at for new certificates.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A certificate and its key, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, followed by those of the authorities between it and a root.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Settings of the traffic between metadata nodes and frontends.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "TLS between metadata nodes and frontends")]
pub struct ClusterTlsSettings {
    /// The certificate that is shown to the others, PEM: for node.NAME.carnax.internal (metadata nodes) or
    /// frontend.NAME.carnax.internal, where NAME is what --tls-cluster says.
    #[arg(long, env = "CARNAX_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(long, env = "CARNAX_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// The authorities that sign certificates of the cluster, PEM.
    #[arg(long, env = "CARNAX_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// The name of the cluster in certificates: small letters, digits and hyphens.
    #[arg(long, env = "CARNAX_TLS_CLUSTER", value_name = "NAME")]
    pub tls_cluster: Option<TlsClusterName>,
    /// Let metadata, records and tokens travel unencrypted to and from other machines, where TLS is not set up.
    #[arg(long, env = "CARNAX_PLAINTEXT_BETWEEN_MACHINES")]
    pub plaintext_between_machines: bool,
    /// How often files are looked at for new certificates.
    #[arg(skip = LOOK_EVERY)]
    pub look_every: Duration,
}

impl Default for ClusterTlsSettings {
    /// No TLS, and nothing beyond this machine.
    fn default() -> Self {
        Self {
            tls_cert: None,
            tls_key: None,
            tls_ca: None,
            tls_cluster: None,
            plaintext_between_machines: false,
            look_every: LOOK_EVERY,
        }
    }
}

/// Settings that are not whole.
#[derive(Debug, thiserror::Error)]
#[error("TLS settings are not complete: {missing} is missing beside {given}")]
pub struct IncompleteTls {
    /// The first that is not there.
    pub missing: &'static str,
    /// The first that is there.
    pub given: &'static str,
}

/// An address on another machine that would be spoken to openly.
#[derive(Debug, thiserror::Error)]
#[error(
    "{address} ({what}) is not on this machine and TLS is not set up for it: set up {remedy} (docs/tls.md), or, where the \
     network is trusted, say --plaintext-between-machines (CARNAX_PLAINTEXT_BETWEEN_MACHINES=true)"
)]
pub struct PlaintextRefused {
    /// The address.
    pub address: String,
    /// What it is for.
    pub what: &'static str,
    /// The settings that would help.
    pub remedy: &'static str,
}

impl ClusterTlsSettings {
    /// Certificate, authorities and name; nothing if nothing is said.
    ///
    /// # Errors
    /// Only some of them are said.
    pub(super) fn complete(&self) -> Result<Option<(TlsFiles, PathBuf, TlsClusterName)>, IncompleteTls> {
        let Self { tls_cert, tls_key, tls_ca, tls_cluster, .. } = self;
        if let (Some(cert), Some(key), Some(ca), Some(cluster)) = (tls_cert, tls_key, tls_ca, tls_cluster) {
            let files = TlsFiles { cert: cert.clone(), key: key.clone() };
            return Ok(Some((files, ca.clone(), cluster.clone())));
        }
        let said = [
            ("--tls-cert", tls_cert.is_some()),
            ("--tls-key", tls_key.is_some()),
            ("--tls-ca", tls_ca.is_some()),
            ("--tls-cluster", tls_cluster.is_some()),
        ];
        let first = |is_said: bool| said.iter().find(|(_, said)| *said == is_said).map(|(name, _)| *name);
        match (first(false), first(true)) {
            (Some(missing), Some(given)) => Err(IncompleteTls { missing, given }),
            _ => Ok(None),
        }
    }

    /// Whether the traffic of the cluster is to be encrypted.
    pub fn is_on(&self) -> bool {
        self.tls_cert.is_some()
    }

    /// Lets addresses of the cluster's traffic pass: all of them with TLS, else those on this machine, else only if the words
    /// were said. `what` says for an error what they are for.
    ///
    /// # Errors
    /// One may be on another machine, and the words were not said.
    pub fn check_cluster<'a>(
        &self,
        what: &'static str,
        addresses: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), PlaintextRefused> {
        let remedy = "--tls-cert, --tls-key, --tls-ca and --tls-cluster";
        let mut addresses = addresses.into_iter();
        addresses.try_for_each(|address| self.check_open(self.is_on(), what, address, remedy))
    }

    /// Lets the address of a listener pass that is encrypted, or on this machine; else only if the words were said. `remedy`
    /// names the flags that would encrypt it.
    ///
    /// # Errors
    /// Others may reach it, and the words were not said.
    pub fn check_open(
        &self,
        encrypted: bool,
        what: &'static str,
        address: &str,
        remedy: &'static str,
    ) -> Result<(), PlaintextRefused> {
        if encrypted || self.plaintext_between_machines || is_loopback(address) {
            return Ok(());
        }
        Err(PlaintextRefused { address: address.to_owned(), what, remedy })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_goes_openly_to_other_machines_unless_it_is_said_in_words() {
        let plain = ClusterTlsSettings::default();
        let said = ClusterTlsSettings { plaintext_between_machines: true, ..plain.clone() };
        let secure = ClusterTlsSettings { tls_cert: Some("cert.pem".into()), ..plain.clone() };
        for (address, here) in
            [("127.0.0.1:1", true), ("localhost:1", true), ("node-1:1", false), ("0.0.0.0:1", false)]
        {
            assert_eq!(plain.check_cluster("to dial", ["[::1]:1", address]).is_ok(), here, "{address}");
            assert_eq!(plain.check_open(false, "to listen on", address, "x").is_ok(), here, "{address}");
            assert!(said.check_cluster("to dial", [address]).is_ok());
            assert!(secure.check_cluster("to dial", [address]).is_ok());
            assert!(plain.check_open(true, "to listen on", address, "x").is_ok());
            assert_eq!(
                secure.check_open(false, "to listen on", address, "x").is_ok(),
                here,
                "one is not the other"
            );
        }
        let refused = plain.check_cluster("to dial", ["node-1:7001"]).unwrap_err().to_string();
        for word in ["node-1:7001", "--tls-ca", "--plaintext-between-machines", "docs/tls.md"] {
            assert!(refused.contains(word), "{refused}");
        }
    }
}
