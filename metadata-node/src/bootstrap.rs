//! Who starts a cluster, and how everybody else finds it.
//!
//! Exactly one node wins the put-if-absent of `cluster/bootstrap.json`; only that node ever initializes Raft, and only on
//! the disk that won. Whoever finds the object there joins the cluster that it names as a learner with a new id, whatever
//! its own flags say: an empty disk never initializes and never votes on the strength of its flags.

use std::time::Duration;

use bytes::Bytes;
use carnax_core::cluster_document::{self, FORMAT_VERSION, IncarnationDocument};
use carnax_core::id::{ClusterId, Incarnation};
use carnax_core::object_key;
use carnax_core::time::Timestamp;
use carnax_object_store::{GetRange, ObjectStore, ObjectStoreError, Payload};
use serde::{Deserialize, Serialize};

/// `cluster/bootstrap.json`: written once, and replaced only by a restore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BootstrapDocument {
    pub(crate) format_version: u32,
    pub(crate) cluster: ClusterId,
    pub(crate) incarnation: Incarnation,
    /// The disk that won, as text: JSON numbers do not hold 128 bits.
    pub(crate) disk: String,
    /// Where the winner listens.
    pub(crate) address: String,
    /// The nodes that are to form the cluster; appends wait until so many vote.
    pub(crate) voters: Vec<String>,
    pub(crate) created: Timestamp,
}

/// What a node with an empty disk is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Claim {
    /// This disk won: initialize the cluster.
    Won(BootstrapDocument),
    /// Another disk won: join its cluster.
    Taken(BootstrapDocument),
    /// There is no cluster yet, and this node is not one of those that may start it.
    Absent,
}

/// Why the bucket does not say what to do.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The object store failed.
    #[error("the cluster's bootstrap document cannot be reached")]
    ObjectStore(#[from] ObjectStoreError),
    /// The document is not one of ours.
    #[error("{key} is not a document that this version understands: {reason}")]
    Unreadable {
        /// Its key.
        key: &'static str,
        /// Why.
        reason: String,
    },
    /// The cluster was restored under another incarnation.
    #[error(
        "the bucket belongs to incarnation {found} of cluster {cluster}, this disk to {own}; wipe the disk to join"
    )]
    OtherIncarnation {
        /// The cluster in the bucket.
        cluster: ClusterId,
        /// The incarnation in the bucket.
        found: Incarnation,
        /// The incarnation of this disk.
        own: Incarnation,
    },
}

/// Tries to become the one that starts the cluster. Safe to repeat, also after a crash in the middle.
///
/// `wanted` is what to write; none only looks.
pub(crate) async fn claim(
    store: &dyn ObjectStore,
    wanted: Option<BootstrapDocument>,
    disk: u128,
) -> Result<Claim, BootstrapError> {
    if let Some(found) = read_document::<BootstrapDocument>(store, object_key::BOOTSTRAP).await? {
        return Ok(whose(found, disk));
    }
    let Some(wanted) = wanted else { return Ok(Claim::Absent) };
    let bytes = Bytes::from(serde_json::to_vec(&wanted).expect("the document is plain data"));
    match store.put_if_absent(object_key::BOOTSTRAP, Payload::from(bytes)).await {
        // Whoever wrote it, and whether or not we know that we did: the object that is there decides.
        Ok(()) | Err(ObjectStoreError::AlreadyExists { .. } | ObjectStoreError::OutcomeUnknown { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    match read_document(store, object_key::BOOTSTRAP).await? {
        Some(found) => Ok(whose(found, disk)),
        None => Ok(Claim::Absent),
    }
}

/// Makes sure that `cluster/incarnation` exists before the first segment is written.
pub(crate) async fn write_incarnation(
    store: &dyn ObjectStore,
    bootstrap: &BootstrapDocument,
) -> Result<(), BootstrapError> {
    let (cluster, incarnation) = (bootstrap.cluster, bootstrap.incarnation);
    let document =
        IncarnationDocument { format_version: FORMAT_VERSION, cluster, incarnation, former: Vec::new() };
    let bytes = Bytes::from(serde_json::to_vec(&document).expect("the document is plain data"));
    match store.compare_and_swap(object_key::INCARNATION, None, bytes).await {
        Ok(_) => Ok(()),
        Err(ObjectStoreError::VersionMismatch { .. } | ObjectStoreError::OutcomeUnknown { .. }) => {
            check_incarnation(store, cluster, incarnation).await
        }
        Err(error) => Err(error.into()),
    }
}

/// Refuses to go on under an incarnation that a restore has replaced.
pub(crate) async fn check_incarnation(
    store: &dyn ObjectStore,
    cluster: ClusterId,
    own: Incarnation,
) -> Result<(), BootstrapError> {
    let found = read_document::<IncarnationDocument>(store, object_key::INCARNATION).await?;
    match found {
        Some(found) if (found.cluster, found.incarnation) == (cluster, own) => Ok(()),
        Some(found) => {
            Err(BootstrapError::OtherIncarnation { cluster: found.cluster, found: found.incarnation, own })
        }
        None => Err(BootstrapError::Unreadable {
            key: object_key::INCARNATION,
            reason: "it is absent although the cluster exists".to_owned(),
        }),
    }
}

/// A document for a cluster that does not exist yet.
pub(crate) fn new_document(
    cluster: ClusterId,
    disk: u128,
    address: &str,
    voters: &[String],
    created: Timestamp,
) -> BootstrapDocument {
    BootstrapDocument {
        format_version: FORMAT_VERSION,
        cluster,
        incarnation: Incarnation(1),
        disk: disk.to_string(),
        address: address.to_owned(),
        voters: voters.to_vec(),
        created,
    }
}

/// The document of a cluster that was restored: no disk is the one that starts it.
pub(crate) fn restored_document(
    cluster: ClusterId,
    incarnation: Incarnation,
    address: &str,
    created: Timestamp,
) -> BootstrapDocument {
    BootstrapDocument {
        format_version: FORMAT_VERSION,
        cluster,
        incarnation,
        disk: "restored".to_owned(),
        address: address.to_owned(),
        voters: vec![address.to_owned()],
        created,
    }
}

/// How long to wait before looking at the bucket again.
pub(crate) const RETRY: Duration = Duration::from_secs(1);

fn whose(found: BootstrapDocument, disk: u128) -> Claim {
    if found.disk == disk.to_string() { Claim::Won(found) } else { Claim::Taken(found) }
}

async fn read_document<T: serde::de::DeserializeOwned>(
    store: &dyn ObjectStore,
    key: &'static str,
) -> Result<Option<T>, BootstrapError> {
    let bytes = match store.get(key, GetRange::WholeUpTo(cluster_document::BYTES_MAX)).await {
        Ok((bytes, _)) => bytes,
        Err(ObjectStoreError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    parse_document(key, &bytes).map(Some)
}

/// Reads a document, its version first.
pub(crate) fn parse_document<T: serde::de::DeserializeOwned>(
    key: &'static str,
    bytes: &[u8],
) -> Result<T, BootstrapError> {
    cluster_document::parse(bytes)
        .map_err(|error| BootstrapError::Unreadable { key, reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    //! Goal: however many nodes race and however often the store lies about a put, one disk starts the cluster.
    use std::sync::Arc;

    use carnax_object_store::MemoryStore;

    use super::*;

    fn document(disk: u128) -> BootstrapDocument {
        let voters = ["a:1".to_owned(), "b:1".to_owned()];
        new_document(ClusterId::from_bytes([1; 16]), disk, "a:1", &voters, Timestamp::EPOCH)
    }

    #[tokio::test]
    async fn one_disk_wins_and_keeps_winning() {
        let store = Arc::new(MemoryStore::new());
        assert_eq!(claim(&*store, None, 9).await.unwrap(), Claim::Absent, "who may not start it only looks");
        let claims = (0..16).map(|disk| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { claim(&*store, Some(document(disk)), disk).await.unwrap() })
        });
        let claims = futures::future::join_all(claims).await;
        let won: Vec<_> = claims.iter().filter(|claim| matches!(claim, Ok(Claim::Won(_)))).collect();
        assert_eq!(won.len(), 1, "{claims:?}");
        let Ok(Claim::Won(winner)) = won[0] else { unreachable!("filtered") };
        let disk: u128 = winner.disk.parse().unwrap();
        assert_eq!(
            claim(&*store, None, disk).await.unwrap(),
            Claim::Won(winner.clone()),
            "also after a restart"
        );
        assert_eq!(claim(&*store, Some(document(99)), 99).await.unwrap(), Claim::Taken(winner.clone()));
    }

    #[tokio::test]
    async fn a_restored_cluster_shuts_the_old_incarnation_out() {
        let store = MemoryStore::new();
        let bootstrap = document(1);
        write_incarnation(&store, &bootstrap).await.unwrap();
        write_incarnation(&store, &bootstrap).await.unwrap();
        let other = check_incarnation(&store, bootstrap.cluster, Incarnation(2)).await.unwrap_err();
        assert!(matches!(other, BootstrapError::OtherIncarnation { .. }), "{other}");
    }
}
