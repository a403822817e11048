//! Certificates of a cluster that the servers read from files, and that a scenario replaces while they run.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use carnax::Client;
use carnax_platform::clock::SystemClock;
use carnax_platform::network::TcpNetwork;
use carnax_platform::tls::{ClusterTls, ClusterTlsSettings, Part, TlsNetwork};
use carnax_test_certificates::{Authority, Files};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const CLUSTER: &str = "acceptance";
const NODE: &str = "node.acceptance.carnax.internal";
const FRONTEND: &str = "frontend.acceptance.carnax.internal";
/// Where clients reach frontends.
const SITE: &str = "127.0.0.1";

/// The files of all servers: nodes share a certificate, and so do frontends.
#[derive(Debug, Clone)]
pub struct Certificates {
    node: Files,
    frontend: Files,
    site: Files,
}

impl Certificates {
    /// Writes the files into a folder that exists, all signed by `authority`.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn write(folder: &Path, authority: &Authority) -> Result<Self> {
        let files = |name: &str, server: &str| -> Result<Files> {
            let folder = folder.join(name);
            std::fs::create_dir(&folder).context("cannot make a folder for certificates")?;
            Ok(Files::write(&folder, &authority.issue(&[server]), &[authority])?)
        };
        Ok(Self {
            node: files("node", NODE)?,
            frontend: files("frontend", FRONTEND)?,
            site: files("site", SITE)?,
        })
    }

    /// Lets all servers trust these authorities.
    ///
    /// # Errors
    /// The files cannot be replaced.
    pub fn trust(&self, authorities: &[&Authority]) -> Result<()> {
        self.node.trust(authorities)?;
        self.frontend.trust(authorities)?;
        // Nobody reads it but clients.
        Ok(self.site.trust(authorities)?)
    }

    /// Gives all servers new certificates.
    ///
    /// # Errors
    /// The files cannot be replaced.
    pub fn issue(&self, authority: &Authority) -> Result<()> {
        self.node.put(&authority.issue(&[NODE]))?;
        self.frontend.put(&authority.issue(&[FRONTEND]))?;
        Ok(self.site.put(&authority.issue(&[SITE]))?)
    }

    /// The flags of a metadata node.
    pub(crate) fn node_flags(&self) -> Vec<(&'static str, String)> {
        member_flags(&self.node)
    }

    /// The flags of a frontend.
    pub(crate) fn frontend_flags(&self) -> Vec<(&'static str, String)> {
        let https = [("--https-cert", &self.site.cert), ("--https-key", &self.site.key)];
        let https = https.map(|(flag, path)| (flag, path.display().to_string()));
        member_flags(&self.frontend).into_iter().chain(https).collect()
    }

    /// Who signs the certificates of frontends now, PEM.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn authorities(&self) -> Result<Vec<u8>> {
        std::fs::read(&self.site.ca).context("cannot read the authorities")
    }

    /// The certificate that clients are to see now.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn of_site(&self) -> Result<CertificateDer<'static>> {
        let found = CertificateDer::from_pem_file(&self.site.cert);
        found.map_err(|error| anyhow::anyhow!("{}: {error}", self.site.cert.display()))
    }

    /// A client of these addresses that trusts `authorities`.
    ///
    /// # Errors
    /// The authorities are none.
    pub fn client(addresses: &[String], authorities: Vec<u8>) -> Result<carnax::ClientBuilder> {
        ensure!(!addresses.is_empty(), "a client has an endpoint");
        let endpoints = addresses.iter().map(|address| format!("https://{address}"));
        Ok(Client::builder().endpoints(endpoints).ca_certificates(authorities))
    }
}

/// The network as a frontend sees it that has the files in `folder`.
///
/// # Errors
/// They cannot be used.
pub fn frontend_network(folder: &Path, signed_by: &Authority, trusted: &[&Authority]) -> Result<TlsNetwork> {
    let files = Files::write(folder, &signed_by.issue(&[FRONTEND]), trusted)?;
    let settings = ClusterTlsSettings {
        tls_cert: Some(files.cert),
        tls_key: Some(files.key),
        tls_ca: Some(files.ca),
        tls_cluster: Some(CLUSTER.parse()?),
        ..ClusterTlsSettings::default()
    };
    let tls = ClusterTls::open(&settings, Part::Frontend, Arc::new(SystemClock::new()))?;
    Ok(tls.context("all is said")?.network(Arc::new(TcpNetwork)))
}

fn member_flags(files: &Files) -> Vec<(&'static str, String)> {
    vec![
        ("--tls-cert", files.cert.display().to_string()),
        ("--tls-key", files.key.display().to_string()),
        ("--tls-ca", files.ca.display().to_string()),
        ("--tls-cluster", CLUSTER.to_owned()),
    ]
}

/// `GET https://address/path` over a new connection: the certificate that was shown, and the body.
///
/// # Errors
/// Nobody answers with success whom `authorities` (PEM) vouch for.
pub async fn get(address: &str, path: &str, authorities: &[u8]) -> Result<(CertificateDer<'static>, String)> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(authorities) {
        roots.add(authority.map_err(|error| anyhow::anyhow!("no authority: {error}"))?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = builder.with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(SITE)?;
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let shown = shown.context("no certificate was shown")?.clone().into_owned();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.contains(" 200 ") => Ok((shown, body.to_owned())),
        _ => bail!("{address} answers {path} with {:?}", answer.lines().next()),
    }
}
