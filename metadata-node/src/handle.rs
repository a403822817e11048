//! What can be asked of this node, with Raft hidden behind it.
//!
//! Commands go through the log and are answered by the leader alone; queries are answered by any node from a state that
//! holds everything acknowledged before they arrived. The handle makes what the state machine may not: new ids.

mod groups;
mod guarantees;
mod jobs;
mod manifests;
mod tokens;
mod upgrade;
mod usage;
mod wakeups;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use carnax_core::error_code::ErrorCode;
use carnax_core::id::{ClusterId, Incarnation, NodeId, TopicId};
use carnax_core::metadata::{
    AddNode, AlterTopic, ClusterStatus, CommitNotice, CommitSegments, CreateTopic, DeleteTopic, DeletedTopic,
    DescribeTopic, FetchPlan, ListTopics, MembershipChanged, OpenSession, PlanFetch, RemoveNode,
    SegmentOutcome, SegmentsCommitted, SessionOpened, TopicDescription, TopicPage, TransferLeadership,
    TrimPartition, TrimmedPartition, UnitOutcome,
};
use carnax_core::problem::Problem;
use carnax_core::time::Timestamp;
use carnax_metadata_raft::{RaftNode, StateView};
use carnax_metadata_state::{Command, FeatureLevel, Reply, answer, check_level};
use carnax_object_store::ObjectStore;
use carnax_platform::entropy::Entropy;
use futures::stream::Stream;

use crate::cluster;
use crate::disk_care::Room;
use crate::group_sessions::GroupSessions;
use crate::membership;
use crate::metrics::Metrics;
use crate::rpc::DEADLINE;
use crate::stamper::Stamper;
use crate::usage::OwnUsage;

/// The node, for whoever asks it something. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Handle(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    raft: RaftNode,
    entropy: Arc<dyn Entropy>,
    sessions: GroupSessions,
    stamper: Stamper,
    metrics: Metrics,
    cluster: ClusterId,
    incarnation: Incarnation,
    room: Room,
    usage: OwnUsage,
    /// Whether there is an archive.
    is_archived: bool,
    /// The highest feature level that this node knows.
    level_max: FeatureLevel,
    /// The last log entry that is in the archive for sure.
    archived: AtomicU64,
    /// Without an archive: the term in which the bucket knows that this leader deletes all the same.
    off_term: AtomicU64,
}

/// Picks the reply that a command has; the state machine gives each command its own.
macro_rules! reply {
    ($handle:expr, $command:expr, $variant:ident) => {
        match $handle.propose($command).await? {
            Reply::$variant(reply) => Ok(reply),
            other => Err(mismatched(&other)),
        }
    };
}
use reply;

impl Handle {
    pub(crate) fn new(
        raft: RaftNode,
        entropy: Arc<dyn Entropy>,
        (sessions, stamper): (GroupSessions, Stamper),
        (cluster, incarnation): (ClusterId, Incarnation),
        (is_archived, level_max): (bool, FeatureLevel),
        store: Arc<dyn ObjectStore>,
    ) -> Self {
        let metrics = Metrics::new();
        let usage = OwnUsage::new(store, &*entropy);
        let (archived, off_term) = Default::default();
        Self(Arc::new(Parts {
            raft,
            entropy,
            sessions,
            stamper,
            metrics,
            cluster,
            incarnation,
            room: Room::default(),
            usage,
            is_archived,
            level_max,
            archived,
            off_term,
        }))
    }

    pub(crate) fn raft(&self) -> &RaftNode {
        &self.0.raft
    }

    pub(crate) fn sessions(&self) -> &GroupSessions {
        &self.0.sessions
    }

    /// The log time of the next entry, while this node leads.
    pub(crate) fn log_time(&self) -> Timestamp {
        self.0.stamper.stamp().max(self.0.raft.state().state.log_time())
    }

    /// Whether this node's disk has room.
    pub(crate) fn room(&self) -> &Room {
        &self.0.room
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// The highest feature level that this node knows.
    pub(crate) fn level_max(&self) -> FeatureLevel {
        self.0.level_max
    }

    pub(crate) fn cluster(&self) -> ClusterId {
        self.0.cluster
    }

    pub(crate) async fn open_session(&self, request: OpenSession) -> Result<SessionOpened, Problem> {
        reply!(self, Command::OpenSession(request), SessionOpened)
    }

    pub(crate) async fn commit_segments(
        &self,
        request: CommitSegments,
    ) -> Result<SegmentsCommitted, Problem> {
        if request.incarnation != self.0.incarnation {
            return Err(stale_incarnation(self.0.incarnation));
        }
        let committed: Arc<SegmentsCommitted> =
            reply!(self, Command::CommitSegments(request), SegmentsCommitted)?;
        self.count_refused_units(&committed);
        Ok(Arc::unwrap_or_clone(committed))
    }

    fn count_refused_units(&self, committed: &SegmentsCommitted) {
        for outcome in &committed.outcomes {
            let SegmentOutcome::Decided(units) = outcome else { continue };
            for unit in units {
                if let UnitOutcome::Refused(problem) = unit {
                    self.0.metrics.units_refused.with_label_values(&[problem.code.as_str()]).inc();
                }
            }
        }
    }

    pub(crate) async fn create_topic(&self, request: CreateTopic) -> Result<TopicDescription, Problem> {
        let now = self.0.raft.state().state.log_time();
        let id = TopicId::from_parts(now, self.0.entropy.next_u128());
        reply!(self, Command::CreateTopic { id, request }, TopicCreated)
    }

    pub(crate) async fn alter_topic(&self, request: AlterTopic) -> Result<TopicDescription, Problem> {
        reply!(self, Command::AlterTopic(request), TopicAltered)
    }

    pub(crate) async fn delete_topic(&self, request: DeleteTopic) -> Result<DeletedTopic, Problem> {
        reply!(self, Command::DeleteTopic(request), TopicDeleted)
    }

    pub(crate) async fn trim_partition(&self, request: TrimPartition) -> Result<TrimmedPartition, Problem> {
        reply!(self, Command::TrimPartition(request), PartitionTrimmed)
    }

    pub(crate) async fn plan_fetch(&self, request: PlanFetch) -> Result<FetchPlan, Problem> {
        let view = self.linearizable().await?;
        self.counted(answer::plan_fetch(&view.state, &request))
    }

    pub(crate) async fn describe_topic(&self, request: DescribeTopic) -> Result<TopicDescription, Problem> {
        let view = self.linearizable().await?;
        self.counted(answer::describe_topic(&view.state, &request))
    }

    pub(crate) async fn list_topics(&self, request: ListTopics) -> Result<TopicPage, Problem> {
        let view = self.linearizable().await?;
        self.counted(answer::list_topics(&view.state, &request))
    }

    /// Everything committed from now on, as this node applies it. Ends when the node stops.
    pub(crate) fn watch_commits(&self) -> impl Stream<Item = Result<CommitNotice, Problem>> + Send + 'static {
        let feed = self.0.raft.watch_applied();
        cluster::notices(self.0.raft.state().applied, feed)
    }

    pub(crate) async fn add_node(&self, request: AddNode) -> Result<MembershipChanged, Problem> {
        self.counted(membership::add(self, request).await)
    }

    pub(crate) async fn remove_node(&self, request: RemoveNode) -> Result<MembershipChanged, Problem> {
        self.counted(membership::remove(self, request.node).await)
    }

    pub(crate) async fn transfer_leadership(
        &self,
        request: TransferLeadership,
    ) -> Result<MembershipChanged, Problem> {
        self.counted(membership::transfer(self, request.to).await)
    }

    /// The cluster as this node sees it; asks nobody.
    pub(crate) fn cluster_status(&self) -> ClusterStatus {
        let status = cluster::status(self, self.0.incarnation);
        ClusterStatus { disk_full: self.0.room.is_full(), ..status }
    }

    /// What keeps this node from serving; empty if nothing does.
    pub(crate) fn why_not_ready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        let state = answer::status(&self.0.raft.state().state);
        if self.0.raft.leadership().leader.is_none() {
            reasons.push("no node leads: most voters are down or cut off".to_owned());
        }
        if !state.appends_open {
            let wanted = state.voters_wanted;
            reasons.push(format!("appends wait until {wanted} nodes vote, as the bootstrap list asks for"));
        }
        reasons.extend(self.0.room.why_not());
        reasons
    }

    /// Proposes a command and waits for what the state machine decides.
    ///
    /// Dropping the future does not take the command back.
    pub(crate) async fn propose(&self, command: Command) -> Result<Reply, Problem> {
        self.counted(self.0.room.check())?;
        if let Some(level) = self.0.raft.state().state.feature_level() {
            self.counted(check_level(&command, level))?;
        }
        let timer = self.0.metrics.commit.start_timer();
        let proposed = self.0.raft.propose(command, DEADLINE).await;
        timer.observe_duration();
        self.counted(proposed.and_then(|applied| applied.outcome))
    }

    /// The state after everything that was acknowledged before this call.
    pub(crate) async fn linearizable(&self) -> Result<Arc<StateView>, Problem> {
        self.linearizable_within(DEADLINE).await
    }

    /// As [`linearizable`](Self::linearizable), for those who have less time.
    pub(crate) async fn linearizable_within(&self, deadline: Duration) -> Result<Arc<StateView>, Problem> {
        let timer = self.0.metrics.read_index.start_timer();
        let view = self.0.raft.linearizable(deadline).await;
        timer.observe_duration();
        self.counted(view)
    }

    fn counted<T>(&self, answer: Result<T, Problem>) -> Result<T, Problem> {
        if let Err(problem) = &answer {
            self.0.metrics.refused.with_label_values(&[problem.code.as_str()]).inc();
        }
        answer
    }
}

fn stale_incarnation(own: Incarnation) -> Problem {
    let detail = format!("the cluster runs under incarnation {own}; open a new session");
    Problem::new(ErrorCode::StaleIncarnation, detail)
}

fn mismatched(reply: &Reply) -> Problem {
    Problem::new(ErrorCode::Internal, format!("the state machine gave a reply of another command: {reply:?}"))
}

/// A node that nobody knows.
pub(crate) fn no_such_node(node: NodeId) -> Problem {
    Problem::new(
        ErrorCode::NodeNotFound,
        format!("no metadata node has the id {node}; see the cluster's status"),
    )
}
