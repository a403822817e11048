//! The stateless frontend: HTTP API, append path and fetch path.
//!
//! ```text
//! append   accept → accumulate → seal → upload → commit → acknowledge      (module append, a file a step)
//! fetch    resolve → plan → read → respond                                 (module fetch, a file a step)
//! maintain take a job → work → report                                      (module maintenance)
//! verify   manifests against the bucket, both ways                             (module verify)
//! ```
//!
//! Invariants: nothing that a frontend holds is needed by anyone else. It never answers an append before the reply to
//! its segment commit, and never answers a fetch from anything but a plan that was asked for after the request came.
//! There is no global state: several frontends may run in one process, each with components, limits and metrics of its
//! own. While nobody appends or reads, it leaves the object store alone.
//!
//! Feature `deliberate-bugs` (off, for the simulation only): makes the mistakes in [`deliberate_bugs`] available.

mod access;
mod append;
pub mod config;
mod console;
pub mod deliberate_bugs;
mod fetch;
mod http;
pub mod ingest;
pub mod maintenance;
mod metadata_client;
mod metrics;
mod quota;
mod run;
mod tls;
mod usage;
pub mod verify;

pub use config::{AccessRule, Options, Role, Settings};
pub use run::{Components, Frontend, RunError, run};
pub use tls::HttpsSettings;

pub use http::{Deadline, Permission, Route, routes};
