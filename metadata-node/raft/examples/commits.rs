//! Segment commits per second through the proposer, against bare openraft with the same log store in the same run.
//!
//! `cargo run --release -p carnax-metadata-raft --example commits -- [clients] [seconds] [directory]`
//!
//! Each client holds a session and has one commit of one slice under way, as a frontend does. Bare openraft writes entries
//! without commands, one a call, from as many clients: it neither encodes, groups nor decides anything.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use carnax_core::id::{
    ClusterId, CommitNumber, Incarnation, NodeId, PartitionIndex, SegmentId, SessionId, TopicId,
};
use carnax_core::metadata::{
    CommitSegments, CreateTopic, OpenSession, SegmentCommit, SegmentOutcome, UnitCommit, UnitOutcome,
    UnitSlice,
};
use carnax_core::offset::ByteRange;
use carnax_core::time::Timestamp;
use carnax_metadata_raft::{Components, RaftNode, RaftSettings, Storage};
use carnax_metadata_state::{Command, Reply};
use carnax_platform::clock::{Clock, SystemClock};
use carnax_platform::entropy::{Entropy, SystemEntropy};
use carnax_platform::network::{Network, TcpNetwork};
use carnax_platform::rpc::serve;

type Failure = Box<dyn Error + Send + Sync>;

const DEADLINE: Duration = Duration::from_secs(10);
const PARTITIONS: u32 = 12;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let clients = arguments.next().map_or(Ok(256), |text| text.parse())?;
    let seconds = arguments.next().map_or(Ok(10), |text| text.parse())?;
    let directory = arguments.next().map_or_else(std::env::temp_dir, Into::into);
    for nodes in [1, 3] {
        let directory = tempfile::tempdir_in(&directory)?;
        let running = start(directory.path(), nodes).await?;
        let leader = &running[0];
        let topic = prepare(leader).await?;
        let duration = Duration::from_secs(seconds);
        let bare = measure(clients, duration, |_| bare(leader.clone())).await?;
        let commits = measure(clients, duration, |client| commit(leader.clone(), topic, client)).await?;
        println!("{nodes} node(s), {clients} clients, {seconds} s each");
        println!("  bare openraft    {bare}");
        println!("  segment commits  {commits}");
        println!("  ratio            {:.2}", commits.per_second / bare.per_second);
        let reads = measure(clients, duration, |_| read(leader.clone())).await?;
        println!("  linearizable reads on the leader {reads}");
        for node in &running {
            node.shutdown().await;
        }
    }
    Ok(())
}

async fn start(directory: &Path, count: u64) -> Result<Vec<RaftNode>, Failure> {
    let cluster = ClusterId::from_parts(Timestamp::EPOCH, 1);
    let mut nodes: Vec<RaftNode> = Vec::new();
    for id in 1..=count {
        let clock = Arc::new(SystemClock::new());
        let stamped = Arc::clone(&clock);
        let components = Components {
            clock,
            network: Arc::new(TcpNetwork),
            storage: Storage::Directory(directory.join(id.to_string())),
            stamp: Arc::new(move || stamped.wall()),
        };
        let node = RaftNode::open(RaftSettings::new(cluster, NodeId(id)), components).await?;
        let listener = TcpNetwork.listen("127.0.0.1:0").await?;
        let address = listener.local_address()?.to_string();
        tokio::spawn(serve(listener, node.router(), std::future::pending()));
        if let Some(leader) = nodes.first() {
            leader.add_learner(node.id(), &address, DEADLINE).await?;
            leader.promote(node.id(), DEADLINE).await?;
        } else {
            node.initialize(&address).await?;
            node.watch_leadership().wait_for(|leadership| leadership.leads).await?;
        }
        nodes.push(node);
    }
    Ok(nodes)
}

async fn prepare(leader: &RaftNode) -> Result<TopicId, Failure> {
    let bootstrap = Command::Bootstrap {
        cluster: ClusterId::from_parts(Timestamp::EPOCH, 1),
        incarnation: Incarnation(1),
        voters_wanted: 1,
        address: "127.0.0.1:1".to_owned(),
        disk: 1,
    };
    leader.propose(bootstrap, DEADLINE).await?.outcome?;
    let id = TopicId::from_parts(SystemClock::new().wall(), SystemEntropy.next_u128());
    let request = CreateTopic {
        name: "bench".parse()?,
        partitions: PARTITIONS,
        config: std::collections::BTreeMap::new(),
    };
    leader.propose(Command::CreateTopic { id, request }, DEADLINE).await?.outcome?;
    Ok(id)
}

/// One client that commits one segment after the other.
async fn commit(node: RaftNode, topic: TopicId, client: usize) -> Result<Work, Failure> {
    let open = Command::OpenSession(OpenSession { frontend: format!("client {client}") });
    let Reply::SessionOpened(opened) = node.propose(open, DEADLINE).await?.outcome? else {
        return Err("a session was asked for".into());
    };
    let partition = PartitionIndex(u32::try_from(client)? % PARTITIONS);
    let mut number = CommitNumber::FIRST;
    Ok(Box::new(move || {
        let command = segment_commit(opened.session, number, topic, partition);
        number = number.next();
        let node = node.clone();
        Box::pin(async move {
            let applied = node.propose(command, DEADLINE).await?;
            let Reply::SegmentsCommitted(reply) = applied.outcome? else {
                return Err("a commit was asked for".into());
            };
            match &reply.outcomes[..] {
                [SegmentOutcome::Decided(units)] if matches!(units[..], [UnitOutcome::Accepted { .. }]) => {
                    Ok(())
                }
                refused => Err(format!("{refused:?}").into()),
            }
        })
    }))
}

fn segment_commit(
    session: SessionId,
    number: CommitNumber,
    topic: TopicId,
    partition: PartitionIndex,
) -> Command {
    let now = SystemClock::new().wall();
    let bytes = ByteRange { start: 16, length: 1_000_000 };
    let slice = UnitSlice { topic, partition, bytes, records: 1_000, max_timestamp: now };
    let segment = SegmentCommit {
        segment: SegmentId::from_parts(now, SystemEntropy.next_u128()),
        size: 1_001_000,
        units: vec![UnitCommit { slices: vec![slice], ..UnitCommit::default() }],
    };
    Command::CommitSegments(CommitSegments {
        incarnation: Incarnation(1),
        session,
        number,
        segments: vec![segment],
    })
}

async fn bare(node: RaftNode) -> Result<Work, Failure> {
    Ok(Box::new(move || {
        let node = node.clone();
        Box::pin(async move { Ok(node.write_bare().await?) })
    }))
}

async fn read(node: RaftNode) -> Result<Work, Failure> {
    Ok(Box::new(move || {
        let node = node.clone();
        Box::pin(async move { Ok(node.linearizable(DEADLINE).await.map(drop)?) })
    }))
}

/// What a client does again and again.
type Work = Box<dyn FnMut() -> futures::future::BoxFuture<'static, Result<(), Failure>> + Send>;

struct Figures {
    per_second: f64,
    p50: Duration,
    p99: Duration,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>8.0}/s   p50 {:>9.2?}   p99 {:>9.2?}", self.per_second, self.p50, self.p99)
    }
}

async fn measure<F>(
    clients: usize,
    duration: Duration,
    client: impl Fn(usize) -> F,
) -> Result<Figures, Failure>
where
    F: Future<Output = Result<Work, Failure>>,
{
    let mut works = Vec::new();
    for number in 0..clients {
        works.push(client(number).await?);
    }
    let begin = Instant::now();
    let run = |mut work: Work| async move {
        let mut times = Vec::new();
        while begin.elapsed() < duration {
            let start = Instant::now();
            work().await?;
            times.push(start.elapsed());
        }
        Ok::<_, Failure>(times)
    };
    let tasks: Vec<_> = works.into_iter().map(|work| tokio::spawn(run(work))).collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await??);
    }
    let elapsed = begin.elapsed();
    times.sort_unstable();
    let at = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or_default();
    let count = u32::try_from(times.len())?;
    Ok(Figures { per_second: f64::from(count) / elapsed.as_secs_f64(), p50: at(50), p99: at(99) })
}
