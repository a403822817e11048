//! The whole system in one process, from one seed: real metadata nodes, real frontends and clients of the SDK on a
//! simulated network, with simulated clocks, disks that lose what was not fsynced, and a bucket that fails in every way.
//!
//! ```text
//! writer ×3, producer ≤ 2, member ≤ 3,
//! loner ≤ 2 ─┐                        ┌─ node ×3 (real Raft, log in memory that loses un-fsynced data)
//! reader ×2 ─┼─ frontend ×2 (real) ──┤
//! keeper ×2 ─┤                        │   observer: asks nodes what they refer to
//! reader of all, in the end ─┘       └─ bucket (memory behind faults)
//! ```
//!
//! Clients note what they did and saw; the checker judges by that alone. The same seed gives the same history, byte for
//! byte: nothing here reads a real clock or draws a real random number. `aws-sdk-s3`, disks and kernels are not simulated.

mod bucket;
mod checker;
mod clients;
mod history;
mod hosts;
mod http;
mod kept;
mod members;
mod observer;
mod producers;
mod restorer;
mod run;
mod scenario;
mod world;

pub use run::{Bug, Verdict, run};
