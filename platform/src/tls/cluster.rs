//! Mutual TLS between the members of a cluster.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio_rustls::TlsConnector;

use super::listener::{HANDSHAKE, TlsListener};
use super::loaded::{Loaded, Member, Recipe, ServedAs};
use super::roles::ClusterNames;
use super::{ClusterTlsSettings, Roles, TlsError, TlsStatus};
use crate::clock::Clock;
use crate::network::{Connection, Listener, Network, Peer};

/// The certificate of one member, and whom it trusts. Clones share it.
#[derive(Debug, Clone)]
pub struct ClusterTls {
    pub(super) loaded: Arc<Loaded>,
}

impl ClusterTls {
    /// Reads the files that the settings name, if they name any; blocks meanwhile. `part`: the one role that the certificate must
    /// entitle to.
    ///
    /// # Errors
    /// Some of the settings are missing, or what they name cannot be used.
    pub fn open(
        settings: &ClusterTlsSettings,
        part: Part,
        clock: Arc<dyn Clock>,
    ) -> Result<Option<Self>, TlsError> {
        let Some((files, ca, cluster)) = settings.complete()? else { return Ok(None) };
        let names = ClusterNames::new(&cluster);
        let own = match part {
            Part::Node => names.node.clone(),
            Part::Frontend => names.frontend.clone(),
        };
        let part = ServedAs::Member(Member { ca, names, own });
        Ok(Some(Self { loaded: Arc::new(Loaded::new(Recipe { files, part, clock })?) }))
    }

    /// A network whose connections are those of `inner`, with mutual TLS at both ends.
    pub fn network(&self, inner: Arc<dyn Network>) -> TlsNetwork {
        TlsNetwork { inner, loaded: Arc::clone(&self.loaded) }
    }

    /// Looks at the files again and again, until the future is dropped. New connections use what it finds; old ones go on.
    pub async fn keep_fresh(self, every: Duration) -> Infallible {
        self.loaded.keep_fresh(every).await
    }

    /// How the certificate is getting on.
    pub fn status(&self) -> TlsStatus {
        self.loaded.status()
    }
}

/// What the owner of a certificate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// A metadata node: it is dialled, and dials.
    Node,
    /// Whoever dials metadata nodes: a frontend, a worker, a command.
    Frontend,
}

/// A network whose connections have done a handshake in which both ends showed a certificate of the cluster.
///
/// Dialling fails if the server is no metadata node of the cluster. A server may refuse the client's certificate after the
/// client's part of the handshake is over: the client learns of that when it first reads.
#[derive(Debug)]
pub struct TlsNetwork {
    inner: Arc<dyn Network>,
    pub(super) loaded: Arc<Loaded>,
}

impl Network for TlsNetwork {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Connection>> {
        Box::pin(async move {
            let connection = self.inner.connect(address).await?;
            let configs = self.loaded.configs();
            let (Some(client), Some(names)) = (&configs.client, self.loaded.names()) else {
                return Err(io::Error::other("this certificate is not for a cluster"));
            };
            let handshake = TlsConnector::from(Arc::clone(client)).connect(names.node.clone(), connection);
            let done = tokio::time::timeout(HANDSHAKE, handshake).await;
            match done.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(stream) => {
                    let server = Roles { node: true, frontend: false };
                    Ok(Connection::of(Peer::Member(server), stream))
                }
                Err(error) => {
                    self.loaded.handshakes_failed.fetch_add(1, Ordering::Relaxed);
                    Err(error)
                }
            }
        })
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let inner = self.inner.listen(address).await?;
            let listener: Box<dyn Listener> = Box::new(TlsListener::new(inner, Arc::clone(&self.loaded)));
            Ok(listener)
        })
    }
}
