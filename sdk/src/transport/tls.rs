//! TLS to frontends: above the connector, so that it works over any network.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use super::Connection;
use crate::error::BuildError;

/// Whom a client trusts. Clones share it.
#[derive(Clone)]
pub(crate) struct Tls(Arc<ClientConfig>);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    /// Trusts the authorities in `pem`, or those of the operating system.
    pub(crate) fn new(pem: Option<&[u8]>) -> Result<Self, BuildError> {
        let roots = match pem {
            Some(pem) => given(pem)?,
            None => native()?,
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| BuildError::Certificates { reason: error.to_string() })?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        // As without TLS: one request at a time on a connection.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(Arc::new(config)))
    }

    /// Does the handshake with the server that a URL names `host`.
    pub(crate) async fn wrap(
        &self,
        host: &str,
        connection: Box<dyn Connection>,
    ) -> io::Result<Box<dyn Connection>> {
        // URLs put IPv6 addresses into brackets.
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let stream = TlsConnector::from(Arc::clone(&self.0)).connect(name, connection).await?;
        Ok(Box::new(stream))
    }
}

fn given(pem: &[u8]) -> Result<RootCertStore, BuildError> {
    let unusable = |reason: String| BuildError::Certificates { reason };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
    }
    if roots.is_empty() { Err(unusable("no certificate is among them".to_owned())) } else { Ok(roots) }
}

fn native() -> Result<RootCertStore, BuildError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Systems carry old roots that webpki does not read; the others suffice.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let first = found.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
        let reason = format!("the operating system has none; give ca_certificates{first}");
        return Err(BuildError::Certificates { reason });
    }
    Ok(roots)
}

/// Whether a connection failed since the server is somebody else: no later attempt will do better. A certificate that ended, or
/// has not begun, will be replaced.
pub(crate) fn is_untrusted(error: &(dyn std::error::Error + 'static)) -> bool {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let causes = causes.flat_map(|cause| {
        let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        [cause.downcast_ref(), inner.and_then(|inner| inner.downcast_ref())]
    });
    causes.flatten().any(|cause: &rustls::Error| match cause {
        rustls::Error::InvalidCertificate(reason) => !matches!(
            reason,
            CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. }
        ),
        _ => false,
    })
}
