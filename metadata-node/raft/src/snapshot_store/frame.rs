//! The bytes of a snapshot file; the table stands on the parent's page.

use std::io::{self, Read, Write};

use carnax_metadata_state::State;
use carnax_metadata_state::snapshot::{self, Limits};

use crate::types::{SnapshotMeta, invalid_data};

const MAGIC: [u8; 8] = *b"CNXSNAP1";
const META_BYTES_MAX: u32 = 1024 * 1024;
const STATE_BYTES_MAX: u64 = 64 * 1024 * 1024 * 1024;

/// Writes a whole snapshot.
pub(super) fn write(mut to: impl Write, meta: &SnapshotMeta, state: &State) -> io::Result<()> {
    let meta = rmp_serde::to_vec_named(meta).map_err(invalid_data)?;
    to.write_all(&MAGIC)?;
    to.write_all(&u32::try_from(meta.len()).map_err(invalid_data)?.to_le_bytes())?;
    to.write_all(&crc32c::crc32c(&meta).to_le_bytes())?;
    to.write_all(&meta)?;
    snapshot::write(state, &mut to)?;
    to.flush()
}

/// Reads a whole snapshot and checks it.
pub(super) fn read(mut from: impl Read) -> io::Result<(SnapshotMeta, State)> {
    if read_bytes(&mut from)? != MAGIC {
        return Err(invalid_data("not a snapshot, or one of a newer version"));
    }
    let length = u32::from_le_bytes(read_bytes(&mut from)?);
    let crc = u32::from_le_bytes(read_bytes(&mut from)?);
    if length > META_BYTES_MAX {
        return Err(invalid_data(format!("snapshot claims a meta of {length} bytes")));
    }
    let mut meta = Vec::new();
    (&mut from).take(length.into()).read_to_end(&mut meta)?;
    if crc32c::crc32c(&meta) != crc {
        return Err(invalid_data("snapshot is damaged: the checksum of its meta does not match"));
    }
    let meta = rmp_serde::from_slice(&meta).map_err(invalid_data)?;
    let state = snapshot::read(&mut from, Limits { bytes_max: STATE_BYTES_MAX }).map_err(invalid_data)?;
    Ok((meta, state))
}

fn read_bytes<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}
