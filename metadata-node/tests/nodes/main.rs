//! Goal: metadata nodes form a cluster by themselves, keep what they acknowledged through the loss of any one of them,
//! and never let an empty disk vote on the strength of its flags.
//! Method: real nodes on loopback TCP and real disks in one process; the bucket is in memory.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod cluster;
mod stories;
