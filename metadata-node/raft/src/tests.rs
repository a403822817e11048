//! Goal: a cluster keeps what it acknowledged and never shows what it has not, through the death of leaders, restarts,
//! snapshots, changes of the membership and partitions.
//! Method: real nodes in this process, over loopback TCP that can be cut, on real disks.

mod changes;
mod cluster;
mod stories;
