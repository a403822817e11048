//! The SDK against a scripted HTTP server in this process: every fault is played by the script, at the moment that the
//! story needs it. Nothing sleeps; what must not happen is shown by what the server has seen.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too, fail by panicking")]

mod admin;
mod appending;
mod consuming;
mod coordinator;
mod failover;
mod grouping;
mod idempotent;
mod log;
mod processing;
mod producers;
mod producing;
mod server;
mod tls;
mod tokens;
