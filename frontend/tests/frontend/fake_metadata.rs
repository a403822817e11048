//! A metadata node of one: the real state machine behind a real RPC server, without Raft, that misbehaves on demand.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use carnax_core::error_code::ErrorCode;
use carnax_core::id::{ClusterId, CommitNumber, Incarnation, LogIndex, NodeId, SessionId, TopicId};
use carnax_core::metadata::{
    AlterSettings, AlterToken, AlterTopic, ClusterStatus, CommitNotice, CommitOffsets, CommitSegments,
    CreateToken, CreateTopic, DeleteGroup, DeleteTopic, DeleteWakeup, DescribeCluster, DescribeFencingToken,
    DescribeGroup, DescribeMaintenance, DescribeProducer, DescribeSettings, DescribeTopic, DescribeUsage,
    FetchOffsets, FindDead, FindOrphans, FindToken, FinishCompaction, ForgetDead, Heartbeat, JoinGroup,
    LeaveGroup, ListDead, ListGroups, ListManifests, ListPages, ListTokens, ListTopics, ListWakeups,
    MemberAssignment, OpenSession, PlanCompaction, PlanFetch, PlanMerge, PlanPage, PutWakeup,
    RaiseProducerEpoch, ReplaceByPage, ReplaceSlices, ReportJob, ReportUsage, RevokeToken, SetFencingToken,
    SettingsDescription, TakeJob, TokenFound, TouchToken, TrimPartition, UsageMonth, WatchCommits,
};
use carnax_core::problem::Problem;
use carnax_core::time::Timestamp;
use carnax_metadata_state::{Command, Entry, FeatureLevel, Reply, State, answer};
use carnax_platform::network::{Network, TcpNetwork};
use carnax_platform::rpc::{Router, serve};
use futures::StreamExt;
use tokio::sync::broadcast;

pub const START: i64 = 1_700_000_000_000;

/// What befalls one segment commit.
#[derive(Debug, Clone, Copy)]
pub enum CommitFault {
    /// It is done, and the reply never comes.
    LoseReply,
    /// It never arrives, and nothing comes back.
    LoseRequest,
    /// It is refused.
    Refuse(ErrorCode),
}

#[derive(Clone)]
pub struct FakeMetadata {
    pub address: String,
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<(State, LogIndex, i64)>,
    faults: Mutex<VecDeque<CommitFault>>,
    /// What befalls the next commands of groups: true = it is done and the reply never comes, false = it gets lost.
    group_faults: Mutex<VecDeque<bool>>,
    commits: Mutex<Vec<(SessionId, CommitNumber)>>,
    plans: AtomicU64,
    no_quorum: AtomicBool,
    silent_feed: AtomicBool,
    /// Whether it is of a version that knows no tokens.
    before_tokens: AtomicBool,
    notices: Mutex<broadcast::Sender<CommitNotice>>,
}

impl FakeMetadata {
    pub async fn start() -> Self {
        let inner = Arc::new(Inner {
            state: Mutex::new((State::default(), LogIndex(0), START)),
            faults: Mutex::default(),
            group_faults: Mutex::default(),
            commits: Mutex::default(),
            plans: AtomicU64::new(0),
            no_quorum: AtomicBool::new(false),
            silent_feed: AtomicBool::new(false),
            before_tokens: AtomicBool::new(false),
            notices: Mutex::new(broadcast::channel(1_024).0),
        });
        let listener = TcpNetwork.listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_address().unwrap().to_string();
        inner.bootstrap(&address, Incarnation(1));
        tokio::spawn(serve(listener, router(&inner), pending()));
        Self { address, inner }
    }

    pub fn script(&self, faults: impl IntoIterator<Item = CommitFault>) {
        self.inner.faults.lock().unwrap().extend(faults);
    }

    /// Forgets what is left of the script.
    pub fn unscript(&self) {
        self.inner.faults.lock().unwrap().clear();
    }

    /// Loses the next command of a group: only its reply if it is to be done.
    pub fn lose_group_command(&self, done: bool) {
        self.inner.group_faults.lock().unwrap().push_back(done);
    }

    /// Every commit that arrived, in order, lost ones included.
    pub fn commits(&self) -> Vec<(SessionId, CommitNumber)> {
        self.inner.commits.lock().unwrap().clone()
    }

    pub fn plans(&self) -> u64 {
        self.inner.plans.load(Ordering::SeqCst)
    }

    /// Records of all reports of usage.
    pub fn records_in(&self) -> u64 {
        let (month, after_topic, after_token, limit) = (UsageMonth::This, None, None, 1);
        let question = DescribeUsage { month, after_topic, after_token, limit };
        let state = self.inner.state();
        let usage = answer::describe_usage(&state.0, &question, Timestamp::from_millis(state.2)).unwrap();
        usage.traffic.records_in
    }

    pub fn lose_quorum(&self, lost: bool) {
        self.inner.no_quorum.store(lost, Ordering::SeqCst);
    }

    /// Answers as a node of a version before there were tokens.
    pub fn know_no_tokens(&self) {
        self.inner.before_tokens.store(true, Ordering::SeqCst);
    }

    /// Drops notices from now on, as a node that is cut off would.
    pub fn silence_feed(&self, silent: bool) {
        self.inner.silent_feed.store(silent, Ordering::SeqCst);
    }

    /// Ends all streams of notices; new ones may be opened.
    pub fn cut_feed(&self) {
        *self.inner.notices.lock().unwrap() = broadcast::channel(1_024).0;
    }

    /// Whether somebody follows the feed.
    pub fn is_followed(&self) -> bool {
        self.inner.notices.lock().unwrap().receiver_count() > 0
    }

    /// Begins anew under another incarnation, with nothing of what was before.
    pub fn restore(&self, incarnation: Incarnation) {
        self.inner.faults.lock().unwrap().clear();
        self.inner.state().0 = State::default();
        self.inner.bootstrap(&self.address, incarnation);
    }

    /// Lets log time pass.
    pub fn pass(&self, time: Duration) {
        self.inner.state().2 += i64::try_from(time.as_millis()).unwrap();
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, (State, LogIndex, i64)> {
        self.state.lock().unwrap()
    }

    fn bootstrap(&self, address: &str, incarnation: Incarnation) {
        let bootstrap = Command::Bootstrap {
            cluster: ClusterId::from_bytes([1; 16]),
            incarnation,
            voters_wanted: 1,
            address: address.to_owned(),
            disk: 1,
        };
        self.apply(bootstrap).unwrap();
        self.apply(Command::SetVoters { voters: vec![NodeId(1)] }).unwrap();
    }

    fn check(&self) -> Result<(), Problem> {
        match self.no_quorum.load(Ordering::SeqCst) {
            true => Err(Problem::new(ErrorCode::NoQuorum, "switched off by the test")),
            false => Ok(()),
        }
    }

    fn apply(&self, command: Command) -> Result<Reply, Problem> {
        let (outcomes, index) = {
            let mut state = self.state();
            state.1 = LogIndex(state.1.0 + 1);
            state.2 += 1;
            let (index, log_time) = (state.1, Timestamp::from_millis(state.2));
            let entry = Entry { level: FeatureLevel::CURRENT, log_time, commands: vec![command] };
            (state.0.apply(index, &entry), index)
        };
        let partitions = answer::grown_partitions(&outcomes);
        if !partitions.is_empty() && !self.silent_feed.load(Ordering::SeqCst) {
            let notice = CommitNotice { applied: index, lagged: false, partitions };
            let _ = self.notices.lock().unwrap().send(notice);
        }
        outcomes.into_iter().next().unwrap()
    }

    async fn commit(&self, request: CommitSegments) -> Result<Reply, Problem> {
        self.commits.lock().unwrap().push((request.session, request.number));
        let fault = self.faults.lock().unwrap().pop_front();
        match fault {
            Some(CommitFault::LoseRequest) => pending().await,
            Some(CommitFault::Refuse(code)) => return Err(Problem::new(code, "scripted by the test")),
            Some(CommitFault::LoseReply) | None => {}
        }
        self.check()?;
        let reply = self.apply(Command::CommitSegments(request));
        if let Some(CommitFault::LoseReply) = fault {
            pending::<()>().await;
        }
        reply
    }

    async fn group_command(&self, command: Command) -> Result<Reply, Problem> {
        self.check()?;
        let fault = self.group_faults.lock().unwrap().pop_front();
        if fault == Some(false) {
            pending::<()>().await;
        }
        let reply = self.apply(command);
        if fault == Some(true) {
            pending::<()>().await;
        }
        reply
    }

    async fn heartbeat(&self, heartbeat: Heartbeat) -> Result<MemberAssignment, Problem> {
        self.check()?;
        let confirms = answer::must_confirm(&self.state().0, &heartbeat);
        if confirms {
            self.group_command(Command::ConfirmAssignment(heartbeat.clone())).await?;
        }
        answer::member_assignment(&self.state().0, &heartbeat)
    }

    fn status(&self) -> ClusterStatus {
        let status = answer::status(&self.state().0);
        ClusterStatus {
            cluster: status.cluster,
            incarnation: status.incarnation,
            answered_by: Some(NodeId(1)),
            leader: (!self.no_quorum.load(Ordering::SeqCst)).then_some(NodeId(1)),
            term: 1,
            applied: status.applied,
            log_time: status.log_time,
            voters_wanted: status.voters_wanted,
            nodes: Vec::new(),
            topics: status.topics,
            partitions: status.partitions,
            slices: status.slices,
            segments: status.segments,
            disk_full: false,
            feature_level: Some(FeatureLevel::CURRENT.0),
            feature_level_max: Some(FeatureLevel::CURRENT.0),
        }
    }
}

macro_rules! command {
    ($router:expr, $inner:expr, $request:ident, $reply:ident, $command:expr) => {{
        let inner = Arc::clone($inner);
        $router.unary(move |request: $request| {
            let inner = Arc::clone(&inner);
            async move {
                inner.check()?;
                let make: fn(&Inner, $request) -> Command = $command;
                let command = make(&inner, request);
                match inner.apply(command)? {
                    Reply::$reply(reply) => Ok(reply),
                    other => panic!("unexpected reply {other:?}"),
                }
            }
        })
    }};
}

macro_rules! group_command {
    ($router:expr, $inner:expr, $request:ident, $reply:ident) => {{
        let inner = Arc::clone($inner);
        $router.unary(move |request: $request| {
            let inner = Arc::clone(&inner);
            async move {
                match inner.group_command(Command::$request(request)).await? {
                    Reply::$reply(reply) => Ok(reply),
                    other => panic!("unexpected reply {other:?}"),
                }
            }
        })
    }};
}

macro_rules! query {
    ($router:expr, $inner:expr, $request:ident, $answer:expr) => {{
        let inner = Arc::clone($inner);
        $router.unary(move |request: $request| {
            let inner = Arc::clone(&inner);
            async move {
                inner.check()?;
                let state = inner.state();
                $answer(&state.0, &request)
            }
        })
    }};
}

/// A query whose answer depends on the time.
macro_rules! timed {
    ($router:expr, $inner:expr, $request:ident, $answer:expr) => {{
        let inner = Arc::clone($inner);
        $router.unary(move |request: $request| {
            let inner = Arc::clone(&inner);
            async move {
                inner.check()?;
                let state = inner.state();
                $answer(&state.0, &request, Timestamp::from_millis(state.2))
            }
        })
    }};
}

/// The whole log is in the archive.
const EVERYTHING: LogIndex = LogIndex(u64::MAX);

fn usage(router: Router, inner: &Arc<Inner>) -> Router {
    let router =
        command!(router, inner, ReportUsage, UsageReported, |_, request| Command::ReportUsage(request));
    timed!(router, inner, DescribeUsage, answer::describe_usage)
}

fn jobs(router: Router, inner: &Arc<Inner>) -> Router {
    let router = command!(router, inner, TakeJob, JobTaken, |inner: &Inner, request: TakeJob| {
        let state = inner.state();
        let now = Timestamp::from_millis(state.2);
        let kind = match answer::next_job(&state.0, &request.worker, now, EVERYTHING) {
            answer::NextJob::Take(kind) => Some(kind),
            answer::NextJob::Wait(_) => None,
        };
        Command::TakeJob(TakeJob { kind, ..request })
    });
    let router = command!(router, inner, ReportJob, JobReported, |_, request| Command::ReportJob(request));
    let router = query!(router, inner, FindOrphans, answer::find_orphans);
    let router = query!(router, inner, ListManifests, answer::list_manifests);
    let router = query!(router, inner, ListDead, answer::list_dead);
    let router = query!(router, inner, ListPages, answer::list_pages);
    let router =
        command!(router, inner, ReplaceSlices, SlicesReplaced, |_, request| Command::ReplaceSlices(request));
    let router =
        command!(router, inner, ForgetDead, DeadForgotten, |_, request| Command::ForgetDead(request));
    let router = command!(router, inner, FinishCompaction, CompactionFinished, |_, request| {
        Command::FinishCompaction(request)
    });
    let router =
        command!(router, inner, ReplaceByPage, PageReplaced, |_, request| Command::ReplaceByPage(request));
    let router = timed!(router, inner, PlanPage, answer::plan_page);
    let router = timed!(router, inner, PlanMerge, answer::plan_merge);
    let router = timed!(router, inner, PlanCompaction, answer::plan_compaction);
    let router = timed!(router, inner, FindDead, |state, request, now| {
        answer::find_dead(state, request, now, EVERYTHING)
    });
    timed!(router, inner, DescribeMaintenance, |state, _: &_, now| {
        Ok(answer::describe_maintenance(state, now, EVERYTHING))
    })
}

fn tokens(router: Router, inner: &Arc<Inner>) -> Router {
    let router =
        command!(router, inner, CreateToken, TokenCreated, |_, request| Command::CreateToken(request));
    let router = command!(router, inner, AlterToken, TokenAltered, |_, request| Command::AlterToken(request));
    let router =
        command!(router, inner, RevokeToken, TokenRevoked, |_, request| Command::RevokeToken(request));
    let router = command!(router, inner, TouchToken, TokenTouched, |_, request| Command::TouchToken(request));
    let router = query!(router, inner, ListTokens, answer::list_tokens);
    let inner = Arc::clone(inner);
    router.unary(move |request: FindToken| {
        let inner = Arc::clone(&inner);
        async move {
            inner.check()?;
            if inner.before_tokens.load(Ordering::SeqCst) {
                return Err(Problem::new(ErrorCode::RouteNotFound, "no such call in this version"));
            }
            let state = inner.state();
            let found = answer::find_token(&state.0, &request);
            Ok(TokenFound { log_time: found.log_time.max(Timestamp::from_millis(state.2)), ..found })
        }
    })
}

fn router(inner: &Arc<Inner>) -> Router {
    let router = Router::new();
    let router =
        command!(router, inner, OpenSession, SessionOpened, |_, request| Command::OpenSession(request));
    let router = command!(router, inner, CreateTopic, TopicCreated, |inner, request| {
        let id = TopicId::from_bytes(u128::from(inner.state().1.0 + 1_000).to_be_bytes());
        Command::CreateTopic { id, request }
    });
    let router = command!(router, inner, AlterTopic, TopicAltered, |_, request| Command::AlterTopic(request));
    let router =
        command!(router, inner, DeleteTopic, TopicDeleted, |_, request| Command::DeleteTopic(request));
    let router =
        command!(router, inner, TrimPartition, PartitionTrimmed, |_, request| Command::TrimPartition(
            request
        ));
    let router = command!(router, inner, RaiseProducerEpoch, ProducerEpochRaised, |_, request| {
        Command::RaiseProducerEpoch(request)
    });
    let router = command!(router, inner, SetFencingToken, FencingTokenSet, |_, request| {
        Command::SetFencingToken(request)
    });
    let router = command!(router, inner, PutWakeup, WakeupPut, |_, request| Command::PutWakeup(request));
    let router =
        command!(router, inner, DeleteWakeup, WakeupDeleted, |_, request| { Command::DeleteWakeup(request) });
    let router = query!(router, inner, ListWakeups, answer::list_wakeups);
    let router = usage(router, inner);
    let router = jobs(router, inner);
    let router = tokens(router, inner);
    let router = query!(router, inner, DescribeProducer, answer::describe_producer);
    let router = query!(router, inner, DescribeFencingToken, answer::describe_fencing_token);
    let router = query!(router, inner, DescribeTopic, answer::describe_topic);
    let router = query!(router, inner, ListTopics, answer::list_topics);
    let router = group_routes(router, inner);
    let (commits, plans, watched) = (Arc::clone(inner), Arc::clone(inner), Arc::clone(inner));
    let described = Arc::clone(inner);
    router
        .unary(move |request: CommitSegments| {
            let inner = Arc::clone(&commits);
            async move {
                // The client may hang up: what arrived is done all the same.
                match tokio::spawn(async move { inner.commit(request).await }).await.unwrap()? {
                    Reply::SegmentsCommitted(reply) => Ok((*reply).clone()),
                    other => panic!("unexpected reply {other:?}"),
                }
            }
        })
        .unary(move |request: PlanFetch| {
            let inner = Arc::clone(&plans);
            async move {
                inner.plans.fetch_add(1, Ordering::SeqCst);
                inner.check()?;
                let state = inner.state();
                answer::plan_fetch(&state.0, &request)
            }
        })
        .unary(move |_: DescribeCluster| {
            let inner = Arc::clone(&described);
            async move { Ok(inner.status()) }
        })
        .server_stream(move |_: WatchCommits| {
            let inner = Arc::clone(&watched);
            async move {
                let receiver = inner.notices.lock().unwrap().subscribe();
                let applied = inner.state().1;
                let first = CommitNotice { applied, lagged: false, partitions: Vec::new() };
                let notices = futures::stream::unfold(receiver, |mut receiver| async move {
                    let notice = receiver.recv().await.ok()?;
                    Some((Ok(notice), receiver))
                });
                Ok(futures::stream::iter([Ok(first)]).chain(notices).boxed())
            }
        })
}

fn describe_settings(state: &State, _: &DescribeSettings) -> Result<SettingsDescription, Problem> {
    Ok(answer::describe_settings(state))
}

fn group_routes(router: Router, inner: &Arc<Inner>) -> Router {
    let router = group_command!(router, inner, JoinGroup, GroupJoined);
    let router = group_command!(router, inner, LeaveGroup, GroupLeft);
    let router = group_command!(router, inner, CommitOffsets, OffsetsCommitted);
    let router = group_command!(router, inner, DeleteGroup, GroupDeleted);
    let router = group_command!(router, inner, AlterSettings, SettingsAltered);
    let router = query!(router, inner, DescribeSettings, describe_settings);
    let router = query!(router, inner, FetchOffsets, answer::fetch_offsets);
    let router = query!(router, inner, DescribeGroup, answer::describe_group);
    let router = query!(router, inner, ListGroups, answer::list_groups);
    let inner = Arc::clone(inner);
    router.unary(move |heartbeat: Heartbeat| {
        let inner = Arc::clone(&inner);
        async move { inner.heartbeat(heartbeat).await }
    })
}
