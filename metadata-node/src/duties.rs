//! What only a leader does beside answering: it finishes the bootstrap, gives votes to those who are to have one, expires
//! sessions, and gives leadership up when its clock is wrong. Each duty is repeated until it is done, so a leader that dies
//! in the middle leaves it to the next.

use std::time::Duration;

use carnax_core::access::{Grant, Token};
use carnax_core::limits;
use carnax_core::metadata::{AddNode, CreateToken};
use carnax_core::problem::Problem;
use carnax_core::quota::Quotas;
use carnax_core::time::Timestamp;
use carnax_metadata_raft::{Member, RaftStatus};
use carnax_metadata_state::deliberate_bugs::{self, DeliberateBug};
use carnax_metadata_state::{Command, FeatureLevel, answer, due};
use carnax_platform::clock::Clock;
use tokio_util::sync::CancellationToken;

use crate::bootstrap::BootstrapDocument;
use crate::handle::Handle;
use crate::log_clock::{Reading, off_the_median};
use crate::membership::{self, promotions};
use crate::metrics;
use crate::stamper::Stamper;

/// How often a leader looks after its duties.
const PERIOD: Duration = Duration::from_millis(500);
/// How long a learner may take to catch up before the leader looks at the next one.
const PROMOTION: Duration = Duration::from_secs(5);
/// A peer that was not heard for so long says nothing about the time.
const CLOCK_AGE_MAX: Duration = Duration::from_secs(5);

/// What the duties work with.
pub(crate) struct Duties {
    pub(crate) handle: Handle,
    pub(crate) stamper: Stamper,
    pub(crate) clock: std::sync::Arc<dyn Clock>,
    /// What the first node tells the state machine; none on all others.
    pub(crate) bootstrap: Option<BootstrapDocument>,
    /// The number of this node's disk.
    pub(crate) disk: u128,
    /// Where others reach this node.
    pub(crate) advertised: String,
    /// The token that lets the first administrator in.
    pub(crate) admin_token: Option<Token>,
}

impl Duties {
    /// Runs until `shutdown`.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut leadership = self.handle.raft().watch_leadership();
        loop {
            let leads = leadership.borrow_and_update().leads;
            if leads {
                if let Err(problem) = self.lead().await {
                    tracing::info!(%problem, "a duty of the leader waits");
                }
            } else {
                self.stamper.follow();
            }
            if deliberate_bugs::makes(DeliberateBug::CollectorJudgesByAnotherClock) {
                deliberate_bugs::latest(self.clock.wall());
            }
            self.export();
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = leadership.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
    }

    async fn lead(&self) -> Result<(), Problem> {
        let (view, status) = (self.handle.raft().state(), self.handle.raft().status());
        let voters = status.members.iter().filter(|member| member.voter).count();
        let peers = self.peer_clocks(&status);
        self.stamper.lead(view.state.log_time(), peers.clone(), voters);
        if self.clock_is_off(&peers, voters) && voters > 1 {
            return self.handle.raft().transfer_leadership(None, PROMOTION).await.map(drop);
        }
        self.finish_bootstrap().await?;
        self.let_admin_in().await?;
        // The last ones may wait for somebody else, so that they come last.
        if due(&view.state, self.stamper.stamp()) {
            self.handle.propose(Command::ExpireSessions).await?;
        }
        self.handle.raft().finish_change(membership::CHANGE).await?;
        self.tell_own_address(&status).await?;
        membership::record_voters(&self.handle).await?;
        self.promote(&status.members, answer::status(&view.state).voters_wanted).await
    }

    async fn finish_bootstrap(&self) -> Result<(), Problem> {
        let Some(document) = &self.bootstrap else { return Ok(()) };
        if answer::status(&self.handle.raft().state().state).cluster.is_some() {
            return Ok(());
        }
        let command = Command::Bootstrap {
            cluster: document.cluster,
            incarnation: document.incarnation,
            voters_wanted: u32::try_from(document.voters.len().max(1)).unwrap_or(u32::MAX),
            address: document.address.clone(),
            disk: self.disk,
        };
        self.handle.propose(command).await?;
        tracing::info!(cluster = %document.cluster, "cluster is bootstrapped");
        Ok(())
    }

    /// Makes the token of the node's settings an administrator's, while there is no other valid one.
    async fn let_admin_in(&self) -> Result<(), Problem> {
        let Some(token) = &self.admin_token else { return Ok(()) };
        let view = self.handle.raft().state();
        let knows_tokens = view.state.feature_level().is_some_and(|level| level >= FeatureLevel::TOKENS);
        if !knows_tokens || answer::has_admin(&view.state, self.handle.log_time()) {
            return Ok(());
        }
        let request = CreateToken {
            id: token.id().clone(),
            hash: token.hash(),
            description: "administrator's token of a metadata node's settings".to_owned(),
            grants: vec![Grant::admin()],
            expires: None,
            quotas: Quotas::default(),
            only_without_admin: true,
        };
        self.handle.propose(Command::CreateToken(request)).await?;
        tracing::info!(token = %token.id(), "the administrator's token of the settings is valid");
        Ok(())
    }

    /// A leader that was started at another address says so; a follower that moved joins again from there.
    async fn tell_own_address(&self, status: &RaftStatus) -> Result<(), Problem> {
        let own = status.members.iter().find(|member| member.node == status.node);
        if own.is_none_or(|own| own.address == self.advertised) {
            return Ok(());
        }
        let (address, disk) = (self.advertised.clone(), Some(self.disk));
        let level_max = Some(self.handle.level_max().0);
        self.handle.add_node(AddNode { address, disk, promote: false, level_max }).await.map(drop)
    }

    async fn promote(&self, members: &[Member], voters_wanted: u32) -> Result<(), Problem> {
        let Some(promotion) = promotions(members, voters_wanted) else { return Ok(()) };
        let raft = self.handle.raft();
        raft.promote(promotion.learner, PROMOTION).await?;
        tracing::info!(node = %promotion.learner, "node votes");
        membership::record_voters(&self.handle).await?;
        if let Some(lost) = promotion.instead_of {
            membership::remove(&self.handle, lost).await?;
            tracing::warn!(node = %lost, successor = %promotion.learner, "node lost its disk and is removed");
        }
        Ok(())
    }

    /// What the wall clocks of the other voters said when they were last heard: a little late, never early.
    fn peer_clocks(&self, status: &RaftStatus) -> Vec<Timestamp> {
        let clocks = self.handle.raft().peer_clocks();
        let now = self.clock.wall();
        let others = status.members.iter().filter(|member| member.voter && member.node != status.node);
        let heard = others.filter_map(|member| clocks.get(&member.node));
        heard
            .filter(|clock| now.since(clock.heard_at) <= CLOCK_AGE_MAX)
            .map(|clock| Timestamp::from_millis(clock.heard_at.millis().saturating_add(clock.ahead_millis)))
            .collect()
    }

    fn clock_is_off(&self, peers: &[Timestamp], voters: usize) -> bool {
        let (wall, monotonic) = (self.clock.wall(), self.clock.monotonic());
        let off = off_the_median(Reading { wall, monotonic, peers, voters }).unwrap_or_default();
        self.handle.metrics().clock_offset.set(metrics::millis(off));
        let wrong = off > limits::CLOCK_AHEAD_MAX;
        if wrong {
            tracing::error!(
                offset_seconds = off.as_secs(),
                "this node's clock differs from the majority's: it gives leadership up; set its clock right"
            );
        }
        wrong
    }

    fn export(&self) {
        let (view, status) = (self.handle.raft().state(), self.handle.raft().status());
        let (counts, metrics) = (answer::status(&view.state), self.handle.metrics());
        let index = |at: Option<carnax_core::id::LogIndex>| at.map_or(0, |at| at.0);
        metrics.leading.set(i64::from(status.leadership.leads));
        metrics.term.set(metrics::signed(status.leadership.term));
        metrics.applied.set(metrics::signed(view.applied.0));
        metrics.log_entries.set(metrics::signed(index(status.last_log).saturating_sub(index(status.purged))));
        metrics.unfinished_fsync_age.set(metrics::millis(status.oldest_fsync.unwrap_or_default()));
        metrics.state.topics.set(metrics::signed(counts.topics));
        metrics.state.partitions.set(metrics::signed(counts.partitions));
        metrics.state.slices.set(metrics::signed(counts.slices));
        metrics.state.pages.set(metrics::signed(counts.pages));
        metrics.state.segments.set(metrics::signed(counts.segments));
        metrics.jobs.dead_segments.set(metrics::signed(counts.dead_segments));
        metrics.state.sessions.set(metrics::signed(counts.sessions));
        metrics.state.producers.set(metrics::signed(counts.producers));
        metrics.state.idempotency_keys.set(metrics::signed(counts.idempotency_keys));
        metrics.state.remembered_slices.set(metrics::signed(counts.remembered_slices));
        metrics.state.groups.set(metrics::signed(counts.groups));
        metrics.state.group_members.set(metrics::signed(counts.group_members));
        metrics.session_tick_age.set(metrics::millis(self.handle.sessions().tick_age().unwrap_or_default()));
    }
}
