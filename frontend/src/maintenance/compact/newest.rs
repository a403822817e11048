//! Which records of a partition stay: the newest of each key, as far as a round knows them.

use std::collections::HashMap;
use std::ops::Range;

use carnax_core::limits;
use carnax_core::offset::Offset;
use carnax_core::record::{Record, key_hash};

/// The newest offset of each key in what is new, from where the partition is clean on. It holds hashes: its size does not depend on
/// the keys.
pub(in crate::maintenance) struct Newest {
    /// Drawn for each round, so that nobody can prepare two keys with one hash.
    seed: u64,
    keys_max: usize,
    newest: HashMap<u128, Offset>,
    /// What is new begins here.
    from: Offset,
    /// What lies here or behind is left alone.
    limit: Offset,
    /// The round knows all keys up to here.
    until: Offset,
}

impl Newest {
    pub(in crate::maintenance) fn new(seed: u64, clean_until: Offset, limit: Offset) -> Self {
        Self::bounded(seed, clean_until..limit, limits::COMPACT_KEYS_MAX)
    }

    pub(in crate::maintenance) fn bounded(seed: u64, new: Range<Offset>, keys_max: usize) -> Self {
        let Range { start, end } = new;
        Self { seed, keys_max, newest: HashMap::new(), from: start, limit: end, until: start }
    }

    /// Takes in a record, in order of offsets; says whether more may come. One that is not taken in is not part of the round.
    pub(in crate::maintenance) fn learn(&mut self, offset: Offset, record: &Record) -> bool {
        if offset < self.from {
            return true;
        }
        if offset >= self.limit {
            self.until = self.limit;
            return false;
        }
        if let Some(key) = &record.key {
            let hash = key_hash(self.seed, key);
            if self.newest.len() >= self.keys_max && !self.newest.contains_key(&hash) {
                self.until = self.until.max(offset);
                return false;
            }
            self.newest.insert(hash, offset);
        }
        self.until = self.until.max(Offset(offset.0.saturating_add(1)));
        true
    }

    /// Everything up to here was taken in, holes at the end included.
    pub(in crate::maintenance) fn learned_until(&mut self, end: Offset) {
        self.until = self.until.max(end.min(self.limit));
    }

    pub(in crate::maintenance) fn until(&self) -> Offset {
        self.until
    }

    /// Whether a newer record of the same key is part of the round.
    fn is_superseded(&self, offset: Offset, key: &[u8]) -> bool {
        self.newest.get(&key_hash(self.seed, key)).is_some_and(|newest| *newest > offset)
    }
}

/// Decides of each record whether it stays, and notes whether tombstones do.
pub(in crate::maintenance) struct Judge<'a> {
    pub(in crate::maintenance) newest: &'a Newest,
    /// Tombstones below go.
    pub(in crate::maintenance) tombstones_until: Offset,
    pub(in crate::maintenance) tombstones_left: bool,
}

impl Judge<'_> {
    /// Records without a key stay, as does whatever lies behind the round.
    pub(in crate::maintenance) fn stays(&mut self, offset: Offset, record: &Record) -> bool {
        let Some(key) = record.key.as_ref().filter(|_| offset < self.newest.until) else { return true };
        if self.newest.is_superseded(offset, key) {
            return false;
        }
        if record.value.is_some() {
            return true;
        }
        let stays = offset >= self.tombstones_until;
        self.tombstones_left |= stays;
        stays
    }
}
