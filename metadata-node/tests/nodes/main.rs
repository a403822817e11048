//! Goal: metadata nodes form a cluster by themselves, keep what they acknowledged through the loss of any one of them,
//! and never let an empty disk vote on the strength of its flags. What was accepted once stays accepted once whoever leads,
//! and no member of a group is expelled for what is the leader's fault. Queues are told of every commit.
//! Method: real nodes on loopback TCP and real disks in one process; the bucket is in memory.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod backup;
mod cluster;
mod disks;
mod groups;
mod guarantees;
mod jobs;
mod queues;
mod restores;
mod stories;
mod tls;
mod tokens;
mod upgrades;
mod wakeups;
mod writer;
