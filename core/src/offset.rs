//! Positions of records in a partition. A position in bytes is a [`ByteRange`], never an offset.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The position of a record in its partition: 0, 1, 2 … in commit order.
///
/// At most `i64::MAX`, since the record batch format carries offsets as signed 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct Offset(pub u64);

impl Offset {
    /// The first offset of every partition.
    pub const ZERO: Self = Self(0);
    /// The largest offset that the record batch format can carry.
    pub const MAX: Self = Self(i64::MAX.unsigned_abs());

    /// The offset `records` further on, or none beyond [`Offset::MAX`].
    pub fn checked_add(self, records: u64) -> Option<Self> {
        self.0.checked_add(records).map(Self).filter(|offset| *offset <= Self::MAX)
    }

    /// How many offsets lie between an earlier one and this one; 0 if `earlier` is not earlier.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// As the record batch header carries it.
    pub fn as_i64(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A half-open range of bytes in an object: `start` is its first byte, `start + length` one past its last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ByteRange {
    /// Position of the first byte in the object.
    pub start: u64,
    /// Number of bytes.
    pub length: u64,
}

impl ByteRange {
    /// One past the last byte, or none if that is beyond 2⁶⁴.
    pub fn end(self) -> Option<u64> {
        self.start.checked_add(self.length)
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.start, self.length)
    }
}
