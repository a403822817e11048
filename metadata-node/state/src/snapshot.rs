//! The state as bytes.

use std::io;

use crate::State;

/// How much a snapshot may make its reader allocate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the whole snapshot.
    pub bytes_max: u64,
}

/// Bytes that are no snapshot, or none that this build may read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The source failed, or ended too early.
    #[error("snapshot cannot be read")]
    Io(#[from] io::Error),
}

/// Writes the state. The same state always gives the same bytes.
///
/// # Errors
/// Those of `to`.
pub fn write(_state: &State, _to: &mut impl io::Write) -> io::Result<()> {
    Ok(())
}

/// Reads what [`write`] wrote.
///
/// # Errors
/// The source fails, or what it holds is not a whole, unchanged snapshot of a version that this build knows.
pub fn read(_from: &mut impl io::Read, _limits: Limits) -> Result<State, ReadError> {
    Ok(State::default())
}
