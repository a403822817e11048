//! Connections by address, whatever carries them.

use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use crate::tls::Roles;

/// Makes and takes connections. A component, so that a simulation can lose, delay and cut them.
///
/// Addresses are `host:port`. Names are resolved anew for each connection.
pub trait Network: Debug + Send + Sync + 'static {
    /// Connects. Waits as long as the operating system does: callers set a deadline. Dropping the future gives up.
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Connection>>;

    /// Starts to listen; connections are accepted from then on, even before the first [`Listener::accept`].
    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>>;
}

/// Takes connections at one address.
pub trait Listener: Debug + Send + Sync + 'static {
    /// The next connection. Dropping the future loses no connection.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Connection, SocketAddr)>>;

    /// Where it listens, with the real port if port 0 was asked for.
    fn local_address(&self) -> io::Result<SocketAddr>;
}

/// What a connection can do.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Duplex for T {}

/// Who is at the other end of a connection, as far as the network has found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Nobody was asked for a certificate: whoever can reach the network is trusted, or shows who he is by other means.
    Anyone,
    /// A member of the cluster, by the names in its certificate.
    Member(Roles),
}

/// A connection, made by any [`Network`].
pub struct Connection {
    inner: Box<dyn Duplex>,
    peer: Peer,
}

impl Connection {
    /// Wraps what carries the bytes to and from [`Peer::Anyone`].
    pub fn new(inner: impl Duplex) -> Self {
        Self::of(Peer::Anyone, inner)
    }

    /// Wraps what carries the bytes to and from a peer.
    pub fn of(peer: Peer, inner: impl Duplex) -> Self {
        Self { inner: Box::new(inner), peer }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> Peer {
        self.peer
    }
}

impl Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

/// Whether only this machine reaches an address (`host:port`): a loopback IP, or `localhost`. Other names may mean anything.
pub fn is_loopback(address: &str) -> bool {
    if let Ok(address) = address.parse::<SocketAddr>() {
        return address.ip().is_loopback();
    }
    address.rsplit_once(':').is_some_and(|(host, _)| host == "localhost")
}

/// TCP of the operating system, with Nagle's algorithm switched off.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpNetwork;

impl Network for TcpNetwork {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Connection>> {
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(Connection::new(stream))
        })
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let listener: Box<dyn Listener> = Box::new(TcpListener::bind(address).await?);
            Ok(listener)
        })
    }
}

impl Listener for TcpListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Connection, SocketAddr)>> {
        Box::pin(async move {
            let (stream, peer) = TcpListener::accept(self).await?;
            stream.set_nodelay(true)?;
            Ok((Connection::new(stream), peer))
        })
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_this_machine_are_loopback() {
        for address in ["127.0.0.1:1", "127.9.0.1:1", "[::1]:0", "localhost:80"] {
            assert!(is_loopback(address), "{address}");
        }
        for address in
            ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "localhost.example:1", "localhost", "127.0.0.1", ":1", ""]
        {
            assert!(!is_loopback(address), "{address}");
        }
    }
}
