//! Who this disk is.
//!
//! ```text
//! DIR/disk.json   a random number, written before anything else: another disk is another node
//! DIR/node.json   the node's id in its cluster, written once the cluster has given it one
//! DIR/raft/…      log and snapshots
//! ```
//!
//! A disk never changes its identity, and an identity never changes its disk: a node whose folder was wiped comes back
//! as somebody else, so that it cannot vote twice in one term.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use carnax_core::id::{ClusterId, Incarnation, NodeId};
use carnax_platform::entropy::Entropy;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What a node knows of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// The cluster that the disk belongs to.
    pub(crate) cluster: ClusterId,
    /// The incarnation in which it joined.
    pub(crate) incarnation: Incarnation,
    /// The id that the cluster gave it.
    pub(crate) node: NodeId,
}

#[derive(Debug, Serialize, Deserialize)]
struct Disk {
    disk: String,
}

/// A folder that cannot say who it is.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The operating system failed.
    #[error("{path} cannot be read or written")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is there, but not what this version wrote.
    #[error("{path} is damaged; restore it from its copy, or wipe the whole folder so that the node joins anew")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The disk id is not a number.
    #[error("{path} holds no disk id: {text:?}")]
    NoDiskId {
        /// Which file.
        path: PathBuf,
        /// What it holds.
        text: String,
    },
}

/// The number of this disk; drawn and made durable at the first start.
pub(crate) fn disk_id(dir: &Path, entropy: &dyn Entropy) -> Result<u128, IdentityError> {
    let path = dir.join("disk.json");
    if let Some(Disk { disk }) = read(&path)? {
        return disk.parse().map_err(|_| IdentityError::NoDiskId { path, text: disk });
    }
    let disk = entropy.next_u128();
    write(&path, &Disk { disk: disk.to_string() })?;
    Ok(disk)
}

/// The identity of this disk, once it has one.
pub(crate) fn load(dir: &Path) -> Result<Option<Identity>, IdentityError> {
    read(&dir.join("node.json"))
}

/// Makes the identity durable.
pub(crate) fn store(dir: &Path, identity: &Identity) -> Result<(), IdentityError> {
    write(&dir.join("node.json"), identity)
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, IdentityError> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| IdentityError::Damaged { path: path.to_owned(), source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(IdentityError::Io { path: path.to_owned(), source }),
    }
}

/// Writes beside, fsyncs, renames, fsyncs the folder: the file is whole or absent after any crash.
fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), IdentityError> {
    let durably = || -> io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        let beside = path.with_extension("tmp");
        let mut file = File::create(&beside)?;
        file.write_all(&serde_json::to_vec(value)?)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)?;
        File::open(folder)?.sync_all()
    };
    durably().map_err(|source| IdentityError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use carnax_platform::entropy::SystemEntropy;

    use super::*;

    #[test]
    fn a_disk_keeps_its_identity_and_damage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let disk = disk_id(dir.path(), &SystemEntropy).unwrap();
        assert_eq!(disk_id(dir.path(), &SystemEntropy).unwrap(), disk);
        assert_eq!(load(dir.path()).unwrap(), None);
        let cluster = ClusterId::from_bytes([7; 16]);
        let identity = Identity { cluster, incarnation: Incarnation(1), node: NodeId(3) };
        store(dir.path(), &identity).unwrap();
        assert_eq!(load(dir.path()).unwrap(), Some(identity));
        std::fs::write(dir.path().join("node.json"), b"{").unwrap();
        assert!(load(dir.path()).unwrap_err().to_string().contains("node.json is damaged"));
        std::fs::write(dir.path().join("disk.json"), br#"{"disk":"x"}"#).unwrap();
        assert!(matches!(disk_id(dir.path(), &SystemEntropy), Err(IdentityError::NoDiskId { .. })));
    }
}
