//! Runs the scenarios at full size.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use carnax_acceptance::binaries::Binaries;
use carnax_acceptance::flights::Flights;
use carnax_acceptance::scenario::{Scenario, Sizes};
use clap::{Parser, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

/// Runs the built binaries as a cluster on loopback, breaks it, and checks what the promises say.
#[derive(Debug, Parser)]
#[command(name = "carnax-acceptance", version)]
struct Arguments {
    /// What to show; all, one after the other, if none is named.
    #[arg(value_enum)]
    scenarios: Vec<Scenario>,
    /// Flights, one JSON object a line, perhaps with gzip; the sample of the sources if none is named.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// How often to do what is done many times; in `idle`, `long-life`, `steady`, `throttled` and `quota`, how many seconds it takes.
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Records of a key in one request, where there is one request in flight per key.
    #[arg(long, value_name = "N", default_value_t = 500)]
    chunk: usize,
    /// Where the servers are; those of this build, built first if need be, if no folder is named.
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// Where the servers of the version before are, for `upgrade`; without a folder, those of this build are told to know less.
    #[arg(long, value_name = "DIR")]
    old_bin_dir: Option<PathBuf>,
    /// Where chance begins.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where to write tables and plots, of scenarios that have some.
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("CARNAX_LOG").unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let arguments = Arguments::parse();
    let binaries = match &arguments.bin_dir {
        Some(folder) => Binaries::in_folder(folder)?,
        None => Binaries::of_this_build()?,
    };
    let old_binaries = arguments.old_bin_dir.as_deref().map(Binaries::in_folder).transpose()?;
    let flights = arguments.input.as_deref().map_or_else(Flights::sample, Flights::read)?;
    let flights = Arc::new(flights);
    let scenarios = match arguments.scenarios.as_slice() {
        [] => Scenario::value_variants(),
        named => named,
    };
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for signals")?;
    for scenario in scenarios {
        let sizes = Sizes {
            binaries: binaries.clone(),
            old_binaries: old_binaries.clone(),
            flights: Arc::clone(&flights),
            rounds: arguments.rounds.unwrap_or_else(|| scenario.rounds()),
            chunk: arguments.chunk.max(1),
            seed: arguments.seed,
            output: arguments.output.clone(),
        };
        // When a signal ends the scenario, it is dropped, and with it all of its processes.
        let report = tokio::select! {
            report = scenario.run(&sizes) => report.with_context(|| format!("{scenario:?} failed"))?,
            _ = interrupt.recv() => bail!("interrupted"),
            _ = terminate.recv() => bail!("told to end"),
        };
        write!(std::io::stdout(), "{report}").context("cannot print")?;
    }
    Ok(())
}
