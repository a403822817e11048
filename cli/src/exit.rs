//! What the process says when it ends: a word for scripts, and a sentence for people.

use std::io::{self, Write};
use std::process::ExitCode;

use carnax::{ConsumeError, ProduceError, RequestError};
use carnax_core::problem::Problem;
use carnax_object_store::ObjectStoreError;

/// Shown below the help of every command.
pub(crate) const HELP: &str =
    "Exit codes: 0 done · 1 failed · 2 wrong usage · 3 not available now, trying again may help";

/// Arguments that do not fit together in a way that the parser cannot see.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// The exit code of a result; prints the failure with its causes.
pub(crate) fn code(result: &anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    // Whoever read the output has enough of it: not a failure of ours.
    if error.chain().any(is_broken_pipe) {
        return ExitCode::SUCCESS;
    }
    // Nobody is left to tell if this fails.
    let _ = writeln!(io::stderr(), "error: {error:#}");
    let usage = error.chain().any(|cause| cause.is::<Usage>());
    let retryable = error.chain().any(is_retryable);
    ExitCode::from(if usage {
        2
    } else if retryable {
        3
    } else {
        1
    })
}

fn is_broken_pipe(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn is_retryable(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.downcast_ref::<RequestError>().is_some_and(RequestError::retryable)
        || cause.downcast_ref::<ProduceError>().is_some_and(ProduceError::retryable)
        || cause.downcast_ref::<ConsumeError>().is_some_and(ConsumeError::retryable)
        || cause.downcast_ref::<Problem>().is_some_and(|problem| problem.code.retryable())
        || cause.downcast_ref::<ObjectStoreError>().is_some_and(ObjectStoreError::is_transient)
}
