//! Reads PEM files, within limits.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::TlsError;

/// Bytes of one file: a bundle of a few hundred authorities.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What is in a file, as it is.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let reason = format!("it has more than {FILE_BYTES_MAX} bytes");
        return Err(failed(io::Error::new(io::ErrorKind::InvalidData, reason)));
    }
    Ok(bytes)
}

/// A certificate, followed by those of the authorities between it and a root.
pub(super) fn chain(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |reason: String| TlsError::Content { path: path.to_owned(), wanted: "certificate", reason };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = chain.map_err(|error| wrong(error.to_string()))?;
    if chain.is_empty() { Err(wrong("it has no section of that kind".to_owned())) } else { Ok(chain) }
}

/// The first private key.
pub(super) fn key(path: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| TlsError::Content {
        path: path.to_owned(),
        wanted: "private key",
        reason: error.to_string(),
    })
}

/// All authorities; every one must be usable.
pub(super) fn roots(path: &Path, pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(path, pem)? {
        roots.add(certificate).map_err(|error| TlsError::Content {
            path: path.to_owned(),
            wanted: "certificate of an authority",
            reason: error.to_string(),
        })?;
    }
    Ok(roots)
}
