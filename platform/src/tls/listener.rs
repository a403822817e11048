//! Takes connections and lets them do their handshakes, side by side.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::BoxFuture;
use rustls::ServerConnection;
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::loaded::Loaded;
use super::roles::Roles;
use crate::network::{Connection, Listener, Peer};

/// Handshakes at the same time; one more cuts the oldest: those who mean it need milliseconds.
const HANDSHAKES_MAX: usize = 1_024;
/// How long a handshake may take.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(5);

/// A listener whose connections have done their handshake when they are handed out, in the order in which they ended it.
///
/// Handshakes go on between two calls of `accept`. Dropping it ends them.
#[derive(Debug)]
pub(super) struct TlsListener {
    inner: Box<dyn Listener>,
    loaded: Arc<Loaded>,
    handshakes: JoinSet<(SocketAddr, io::Result<Connection>)>,
    oldest_first: VecDeque<AbortHandle>,
}

impl TlsListener {
    pub(super) fn new(inner: Box<dyn Listener>, loaded: Arc<Loaded>) -> Self {
        Self { inner, loaded, handshakes: JoinSet::new(), oldest_first: VecDeque::new() }
    }

    fn begin(&mut self, connection: Connection, address: SocketAddr) {
        self.oldest_first.retain(|handshake| !handshake.is_finished());
        if self.oldest_first.len() >= HANDSHAKES_MAX
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            oldest.abort();
        }
        let loaded = Arc::clone(&self.loaded);
        let handshake = async move {
            let done = tokio::time::timeout(HANDSHAKE, accept(&loaded, connection)).await;
            (address, done.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())))
        };
        self.oldest_first.push_back(self.handshakes.spawn(handshake));
    }

    fn ended(
        &self,
        handshake: Result<(SocketAddr, io::Result<Connection>), JoinError>,
    ) -> Option<(Connection, SocketAddr)> {
        match handshake {
            Ok((address, Ok(connection))) => return Some((connection, address)),
            Ok((address, Err(error))) => tracing::debug!(%address, %error, "a TLS handshake failed"),
            Err(error) if error.is_cancelled() => tracing::debug!("a TLS handshake was cut for a newer one"),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
        self.loaded.handshakes_failed.fetch_add(1, Ordering::Relaxed);
        None
    }
}

impl Listener for TlsListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Connection, SocketAddr)>> {
        Box::pin(async move {
            loop {
                tokio::select! {
                    Some(handshake) = self.handshakes.join_next(), if !self.handshakes.is_empty() => {
                        if let Some(accepted) = self.ended(handshake) {
                            return Ok(accepted);
                        }
                    }
                    accepted = self.inner.accept() => {
                        let (connection, address) = accepted?;
                        self.begin(connection, address);
                    }
                }
            }
        })
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        self.inner.local_address()
    }
}

async fn accept(loaded: &Loaded, connection: Connection) -> io::Result<Connection> {
    let configs = loaded.configs();
    let stream = TlsAcceptor::from(Arc::clone(&configs.server)).accept(connection).await?;
    let peer = peer(loaded, stream.get_ref().1)?;
    Ok(Connection::of(peer, stream))
}

fn peer(loaded: &Loaded, session: &ServerConnection) -> io::Result<Peer> {
    let Some(names) = loaded.names() else { return Ok(Peer::Anyone) };
    let certificate = session.peer_certificates().and_then(<[_]>::first);
    let certificate = certificate.ok_or_else(|| io::Error::other("no certificate was shown"))?;
    let roles = Roles::of(certificate, names).map_err(io::Error::other)?;
    Ok(Peer::Member(roles))
}
