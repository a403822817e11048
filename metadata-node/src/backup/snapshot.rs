//! Snapshots in the bucket: the bytes of a state in parts, and an object that makes them one.
//!
//! The index object is JSON, and is put last: a snapshot counts only if it is there. It says how long each part is and which
//! checksum it has, so that parts of two leaders that wrote at the same time never mix.

use std::io::{self, Read, Write};

use bytes::{Buf, Bytes};
use carnax_core::id::{ClusterId, Incarnation, LogIndex};
use carnax_core::object_key::SnapshotPartKey;
use carnax_core::time::Timestamp;
use carnax_metadata_state::{State, snapshot};
use carnax_object_store::{GetRange, ObjectStoreError, Payload};
use serde::{Deserialize, Serialize};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::mpsc;

use super::vault::{Vault, VaultError, get_small};

const FORMAT_VERSION: u32 = 1;
/// Bytes of a part: no more is in memory than three of them.
const PART_BYTES: usize = 16 * 1024 * 1024;
/// One thread alone cannot send a part before the next one is made; what it writes is small.
const PARTS_AT_ONCE_MAX: usize = 4_096;
const INDEX_BYTES_MAX: u64 = 16 * 1024 * 1024;
const STATE_BYTES_MAX: u64 = 64 * 1024 * 1024 * 1024;

/// What the parts of a snapshot are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SnapshotIndex {
    format_version: u32,
    cluster: ClusterId,
    incarnation: Incarnation,
    last_index: LogIndex,
    log_time: Timestamp,
    /// Stands in the keys of its parts, as sixteen hexadecimal digits.
    attempt: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    bytes: u64,
    crc32c: u32,
}

impl Vault {
    /// Writes a state whose last entry is `last`; says how many bytes it took. It counts when this returns. Dropped half-way, it
    /// leaves parts behind that are deleted with the next snapshots.
    pub(crate) async fn put_snapshot(
        &self,
        last: LogIndex,
        state: State,
        attempt: u64,
    ) -> Result<u64, VaultError> {
        self.put_snapshot_in(PART_BYTES, last, state, attempt).await
    }

    /// The same, in parts of about so many bytes.
    pub(super) async fn put_snapshot_in(
        &self,
        part_bytes: usize,
        last: LogIndex,
        state: State,
        attempt: u64,
    ) -> Result<u64, VaultError> {
        let key = self.snapshot_key(last);
        let log_time = state.log_time();
        let room = if has_one_thread() { PARTS_AT_ONCE_MAX } else { 1 };
        let (sender, mut receiver) = mpsc::channel(room);
        let write = move || {
            let mut parts = PartWriter { sender, part: Vec::new(), part_bytes };
            snapshot::write(&state, &mut parts)?;
            parts.send()
        };
        let writing = if has_one_thread() {
            let written = write();
            tokio::spawn(async move { written })
        } else {
            tokio::task::spawn_blocking(write)
        };
        let mut parts = Vec::new();
        while let Some(bytes) = receiver.recv().await {
            let payload = Payload::from(bytes);
            parts.push(Part { bytes: payload.length(), crc32c: payload.crc32c() });
            let part = u32::try_from(parts.len() - 1).unwrap_or(u32::MAX);
            let part = SnapshotPartKey { snapshot: key, attempt, part }.to_string();
            self.store.put_if_absent(&part, payload).await?;
        }
        let unusable = |reason: String| VaultError::Snapshot { key: key.to_string(), reason };
        let written = writing.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        written.map_err(|error| unusable(error.to_string()))?;
        let bytes = parts.iter().map(|part| part.bytes).sum();
        let index = SnapshotIndex {
            format_version: FORMAT_VERSION,
            cluster: self.cluster,
            incarnation: self.incarnation,
            last_index: last,
            log_time,
            attempt: format!("{attempt:016x}"),
            parts,
        };
        let document = serde_json::to_vec(&index).expect("the index is plain data");
        let key = key.to_string();
        match self.store.put_if_absent(&key, Payload::from(Bytes::from(document))).await {
            // Another leader was faster: the state at an entry is the same everywhere.
            Ok(()) | Err(ObjectStoreError::AlreadyExists { .. }) => Ok(bytes),
            Err(unknown @ ObjectStoreError::OutcomeUnknown { .. }) => match self.store.head(&key).await {
                Ok(_) => Ok(bytes),
                Err(_) => Err(unknown.into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// Reads a snapshot; its bytes too.
    pub(crate) async fn snapshot(&self, last: LogIndex) -> Result<(State, u64), VaultError> {
        let key = self.snapshot_key(last);
        let unusable = |reason: String| VaultError::Snapshot { key: key.to_string(), reason };
        let document = get_small(&*self.store, &key.to_string(), INDEX_BYTES_MAX).await?;
        let document = document.ok_or_else(|| unusable("it is not there any more".to_owned()))?;
        let index: SnapshotIndex =
            serde_json::from_slice(&document).map_err(|error| unusable(error.to_string()))?;
        if index.format_version != FORMAT_VERSION {
            return Err(unusable(format!("format version {}", index.format_version)));
        }
        if (index.cluster, index.incarnation, index.last_index) != (self.cluster, self.incarnation, last) {
            return Err(unusable(format!("it is one of cluster {}", index.cluster)));
        }
        let attempt = u64::from_str_radix(&index.attempt, 16).map_err(|error| unusable(error.to_string()))?;
        let bytes = index.parts.iter().map(|part| part.bytes).sum();
        let room = if has_one_thread() { index.parts.len().max(1) } else { 1 };
        let (sender, receiver) = mpsc::channel(room);
        let read = move || {
            let mut parts = PartReader { receiver, part: Bytes::new() };
            snapshot::read(&mut parts, snapshot::Limits { bytes_max: STATE_BYTES_MAX })
        };
        let (read, reading) = if has_one_thread() {
            (Some(read), None)
        } else {
            (None, Some(tokio::task::spawn_blocking(read)))
        };
        for (part, expected) in (0..).zip(&index.parts) {
            let bytes = self.part(SnapshotPartKey { snapshot: key, attempt, part }, *expected).await?;
            if sender.send(bytes).await.is_err() {
                break;
            }
        }
        drop(sender);
        let state = match (read, reading) {
            (_, Some(reading)) => reading.await.map_err(|error| unusable(error.to_string()))?,
            (Some(read), None) => read(),
            (None, None) => unreachable!("it is read here, or there"),
        };
        let state = state.map_err(|error| unusable(error.to_string()))?;
        Ok((state, bytes))
    }

    async fn part(&self, key: SnapshotPartKey, expected: Part) -> Result<Bytes, VaultError> {
        let unusable = |reason| VaultError::Snapshot { key: key.to_string(), reason };
        let found = self.store.get(&key.to_string(), GetRange::WholeUpTo(expected.bytes)).await;
        let (bytes, _) = match found {
            Ok(found) => found,
            Err(error @ (ObjectStoreError::NotFound { .. } | ObjectStoreError::TooLarge { .. })) => {
                return Err(unusable(error.to_string()));
            }
            Err(error) => return Err(error.into()),
        };
        let payload = Payload::from(bytes.clone());
        if (payload.length(), payload.crc32c()) != (expected.bytes, expected.crc32c) {
            return Err(unusable("a part is damaged".to_owned()));
        }
        Ok(bytes)
    }
}

/// Whether everything runs on one thread, as in simulations. Then a state is written and read at once, so that nothing depends on when
/// another thread has its turn.
fn has_one_thread() -> bool {
    Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread
}

/// Cuts a state into parts; waits while the one before is being sent.
struct PartWriter {
    sender: mpsc::Sender<Bytes>,
    part: Vec<u8>,
    part_bytes: usize,
}

impl PartWriter {
    fn send(&mut self) -> io::Result<()> {
        let part = Bytes::from(std::mem::take(&mut self.part));
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "nobody takes the parts any more");
        if has_one_thread() {
            let full = |_| io::Error::other("a state has more parts than one thread can write");
            return self.sender.try_send(part).map_err(full);
        }
        self.sender.blocking_send(part).map_err(gone)
    }
}

impl Write for PartWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.part.extend_from_slice(bytes);
        if self.part.len() >= self.part_bytes {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Puts the parts together again; ends where the last one does.
struct PartReader {
    receiver: mpsc::Receiver<Bytes>,
    part: Bytes,
}

impl Read for PartReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.part.is_empty() {
            let next =
                if has_one_thread() { self.receiver.try_recv().ok() } else { self.receiver.blocking_recv() };
            let Some(next) = next else { return Ok(0) };
            self.part = next;
        }
        let length = into.len().min(self.part.len());
        self.part.copy_to_slice(&mut into[..length]);
        Ok(length)
    }
}
