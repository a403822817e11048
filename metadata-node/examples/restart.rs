//! How long a node with a million slices takes to start again, and what it weighs.
//!
//! `cargo run --release -p carnax-metadata-node --example restart -- [slices in thousands]`
//!
//! One node on a temporary folder takes commits of a thousand slices each, over a thousand partitions, through its RPC;
//! then it is stopped and started, and the clock runs until it answers a linearizable read.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use carnax_core::id::{CommitNumber, PartitionIndex, SegmentId};
use carnax_core::metadata::{
    Call, CommitSegments, CreateTopic, DescribeTopic, OpenSession, SegmentCommit, SegmentOutcome, TopicRef,
    UnitCommit, UnitSlice,
};
use carnax_core::offset::ByteRange;
use carnax_core::time::Timestamp;
use carnax_metadata_node::{Components, Disk, Settings, run};
use carnax_object_store::{MemoryStore, ObjectStore};
use carnax_platform::clock::SystemClock;
use carnax_platform::entropy::SystemEntropy;
use carnax_platform::network::TcpNetwork;
use carnax_platform::rpc::{Channel, ChannelSettings};
use carnax_platform::tls::ClusterTlsSettings;
use carnax_queue::SqsQueues;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const PARTITIONS: u32 = 1_000;
const ANY_PORT: &str = "127.0.0.1:0";
const DEADLINE: Duration = Duration::from_secs(60);

struct Running {
    channel: Channel,
    shutdown: CancellationToken,
    node: JoinHandle<Result<(), carnax_metadata_node::RunError>>,
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "the figures are the result of this program")]
async fn main() -> Result<()> {
    let thousands: u64 = std::env::args().nth(1).map_or(Ok(1_000), |argument| argument.parse())?;
    let dir = tempfile::tempdir()?;
    let store: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new());

    let node = start(dir.path(), &store).await?;
    let empty = resident_kib()?;
    let started = Instant::now();
    fill(&node.channel, thousands).await?;
    let seconds = started.elapsed().as_secs_f64();
    println!("{thousands} commits of {PARTITIONS} slices each in {seconds:.1} s, one after the other");
    let grown = resident_kib()?.saturating_sub(empty);
    println!(
        "resident memory grew by {grown} KiB: {} bytes a slice, log and buffers included",
        grown / thousands
    );
    stop(node).await?;

    let started = Instant::now();
    let node = start(dir.path(), &store).await?;
    let topic = TopicRef { name: "t".parse()?, id: None };
    let topic = ask(&node.channel, DescribeTopic { topic, with_offsets: true }).await?;
    let slices: u64 = topic.offsets.iter().map(|offsets| offsets.slices).sum();
    println!("started again with {slices} slices in {:.2} s", started.elapsed().as_secs_f64());
    ensure!(slices == thousands * u64::from(PARTITIONS), "slices were lost");
    stop(node).await
}

async fn fill(channel: &Channel, commits: u64) -> Result<()> {
    let create = CreateTopic { name: "t".parse()?, partitions: PARTITIONS, config: Default::default() };
    let topic = ask(channel, create).await?.topic_id;
    let session = ask(channel, OpenSession { frontend: "example".to_owned() }).await?;
    let mut number = CommitNumber::FIRST;
    let mut log_time = session.log_time;
    for commit in 0..commits {
        let slice = |partition: u32| UnitSlice {
            topic,
            partition: PartitionIndex(partition),
            bytes: ByteRange { start: 8 + u64::from(partition) * 4_096, length: 4_096 },
            records: 10,
            max_timestamp: Timestamp::EPOCH,
        };
        let unit = UnitCommit { slices: (0..PARTITIONS).map(slice).collect(), ..UnitCommit::default() };
        let segment = SegmentId::from_parts(log_time, u128::from(commit));
        let segments = vec![SegmentCommit { segment, size: 8 * 1024 * 1024, units: vec![unit] }];
        let (incarnation, session) = (session.incarnation, session.session);
        let committed = ask(channel, CommitSegments { incarnation, session, number, segments }).await?;
        ensure!(matches!(committed.outcomes[..], [SegmentOutcome::Decided(_)]), "{:?}", committed.outcomes);
        (number, log_time) = (number.next(), committed.log_time);
    }
    Ok(())
}

/// Asks until the node leads.
async fn ask<C: Call + Clone>(channel: &Channel, request: C) -> Result<C::Reply> {
    let started = Instant::now();
    loop {
        match channel.call(request.clone(), DEADLINE).await {
            Ok(reply) => return Ok(reply),
            Err(error) if error.code().retryable() && started.elapsed() < DEADLINE => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

async fn start(dir: &Path, store: &Arc<dyn ObjectStore>) -> Result<Running> {
    let settings = Settings {
        node_listen: ANY_PORT.to_owned(),
        node_advertise: None,
        http_listen: ANY_PORT.to_owned(),
        dir: dir.to_owned(),
        bootstrap: vec![ANY_PORT.to_owned()],
        object_store: "memory://example".parse()?,
        s3_path_style: false,
        heartbeat: Duration::from_millis(50),
        election: Duration::from_millis(200),
        maintenance_queue: None,
        backup: carnax_metadata_node::BackupSettings::off(),
        disk_free_min: None,
        feature_level_max: None,
        admin_token_file: None,
        admin_token: None,
        tls: ClusterTlsSettings::default(),
        http_tls: false,
        snapshot_log_bytes: carnax_metadata_node::SNAPSHOT_LOG_BYTES,
    };
    let components = Components {
        clock: Arc::new(SystemClock::new()),
        entropy: Arc::new(SystemEntropy),
        network: Arc::new(TcpNetwork),
        object_store: Arc::clone(store),
        queues: Arc::new(SqsQueues::default()),
        disk: Disk::Directory(dir.to_owned()),
    };
    let (shutdown, (tell, told)) = (CancellationToken::new(), oneshot::channel());
    let listening = move |at: carnax_metadata_node::Listening| {
        // Fails if nobody waits any more.
        let _ = tell.send(at.node);
    };
    let node = tokio::spawn(Box::pin(run(settings, components, shutdown.clone(), listening)));
    let address = told.await.context("the node listens")?.to_string();
    let channel = Channel::new(Arc::new(TcpNetwork), &address, &ChannelSettings::default())?;
    Ok(Running { channel, shutdown, node })
}

async fn stop(running: Running) -> Result<()> {
    running.shutdown.cancel();
    Ok(running.node.await??)
}

fn resident_kib() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("this example needs Linux")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}
