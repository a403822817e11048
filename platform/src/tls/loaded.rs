//! Certificates as they were last found in their files, and the configurations made of them.

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use carnax_core::time::Timestamp;
use rustls::client::{Resumption, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, ParsedCertificate};
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, RootCertStore, ServerConfig};

use super::roles::ClusterNames;
use super::verifier::MemberVerifier;
use super::{Speaks, TlsError, TlsFiles, expiry, files};
use crate::clock::Clock;

/// What clients and servers of HTTP/2 agree on; older clients of a frontend speak the second one.
const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// How certificates are getting on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsStatus {
    /// When the certificate ends; nothing if it does not say.
    pub expires: Option<Timestamp>,
    /// When it was taken from its files.
    pub loaded: Timestamp,
    /// Connections that were accepted or made and whose handshake failed, since the start.
    pub handshakes_failed: u64,
}

/// What is made of the files.
pub(super) struct Configs {
    pub(super) server: Arc<ServerConfig>,
    /// For members of the cluster.
    pub(super) client: Option<Arc<ClientConfig>>,
}

/// How it is made.
pub(super) struct Recipe {
    pub(super) files: TlsFiles,
    pub(super) part: ServedAs,
    pub(super) clock: Arc<dyn Clock>,
}

/// Whose certificate it is.
pub(super) enum ServedAs {
    /// One of a cluster, by its names and authorities.
    Member(Member),
    /// A server that asks its clients for no certificate.
    Http(Speaks),
}

pub(super) struct Member {
    pub(super) ca: PathBuf,
    pub(super) names: ClusterNames,
    /// The name that our own certificate must have.
    pub(super) own: ServerName<'static>,
}

/// The newest configurations that could be made.
pub(super) struct Loaded {
    recipe: Recipe,
    state: Mutex<State>,
    pub(super) handshakes_failed: AtomicU64,
}

struct State {
    configs: Arc<Configs>,
    contents: Contents,
    /// What was found last and could not be used, and whether that was said.
    broken: Option<(Option<Contents>, bool)>,
    expires: Option<Timestamp>,
    loaded: Timestamp,
}

#[derive(PartialEq, Eq)]
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    ca: Option<Vec<u8>>,
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded").field("files", &self.recipe.files).finish_non_exhaustive()
    }
}

impl Loaded {
    /// Reads the files. They are small, and nothing else goes on at the start: this blocks.
    pub(super) fn new(recipe: Recipe) -> Result<Self, TlsError> {
        let contents = recipe.read()?;
        let (configs, expires) = recipe.make(&contents)?;
        let loaded = recipe.clock.wall();
        let state = State { configs: Arc::new(configs), contents, broken: None, expires, loaded };
        Ok(Self { recipe, state: Mutex::new(state), handshakes_failed: AtomicU64::new(0) })
    }

    pub(super) fn configs(&self) -> Arc<Configs> {
        Arc::clone(&self.lock().configs)
    }

    pub(super) fn names(&self) -> Option<&ClusterNames> {
        self.recipe.member().map(|member| &member.names)
    }

    pub(super) fn status(&self) -> TlsStatus {
        let handshakes_failed = self.handshakes_failed.load(Ordering::Relaxed);
        let state = self.lock();
        TlsStatus { expires: state.expires, loaded: state.loaded, handshakes_failed }
    }

    /// Looks again and again, until it is dropped.
    pub(super) async fn keep_fresh(self: Arc<Self>, every: Duration) -> Infallible {
        loop {
            tokio::time::sleep(every).await;
            let loaded = Arc::clone(&self);
            if let Err(error) = tokio::task::spawn_blocking(move || loaded.look()).await {
                tracing::error!(%error, "certificates could not be looked at");
            }
        }
    }

    /// Takes what is in the files, if it is new and can be used. Files are replaced one after the other, so that what does
    /// not fit once may be half of a change: what does not fit twice is an error, and said once.
    pub(super) fn look(&self) {
        let read = self.recipe.read();
        if read.as_ref().is_ok_and(|contents| *contents == self.lock().contents) {
            self.lock().broken = None;
            return;
        }
        let made = match read {
            Ok(contents) => match self.recipe.make(&contents) {
                Ok(made) => Ok((made, contents)),
                Err(error) => Err((error, Some(contents))),
            },
            Err(error) => Err((error, None)),
        };
        match made {
            Ok(((configs, expires), contents)) => self.take(configs, expires, contents),
            Err((error, contents)) => self.keep(&error, contents),
        }
    }

    fn take(&self, configs: Configs, expires: Option<Timestamp>, contents: Contents) {
        let loaded = self.recipe.clock.wall();
        let configs = Arc::new(configs);
        *self.lock() = State { configs, contents, broken: None, expires, loaded };
        tracing::info!(certificate = %self.recipe.files.cert.display(), "certificates are replaced");
    }

    fn keep(&self, error: &TlsError, contents: Option<Contents>) {
        let mut state = self.lock();
        let said = match &state.broken {
            Some((before, said)) if *before == contents => {
                if !said {
                    tracing::error!(
                        error = chain(error),
                        "new certificates cannot be used; the old ones stay"
                    );
                }
                true
            }
            _ => false,
        };
        state.broken = Some((contents, said));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recipe {
    fn member(&self) -> Option<&Member> {
        match &self.part {
            ServedAs::Member(member) => Some(member),
            ServedAs::Http(_) => None,
        }
    }

    fn read(&self) -> Result<Contents, TlsError> {
        Ok(Contents {
            certificate: files::read(&self.files.cert)?,
            key: files::read(&self.files.key)?,
            ca: self.member().map(|member| files::read(&member.ca)).transpose()?,
        })
    }

    fn make(&self, contents: &Contents) -> Result<(Configs, Option<Timestamp>), TlsError> {
        let chain = files::chain(&self.files.cert, &contents.certificate)?;
        let key = files::key(&self.files.key, &contents.key)?;
        let expires = expiry::not_after(&chain[0]);
        let configs = match (&self.part, &contents.ca) {
            (ServedAs::Member(member), Some(ca)) => {
                self.check_name(&chain[0], &member.own)?;
                let roots = Arc::new(files::roots(&member.ca, ca)?);
                self.member_configs(member, roots, chain, key)
            }
            (ServedAs::Http(Speaks::Http1), _) => self.server_configs(chain, key, &[HTTP1]),
            _ => self.server_configs(chain, key, &[HTTP2, HTTP1]),
        };
        let unusable = |source| TlsError::Unusable { path: self.files.cert.clone(), source };
        Ok((configs.map_err(unusable)?, expires))
    }

    fn server_configs(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        protocols: &[&[u8]],
    ) -> Result<Configs, rustls::Error> {
        let builder = ServerConfig::builder_with_details(provider(), self.time());
        let mut server = builder
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        server.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Configs { server: Arc::new(server), client: None })
    }

    /// Sessions are never resumed: each connection is held against the authorities that are trusted now.
    fn member_configs(
        &self,
        member: &Member,
        roots: Arc<RootCertStore>,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Configs, rustls::Error> {
        let verifier = MemberVerifier::new(Arc::clone(&roots), member.names.clone(), provider())
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let mut server = ServerConfig::builder_with_details(provider(), self.time())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_single_cert(chain.clone(), key.clone_key())?;
        server.alpn_protocols = vec![HTTP2.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_details(provider(), self.time())
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        client.alpn_protocols = vec![HTTP2.to_vec()];
        client.resumption = Resumption::disabled();
        Ok(Configs { server: Arc::new(server), client: Some(Arc::new(client)) })
    }

    fn check_name(&self, certificate: &CertificateDer<'_>, own: &ServerName<'_>) -> Result<(), TlsError> {
        let path = self.files.cert.clone();
        let unusable = |source| TlsError::Unusable { path: path.clone(), source };
        let parsed = ParsedCertificate::try_from(certificate).map_err(unusable)?;
        if verify_server_name(&parsed, own).is_ok() {
            return Ok(());
        }
        let presented = presented(certificate, own);
        let presented = if presented.is_empty() { "nobody".to_owned() } else { presented.join(", ") };
        Err(TlsError::Name { path, wanted: own.to_str().into_owned(), presented })
    }

    fn time(&self) -> Arc<dyn TimeProvider> {
        Arc::new(WallTime(Arc::clone(&self.clock)))
    }
}

/// The names that a certificate has, for an error.
pub(super) fn presented(certificate: &CertificateDer<'_>, expected: &ServerName<'_>) -> Vec<String> {
    let checked =
        ParsedCertificate::try_from(certificate).and_then(|parsed| verify_server_name(&parsed, expected));
    match checked {
        Err(rustls::Error::InvalidCertificate(CertificateError::NotValidForNameContext {
            presented,
            ..
        })) => presented,
        _ => Vec::new(),
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn chain(error: &TlsError) -> String {
    let sources = std::iter::successors(std::error::Error::source(error), |error| error.source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}

/// Certificates begin and end by the clock that was handed in.
#[derive(Debug)]
struct WallTime(Arc<dyn Clock>);

impl TimeProvider for WallTime {
    fn current_time(&self) -> Option<UnixTime> {
        let millis = u64::try_from(self.0.wall().millis()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_millis(millis)))
    }
}
