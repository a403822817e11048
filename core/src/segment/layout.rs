//! Sizes and fixed bytes, shared by writer and reader.

/// The format that is written.
pub const VERSION: u16 = 1;
/// Bytes before the first slice.
pub const HEADER_BYTES: usize = 8;
/// Bytes behind the footer: always the last ones of the object.
pub const TRAILER_BYTES: usize = 16;

/// What the object starts and ends with.
pub(super) const MAGIC_AND_VERSION: [u8; HEADER_BYTES] = *b"CARNAX\x00\x01";
/// The part of it that is the same in every version.
pub(super) const MAGIC_BYTES: usize = 6;
/// Bytes of the counts at the start of a footer.
pub(super) const COUNTS_BYTES: usize = 8;
/// Bytes of a slice in the footer.
pub(super) const SLICE_BYTES: usize = 44;
/// Bytes of a batch in the footer.
pub(super) const BATCH_BYTES: usize = 17;
/// The flag of a batch that a frontend encoded.
pub(super) const ENCODED_BY_FRONTEND: u8 = 1;

/// Bytes of a footer with so many slices and batches.
pub(super) const fn footer_bytes(slices: usize, batches: usize) -> usize {
    COUNTS_BYTES + slices * SLICE_BYTES + batches * BATCH_BYTES
}

const _: () = {
    let version = VERSION.to_be_bytes();
    assert!(MAGIC_AND_VERSION[6] == version[0] && MAGIC_AND_VERSION[7] == version[1]);
};
