//! Sessions of group members: who is silent is out, and nobody else, whatever becomes of the leader.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use carnax_core::error_code::ErrorCode;
use carnax_core::metadata::{
    CommitOffsets, CreateTopic, DescribeGroup, GroupDescription, GroupPhase, Heartbeat, JoinGroup,
    MemberAssignment, OffsetCommit, TransferLeadership,
};
use carnax_core::offset::Offset;
use carnax_core::problem::Problem;
use carnax_platform::network::Network;
use carnax_platform::rpc::CallError;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cluster::{PATIENCE, TestCluster, call_any};

const SECOND: Duration = Duration::from_secs(1);

/// A member that does as it is told.
struct Member {
    addresses: Vec<String>,
    network: Arc<dyn Network>,
    /// The place of the address that answered last.
    leader: usize,
    id: String,
    now: MemberAssignment,
}

impl Member {
    async fn join(cluster: &TestCluster, id: &str, session: Duration) -> Self {
        let request = JoinGroup {
            group: "g".parse().unwrap(),
            member: id.parse().unwrap(),
            client: "test".to_owned(),
            topics: vec!["t".parse().unwrap()],
            patterns: Vec::new(),
            assignor: None,
            session_timeout_millis: session.as_millis().try_into().unwrap(),
        };
        let now = cluster.call(request).await.unwrap();
        Self {
            addresses: cluster.addresses(),
            network: Arc::clone(&cluster.network),
            leader: 0,
            id: id.to_owned(),
            now,
        }
    }

    fn heartbeat(&self) -> Heartbeat {
        Heartbeat {
            group: "g".parse().unwrap(),
            member: self.id.parse().unwrap(),
            epoch: self.now.epoch,
            assignment_epoch: self.now.assignment_epoch,
        }
    }

    /// A heartbeat to whoever leads; holds what it is told from then on, and nothing else. A node that says nothing, since it
    /// is paused, is not waited for longer than a session of the tests lasts.
    async fn beat(&mut self) -> Result<(), Problem> {
        let heartbeat = self.heartbeat();
        self.now = call_any(&self.network, &self.addresses, &mut self.leader, heartbeat, SECOND * 2).await?;
        Ok(())
    }

    fn held(&self) -> usize {
        self.now.partitions.iter().map(|topic| topic.partitions.len()).sum()
    }

    /// Beats until told to stop.
    fn beating(mut self) -> Beating {
        let (stop, beats) = (CancellationToken::new(), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (stop.clone(), Arc::clone(&beats));
        let task = tokio::spawn(async move {
            let mut pace = tokio::time::interval(Duration::from_millis(200));
            while !stopped.is_cancelled() {
                pace.tick().await;
                self.beat().await.unwrap_or_else(|problem| panic!("{} is out: {problem}", self.id));
                counted.fetch_add(1, Ordering::Relaxed);
            }
            self
        });
        Beating { stop, beats, task }
    }
}

struct Beating {
    stop: CancellationToken,
    beats: Arc<AtomicU64>,
    task: JoinHandle<Member>,
}

impl Beating {
    async fn end(self) -> Member {
        self.stop.cancel();
        self.task.await.unwrap()
    }
}

/// Waits until each member was answered so many times more.
async fn answered_again(members: &[Beating], times: u64) {
    let aims = members.iter().map(|member| member.beats.load(Ordering::Relaxed) + times);
    for (aim, member) in aims.collect::<Vec<_>>().into_iter().zip(members) {
        let started = Instant::now();
        while member.beats.load(Ordering::Relaxed) < aim {
            assert!(!member.task.is_finished(), "a member is out");
            assert!(started.elapsed() < PATIENCE, "a member is not answered");
            tokio::task::yield_now().await;
        }
    }
}

async fn describe(cluster: &TestCluster) -> GroupDescription {
    cluster.call(DescribeGroup { group: "g".parse().unwrap() }).await.unwrap()
}

/// A cluster with a topic of twelve partitions.
async fn start(nodes: usize) -> TestCluster {
    let cluster = TestCluster::start(nodes).await;
    let create = CreateTopic { name: "t".parse().unwrap(), partitions: 12, config: Default::default() };
    cluster.call(create).await.unwrap();
    cluster
}

async fn six_beating(cluster: &TestCluster, session: Duration) -> Vec<Beating> {
    let mut members = Vec::new();
    for which in 0..6 {
        members.push(Member::join(cluster, &format!("m{which}"), session).await.beating());
    }
    members
}

/// Every member is still the one that joined, and has its share.
async fn all_are_there(cluster: &TestCluster, members: Vec<Beating>) {
    let started = Instant::now();
    let mut group = describe(cluster).await;
    while group.phase != GroupPhase::Stable || group.members.len() != members.len() {
        assert!(started.elapsed() < PATIENCE, "the group does not come to rest: {group:?}");
        group = describe(cluster).await;
    }
    for beating in members {
        let member = beating.end().await;
        let known = group.members.iter().find(|known| known.member.as_str() == member.id).unwrap();
        assert_eq!(known.epoch, member.now.epoch, "{} was never out", member.id);
        assert_eq!(member.held(), 2, "{}", member.id);
    }
    let joins: u32 = group.members.len().try_into().unwrap();
    assert_eq!(group.epoch, joins, "nobody joined twice");
}

fn refusal(answer: Result<MemberAssignment, CallError>) -> Problem {
    match answer {
        Err(CallError::Refused(problem)) => problem,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_member_is_out_and_its_partitions_go_to_those_who_speak() {
    let cluster = start(3).await;
    let mut silent = Member::join(&cluster, "silent", SECOND).await;
    assert_eq!(silent.held(), 12);
    let mut lively = Member::join(&cluster, "lively", SECOND * 30).await;
    let epoch = lively.now.epoch;
    assert_eq!(lively.held(), 0, "the other has not let go of anything");

    let leader = cluster.leader().await;
    let follower = cluster.channel((leader + 1) % 3);
    let elsewhere = refusal(follower.call(lively.heartbeat(), SECOND * 5).await);
    assert_eq!(elsewhere.code, ErrorCode::NotLeader, "only the leader answers heartbeats");
    assert_eq!(elsewhere.facts.leader_address.as_ref(), Some(&cluster.nodes[leader].address));

    let started = Instant::now();
    while lively.held() < 12 {
        assert!(started.elapsed() < PATIENCE, "the partitions of the silent member are free in time");
        lively.beat().await.unwrap();
    }
    assert_eq!(lively.now.epoch, epoch);
    let topic = lively.now.partitions[0].topic_id;
    let offset = OffsetCommit {
        on: carnax_core::id::TopicPartition { topic, partition: carnax_core::id::PartitionIndex(0) },
        offset: Some(Offset(0)),
        from: Default::default(),
        metadata: String::new(),
    };
    let late = CommitOffsets {
        group: "g".parse().unwrap(),
        member: Some((silent.id.parse().unwrap(), silent.now.epoch)),
        number: None,
        only_if_empty: false,
        offsets: vec![offset],
    };
    assert_eq!(cluster.call(late).await.unwrap_err().code, ErrorCode::UnknownMember);
    assert_eq!(silent.beat().await.unwrap_err().code, ErrorCode::UnknownMember);
    let again = Member::join(&cluster, "silent", SECOND * 30).await;
    assert!(again.now.epoch > silent.now.epoch, "who comes back is somebody else");
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_come_and_go_and_no_member_is_expelled() {
    let mut cluster = start(3).await;
    let members = six_beating(&cluster, SECOND * 6).await;
    answered_again(&members, 2).await;
    for _ in 0..2 {
        cluster.call(TransferLeadership { to: None }).await.unwrap();
        answered_again(&members, 5).await;
    }
    let leader = cluster.leader().await;
    cluster.kill_node(leader);
    answered_again(&members, 40).await;
    all_are_there(&cluster, members).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_paused_expels_nobody_when_it_leads_again() {
    let cluster = start(3).await;
    let members = six_beating(&cluster, SECOND * 8).await;
    answered_again(&members, 2).await;
    let old = cluster.leader().await;
    let node = cluster.wait("the leader", |status| status.leader == status.answered_by).await.leader;
    let paused = cluster.pause_node(old).await;
    cluster
        .wait("another leader", |s| s.leader.is_some() && s.leader != node && s.leader == s.answered_by)
        .await;
    // Longer than a session: for the paused node, everybody was silent.
    answered_again(&members, 60).await;
    drop(paused);
    answered_again(&members, 2).await;
    let started = Instant::now();
    while cluster.call(TransferLeadership { to: node }).await.is_err() {
        assert!(started.elapsed() < PATIENCE, "the paused node comes back");
    }
    cluster.wait("the old leader", |s| s.leader == node && s.answered_by == node).await;
    answered_again(&members, 10).await;
    all_are_there(&cluster, members).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_without_a_quorum_says_so_and_expels_nobody() {
    let mut cluster = start(3).await;
    let mut member = Member::join(&cluster, "m", SECOND * 2).await;
    let leader = cluster.leader().await;
    for follower in [(leader + 1) % 3, (leader + 2) % 3] {
        cluster.kill_node(follower);
    }
    let alone = cluster.channel(leader);
    let refused = refusal(alone.call(member.heartbeat(), SECOND * 10).await);
    assert_eq!((refused.code.status(), refused.code.retryable()), (503, true), "{refused}");
    // Long enough for the session to be over, if time counted now.
    let started = Instant::now();
    while started.elapsed() < SECOND * 5 {
        let asked = alone.call(DescribeGroup { group: "g".parse().unwrap() }, SECOND * 10).await;
        assert!(asked.is_err(), "there is no quorum");
    }
    for follower in [(leader + 1) % 3, (leader + 2) % 3] {
        cluster.start_node(follower);
    }
    let epoch = member.now.epoch;
    member.beat().await.unwrap();
    assert_eq!(member.now.epoch, epoch);
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_a_pause_of_the_only_node_nor_a_leap_of_its_clock_counts_as_silence() {
    let cluster = start(1).await;
    let mut steady = Member::join(&cluster, "steady", SECOND * 2).await;
    let paused = cluster.pause_node(0).await;
    let asked = cluster.channel(0).call(DescribeGroup { group: "g".parse().unwrap() }, SECOND * 4).await;
    assert!(matches!(asked, Err(CallError::NoAnswer { .. } | CallError::NotSent { .. })), "{asked:?}");
    drop(paused);
    steady.beat().await.unwrap();

    let mut steady = Member::join(&cluster, "steady", SECOND * 30).await;
    Member::join(&cluster, "silent", SECOND).await;
    cluster.leap(0, SECOND * 3_600);
    let started = Instant::now();
    while describe(&cluster).await.members.iter().any(|member| member.member.as_str() == "silent") {
        assert!(started.elapsed() < PATIENCE, "the silent one is out in time: the clock goes on");
    }
    steady.beat().await.unwrap();
}
