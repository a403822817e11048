//! Puts a state on an empty disk, so that a node begins with it instead of with nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use carnax_core::id::NodeId;
use carnax_metadata_state::State;
use openraft::Membership;

use crate::settings::Storage;
use crate::snapshot_store::{SnapshotStore, blocking};
use crate::types::{LeaderId, LogId, Peer, SnapshotMeta, StoredMembership};

/// Writes a snapshot of `state` that makes `node` the only voter of a cluster. Durable when it returns; the disk must be empty.
///
/// A node that is [opened](crate::RaftNode::open) there leads at once, without being initialized. Its log begins behind the last
/// entry of the state. That entry counts as one of term 0, as the first entry of any cluster does: every later term is higher.
///
/// # Errors
/// Those of the disk, or `AlreadyExists` if it is not empty.
pub async fn seed(storage: Storage, node: NodeId, address: &str, state: State) -> io::Result<()> {
    let last = LogId::new(LeaderId { term: 0, node_id: 0 }, state.applied().0);
    let voters = BTreeSet::from([node.0]);
    let peers = BTreeMap::from([(node.0, Peer { address: address.to_owned() })]);
    let membership = Membership::new(vec![voters], peers).map_err(crate::types::invalid_data)?;
    let last_membership = StoredMembership::new(Some(last), membership);
    let meta = SnapshotMeta { last_log_id: Some(last), last_membership };
    let store = match storage {
        Storage::Directory(directory) => {
            blocking(move || SnapshotStore::open(directory.join("snapshots"))).await?
        }
        Storage::Memory(disk) => SnapshotStore::Memory(disk),
    };
    let known = store.clone();
    let known = match known {
        SnapshotStore::Memory(_) => known.load()?,
        SnapshotStore::Directory(_) => blocking(move || known.load()).await?,
    };
    if known.is_some() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the disk has a snapshot already"));
    }
    store.save(meta, state).await.map(drop)
}
