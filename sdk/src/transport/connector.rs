//! Connections by address, whatever carries them.

use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::Uri;
use http::uri::Scheme;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{self, Connected};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::Tls;

/// What carries bytes both ways.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Connection for T {}

/// Makes connections. A component, so that a simulation can hand in its own network.
///
/// TLS is not its business: the client speaks it over the connection, where an endpoint begins with `https`.
///
/// `address` is `host:port`; names are resolved anew for each connection. An implementation waits as long as it takes:
/// the client drops the future when its connect time-out has passed, and then nothing may have been sent.
///
/// ```no_run
/// use std::io;
/// use carnax::{Connection, Connector};
/// use futures::future::BoxFuture;
///
/// /// Reaches every endpoint through one Unix socket.
/// #[derive(Debug)]
/// struct Tunnel;
///
/// impl Connector for Tunnel {
///     fn connect<'a>(&'a self, _address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Connection>>> {
///         Box::pin(async {
///             let stream: Box<dyn Connection> = Box::new(tokio::net::UnixStream::connect("tunnel").await?);
///             Ok(stream)
///         })
///     }
/// }
/// ```
pub trait Connector: Debug + Send + Sync + 'static {
    /// Connects.
    ///
    /// # Errors
    /// Nothing listens there, or it cannot be reached.
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Connection>>>;
}

/// TCP of the operating system, with Nagle's algorithm switched off.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpConnector;

impl Connector for TcpConnector {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Connection>>> {
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let stream: Box<dyn Connection> = Box::new(stream);
            Ok(stream)
        })
    }
}

/// A connector in the form that the connection pool wants.
#[derive(Debug, Clone)]
pub(crate) struct PooledConnector {
    inner: Arc<dyn Connector>,
    /// For endpoints that begin with `https`.
    tls: Option<Tls>,
    timeout: Duration,
}

impl PooledConnector {
    pub(crate) fn new(inner: Arc<dyn Connector>, tls: Option<Tls>, timeout: Duration) -> Self {
        Self { inner, tls, timeout }
    }

    async fn connect(&self, uri: &Uri) -> io::Result<Box<dyn Connection>> {
        let host = uri.host().unwrap_or_default();
        let secure = uri.scheme() == Some(&Scheme::HTTPS);
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let connection = self.inner.connect(&format!("{host}:{port}")).await?;
        match &self.tls {
            Some(tls) if secure => tls.wrap(host, connection).await,
            None if secure => Err(io::Error::other("the client was built without TLS")),
            _ => Ok(connection),
        }
    }
}

impl tower::Service<Uri> for PooledConnector {
    type Response = PooledConnection;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<PooledConnection>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let connection = tokio::time::timeout(connector.timeout, connector.connect(&uri)).await??;
            Ok(PooledConnection(TokioIo::new(connection)))
        })
    }
}

/// A connection in the form that the connection pool wants.
pub(crate) struct PooledConnection(TokioIo<Box<dyn Connection>>);

impl connect::Connection for PooledConnection {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for PooledConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for PooledConnection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }
}
