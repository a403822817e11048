//! A snapshot that arrives from the leader.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};

use super::{SnapshotData, TEMPORARY_SUFFIX, blocking};

/// Tells apart the files of transfers that overlap (an abandoned one and its successor).
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Takes chunks in order; what was taken is thrown away unless it is finished.
#[derive(Debug)]
pub(crate) enum Incoming {
    File { file: Arc<File>, path: Arc<Temporary> },
    Memory(BytesMut),
}

/// A file that goes when its last owner does. Once it was renamed there is nothing left to remove.
#[derive(Debug)]
pub(crate) struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Incoming {
    pub(super) fn memory() -> Self {
        Self::Memory(BytesMut::new())
    }

    pub(super) async fn file(directory: PathBuf) -> io::Result<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = Arc::new(Temporary(directory.join(format!("incoming-{number}{TEMPORARY_SUFFIX}"))));
        blocking(move || Ok(Self::File { file: Arc::new(File::create(&path.0)?), path })).await
    }

    /// Appends a chunk.
    pub(crate) async fn write(&mut self, chunk: Bytes) -> io::Result<()> {
        match self {
            Self::Memory(bytes) => {
                bytes.extend_from_slice(&chunk);
                Ok(())
            }
            Self::File { file, .. } => {
                let file = Arc::clone(file);
                blocking(move || (&*file).write_all(&chunk)).await
            }
        }
    }

    /// Fsyncs what arrived. The file lives until it is installed or what is given here and `self` are dropped.
    pub(crate) async fn finish(&mut self) -> io::Result<SnapshotData> {
        match self {
            Self::Memory(bytes) => Ok(SnapshotData::Memory(bytes.split().freeze())),
            Self::File { file, path } => {
                let file = Arc::clone(file);
                let arrived = Some(Arc::clone(path));
                let data =
                    SnapshotData::File { file: Arc::clone(&file), path: path.0.clone(), _arrived: arrived };
                blocking(move || file.sync_all()).await?;
                Ok(data)
            }
        }
    }
}
