//! The documents by which a restore shuts the former cluster out, and lets nodes into the new one.

use bytes::Bytes;
use carnax_core::cluster_document::{self, FORMAT_VERSION, Former, IncarnationDocument};
use carnax_core::id::{ClusterId, Incarnation};
use carnax_core::object_key;
use carnax_object_store::{GetRange, ObjectStore, ObjectStoreError, Version};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::RestoreError;
use crate::bootstrap::{BootstrapDocument, BootstrapError, parse_document};

/// Takes the next incarnation: from now on the former cluster's leader stops at its next write to the archive. Answers with the
/// document, which names all former incarnations, the newest first.
pub(super) async fn take_incarnation(
    store: &dyn ObjectStore,
    cluster: ClusterId,
) -> Result<IncarnationDocument, RestoreError> {
    let found = read::<IncarnationDocument>(store, object_key::INCARNATION).await?;
    let (found, version) = found.ok_or(RestoreError::NoCluster)?;
    let mut former = vec![Former { cluster: found.cluster, incarnation: found.incarnation }];
    former.extend(found.former);
    let incarnation = Incarnation(found.incarnation.0.saturating_add(1));
    let wanted = IncarnationDocument { format_version: FORMAT_VERSION, cluster, incarnation, former };
    swap(store, object_key::INCARNATION, Some(version), &wanted).await?;
    Ok(wanted)
}

/// Refuses to go on if another restore has taken the next incarnation meanwhile.
pub(super) async fn check_incarnation(
    store: &dyn ObjectStore,
    own: &IncarnationDocument,
) -> Result<(), RestoreError> {
    match read::<IncarnationDocument>(store, object_key::INCARNATION).await? {
        Some((found, _)) if found == *own => Ok(()),
        _ => Err(RestoreError::Overtaken),
    }
}

/// Lets empty nodes find the new cluster.
pub(super) async fn replace_bootstrap(
    store: &dyn ObjectStore,
    wanted: &BootstrapDocument,
) -> Result<(), RestoreError> {
    let version = read::<BootstrapDocument>(store, object_key::BOOTSTRAP).await?.map(|(_, version)| version);
    swap(store, object_key::BOOTSTRAP, version, wanted).await
}

async fn swap<T: Serialize + DeserializeOwned + PartialEq>(
    store: &dyn ObjectStore,
    key: &'static str,
    expected: Option<Version>,
    wanted: &T,
) -> Result<(), RestoreError> {
    let bytes = Bytes::from(serde_json::to_vec(wanted).expect("the document is plain data"));
    match store.compare_and_swap(key, expected, bytes).await {
        Ok(_) => Ok(()),
        Err(ObjectStoreError::VersionMismatch { .. }) => Err(RestoreError::Overtaken),
        Err(unknown @ ObjectStoreError::OutcomeUnknown { .. }) => match read::<T>(store, key).await? {
            Some((found, _)) if found == *wanted => Ok(()),
            _ => Err(unknown.into()),
        },
        Err(error) => Err(error.into()),
    }
}

async fn read<T: DeserializeOwned>(
    store: &dyn ObjectStore,
    key: &'static str,
) -> Result<Option<(T, Version)>, RestoreError> {
    match store.get(key, GetRange::WholeUpTo(cluster_document::BYTES_MAX)).await {
        Ok((bytes, version)) => Ok(Some((parse_document(key, &bytes)?, version))),
        Err(ObjectStoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(BootstrapError::ObjectStore(error).into()),
    }
}
