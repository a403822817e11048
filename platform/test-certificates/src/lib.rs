//! Certificates and authorities that live as long as a test.
//!
//! ```text
//!  Authority ──issue(names)──▶ Issued { certificate, key }   both PEM, as servers read them from files
//! ```
//!
//! It never touches production code: nothing but tests depends on it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

/// Signs certificates.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Certificate,
}

/// A certificate with its key.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate, PEM.
    pub certificate: String,
    /// Its private key, PEM.
    pub key: String,
}

impl Authority {
    /// A new one, with a key of its own whatever its name is.
    ///
    /// # Panics
    /// If no key can be made.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params.self_signed(&key).expect("a certificate can be signed");
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// The certificate of the authority, PEM.
    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// A certificate for names or IP addresses, for servers and clients, valid for decades.
    ///
    /// # Panics
    /// If a name is none.
    pub fn issue(&self, names: &[&str]) -> Issued {
        self.sign(&params(names))
    }

    /// One that is no longer valid: its time ended with the year 2020.
    ///
    /// # Panics
    /// If a name is none.
    pub fn issue_expired(&self, names: &[&str]) -> Issued {
        let mut params = params(names);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Issued {
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate can be signed");
        Issued { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names are names");
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}

/// The files that a server reads: `cert.pem`, `key.pem` and `ca.pem` in one folder.
#[derive(Debug, Clone)]
pub struct Files {
    /// The certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Who is trusted.
    pub ca: PathBuf,
}

impl Files {
    /// Writes them into a folder that exists.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn write(dir: &Path, issued: &Issued, trusted: &[&Authority]) -> io::Result<Self> {
        let files = Self { cert: dir.join("cert.pem"), key: dir.join("key.pem"), ca: dir.join("ca.pem") };
        files.put(issued)?;
        files.trust(trusted)?;
        Ok(files)
    }

    /// Replaces certificate and key.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn put(&self, issued: &Issued) -> io::Result<()> {
        replace(&self.key, &issued.key)?;
        replace(&self.cert, &issued.certificate)
    }

    /// Replaces the bundle of authorities.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn trust(&self, trusted: &[&Authority]) -> io::Result<()> {
        let bundle: String = trusted.iter().map(|authority| authority.pem()).collect();
        replace(&self.ca, &bundle)
    }
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension("new");
    fs::write(&beside, text)?;
    fs::rename(&beside, path)
}
