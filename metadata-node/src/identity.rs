//! Who this disk is.
//!
//! ```text
//! DIR/disk.json   a random number, written before anything else: another disk is another node
//! DIR/node.json   the node's id in its cluster, written once the cluster has given it one
//! DIR/raft/…      log and snapshots
//! DIR/restoring.json   a restore has begun and not ended: whatever else is there is thrown away when it is run again
//! ```
//!
//! A disk never changes its identity, and an identity never changes its disk: a node whose folder was wiped comes back
//! as somebody else, so that it cannot vote twice in one term.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use carnax_core::id::{ClusterId, Incarnation, NodeId};
use carnax_metadata_raft::{MemoryDisk, Storage};
use carnax_platform::entropy::Entropy;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::bootstrap::BootstrapDocument;
use crate::restore::RestoreError;

const DISK: &str = "disk.json";
const NODE: &str = "node.json";
/// What a fresh file system holds.
const LOST_AND_FOUND: &str = "lost+found";
const RESTORING: &str = "restoring.json";

/// What a node knows of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// The cluster that the disk belongs to.
    pub(crate) cluster: ClusterId,
    /// The incarnation in which it joined.
    pub(crate) incarnation: Incarnation,
    /// The id that the cluster gave it.
    pub(crate) node: NodeId,
    /// What the node that started the cluster is to tell the state machine; none on all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bootstrap: Option<BootstrapDocument>,
}

/// Where a node keeps what must outlive its process.
#[derive(Debug, Clone)]
pub enum Disk {
    /// A folder that belongs to this node alone.
    Directory(PathBuf),
    /// Memory that outlives the node but not the process, for simulations.
    Memory(Box<MemoryNodeDisk>),
}

/// The memory of a simulated disk; clones share it.
#[derive(Debug, Clone, Default)]
pub struct MemoryNodeDisk {
    /// Log and snapshots, with what an fsync has made durable.
    pub raft: MemoryDisk,
    files: Arc<Mutex<BTreeMap<&'static str, Vec<u8>>>>,
    space: Arc<Mutex<Option<Space>>>,
}

/// How much room a disk has, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// What this process may still write.
    pub free: u64,
    /// All there is.
    pub total: u64,
}

impl MemoryNodeDisk {
    /// From now on the disk says that it has so much room; it says nothing at first.
    pub fn set_space(&self, space: Space) {
        *self.space.lock().unwrap_or_else(PoisonError::into_inner) = Some(space);
    }
}

/// A disk that cannot say who it is.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The operating system failed.
    #[error("{file} cannot be read or written in {dir}")]
    Io {
        /// Which file.
        file: &'static str,
        /// Where.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is there, but not what this version wrote.
    #[error(
        "{file} is damaged; restore it from a copy, or wipe the whole folder so that the node joins anew"
    )]
    Damaged {
        /// Which file.
        file: &'static str,
        /// Why.
        source: serde_json::Error,
    },
}

/// A disk id as text: JSON numbers do not hold 128 bits.
#[derive(Debug, Serialize, Deserialize)]
struct DiskDocument {
    disk: String,
}

impl Disk {
    /// Where Raft keeps its log and snapshots.
    pub(crate) fn raft(&self) -> Storage {
        match self {
            Self::Directory(dir) => Storage::Directory(dir.join("raft")),
            Self::Memory(memory) => Storage::Memory(memory.raft.clone()),
        }
    }

    /// The number of this disk; drawn and made durable at the first start.
    pub(crate) fn id(&self, entropy: &dyn Entropy) -> Result<u128, IdentityError> {
        if let Some(DiskDocument { disk }) = self.read(DISK)? {
            let not_a_number = |error| serde::de::Error::custom(format!("{error}: {disk:?}"));
            return disk
                .parse()
                .map_err(|error| IdentityError::Damaged { file: DISK, source: not_a_number(error) });
        }
        let disk = entropy.next_u128();
        self.write(DISK, &DiskDocument { disk: disk.to_string() })?;
        Ok(disk)
    }

    /// How much room the disk has; none if it does not say.
    pub(crate) async fn space(&self) -> io::Result<Option<Space>> {
        match self {
            Self::Memory(memory) => Ok(*memory.space.lock().unwrap_or_else(PoisonError::into_inner)),
            Self::Directory(dir) => {
                let dir = dir.clone();
                // A disk that hangs must hold up no other task.
                let stat = tokio::task::spawn_blocking(move || rustix::fs::statvfs(&dir));
                let stat = stat.await.map_err(io::Error::other)??;
                let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
                Ok(Some(Space { free: bytes(stat.f_bavail), total: bytes(stat.f_blocks) }))
            }
        }
    }

    /// The identity of this disk, once it has one.
    pub(crate) fn identity(&self) -> Result<Option<Identity>, IdentityError> {
        self.read(NODE)
    }

    /// Makes the identity durable.
    pub(crate) fn assign(&self, identity: &Identity) -> Result<(), IdentityError> {
        self.write(NODE, identity)
    }

    /// Notes that a restore begins; what an earlier one left that did not end is thrown away.
    pub(crate) fn begin_restore(&self) -> Result<(), RestoreError> {
        let unfinished = self.is_half_restored()?;
        match self {
            Self::Directory(dir) => {
                let io = |source| IdentityError::Io { file: RESTORING, dir: dir.clone(), source };
                std::fs::create_dir_all(dir).map_err(io)?;
                for entry in std::fs::read_dir(dir).map_err(io)? {
                    let path = entry.map_err(io)?.path();
                    if path.ends_with(LOST_AND_FOUND) {
                        continue;
                    }
                    if !unfinished {
                        return Err(RestoreError::NotEmpty);
                    }
                    let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { Ok(()) };
                    removed.map_err(io)?;
                }
                for file in [NODE, DISK].into_iter().filter(|_| unfinished) {
                    self.remove(file)?;
                }
            }
            Self::Memory(_) => {
                if self.identity()?.is_some() {
                    return Err(RestoreError::NotEmpty);
                }
            }
        }
        Ok(self.write(RESTORING, &serde_json::json!({}))?)
    }

    /// Whether a restore has begun here and not ended.
    pub(crate) fn is_half_restored(&self) -> Result<bool, IdentityError> {
        Ok(self.read::<serde_json::Value>(RESTORING)?.is_some())
    }

    /// Makes number and identity durable.
    pub(crate) fn finish_restore(&self, disk: u128, identity: &Identity) -> Result<(), IdentityError> {
        self.write(DISK, &DiskDocument { disk: disk.to_string() })?;
        self.assign(identity)
    }

    /// Notes that the restore has ended: a node may run here.
    pub(crate) fn end_restore(&self) -> Result<(), IdentityError> {
        self.remove(RESTORING)
    }

    fn remove(&self, file: &'static str) -> Result<(), IdentityError> {
        match self {
            Self::Directory(dir) => {
                let removed = std::fs::remove_file(dir.join(file)).and_then(|()| File::open(dir)?.sync_all());
                match removed {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                    removed => removed.map_err(|source| IdentityError::Io { file, dir: dir.clone(), source }),
                }
            }
            Self::Memory(memory) => {
                memory.files.lock().unwrap_or_else(PoisonError::into_inner).remove(file);
                Ok(())
            }
        }
    }

    fn read<T: DeserializeOwned>(&self, file: &'static str) -> Result<Option<T>, IdentityError> {
        let bytes = match self {
            Self::Directory(dir) => match std::fs::read(dir.join(file)) {
                Ok(bytes) => Some(bytes),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(source) => return Err(IdentityError::Io { file, dir: dir.clone(), source }),
            },
            Self::Memory(memory) => {
                memory.files.lock().unwrap_or_else(PoisonError::into_inner).get(file).cloned()
            }
        };
        let parsed = bytes.map(|bytes| serde_json::from_slice(&bytes)).transpose();
        parsed.map_err(|source| IdentityError::Damaged { file, source })
    }

    fn write<T: Serialize>(&self, file: &'static str, value: &T) -> Result<(), IdentityError> {
        let bytes = serde_json::to_vec(value).map_err(|source| IdentityError::Damaged { file, source })?;
        match self {
            Self::Directory(dir) => write_durably(dir, file, &bytes).map_err(|source| IdentityError::Io {
                file,
                dir: dir.clone(),
                source,
            }),
            Self::Memory(memory) => {
                memory.files.lock().unwrap_or_else(PoisonError::into_inner).insert(file, bytes);
                Ok(())
            }
        }
    }
}

/// Writes beside, fsyncs, renames, fsyncs the folder: the file is whole or absent after any crash.
fn write_durably(dir: &Path, file: &str, bytes: &[u8]) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let beside = dir.join(format!("{file}.tmp"));
    let mut written = File::create(&beside)?;
    written.write_all(bytes)?;
    written.sync_all()?;
    std::fs::rename(&beside, dir.join(file))?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use carnax_platform::entropy::SystemEntropy;

    use super::*;

    #[test]
    fn a_disk_keeps_its_identity_and_damage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for disk in [Disk::Directory(dir.path().to_owned()), Disk::Memory(Box::default())] {
            let id = disk.id(&SystemEntropy).unwrap();
            assert_eq!(disk.id(&SystemEntropy).unwrap(), id);
            assert_eq!(disk.identity().unwrap(), None);
            let cluster = ClusterId::from_bytes([7; 16]);
            let identity =
                Identity { cluster, incarnation: Incarnation(1), node: NodeId(3), bootstrap: None };
            disk.assign(&identity).unwrap();
            assert_eq!(disk.identity().unwrap(), Some(identity));
        }
        let disk = Disk::Directory(dir.path().to_owned());
        std::fs::write(dir.path().join(NODE), b"{").unwrap();
        assert!(disk.identity().unwrap_err().to_string().contains("node.json is damaged"));
        std::fs::write(dir.path().join(DISK), br#"{"disk":"x"}"#).unwrap();
        assert!(matches!(disk.id(&SystemEntropy), Err(IdentityError::Damaged { file: DISK, .. })));
    }
}
