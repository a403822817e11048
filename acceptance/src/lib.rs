//! Runs the built binaries as a cluster of real processes on loopback, breaks it, and checks what the promises say.
//!
//! ```text
//! scenario ──▶ carnax (SDK) ──▶ carnax-frontend ×2 ──▶ carnax-metadata-node ×3      processes, killed with kill -9
//!     │                              └──▶ S3 server (in this process: it survives every kill)
//!     └──▶ ledger: what was acknowledged, against what is read back
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `binaries` | where the binaries are, and that they are not older than their sources |
//! | `process` | one process: start, kill, stop, continue, its log |
//! | `cluster` | all processes of a cluster, their ports, folders and readiness |
//! | `proxy` | a TCP proxy that delays and cuts |
//! | `flights`, `ledger`, `traffic` | what is written, what was acknowledged, writing and reading |
//! | `ownership`, `race`, `counts`, `told` | what is promised of groups, conditions, read-process-write and wake-ups, as pure checks of what was noted |
//! | `known`, `bucket` | what may be answered of records that say where they stand, and what may be in the bucket |
//! | `api`, `member` | plain HTTP, and a member of a group that speaks it |
//! | `certificates` | what the servers show each other and their clients, replaced while they run |
//! | `browser` | headless Chromium, driven over WebDriver |
//! | `function` | the frontend as a Lambda function, under an emulator |
//! | `scenario` | the stories, with their sizes as parameters |
//!
//! Invariants: only processes that were started here are signalled, by their id; they all end when the cluster is dropped,
//! also in a panic; the logs of a cluster that did not end well are kept.

pub mod api;
pub mod binaries;
pub mod browser;
pub mod bucket;
pub mod certificates;
pub mod cluster;
pub mod counts;
pub mod flights;
pub mod function;
pub mod known;
pub mod ledger;
pub mod member;
pub mod ownership;
pub mod process;
pub mod proxy;
pub mod race;
pub mod random;
pub mod report;
pub mod scenario;
pub mod told;
pub mod traffic;
pub mod wait;
