//! Bytes on their way: files that are not yet objects.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::version_of;
use crate::key::Version;

/// An unpublished file so old belongs to no living write: whoever wrote it has given up long before.
const STALE_AGE: Duration = Duration::from_secs(60 * 60);

/// Numbers the unpublished files of this process, over all the stores that it has open.
static NEXT_INCOMING: AtomicU64 = AtomicU64::new(0);

/// A file that is complete and synced, but not yet an object. Removed when dropped, unless it was moved away.
pub(super) struct Incoming {
    pub(super) path: PathBuf,
    pub(super) version: Version,
    pub(super) published: bool,
}

impl Incoming {
    pub(super) fn write(folder: &Path, chunks: &[Bytes], modified: SystemTime) -> io::Result<Self> {
        let (path, mut file) = create_unique(folder)?;
        let mut incoming = Self { path, version: Version::new(""), published: false };
        for chunk in chunks {
            file.write_all(chunk)?;
        }
        file.set_modified(modified)?;
        file.sync_all()?;
        incoming.version = version_of(&file.metadata()?);
        Ok(incoming)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.published {
            // If this fails, the next process that opens the folder removes the file.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn create_unique(folder: &Path) -> io::Result<(PathBuf, File)> {
    loop {
        let number = NEXT_INCOMING.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("{}-{number}", std::process::id()));
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((path, file)),
            // Process ids repeat over containers that share the folder, and over restarts.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

/// Removes unpublished files: all if no other process has the folder open, else only those that are too old to be alive.
pub(super) fn clean(incoming: &Path, alone: bool) -> io::Result<()> {
    for entry in fs::read_dir(incoming)? {
        let entry = entry?;
        let age = entry.metadata().and_then(|metadata| metadata.modified());
        let stale = age.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > STALE_AGE));
        if alone || stale {
            match fs::remove_file(entry.path()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}
