//! A TCP proxy that delays what comes back, and cuts connections, at random.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

const CHUNK_BYTES: usize = 64 * 1024;

/// How bad a proxy is; may be changed while it runs.
#[derive(Debug)]
pub struct Weather {
    /// Of a million chunks of bytes that come back, how many wait before they go on.
    delays: u64,
    /// How long they wait at most, in milliseconds.
    delay_millis: u64,
    /// Of a million chunks, before how many the connection is cut.
    cuts: u64,
    random: AtomicU64,
    delayed: AtomicU64,
    cut: AtomicU64,
}

impl Weather {
    /// Of a million chunks, `delays` wait up to `longest`, and `cuts` are the end of their connection.
    pub fn new(seed: u64, delays: u64, longest: Duration, cuts: u64) -> Self {
        let delay_millis = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX).max(1);
        let zero = || AtomicU64::new(0);
        Self { delays, delay_millis, cuts, random: AtomicU64::new(seed), delayed: zero(), cut: zero() }
    }

    /// How many chunks were delayed, and how many connections cut.
    pub fn counts(&self) -> (u64, u64) {
        (self.delayed.load(Ordering::Relaxed), self.cut.load(Ordering::Relaxed))
    }

    /// SplitMix64: a counter, mixed.
    fn next(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut mixed = self.random.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn strikes(&self, of_a_million: u64) -> bool {
        self.next() % 1_000_000 < of_a_million
    }
}

/// Passes connections on. It stops, and hangs up, when this is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    passing: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a loopback port and passes on to `target`.
    ///
    /// # Errors
    /// If there is no such port.
    pub async fn start(target: &str, weather: &Arc<Weather>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let passing = tokio::spawn(pass_all(listener, target.to_owned(), Arc::clone(weather)));
        Ok(Self { address, passing })
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.passing.abort();
    }
}

async fn pass_all(listener: TcpListener, target: String, weather: Arc<Weather>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        let (target, weather) = (target.clone(), Arc::clone(&weather));
        connections.spawn(async move {
            // A connection that breaks is what this is for.
            let _ = pass(client, &target, &weather).await;
        });
    }
}

/// Passes one connection on until either side ends it or it is cut.
async fn pass(client: TcpStream, target: &str, weather: &Weather) -> std::io::Result<()> {
    let server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let there = async { tokio::io::copy(&mut from_client, &mut to_server).await.map(drop) };
    let back = async {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let length = from_server.read(&mut chunk).await?;
            if length == 0 {
                return Ok(());
            }
            if weather.strikes(weather.cuts) {
                weather.cut.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            if weather.strikes(weather.delays) {
                weather.delayed.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(weather.next() % weather.delay_millis)).await;
            }
            to_client.write_all(&chunk[..length]).await?;
        }
    };
    tokio::select! {
        ended = there => ended,
        ended = back => ended,
    }
}
