//! The leader's backup: what was applied goes into the bucket, so that a new cluster can be made from it.
//!
//! ```text
//!  applied entries ─▶ <incarnation>/archive/<first>-<last>        what is new, every few seconds
//!  state           ─▶ <incarnation>/snapshot-parts/… , then       when much lies behind the last snapshot, or entries are
//!                     <incarnation>/snapshots/<last>              gone from memory that the archive does not have
//! ```
//!
//! A restore takes the newest complete snapshot and the entries that follow it without a gap. Whoever led when may have written
//! ranges that overlap; that does no harm, since only applied entries are archived.
//!
//! The incarnation is read before and after each write. If a restore has replaced it, what was written does not count, and the node
//! stops for good: it belongs to a cluster that is no more. Nothing is asked of the bucket while there is nothing new.

mod off;
mod settings;
mod snapshot;
#[cfg(test)]
pub(crate) mod tests;
mod vault;

use std::sync::Arc;
use std::time::Duration;

use carnax_core::id::LogIndex;
use carnax_core::object_key::BackupOffKey;
use carnax_core::problem::Problem;
use carnax_platform::entropy::Entropy;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use off::BackupOff;
pub use settings::{BackupMode, BackupSettings};
pub use vault::VaultError;
pub(crate) use vault::{Vault, list_each};

use crate::bootstrap::{self, BootstrapError};
use crate::handle::Handle;
use crate::metrics;

/// How often a leader looks whether there is something new.
const PERIOD: Duration = Duration::from_millis(250);
/// How long it waits at least after a failure.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Archive objects behind a snapshot: a restore reads them one by one.
const ARCHIVE_OBJECTS_MAX: usize = 1_000;
/// Bytes of applied entries that are kept in memory.
pub(crate) const ENTRIES_BYTES_KEPT: u64 = 64 * 1024 * 1024;

/// Keeps the backup while this node leads.
pub(crate) struct Backup {
    handle: Handle,
    vault: Vault,
    settings: BackupSettings,
    entropy: Arc<dyn Entropy>,
    /// What is known of the bucket since this node began to lead.
    led: Option<Led>,
    written: Option<Instant>,
    /// Since when something waits to be archived.
    waits_since: Option<Instant>,
    next: Instant,
}

/// What a leader knows of the backup in one term.
#[derive(Debug, Clone, Copy)]
struct Led {
    term: u64,
    bucket: Option<Known>,
    /// Bytes applied by this process when it last wrote.
    bytes_then: u64,
}

/// What lies in the bucket.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// The last entry that a restore would bring back.
    end: LogIndex,
    /// Bytes and number of archive objects behind the newest snapshot.
    archive_bytes: u64,
    archive_objects: usize,
}

/// Why a round was not finished.
#[derive(Debug, thiserror::Error)]
enum Unfinished {
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[error(transparent)]
    Incarnation(#[from] BootstrapError),
    #[error("this node may not lead any more: {0}")]
    Leadership(Problem),
    #[error("this node does not lead any more")]
    Overtaken,
}

impl Backup {
    pub(crate) fn new(
        handle: Handle,
        vault: Vault,
        settings: BackupSettings,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        let (led, written, waits_since) = (None, None, None);
        Self { handle, vault, settings, entropy, led, written, waits_since, next: Instant::now() }
    }

    /// Runs until `shutdown`, or until the cluster was restored elsewhere: then it says so.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) -> Option<BootstrapError> {
        tokio::select! {
            () = shutdown.cancelled() => None,
            superseded = self.keep() => Some(superseded),
        }
    }

    async fn keep(&mut self) -> BootstrapError {
        loop {
            if let Some(led) = self.due() {
                match self.write(led).await {
                    Ok(()) => {
                        self.written = Some(Instant::now());
                        self.next = Instant::now() + self.settings.interval();
                    }
                    Err(Unfinished::Incarnation(superseded @ BootstrapError::OtherIncarnation { .. })) => {
                        return superseded;
                    }
                    Err(error) => {
                        self.handle.metrics().backup.failures.inc();
                        let pause = self.settings.interval().max(PAUSE_MIN);
                        let error = anyhow::Error::from(error);
                        tracing::warn!(
                            error = format!("{error:#}"),
                            ?pause,
                            "the backup could not be written; trying again"
                        );
                        self.next = Instant::now() + pause;
                    }
                }
            }
            self.export();
            tokio::time::sleep(PERIOD).await;
        }
    }

    /// What is known, if this node leads and there is something to write now. A new leader writes at once, so that one that
    /// a restore has shut out learns of it before it acknowledges much.
    fn due(&mut self) -> Option<Led> {
        let Some(term) = self.handle.raft().leading_term() else {
            (self.led, self.waits_since) = (None, None);
            return None;
        };
        let progress = *self.handle.raft().watch_archivable().borrow();
        if self.led.is_none_or(|led| led.term != term) {
            self.led = Some(Led { term, bucket: None, bytes_then: progress.bytes });
            self.next = Instant::now();
        }
        if progress.worth <= self.handle.archived() {
            self.waits_since = None;
            return None;
        }
        self.waits_since.get_or_insert_with(Instant::now);
        let led = self.led?;
        let much = progress.bytes.saturating_sub(led.bytes_then) >= self.settings.backup_bytes;
        (much || self.next <= Instant::now()).then_some(led)
    }

    async fn write(&mut self, mut led: Led) -> Result<(), Unfinished> {
        self.check_incarnation().await?;
        let bytes_then = self.handle.raft().watch_archivable().borrow().bytes;
        let mut snapshot_written = false;
        let mut known = match led.bucket {
            Some(known) => known,
            None => {
                let (mut known, marks) = self.look().await?;
                snapshot_written = self.close_holes(&mut known, led.term, marks).await?;
                known
            }
        };
        led.bytes_then = bytes_then;
        snapshot_written |= self.archive(&mut known).await?;
        let much = known.archive_bytes >= self.settings.backup_snapshot_bytes;
        if much || known.archive_objects >= ARCHIVE_OBJECTS_MAX {
            self.snapshot(&mut known).await?;
            snapshot_written = true;
        }
        self.check_incarnation().await?;
        led.bucket = Some(known);
        self.led = Some(led);
        self.handle.set_archived(known.end);
        if snapshot_written {
            match self.vault.prune().await {
                Ok(objects) => tracing::info!(objects, "what lay behind two later snapshots is deleted"),
                Err(error) => tracing::warn!(%error, "old parts of the backup could not be deleted"),
            }
        }
        Ok(())
    }

    /// Leaders without a backup have deleted objects that the archive may refer to: a snapshot of all that they did takes its place.
    /// Says whether it took one.
    async fn close_holes(
        &self,
        known: &mut Known,
        term: u64,
        mut marks: Vec<BackupOffKey>,
    ) -> Result<bool, Unfinished> {
        // Later leaders may go on deleting. A mark of this term is this node's, from before it was started again.
        marks.retain(|mark| mark.term <= term);
        let Some(first) = marks.first() else { return Ok(false) };
        tracing::warn!(since = %first.applied, "there was no backup for a while; writing a snapshot");
        // Confirmed by a quorum, so that this node has applied all that those leaders did.
        self.handle.linearizable().await.map_err(Unfinished::Leadership)?;
        if self.handle.raft().leading_term() != Some(term) {
            return Err(Unfinished::Overtaken);
        }
        self.snapshot(known).await?;
        self.check_incarnation().await?;
        self.vault.delete_marks(&marks).await.map_err(VaultError::from)?;
        Ok(true)
    }

    /// What former leaders left.
    async fn look(&self) -> Result<(Known, Vec<BackupOffKey>), Unfinished> {
        let inventory = self.vault.inventory().await.map_err(VaultError::from)?;
        let (archive_bytes, archive_objects) = (inventory.archive_bytes, inventory.archive_objects);
        let known = Known { end: inventory.holdings.end(), archive_bytes, archive_objects };
        Ok((known, inventory.marks))
    }

    /// Archives everything that is worth it; says whether it took a snapshot, since this node does not have all entries any more.
    async fn archive(&self, known: &mut Known) -> Result<bool, Unfinished> {
        let raft = self.handle.raft();
        let upto = raft.watch_archivable().borrow().worth;
        let object_bytes = self.settings.backup_bytes.max(1);
        while known.end < upto {
            match raft.applied_entries(known.end, object_bytes) {
                None => {
                    self.snapshot(known).await?;
                    return Ok(true);
                }
                Some(entries) => {
                    let Some(last) = entries.last().map(|entry| entry.index) else { break };
                    let bytes = self.vault.put_entries(&entries).await?;
                    self.handle.metrics().backup.bytes.with_label_values(&["archive"]).inc_by(bytes);
                    known.end = last;
                    known.archive_bytes += bytes;
                    known.archive_objects += 1;
                }
            }
        }
        Ok(false)
    }

    async fn snapshot(&self, known: &mut Known) -> Result<(), Unfinished> {
        let view = self.handle.raft().state();
        let attempt = self.entropy.next_u64();
        let bytes = self.vault.put_snapshot(view.applied, view.state.clone(), attempt).await?;
        tracing::info!(index = %view.applied, bytes, "a snapshot is in the bucket");
        self.handle.metrics().backup.bytes.with_label_values(&["snapshot"]).inc_by(bytes);
        *known = Known { end: view.applied.max(known.end), archive_bytes: 0, archive_objects: 0 };
        Ok(())
    }

    async fn check_incarnation(&self) -> Result<(), BootstrapError> {
        let Vault { store, cluster, incarnation } = &self.vault;
        bootstrap::check_incarnation(&**store, *cluster, *incarnation).await
    }

    fn export(&self) {
        let metrics = &self.handle.metrics().backup;
        let seconds = |since: Instant| i64::try_from(since.elapsed().as_secs()).unwrap_or(i64::MAX);
        metrics.age.set(self.written.map_or(-1, seconds));
        metrics.waiting.set(self.waits_since.map_or(0, seconds));
        metrics.archived.set(metrics::signed(self.handle.archived().0));
    }
}
