//! The command line of Carnax. Data goes to standard output, talk to standard error.

mod arguments;
mod command;
mod embedded;
mod exit;
mod output;
mod percentiles;
mod records;

use std::process::ExitCode;

use clap::Parser;

use arguments::Arguments;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("CARNAX_LOG").unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(command::run(arguments));
            // A thread that still reads standard input must not keep the process.
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(error.into()),
    };
    exit::code(&result)
}
