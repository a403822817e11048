//! TLS of a server whose clients show no certificate.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use super::listener::TlsListener;
use super::loaded::{Loaded, Recipe, ServedAs};
use super::{TlsError, TlsFiles, TlsStatus};
use crate::clock::Clock;
use crate::network::Listener;

/// The versions of HTTP that a server offers its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP/1.1 alone.
    Http1,
    /// HTTP/2 and HTTP/1.1.
    Http1And2,
}

/// The certificate of an HTTP server. Clones share it.
#[derive(Debug, Clone)]
pub struct ServerTls {
    loaded: Arc<Loaded>,
}

impl ServerTls {
    /// Reads certificate and key; blocks meanwhile.
    ///
    /// # Errors
    /// They cannot be used.
    pub fn open(files: TlsFiles, speaks: Speaks, clock: Arc<dyn Clock>) -> Result<Self, TlsError> {
        Ok(Self { loaded: Arc::new(Loaded::new(Recipe { files, part: ServedAs::Http(speaks), clock })?) })
    }

    /// A listener whose connections are those of `inner` after their handshake.
    pub fn listener(&self, inner: Box<dyn Listener>) -> Box<dyn Listener> {
        Box::new(TlsListener::new(inner, Arc::clone(&self.loaded)))
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
