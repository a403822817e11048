//! Typed calls between the parts of a cluster: gRPC over HTTP/2 by `tonic`, carrying serde types as MessagePack.
//!
//! A call is one request type, one reply type and one handler. A failure that the server decided on travels as a
//! [`Problem`](carnax_core::problem::Problem); everything else is a [`CallError`] that says whether the request may have
//! been done.
//!
//! Each call says who may make it. Where connections carry certificates, a server refuses everybody else before it reads the
//! request; without certificates, whoever can connect is trusted.
//!
//! ```text
//! path      /carnax.v1/<name of the call>
//! message   gRPC frame: compressed flag (1 byte, 0) │ length (4 bytes, big-endian) │ MessagePack with named fields
//! failure   grpc-status + grpc-status-details-bin: the Problem as MessagePack
//! ```

mod client;
mod codec;
mod server;
mod status;
#[cfg(test)]
mod tests;

use carnax_core::metadata::Callers;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use client::{CallError, Channel, ChannelSettings, ReplyStream};
pub use server::{RequestStream, Router, serve};

/// A stream of questions with a stream of answers.
pub trait BidirectionalCall: Send + Sync + 'static {
    /// The name under which servers know the call; never changes.
    const NAME: &'static str;
    /// Who may make it.
    const CALLERS: Callers;
    /// One of the questions.
    type Request: Serialize + DeserializeOwned + Send + Sync + 'static;
    /// One of the answers.
    type Reply: Serialize + DeserializeOwned + Send + Sync + 'static;
}

/// What all paths start with.
const SERVICE: &str = "carnax.v1";

fn path(name: &str) -> String {
    format!("/{SERVICE}/{name}")
}
