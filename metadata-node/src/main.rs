//! The metadata node as a process.

use std::io::IsTerminal;
use std::sync::Arc;

use anyhow::Context;
use carnax_metadata_node::{Components, Disk, Settings};
use carnax_object_store::ObjectStoreSettings;
use carnax_platform::clock::SystemClock;
use carnax_platform::entropy::SystemEntropy;
use carnax_platform::network::TcpNetwork;
use carnax_queue::SqsQueues;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A metadata node of Carnax: assigns offsets and tracks which bytes in the object store hold them.
#[derive(Debug, Parser)]
#[command(name = "carnax-metadata-node", version)]
struct Arguments {
    #[command(flatten)]
    settings: Settings,

    /// Write logs as JSON, one object a line.
    #[arg(long, env = "CARNAX_LOG_JSON")]
    log_json: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    start_logging(arguments.log_json);
    let settings = arguments.settings;
    let store_settings = ObjectStoreSettings { s3_path_style: settings.s3_path_style };
    let object_store = carnax_object_store::open(&settings.object_store, &store_settings).await?;
    let components = Components {
        clock: Arc::new(SystemClock::new()),
        entropy: Arc::new(SystemEntropy),
        network: Arc::new(TcpNetwork),
        object_store,
        queues: Arc::new(SqsQueues::default()),
        disk: Disk::Directory(settings.dir.clone()),
    };
    let shutdown = CancellationToken::new();
    tokio::spawn(cancel_on_signal(shutdown.clone()));
    let listening = |at: carnax_metadata_node::Listening| {
        tracing::info!(node = %at.node, http = %at.http, "listening");
    };
    carnax_metadata_node::run(settings, components, shutdown, listening)
        .await
        .context("metadata node stopped")
}

fn start_logging(json: bool) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("CARNAX_LOG")
        .unwrap_or_else(|_| "info,openraft=warn".into());
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    if json { logs.json().init() } else { logs.init() }
}

async fn cancel_on_signal(shutdown: CancellationToken) {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    shutdown.cancel();
}
