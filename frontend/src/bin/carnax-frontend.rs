//! The frontend as a process.

use std::sync::Arc;

use anyhow::Context;
use carnax_frontend::{Components, Options, run};
use carnax_object_store::ObjectStoreSettings;
use carnax_platform::clock::SystemClock;
use carnax_platform::entropy::SystemEntropy;
use carnax_platform::network::TcpNetwork;
use carnax_queue::SqsQueues;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Options { mut settings, ingest } = Options::parse();
    settings.ingest = ingest;
    let filter = EnvFilter::try_from_env("CARNAX_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let store_settings = ObjectStoreSettings { s3_path_style: settings.s3_path_style };
    let object_store = carnax_object_store::open(&settings.object_store, &store_settings).await;
    let components = Components {
        clock: Arc::new(SystemClock::new()),
        entropy: Arc::new(SystemEntropy),
        network: Arc::new(TcpNetwork),
        object_store: object_store.with_context(|| format!("cannot open {}", settings.object_store))?,
        queues: Arc::new(SqsQueues::default()),
    };
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for signals")?;
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    Box::pin(run(settings, components, |_| {}, shutdown)).await?;
    Ok(())
}
