//! Where snapshots lie, and what a snapshot file looks like.
//!
//! | at | bytes | field |
//! |--|--|--|
//! | 0 | 8 | `CNXSNAP1`: magic and version |
//! | 8 | 4 | length of the meta |
//! | 12 | 4 | CRC32C of the meta |
//! | 16 | … | meta: last log id and membership, as MessagePack |
//! | … | … | the state, in its own format, which has checksums of its own, to the end of the file |
//!
//! Integers are little-endian. A file gets its final name only when it is whole and fsynced; the newest one is kept, and
//! an older one goes only after that.

mod frame;
mod incoming;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use carnax_metadata_state::State;

pub(crate) use incoming::{Incoming, Temporary};

use crate::log_store::MemoryDisk;
use crate::types::{SnapshotMeta, invalid_data};

const SUFFIX: &str = ".snapshot";
const TEMPORARY_SUFFIX: &str = ".partial";

/// A snapshot's bytes, which stay readable when a newer snapshot replaces it.
#[derive(Debug, Clone)]
pub(crate) enum SnapshotData {
    File {
        file: Arc<File>,
        path: PathBuf,
        /// Keeps a file that has just arrived until it is installed, even if its sender hangs up meanwhile.
        _arrived: Option<Arc<Temporary>>,
    },
    Memory(Bytes),
}

impl SnapshotData {
    pub(crate) fn len(&self) -> io::Result<u64> {
        match self {
            Self::File { file, .. } => Ok(file.metadata()?.len()),
            Self::Memory(bytes) => Ok(bytes.len() as u64),
        }
    }

    /// The bytes from `at` on, at most `bytes_max`; empty at the end. A file is read by a blocking thread.
    pub(crate) async fn chunk(&self, at: u64, bytes_max: usize) -> io::Result<Bytes> {
        match self {
            Self::Memory(bytes) => {
                let start = usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
                Ok(bytes.slice(start..bytes.len().min(start.saturating_add(bytes_max))))
            }
            Self::File { file, .. } => {
                let file = Arc::clone(file);
                blocking(move || {
                    let left = file.metadata()?.len().saturating_sub(at);
                    let mut chunk = vec![0; bytes_max.min(usize::try_from(left).unwrap_or(usize::MAX))];
                    file.read_exact_at(&mut chunk, at)?;
                    Ok(Bytes::from(chunk))
                })
                .await
            }
        }
    }

    fn read(&self) -> io::Result<(SnapshotMeta, State)> {
        match self {
            Self::Memory(bytes) => frame::read(bytes.as_ref()),
            Self::File { path, .. } => frame::read(io::BufReader::new(File::open(path)?)),
        }
    }
}

/// Where the snapshots of one node lie. Clones share it.
#[derive(Debug, Clone)]
pub(crate) enum SnapshotStore {
    Directory(PathBuf),
    Memory(MemoryDisk),
}

impl SnapshotStore {
    /// Opens a directory of snapshots, which is made if it does not exist; what was left half-written is removed. Blocks.
    pub(crate) fn open(directory: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&directory)?;
        for (path, name) in files(&directory)? {
            if name.ends_with(TEMPORARY_SUFFIX) {
                fs::remove_file(path)?;
            }
        }
        Ok(Self::Directory(directory))
    }

    /// The newest snapshot, with what it holds. Blocks.
    pub(crate) fn load(&self) -> io::Result<Option<(SnapshotMeta, State, SnapshotData)>> {
        let data = match self {
            Self::Memory(disk) => disk.snapshot().map(SnapshotData::Memory),
            Self::Directory(directory) => newest(directory)?.map(open_file).transpose()?,
        };
        let Some(data) = data else { return Ok(None) };
        let (meta, state) = data.read()?;
        Ok(Some((meta, state, data)))
    }

    /// Writes a snapshot; durable when it returns. Dropped half-way, it goes on in the background and does no harm.
    pub(crate) async fn save(&self, meta: SnapshotMeta, state: State) -> io::Result<SnapshotData> {
        match self {
            Self::Memory(disk) => {
                let mut bytes = Vec::new();
                frame::write(&mut bytes, &meta, &state)?;
                let bytes = Bytes::from(bytes);
                disk.put_snapshot(bytes.clone());
                Ok(SnapshotData::Memory(bytes))
            }
            Self::Directory(directory) => {
                let directory = directory.clone();
                blocking(move || {
                    let temporary = directory.join(format!("building-{}{TEMPORARY_SUFFIX}", index(&meta)));
                    let mut file = io::BufWriter::new(File::create(&temporary)?);
                    frame::write(&mut file, &meta, &state)?;
                    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
                    keep(&directory, &temporary, &meta)
                })
                .await
            }
        }
    }

    /// A place for a snapshot that arrives in chunks.
    pub(crate) async fn receive(&self) -> io::Result<Incoming> {
        match self {
            Self::Memory(_) => Ok(Incoming::memory()),
            Self::Directory(directory) => Incoming::file(directory.clone()).await,
        }
    }

    /// Checks a snapshot, keeps it as the newest one and gives what it holds. Durable when it returns.
    pub(crate) async fn install(
        &self,
        meta: SnapshotMeta,
        data: SnapshotData,
    ) -> io::Result<(State, SnapshotData)> {
        match (self, data) {
            (Self::Directory(directory), data @ SnapshotData::File { .. }) => {
                let directory = directory.clone();
                blocking(move || {
                    let state = check(&meta, &data)?;
                    let SnapshotData::File { path, .. } = &data else { return Err(mixed()) };
                    Ok((state, keep(&directory, path, &meta)?))
                })
                .await
            }
            (Self::Memory(disk), SnapshotData::Memory(bytes)) => {
                let state = check(&meta, &SnapshotData::Memory(bytes.clone()))?;
                disk.put_snapshot(bytes.clone());
                Ok((state, SnapshotData::Memory(bytes)))
            }
            _ => Err(mixed()),
        }
    }
}

/// Runs on a blocking thread. Dropping the future does not stop it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn mixed() -> io::Error {
    invalid_data("snapshots in files and in memory do not mix")
}

fn check(meta: &SnapshotMeta, data: &SnapshotData) -> io::Result<State> {
    let (found, state) = data.read()?;
    if found != *meta {
        return Err(invalid_data(format!("snapshot holds {found}, its sender says {meta}")));
    }
    Ok(state)
}

/// Gives a whole, fsynced file its final name and removes older ones.
fn keep(directory: &Path, temporary: &Path, meta: &SnapshotMeta) -> io::Result<SnapshotData> {
    let path = directory.join(format!("{:020}{SUFFIX}", index(meta)));
    fs::rename(temporary, &path)?;
    File::open(directory)?.sync_all()?;
    for (other, name) in files(directory)? {
        if name.ends_with(SUFFIX) && other < path {
            fs::remove_file(other)?;
        }
    }
    open_file(path)
}

fn open_file(path: PathBuf) -> io::Result<SnapshotData> {
    Ok(SnapshotData::File { file: Arc::new(File::open(&path)?), path, _arrived: None })
}

fn newest(directory: &Path) -> io::Result<Option<PathBuf>> {
    let paths =
        files(directory)?.into_iter().filter(|(_, name)| name.ends_with(SUFFIX)).map(|(path, _)| path);
    Ok(paths.max())
}

fn files(directory: &Path) -> io::Result<Vec<(PathBuf, String)>> {
    let entry = |entry: io::Result<fs::DirEntry>| {
        entry.map(|entry| (entry.path(), entry.file_name().to_string_lossy().into_owned()))
    };
    fs::read_dir(directory)?.map(entry).collect()
}

fn index(meta: &SnapshotMeta) -> u64 {
    meta.last_log_id.map_or(0, |id| id.index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{LeaderId, LogId, StoredMembership};

    fn meta(index: u64) -> SnapshotMeta {
        let id = LogId::new(LeaderId { term: 1, node_id: 1 }, index);
        SnapshotMeta { last_log_id: Some(id), last_membership: StoredMembership::default() }
    }

    #[test]
    fn damage_anywhere_is_seen() {
        let mut whole = Vec::new();
        frame::write(&mut whole, &meta(7), &State::default()).unwrap();
        assert_eq!(frame::read(&whole[..]).unwrap().0, meta(7));
        for at in 0..whole.len() {
            assert!(frame::read(&whole[..at]).is_err(), "cut after {at}");
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            assert!(frame::read(&flipped[..]).is_err(), "flipped at {at}");
        }
    }

    #[tokio::test]
    async fn the_newest_whole_snapshot_is_kept_and_half_of_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let store = SnapshotStore::open(directory.path().to_owned()).unwrap();
        assert!(store.load().unwrap().is_none());
        let first = store.save(meta(5), State::default()).await.unwrap();
        store.save(meta(9), State::default()).await.unwrap();
        let mut chunk = first.chunk(0, 8).await.unwrap();
        assert_eq!(chunk.split_to(8), "CNXSNAP1", "one that is being sent stays readable");

        let mut whole = Vec::new();
        frame::write(&mut whole, &meta(10), &State::default()).unwrap();
        let mut incoming = store.receive().await.unwrap();
        incoming.write(Bytes::from(whole)).await.unwrap();
        let data = incoming.finish().await.unwrap();
        drop(incoming);
        store.install(meta(10), data).await.expect("installed although the leader has hung up meanwhile");

        let mut incoming = store.receive().await.unwrap();
        incoming.write(Bytes::from_static(b"half")).await.unwrap();
        let half = incoming.finish().await.unwrap();
        assert!(store.install(meta(12), half).await.is_err());
        std::mem::forget(incoming);

        let store = SnapshotStore::open(directory.path().to_owned()).unwrap();
        assert_eq!(store.load().unwrap().unwrap().0, meta(10));
        assert_eq!(files(directory.path()).unwrap().len(), 1);
    }
}
