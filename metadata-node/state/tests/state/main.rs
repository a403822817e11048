//! The state machine from outside: stories, random commands against a naive model, and everything that is stored as bytes.
#![allow(clippy::unwrap_used, reason = "tests may")]

mod bytes;
mod model;
mod stories;
mod support;
