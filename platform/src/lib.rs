//! The outside world as components that are handed in: time, randomness, the network, TLS, and RPC over it.
//!
//! Nothing else in Carnax reads a clock, draws a random number, opens a socket or listens on one. A simulation hands in
//! its own components and so decides what time it is, which messages arrive, and which numbers are drawn.
//!
//! This crate never knows what is said over its connections: messages are types of those who call it.
#![warn(missing_docs)]

pub mod clock;
pub mod entropy;
pub mod network;
pub mod rpc;
pub mod tls;
