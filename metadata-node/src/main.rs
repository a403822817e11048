//! The metadata node as a process.

use std::io::{IsTerminal, Write};
use std::sync::Arc;

use anyhow::Context;
use carnax_metadata_node::{
    ADMIN_TOKEN_VARIABLE, Components, Disk, RestoreComponents, RestoreSettings, Settings,
};
use carnax_object_store::ObjectStoreSettings;
use carnax_platform::clock::SystemClock;
use carnax_platform::entropy::SystemEntropy;
use carnax_platform::network::TcpNetwork;
use carnax_queue::SqsQueues;
use clap::{Parser, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The word that makes a restore of it.
const RESTORE: &str = "restore";

/// A metadata node of Carnax: assigns offsets and tracks which bytes in the object store hold them.
///
/// `carnax-metadata-node restore --help` tells how to make a new cluster from the bucket when all disks are lost.
#[derive(Debug, Parser)]
#[command(name = "carnax-metadata-node", version)]
struct Arguments {
    #[command(flatten)]
    settings: Settings,

    /// Write logs as JSON, one object a line.
    #[arg(long, env = "CARNAX_LOG_JSON")]
    log_json: bool,
}

/// Makes a new cluster from the bucket alone: its snapshots and its archive of the log.
///
/// The former cluster is shut out first, whether or not its nodes still run. Then the folder is filled with which the first node of
/// the new cluster starts; further nodes join it with empty folders. What was restored and what is lost is printed.
#[derive(Debug, Parser)]
#[command(name = "carnax-metadata-node restore", bin_name = "carnax-metadata-node restore", version)]
struct RestoreArguments {
    #[command(flatten)]
    settings: RestoreSettings,

    /// How to print what was done.
    #[arg(long, default_value = "text", value_name = "text|json")]
    output: Output,

    /// Write logs as JSON, one object a line.
    #[arg(long, env = "CARNAX_LOG_JSON")]
    log_json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Output {
    Text,
    Json,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut words: Vec<_> = std::env::args_os().collect();
    if words.get(1).is_some_and(|word| word == RESTORE) {
        words.remove(0);
        return restore(RestoreArguments::parse_from(words)).await;
    }
    let arguments = Arguments::parse();
    start_logging(arguments.log_json);
    let mut settings = arguments.settings;
    settings.read_admin_token(std::env::var(ADMIN_TOKEN_VARIABLE).ok())?;
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

async fn restore(arguments: RestoreArguments) -> anyhow::Result<()> {
    start_logging(arguments.log_json);
    let settings = arguments.settings;
    let store_settings = ObjectStoreSettings { s3_path_style: settings.s3_path_style };
    let components = RestoreComponents {
        clock: Arc::new(SystemClock::new()),
        entropy: Arc::new(SystemEntropy),
        object_store: carnax_object_store::open(&settings.object_store, &store_settings).await?,
        disk: Disk::Directory(settings.dir.clone()),
    };
    let restored =
        carnax_metadata_node::restore(&settings, &components).await.context("nothing is restored")?;
    let text = match arguments.output {
        Output::Text => restored.to_string(),
        Output::Json => serde_json::to_string(&restored)?,
    };
    writeln!(std::io::stdout(), "{text}").context("the report cannot be written")
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
