//! Runs seeds: each in a process of its own, so that nothing of one is left for the next.

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::Context;
use carnax_frontend::deliberate_bugs::DeliberateBug as InFrontend;
use carnax_metadata_state::deliberate_bugs::DeliberateBug as InState;
use carnax_simulation::Bug as Made;
use clap::{Parser, ValueEnum};

/// The whole of Carnax in one process, from one seed, under faults, with a checker for its promises.
#[derive(Debug, Parser)]
#[command(name = "carnax-simulation", version)]
struct Arguments {
    /// Runs this one seed in this process.
    #[arg(long, conflicts_with_all = ["from", "count"])]
    seed: Option<u64>,

    /// The first of several seeds; without it they start at a random one, which is printed.
    #[arg(long)]
    from: Option<u64>,

    /// How many seeds to run.
    #[arg(long, default_value_t = 10)]
    count: u64,

    /// Stops after so many seconds, even if seeds are left.
    #[arg(long)]
    seconds: Option<u64>,

    /// Makes a mistake on purpose; the seeds then have to find it.
    #[arg(long)]
    bug: Option<Bug>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Bug {
    AcknowledgeBeforeCommit,
    AnswerFromOldPlan,
    TakeUnknownForFailure,
    MergeLosesSlice,
    ForgetDuplicates,
    SkipFromCheck,
    GiveBeforeRelease,
    FollowAnyClock,
    CollectorForgetsPages,
    DeletesOneGraceEarly,
    MergeLosesSliceOnLostRace,
    CollectorJudgesByAnotherClock,
}

impl From<Bug> for Made {
    fn from(bug: Bug) -> Self {
        match bug {
            Bug::AcknowledgeBeforeCommit => Self::Frontend(InFrontend::AcknowledgeBeforeCommit),
            Bug::AnswerFromOldPlan => Self::Frontend(InFrontend::AnswerFromOldPlan),
            Bug::TakeUnknownForFailure => Self::Frontend(InFrontend::TakeUnknownForFailure),
            Bug::MergeLosesSlice => Self::Frontend(InFrontend::MergeLosesSlice),
            Bug::ForgetDuplicates => Self::State(InState::ForgetDuplicates),
            Bug::SkipFromCheck => Self::State(InState::SkipFromCheck),
            Bug::GiveBeforeRelease => Self::State(InState::GiveBeforeRelease),
            Bug::FollowAnyClock => Self::State(InState::FollowAnyClock),
            Bug::CollectorForgetsPages => Self::State(InState::CollectorForgetsPages),
            Bug::DeletesOneGraceEarly => Self::State(InState::DeletesOneGraceEarly),
            Bug::MergeLosesSliceOnLostRace => Self::State(InState::MergeLosesSliceOnLostRace),
            Bug::CollectorJudgesByAnotherClock => Self::State(InState::CollectorJudgesByAnotherClock),
        }
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    match arguments.seed {
        Some(seed) => run_one(seed, arguments.bug),
        None => run_many(&arguments),
    }
}

#[expect(clippy::print_stdout, reason = "the verdict is what this program is for")]
fn run_one(seed: u64, bug: Option<Bug>) -> anyhow::Result<ExitCode> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("CARNAX_LOG").unwrap_or_else(|_| "off".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time().init();
    let verdict = carnax_simulation::run(seed, bug.map(Made::from))?;
    println!("{}", verdict.scenario);
    println!("{}", verdict.summary);
    for breach in &verdict.breaches {
        println!("BROKEN {breach}");
    }
    Ok(if verdict.breaches.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs seeds one after the other; stops at the first that breaks a promise.
#[expect(clippy::print_stdout, reason = "progress and verdicts are what this program is for")]
fn run_many(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let from = match arguments.from {
        Some(from) => from,
        None => {
            use carnax_platform::entropy::{Entropy, SystemEntropy};
            SystemEntropy.next_u64() >> 1
        }
    };
    let (started, limit) = (Instant::now(), arguments.seconds.map(Duration::from_secs));
    let mut ran = 0_u64;
    for seed in (from..).take(usize::try_from(arguments.count)?) {
        if limit.is_some_and(|limit| started.elapsed() >= limit) {
            break;
        }
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--seed").arg(seed.to_string());
        if let Some(name) = arguments.bug.and_then(|bug| bug.to_possible_value()) {
            command.arg("--bug").arg(name.get_name());
        }
        let output = command.output().with_context(|| format!("seed {seed} could not be started"))?;
        ran += 1;
        print!("{}", String::from_utf8_lossy(&output.stdout));
        if !output.status.success() {
            print!("{}", String::from_utf8_lossy(&output.stderr));
            println!("seed {seed} breaks a promise after {ran} seeds; replay it with --seed {seed}");
            return Ok(ExitCode::FAILURE);
        }
    }
    println!("{ran} seeds from {from} kept all promises");
    Ok(ExitCode::SUCCESS)
}
