//! The commands: one file each.

pub(crate) mod bench;
pub(crate) mod cluster;
pub(crate) mod completions;
pub(crate) mod consume;
pub(crate) mod demo;
pub(crate) mod dev;
pub(crate) mod doctor;
pub(crate) mod group;
pub(crate) mod produce;
pub(crate) mod segment;
pub(crate) mod token;
pub(crate) mod topic;
pub(crate) mod wakeup;

use crate::arguments::{Arguments, Command};
use crate::output::Output;

/// Does what was asked for; everything that was written is out when it returns well.
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let global = arguments.global;
    let mut out = Output::new(global.output);
    match arguments.command {
        Command::Dev(dev) => Box::pin(dev::run(dev)).await?,
        Command::Demo(demo) => Box::pin(demo::run(demo)).await?,
        Command::Topic(topic) => topic.run(&global, &mut out).await?,
        Command::Produce(produce) => Box::pin(produce.run(&global, &mut out)).await?,
        Command::Consume(consume) => Box::pin(consume.run(&global, &mut out)).await?,
        Command::Token(token) => token.run(&global, &mut out).await?,
        Command::Wakeup(wakeup) => wakeup.run(&global, &mut out).await?,
        Command::Group(group) => group.run(&global, &mut out).await?,
        Command::Cluster(cluster) => cluster.run(&global, &mut out).await?,
        Command::Segment(segment) => segment.run(&mut out).await?,
        Command::Doctor(doctor) => Box::pin(doctor.run(&global, &mut out)).await?,
        Command::Bench(bench) => Box::pin(bench.run(&global, &mut out)).await?,
        Command::Completions(completions) => completions.run(&mut out)?,
    }
    out.flush()?;
    Ok(())
}
