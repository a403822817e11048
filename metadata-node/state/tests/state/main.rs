//! The state machine from outside: stories, random commands against a naive model, and everything that is stored as bytes.
#![allow(clippy::unwrap_used, reason = "tests may")]
#![allow(clippy::disallowed_methods, reason = "tests read golden files")]

mod archive;
mod bucket;
mod bytes;
mod bytes_of_maintenance;
mod compactions;
mod contradictions;
mod groups;
mod guarantees;
mod jobs;
mod levels;
mod lifetimes;
mod manifests;
mod model;
mod model_producer;
mod restore;
mod rounds;
mod stories;
mod support;
mod tokens;
mod usage;
mod wakeups;
mod writer;
