//! Runs the binary of a Lambda function as Lambda would, for tests and measurements: no AWS, no container.
//!
//! ```text
//!  test ──invoke──▶ Function ──▶ runtime API on loopback ◀──next, response, error── the binary, a child process
//!  queue ─────────▶ EventSource ──▶ invokes with batches, deletes what was done
//! ```
//!
//! [`Function`] is one execution environment: one process, one event at a time, from its start to its end. A process that
//! died is not started again: whoever runs the test starts another environment, as Lambda does.
//!
//! Invariants: it knows nothing of what functions do, so that it runs any of them. Only the process that was started here is
//! signalled, by its id, and it ends with its [`Function`]. What it measures is measured on this machine, under this emulator:
//! Lambda's own sandbox, its download of the package and its network are not in it.

mod api;
mod event_source;
pub mod front;
mod function;
mod process;

pub use event_source::{Delivery, EventSource};
pub use function::{Function, FunctionSettings, InvokeError};
