//! Looks after the room on this node's disk.
//!
//! ```text
//!  free ≥ minimum + ⅛ ──▶ takes proposals ──free < minimum──▶ refuses proposals, hands leadership to a voter with room
//! ```
//!
//! A log that meets a full disk ends its node, since nobody knows what a failed write left behind. So a node stops while there is room
//! still: it refuses proposals of its own, and goes on to vote and to take what a leader with more room sends it, on what is
//! kept back. When there is room again it goes on by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use carnax_core::error_code::ErrorCode;
use carnax_core::metadata::DescribeCluster;
use carnax_core::problem::Problem;
use carnax_metadata_raft::Member;
use carnax_platform::network::Network;
use carnax_platform::rpc::{Channel, ChannelSettings};
use tokio_util::sync::CancellationToken;

use crate::handle::Handle;
use crate::identity::{Disk, Space};
use crate::metrics;

/// How often a node looks.
const PERIOD: Duration = Duration::from_secs(1);
/// How long another node may take to say whether it has room.
const ASK: Duration = Duration::from_secs(1);
/// How long a successor may take to lead.
const HAND_OVER: Duration = Duration::from_secs(3);
/// The least room where nothing is said: so many bytes, or this part of the disk if that is less.
const FREE_MIN_BYTES: u64 = 1 << 30;
const FREE_MIN_SHARE: u64 = 20;
/// A disk counts as full until it has this part of the least room beyond it, so that a node does not waver.
const RECOVERY_SHARE: u64 = 8;

/// Whether there is room, for whoever proposes. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Room(Arc<Known>);

#[derive(Debug, Default)]
struct Known {
    full: AtomicBool,
    free: AtomicU64,
    wanted: AtomicU64,
}

impl Room {
    pub(crate) fn is_full(&self) -> bool {
        self.0.full.load(Ordering::Relaxed)
    }

    /// Why nothing is proposed; none if there is room.
    pub(crate) fn why_not(&self) -> Option<String> {
        let (free, wanted) = (self.0.free.load(Ordering::Relaxed), self.0.wanted.load(Ordering::Relaxed));
        self.is_full().then(|| {
            format!("the disk of this metadata node is nearly full: {free} bytes are free, {wanted} are kept back; make room")
        })
    }

    /// Refuses a proposal while there is no room.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        match self.why_not() {
            None => Ok(()),
            Some(reason) => Err(Problem::new(ErrorCode::Unavailable, reason)
                .with(|facts| facts.retry_after_seconds = Some(PERIOD.as_secs()))),
        }
    }

    /// Takes in how much room there is; says whether that changed anything.
    fn learn(&self, space: Space, asked: Option<u64>) -> bool {
        let least = asked.unwrap_or(FREE_MIN_BYTES.min(space.total / FREE_MIN_SHARE));
        let was_full = self.is_full();
        let wanted = if was_full { least.saturating_add(least / RECOVERY_SHARE) } else { least };
        self.0.free.store(space.free, Ordering::Relaxed);
        self.0.wanted.store(wanted, Ordering::Relaxed);
        let full = space.free < wanted;
        self.0.full.store(full, Ordering::Relaxed);
        full != was_full
    }
}

/// What it takes to look after the disk.
pub(crate) struct DiskCare {
    pub(crate) handle: Handle,
    pub(crate) disk: Disk,
    /// Bytes that are kept back; none: what suits the disk.
    pub(crate) free_min: Option<u64>,
    pub(crate) network: Arc<dyn Network>,
}

impl DiskCare {
    /// Looks every second until `shutdown`.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        loop {
            self.look().await;
            let leads = self.handle.raft().leadership().leads;
            if leads && self.handle.room().is_full() {
                self.hand_over().await;
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
    }

    /// Looks once. A file system that does not say how much is free changes nothing.
    pub(crate) async fn look(&self) {
        let space = match self.disk.space().await {
            Ok(Some(space)) => space,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "the disk does not say how much of it is free");
                return;
            }
        };
        let room = self.handle.room();
        if room.learn(space, self.free_min) {
            match room.why_not() {
                Some(reason) => tracing::error!(reason, "nothing is proposed any more until there is room"),
                None => tracing::info!(free_bytes = space.free, "the disk has room again"),
            }
        }
        let metrics = self.handle.metrics();
        metrics.disk.free.set(metrics::signed(space.free));
        metrics.disk.full.set(i64::from(room.is_full()));
    }

    /// Hands leadership to the voter with the longest log that has room; without one, it stays and refuses.
    async fn hand_over(&self) {
        let status = self.handle.raft().status();
        let others = status.members.into_iter().filter(|member| member.voter && member.node != status.node);
        let mut others: Vec<Member> = others.collect();
        others.sort_by_key(|member| std::cmp::Reverse(member.matched));
        for member in others {
            if !self.has_room(&member).await {
                continue;
            }
            match self.handle.raft().transfer_leadership(Some(member.node), HAND_OVER).await {
                Ok(successor) => {
                    tracing::warn!(%successor, "leadership is handed over, since the disk is nearly full");
                    return;
                }
                Err(problem) => {
                    tracing::info!(%problem, node = %member.node, "a node with room does not lead")
                }
            }
        }
    }

    async fn has_room(&self, member: &Member) -> bool {
        let settings = ChannelSettings::default();
        let Ok(channel) = Channel::new(Arc::clone(&self.network), &member.address, &settings) else {
            return false;
        };
        channel.call(DescribeCluster {}, ASK).await.is_ok_and(|status| !status.disk_full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_full_below_the_minimum_and_until_there_is_clearly_more() {
        const GIB: u64 = 1 << 30;
        let learn = |room: &Room, free, total, asked| {
            room.learn(Space { free, total }, asked);
            room.is_full()
        };
        let room = Room::default();
        assert!(!learn(&room, GIB, 100 * GIB, None));
        assert!(learn(&room, GIB - 1, 100 * GIB, None));
        assert!(room.check().unwrap_err().detail.contains("nearly full"));
        assert!(learn(&room, GIB + GIB / 8 - 1, 100 * GIB, None), "it does not waver");
        assert!(!learn(&room, GIB + GIB / 8, 100 * GIB, None));
        assert!(room.check().is_ok());
        assert!(!learn(&room, GIB / 20, GIB, None), "of a small disk, a twentieth");
        assert!(learn(&room, GIB / 20 - 1, GIB, None));
        assert!(!learn(&room, 0, GIB, Some(0)), "switched off");
    }
}
