//! The bytes of a snapshot file; the table stands on the parent's page.

use std::io::{self, Read, Write};

use carnax_metadata_state::State;
use carnax_metadata_state::snapshot::{self, Limits};

use crate::types::{SnapshotMeta, invalid_data};

const MAGIC: [u8; 8] = *b"CNXSNAP1";
const META_BYTES_MAX: u32 = 1024 * 1024;
const STATE_BYTES_MAX: u64 = 64 * 1024 * 1024 * 1024;

/// Writes a whole snapshot.
pub(super) fn write(to: impl Write, meta: &SnapshotMeta, state: &State) -> io::Result<()> {
    let meta = rmp_serde::to_vec_named(meta).map_err(invalid_data)?;
    let mut to = Checked { inner: to, crc: 0 };
    to.write_all(&MAGIC)?;
    to.write_all(&u32::try_from(meta.len()).map_err(invalid_data)?.to_le_bytes())?;
    to.write_all(&meta)?;
    snapshot::write(state, &mut to)?;
    let crc = to.crc;
    to.inner.write_all(&crc.to_le_bytes())?;
    to.inner.flush()
}

/// Reads a whole snapshot and checks it.
pub(super) fn read(from: impl Read) -> io::Result<(SnapshotMeta, State)> {
    let mut from = Checked { inner: from, crc: 0 };
    let mut magic = [0; 8];
    from.read_exact(&mut magic)?;
    if magic != MAGIC {
        return Err(invalid_data("not a snapshot, or one of a newer version"));
    }
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > META_BYTES_MAX {
        return Err(invalid_data(format!("snapshot claims a meta of {length} bytes")));
    }
    let mut meta = Vec::new();
    (&mut from).take(length.into()).read_to_end(&mut meta)?;
    let meta = rmp_serde::from_slice(&meta).map_err(invalid_data)?;
    let state = snapshot::read(&mut from, Limits { bytes_max: STATE_BYTES_MAX }).map_err(invalid_data)?;
    let crc = from.crc;
    let mut expected = [0; 4];
    from.inner.read_exact(&mut expected)?;
    if u32::from_le_bytes(expected) != crc {
        return Err(invalid_data("snapshot is damaged: its checksum does not match"));
    }
    Ok((meta, state))
}

/// Sums up what passes through.
struct Checked<T> {
    inner: T,
    crc: u32,
}

impl<T: Write> Write for Checked<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.crc = crc32c::crc32c_append(self.crc, &bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Checked<T> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(bytes)?;
        self.crc = crc32c::crc32c_append(self.crc, &bytes[..read]);
        Ok(read)
    }
}
