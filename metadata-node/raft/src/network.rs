//! How nodes talk: three connections a peer, so that a snapshot delays no append and neither delays a heartbeat.
//!
//! | connection | carries |
//! |--|--|
//! | append | one stream of appends, pipelined; replies come in the order of the requests |
//! | urgent | heartbeats, votes, read indexes, leadership transfers |
//! | snapshot | chunks of one snapshot, one reply |
//!
//! Every message is an [`Envelope`](envelope::Envelope) that says for which node of which cluster it is; others are
//! refused.

mod append;
mod client;
mod envelope;
mod messages;
mod server;
mod snapshot;

pub(crate) use client::Connections;
pub(crate) use envelope::Desk;
pub use envelope::PeerClock;
pub(crate) use server::router;
