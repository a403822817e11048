//! A leader without a backup: before the first object is deleted, the bucket says that nothing waits for an archive any more.
//!
//! The marks stay until a leader with a backup has written a snapshot behind them: a restore from what was archived before would
//! refer to objects that are gone.

use std::time::Duration;

use carnax_core::object_key::BackupOffKey;
use carnax_metadata_state::answer;
use carnax_object_store::ObjectStoreError;
use tokio_util::sync::CancellationToken;

use super::vault::Vault;
use super::{PAUSE_MIN, PERIOD};
use crate::handle::Handle;

/// Leaves the marks while this node leads.
pub(crate) struct BackupOff {
    pub(crate) handle: Handle,
    pub(crate) vault: Vault,
}

impl BackupOff {
    /// Runs until `shutdown`. Asks nothing of the bucket while nothing is dead, and once in a term.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut marked = 0;
        loop {
            let mut pause = PERIOD;
            if let Some(term) = self.handle.raft().leading_term().filter(|term| *term != marked) {
                match self.mark(term).await {
                    Ok(true) => marked = term,
                    Ok(false) => {}
                    Err(error) => {
                        tracing::warn!(%error, "it could not be noted that there is no backup: no object is deleted");
                        pause = Duration::max(pause, PAUSE_MIN);
                    }
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Leaves a mark if there is something to delete; says whether it did.
    async fn mark(&self, term: u64) -> Result<bool, ObjectStoreError> {
        let view = self.handle.raft().state();
        if answer::status(&view.state).dead_segments == 0 {
            return Ok(false);
        }
        let incarnation = self.vault.incarnation;
        let mark = BackupOffKey { incarnation, term, applied: view.applied };
        self.vault.put_mark(mark).await?;
        self.handle.set_off_term(term);
        // The oldest one says since when; those between say nothing more.
        let mut others = self.vault.marks().await?;
        others.retain(|other| *other < mark);
        if others.len() > 1 {
            self.vault.delete_marks(&others[1..]).await?;
        }
        Ok(true)
    }
}
