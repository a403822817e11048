//! Whoever asks for many times a quota gets the quota, and no error; whoever stays within it does not notice.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use carnax::{Client, Grant, NewToken, Quotas, Record};
use futures::future::try_join_all;

use super::{PARTITIONS, Sizes};
use crate::cluster::{Plan, ProcessCluster};
use crate::flights::TOPIC;
use crate::report::Report;

/// Bytes in a second.
const QUOTA: u64 = 64 * 1_024;
const VALUE_BYTES: usize = 6_400;
/// Producers with the same token, each with one append in flight.
const GREEDY: usize = 16;
/// Until what may be used at once is used up.
const SETTLES: Duration = Duration::from_secs(3);
/// How much more is asked for without a quota, at least.
const TIMES: f64 = 5.0;

pub(super) async fn run(sizes: &Sizes) -> Result<Report> {
    let mut report = Report::new("quota");
    let cluster = ProcessCluster::start(&Plan::new(&sizes.binaries)).await?;
    cluster.client(&[0])?.admin().create_topic(TOPIC, PARTITIONS, &[]).await?;
    let admin = NewToken::new(vec![Grant::admin()]);
    let admin = cluster.client(&[0])?.admin().create_token(&admin).await?.token;
    let admin = holder(&cluster, admin)?;
    let quotas = Quotas { produce_bytes_per_second: Some(QUOTA), ..Quotas::default() };
    let make = async |quotas: Quotas| {
        let token = NewToken::new(vec!["write,read:topic/*".parse()?]).quotas(quotas);
        holder(&cluster, admin.admin().create_token(&token).await?.token)
    };
    let (free, held, modest) = (make(Quotas::default()).await?, make(quotas).await?, make(quotas).await?);

    let asked = ask(&free, sizes.rounds).await.context("without a quota")?;
    let alone = async {
        tokio::time::sleep(SETTLES).await;
        Ok(())
    };
    let (alone, ()) = tend(&modest, alone).await?;
    let (beside, got) = tend(&modest, ask(&held, sizes.rounds)).await.context("with a quota")?;
    let (share, times) = (got / QUOTA as f64, asked / QUOTA as f64);
    ensure!(times >= TIMES, "{GREEDY} producers ask for no more than {times:.1} times the quota");
    ensure!((0.9..=1.1).contains(&share), "a token gets {share:.3} of its quota");
    report.say(format!(
        "{GREEDY} producers that get {times:.1} times the quota without one get {share:.3} of it with one, and none of their appends failed"
    ));
    report.say(format!(
        "another token with the same quota, used within it: no append failed; its slowest append took {:.1} times that of before",
        beside.as_secs_f64() / alone.as_secs_f64()
    ));
    cluster.end()?;
    Ok(report)
}

fn holder(cluster: &ProcessCluster, token: String) -> Result<Client> {
    let endpoint = format!("http://{}", cluster.frontends[0].address);
    Ok(Client::builder().endpoints([endpoint]).token(token).build()?)
}

/// Appends as fast as it goes, and says how many bytes of values a second were acknowledged once it has settled.
async fn ask(client: &Client, seconds: usize) -> Result<f64> {
    let (bytes, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let appending = try_join_all((0..GREEDY).map(|_| async {
        let producer = client.producer(TOPIC).linger(Duration::ZERO).build().await?;
        while !over.load(Ordering::Relaxed) {
            producer.send(Record::new(vec![b'x'; VALUE_BYTES])).await?.await?;
            bytes.fetch_add(VALUE_BYTES as u64, Ordering::Relaxed);
        }
        producer.close().await;
        Ok::<_, anyhow::Error>(())
    }));
    let measuring = async {
        tokio::time::sleep(SETTLES).await;
        let (started, before) = (Instant::now(), bytes.load(Ordering::Relaxed));
        tokio::time::sleep(Duration::from_secs(seconds as u64)).await;
        let appended = bytes.load(Ordering::Relaxed) - before;
        let rate = appended as f64 / started.elapsed().as_secs_f64();
        over.store(true, Ordering::Relaxed);
        Ok(rate)
    };
    let (_, rate) = tokio::try_join!(appending, measuring)?;
    Ok(rate)
}

/// Appends a little twice a second while something goes on, and says how long the slowest append took.
async fn tend<T>(client: &Client, meanwhile: impl Future<Output = Result<T>>) -> Result<(Duration, T)> {
    let over = AtomicBool::new(false);
    let tending = async {
        let producer = client.producer(TOPIC).linger(Duration::ZERO).build().await?;
        let (mut pace, mut slowest) = (tokio::time::interval(Duration::from_millis(500)), Duration::ZERO);
        while !over.load(Ordering::Relaxed) {
            pace.tick().await;
            let started = Instant::now();
            let sent = producer.send(Record::new(vec![b'y'; 100])).await?;
            sent.await.context("an append within its quota")?;
            slowest = slowest.max(started.elapsed());
        }
        producer.close().await;
        Ok(slowest)
    };
    let meanwhile = async {
        let done = meanwhile.await;
        over.store(true, Ordering::Relaxed);
        done
    };
    tokio::try_join!(tending, meanwhile)
}
