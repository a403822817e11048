//! Makes a new cluster from the bucket alone, under a new incarnation.
//!
//! ```text
//!  take the next incarnation ─▶ wait ─▶ read snapshot and archive ─▶ look for what was written behind its end
//!        (shuts the former                                                        │
//!         cluster out)                                                            ▼
//!  bootstrap document ◀─ folder of the first node ◀─ new cluster's state ◀─ skip offsets that may have been given out
//! ```
//!
//! It may die at any point and be run again with the same folder: each run takes an incarnation of its own, and goes back to the
//! newest one that has a backup.

mod fence;
mod load;
mod pages;
mod report;
mod settings;
mod tail;

use std::sync::Arc;

use carnax_core::cluster_document::{Former, IncarnationDocument};
use carnax_core::id::{ClusterId, Incarnation, LogIndex, NodeId, TopicPartition};
use carnax_core::problem::Problem;
use carnax_metadata_state::restore::{self as state_restore, NewCluster, PartitionEnd};
use carnax_metadata_state::{EntryError, State, answer, invariant};
use carnax_object_store::{ObjectStore, ObjectStoreError};
use carnax_platform::clock::Clock;
use carnax_platform::entropy::Entropy;

pub use report::{Named, Restored, SkippedOffsets, WithoutBackup};
pub use settings::RestoreSettings;

use self::load::Loaded;
use self::tail::Tail;
use crate::backup::{Vault, VaultError};
use crate::bootstrap::{self, BootstrapError};
use crate::identity::{Disk, Identity, IdentityError};

/// What a restore works with.
#[derive(Debug, Clone)]
pub struct RestoreComponents {
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Where ids come from.
    pub entropy: Arc<dyn Entropy>,
    /// The bucket of the cluster.
    pub object_store: Arc<dyn ObjectStore>,
    /// The empty disk of the first node.
    pub disk: Disk,
}

/// Why nothing was restored. Whatever it is, the restore may be run again.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The bucket never had a cluster.
    #[error("there is no cluster in this bucket: cluster/incarnation is absent")]
    NoCluster,
    /// No incarnation has a snapshot, or an archive from its beginning.
    #[error("there is no backup in this bucket: the cluster ran with --backup off, or never wrote one")]
    NoBackup,
    /// All snapshots are damaged.
    #[error("no snapshot in this bucket can be used: {}", .0.join("; "))]
    Unusable(Vec<String>),
    /// Another restore is under way.
    #[error("another restore has begun meanwhile; let it finish, or run this one again")]
    Overtaken,
    /// The folder belongs to a node.
    #[error("the folder is not empty: restore into a new one")]
    NotEmpty,
    /// The backup cannot be read.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The object store failed.
    #[error("the bucket cannot be reached")]
    ObjectStore(#[from] ObjectStoreError),
    /// A document of the cluster is not one of ours.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// An entry needs a newer version.
    #[error("log entry {index} cannot be applied; use the version that wrote it, or a later one")]
    Entry {
        /// Which.
        index: LogIndex,
        /// Why.
        source: EntryError,
    },
    /// What was read contradicts itself.
    #[error("the restored state is not sound: {}", .0.join("; "))]
    Unsound(Vec<String>),
    /// A setting that no cluster can have.
    #[error("the new cluster cannot be made: {0}")]
    Refused(Box<Problem>),
    /// The disk does not take it.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The snapshot of the new node cannot be written.
    #[error("the folder cannot be written")]
    Disk(#[from] std::io::Error),
}

impl From<Problem> for RestoreError {
    fn from(problem: Problem) -> Self {
        Self::Refused(Box::new(problem))
    }
}

/// Restores, from the newest incarnation that has a backup, into an empty disk.
///
/// # Errors
/// See [`RestoreError`].
pub async fn restore(
    settings: &RestoreSettings,
    components: &RestoreComponents,
) -> Result<Restored, RestoreError> {
    let RestoreComponents { clock, entropy, object_store, disk } = components;
    disk.begin_restore()?;
    let cluster = ClusterId::from_parts(clock.wall(), entropy.next_u128());
    let fence = fence::take_incarnation(&**object_store, cluster).await?;
    tracing::info!(incarnation = %fence.incarnation, wait = ?settings.settle(), "the former cluster is shut out");
    tokio::time::sleep(settings.settle()).await;

    let (vault, loaded) = load_newest(object_store, &fence).await?;
    tracing::info!(last = %loaded.last, "snapshot and archive are read");
    let seen = |former: &&Former| former.incarnation >= vault.incarnation;
    let incarnations: Vec<_> = fence.former.iter().filter(seen).map(|former| former.incarnation).collect();
    let without_backup = without_backup(&vault, &incarnations).await?;
    let tail = tail::survey(&**object_store, &loaded.state, &incarnations).await?;
    tracing::info!(objects = tail.objects, bytes = tail.bytes, "the tail behind the archive is known");

    let mut state = loaded.state.clone();
    let disk_number = entropy.next_u128();
    let voters_wanted = settings.voters.unwrap_or_else(|| answer::status(&state).voters_wanted.max(1));
    let (incarnation, address) = (fence.incarnation, settings.address().to_owned());
    let new = NewCluster { cluster, incarnation, voters_wanted, address: address.clone(), disk: disk_number };
    let node = state_restore::begin(&mut state, &new)?;
    let plan = plan_gaps(&mut state, &tail, settings.offset_margin);
    let gaps = plan.iter().map(|(end, skipped)| (end.on, skipped.1)).collect();
    tail::skip(object_store, &**entropy, &mut state, incarnation, gaps).await?;
    let broken = invariant::check(&state);
    if !broken.is_empty() {
        return Err(RestoreError::Unsound(broken));
    }

    fence::check_incarnation(&**object_store, &fence).await?;
    carnax_metadata_raft::seed(disk.raft(), node, &address, state.clone()).await?;
    disk.finish_restore(disk_number, &Identity { cluster, incarnation, node, bootstrap: None })?;
    let document = bootstrap::restored_document(cluster, incarnation, &address, clock.wall());
    fence::replace_bootstrap(&**object_store, &document).await?;
    disk.end_restore()?;
    let deleted = if settings.discard_tail { discard(&**object_store, &tail.keys).await? } else { 0 };

    let from = vault.incarnation;
    let outcome = Outcome { fence: &fence, from, node, address, voters_wanted, without_backup };
    Ok(report(&outcome, &loaded, &state, &tail, &plan, deleted, &**clock))
}

/// The state of the newest incarnation that has a backup: the one before this run may be that of a restore that died.
async fn load_newest(
    store: &Arc<dyn ObjectStore>,
    fence: &IncarnationDocument,
) -> Result<(Vault, Loaded), RestoreError> {
    for former in &fence.former {
        let (cluster, incarnation) = (former.cluster, former.incarnation);
        let vault = Vault { store: Arc::clone(store), cluster, incarnation };
        if let Some(loaded) = load::load(&vault).await? {
            return Ok((vault, loaded));
        }
        tracing::warn!(%incarnation, "this incarnation has no backup; looking at the one before");
    }
    Err(RestoreError::NoBackup)
}

/// When leaders of these incarnations began to delete objects without an archive.
async fn without_backup(
    vault: &Vault,
    incarnations: &[Incarnation],
) -> Result<Vec<WithoutBackup>, RestoreError> {
    let mut all = Vec::new();
    for incarnation in incarnations.iter().rev().copied() {
        let marks = Vault { incarnation, ..vault.clone() }.marks().await?;
        let since = marks.first().map(|mark| mark.applied);
        all.extend(since.map(|since| WithoutBackup { incarnation, since }));
    }
    Ok(all)
}

/// A partition, with its records in the tail and the offsets to skip.
type Gap = (PartitionEnd, (u64, u64));

/// Skips, in each partition, the records of the tail, and as many again or the margin: an object of a former frontend may have
/// come, and been committed by a former leader, after the tail was looked at.
fn plan_gaps(state: &mut State, tail: &Tail, margin: u32) -> Vec<Gap> {
    let mut last: std::collections::BTreeMap<_, TopicPartition> = std::collections::BTreeMap::new();
    last.extend(tail.records.keys().map(|on| (on.topic, *on)));
    for on in last.into_values() {
        state_restore::grow_topic(state, on);
    }
    let gap = |end: PartitionEnd| {
        let seen = tail.records.get(&end.on).copied().unwrap_or(0);
        (end, (seen, seen.saturating_add(seen.max(margin.into()))))
    };
    state_restore::partition_ends(state).map(gap).collect()
}

async fn discard(store: &dyn ObjectStore, keys: &[String]) -> Result<u64, RestoreError> {
    let mut deleted = 0;
    if !keys.is_empty() {
        for result in store.delete_many(keys).await {
            result?;
            deleted += 1;
        }
    }
    Ok(deleted)
}

struct Outcome<'a> {
    fence: &'a IncarnationDocument,
    from: Incarnation,
    node: NodeId,
    address: String,
    voters_wanted: u32,
    without_backup: Vec<WithoutBackup>,
}

fn report(
    outcome: &Outcome<'_>,
    loaded: &Loaded,
    state: &State,
    tail: &Tail,
    plan: &[Gap],
    deleted: u64,
    clock: &dyn Clock,
) -> Restored {
    let skipped = |(end, (tail_records, offsets)): &Gap| SkippedOffsets {
        topic: end.topic.clone(),
        topic_id: end.on.topic,
        partition: end.on.partition.0,
        from: end.high_watermark,
        to: end.high_watermark.checked_add(*offsets).unwrap_or(end.high_watermark),
        tail_records: *tail_records,
    };
    let known: u64 = plan.iter().map(|(_, (tail_records, _))| *tail_records).sum();
    let tail_records: u64 = tail.records.values().sum();
    let status = answer::status(state);
    let log_time = loaded.state.log_time();
    Restored {
        cluster: outcome.fence.cluster,
        incarnation: outcome.fence.incarnation,
        node: outcome.node,
        address: outcome.address.clone(),
        voters_wanted: outcome.voters_wanted,
        restored_from: outcome.from,
        snapshot_index: loaded.snapshot.map(|(index, _)| index),
        snapshot_bytes: loaded.snapshot.map_or(0, |(_, bytes)| bytes),
        archive_objects: loaded.archive_objects,
        archive_bytes: loaded.archive_bytes,
        entries_replayed: loaded.entries,
        last_archived_index: loaded.last,
        last_archived_log_time: log_time,
        last_archived_age_seconds: clock.wall().since(log_time).as_secs(),
        topics: status.topics,
        partitions: status.partitions,
        segments: status.segments,
        tail_objects: tail.objects,
        tail_bytes: tail.bytes,
        tail_records,
        tail_records_of_unknown_topics: tail_records.saturating_sub(known),
        tail_unreadable: tail.unreadable.clone(),
        unreferenced_merged_objects: tail.merged_objects,
        missing_objects: tail.missing.clone(),
        unusable_pages: tail.unusable_pages.clone(),
        without_backup: outcome.without_backup.clone(),
        tail_objects_deleted: deleted,
        skipped: plan.iter().map(skipped).filter(|skipped| skipped.to > skipped.from).collect(),
        damaged: loaded.damaged.clone(),
    }
}
