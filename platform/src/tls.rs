//! TLS: who is at the other end of a connection, and that nobody listens in between.
//!
//! ```text
//!  ClusterTls ── network(plain) ──▶ TlsNetwork    both ends show a certificate of the cluster   (RPC)
//!  ServerTls ─── listener(plain) ─▶ TlsListener   the server shows one, clients show tokens      (HTTP)
//!      ▲
//!   keep_fresh: looks at the files every few seconds; new connections use what it found
//! ```
//!
//! Certificates of the cluster's traffic carry one or both of two DNS names, whatever the addresses are:
//! `node.<cluster>.carnax.internal` and `frontend.<cluster>.carnax.internal` ([`Roles`]). A client demands the first one of the
//! server it dials; a server demands one of the two of its client. What a name entitles to is decided by the
//! [RPC router](crate::rpc::Router), call by call.
//!
//! Invariants: a connection that is handed out has done its handshake. A handshake delays no other one, ends in time, and
//! a failed one disturbs nobody. Files that cannot be used replace nothing. Keys appear in no log, error or `Debug`.

mod cluster;
mod expiry;
mod files;
mod listener;
mod loaded;
mod metrics;
mod roles;
mod server;
mod settings;
#[cfg(test)]
mod tests;
mod verifier;

use std::path::PathBuf;

pub use cluster::{ClusterTls, Part, TlsNetwork};
pub use loaded::TlsStatus;
pub use metrics::{TlsMetricNames, TlsMetrics};
pub use roles::{InvalidClusterName, Roles, TlsClusterName};
pub use server::{ServerTls, Speaks};
pub use settings::{ClusterTlsSettings, IncompleteTls, PlaintextRefused, TlsFiles};

/// Why certificates cannot be used, or are missing.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("TLS file {} cannot be read", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is no PEM, or holds nothing of what it should.
    #[error("TLS file {} holds no {wanted}: {reason}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What it should hold.
        wanted: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Certificate and key do not fit each other, or one is of a kind that is not supported.
    #[error("certificate {} cannot be used with its key", path.display())]
    Unusable {
        /// The certificate.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The certificate is for somebody else.
    #[error("certificate {} is not valid for {wanted}; it names {presented}", path.display())]
    Name {
        /// The certificate.
        path: PathBuf,
        /// The name that it needs.
        wanted: String,
        /// The names that it has.
        presented: String,
    },
    /// Some settings are there, and others are missing.
    #[error(transparent)]
    Incomplete(#[from] IncompleteTls),
    /// Something would travel openly between machines, and nobody said that it may.
    #[error(transparent)]
    Plaintext(#[from] PlaintextRefused),
}
