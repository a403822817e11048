//! What a certificate of the cluster entitles to, by the names it carries.

use std::fmt;
use std::str::FromStr;

use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, DnsName, ServerName};
use rustls::server::ParsedCertificate;

/// What the names of all clusters end with; no DNS server knows it.
const DOMAIN: &str = "carnax.internal";
/// Characters of a DNS label.
const LABEL_MAX: usize = 63;

/// The parts that the bearer of a certificate may play.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Roles {
    /// It is a metadata node.
    pub node: bool,
    /// It is a frontend, a worker, or a person's command.
    pub frontend: bool,
}

impl Roles {
    /// Those that a certificate names for a cluster; who signed it is another question.
    pub(super) fn of(certificate: &CertificateDer<'_>, names: &ClusterNames) -> Result<Self, rustls::Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        let has = |name| verify_server_name(&parsed, name).is_ok();
        Ok(Self { node: has(&names.node), frontend: has(&names.frontend) })
    }

    pub(super) fn any(self) -> bool {
        self.node || self.frontend
    }
}

/// The name of a cluster in certificates: one DNS label, in small letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsClusterName(String);

/// A name that cannot be part of a DNS name.
#[derive(Debug, thiserror::Error)]
#[error("a cluster name is 1 to 63 small letters, digits and hyphens, with no hyphen at either end")]
pub struct InvalidClusterName;

impl FromStr for TlsClusterName {
    type Err = InvalidClusterName;

    fn from_str(text: &str) -> Result<Self, InvalidClusterName> {
        let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        let valid = (1..=LABEL_MAX).contains(&text.len())
            && text.bytes().all(plain)
            && !text.starts_with('-')
            && !text.ends_with('-');
        if valid { Ok(Self(text.to_owned())) } else { Err(InvalidClusterName) }
    }
}

impl fmt::Display for TlsClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The names that certificates of one cluster carry.
#[derive(Debug, Clone)]
pub(super) struct ClusterNames {
    pub(super) node: ServerName<'static>,
    pub(super) frontend: ServerName<'static>,
}

impl ClusterNames {
    pub(super) fn new(cluster: &TlsClusterName) -> Self {
        let name = |role: &str| {
            let name = DnsName::try_from(format!("{role}.{cluster}.{DOMAIN}"));
            ServerName::DnsName(name.expect("cluster names are DNS labels"))
        };
        Self { node: name("node"), frontend: name("frontend") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_name_is_one_plain_label() {
        for valid in ["a", "prod", "eu-west-1", "7", &"x".repeat(63)] {
            assert!(valid.parse::<TlsClusterName>().is_ok(), "{valid}");
        }
        for wrong in ["", "-a", "a-", "A", "a.b", "a*", "ä", "a b", &"x".repeat(64)] {
            assert!(wrong.parse::<TlsClusterName>().is_err(), "{wrong}");
        }
    }
}
