//! Holds a listing of the bucket against what the metadata core knows. Pure.

use std::collections::BTreeMap;

use carnax_core::id::{Incarnation, SegmentId, SegmentNumber};
use carnax_core::object_key::{
    ArchiveKey, BOOTSTRAP, BackupOffKey, INCARNATION, PageKey, SegmentKey, SnapshotKey, SnapshotPartKey,
};

/// Objects that the metadata core knows: some 70 bytes of memory each.
#[derive(Debug)]
pub(super) struct Known {
    incarnation: Incarnation,
    objects: BTreeMap<SegmentId, Object>,
    /// Manifest pages, and whether they are live.
    pages: BTreeMap<PageKey, bool>,
}

#[derive(Debug, Clone, Copy)]
struct Object {
    /// None for one that only a manifest page knows.
    number: Option<SegmentNumber>,
    size: u64,
    /// CRC32C of the whole key: an object under another key is another one.
    key: u32,
    live: bool,
    seen: bool,
}

/// What an object of the listing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The log needs it, and its size is right.
    Live,
    /// The log needs it, and it has another size; without a number it is looked at again with its manifest page.
    WrongSize { number: Option<SegmentNumber> },
    /// It was part of the log once.
    Dead,
    /// It may be young, an orphan, or committed since.
    Unknown(SegmentId),
    /// A manifest page of which the same is to be said.
    UnknownPage(PageKey),
    /// A segment of an earlier incarnation that nothing refers to.
    Earlier,
    /// Something of a later incarnation.
    Later,
    /// A restore reads it.
    Backup,
    /// It says whose the bucket is.
    Cluster,
    /// Nothing that Carnax writes, or not there.
    NotOurs,
}

impl Known {
    pub(super) fn new(incarnation: Incarnation) -> Self {
        Self { incarnation, objects: BTreeMap::new(), pages: BTreeMap::new() }
    }

    /// Takes in an object; what is said last of it counts.
    pub(super) fn insert(&mut self, number: Option<SegmentNumber>, key: &SegmentKey, size: u64, live: bool) {
        let crc = checksum(&key.to_string());
        let seen = self.objects.get(&key.segment).is_some_and(|object| object.seen);
        self.objects.insert(key.segment, Object { number, size, key: crc, live, seen });
    }

    /// Takes in a manifest page.
    pub(super) fn insert_page(&mut self, key: PageKey, live: bool) {
        self.pages.insert(key, live);
    }

    /// Whether a manifest page is known.
    pub(super) fn has_page(&self, key: &PageKey) -> bool {
        self.pages.contains_key(key)
    }

    /// Whether an object was in the listing.
    pub(super) fn was_seen(&self, id: SegmentId) -> bool {
        self.objects.get(&id).is_some_and(|object| object.seen)
    }

    /// Whether there is an object of that id.
    pub(super) fn has(&self, id: SegmentId) -> bool {
        self.objects.contains_key(&id)
    }

    /// Judges an object of the listing.
    pub(super) fn see(&mut self, text: &str, size: u64) -> Verdict {
        let Ok(key) = text.parse::<SegmentKey>() else { return self.judge_other(text) };
        let known = self.objects.get_mut(&key.segment).filter(|object| object.key == checksum(text));
        let Some(object) = known else {
            return match key.incarnation {
                incarnation if incarnation == self.incarnation => Verdict::Unknown(key.segment),
                incarnation if incarnation < self.incarnation => Verdict::Earlier,
                _ => Verdict::Later,
            };
        };
        object.seen = true;
        match *object {
            Object { live: false, .. } => Verdict::Dead,
            Object { size: right, number, .. } if right != size => Verdict::WrongSize { number },
            Object { .. } => Verdict::Live,
        }
    }

    /// The live segments whose objects were not in the listing.
    pub(super) fn unseen(&self) -> impl Iterator<Item = SegmentNumber> {
        self.objects.values().filter(|object| object.live && !object.seen).filter_map(|object| object.number)
    }

    fn judge_other(&self, text: &str) -> Verdict {
        if [BOOTSTRAP, INCARNATION].contains(&text) {
            return Verdict::Cluster;
        }
        if let Ok(key) = text.parse::<PageKey>() {
            return match self.pages.get(&key) {
                Some(true) => Verdict::Live,
                Some(false) => Verdict::Dead,
                None if key.incarnation == self.incarnation => Verdict::UnknownPage(key),
                None if key.incarnation < self.incarnation => Verdict::Earlier,
                None => Verdict::Later,
            };
        }
        let backup = [
            text.parse::<ArchiveKey>().ok().map(|key| key.incarnation),
            text.parse::<BackupOffKey>().ok().map(|key| key.incarnation),
            text.parse::<SnapshotKey>().ok().map(|key| key.incarnation),
            text.parse::<SnapshotPartKey>().ok().map(|key| key.snapshot.incarnation),
        ];
        match backup.into_iter().flatten().next() {
            None => Verdict::NotOurs,
            Some(incarnation) if incarnation > self.incarnation => Verdict::Later,
            Some(_) => Verdict::Backup,
        }
    }
}

fn checksum(key: &str) -> u32 {
    crc32c::crc32c(key.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use carnax_core::id::{LogIndex, PageId, PartitionIndex, TopicId, TopicPartition};
    use carnax_core::time::Timestamp;
    use proptest::prelude::*;

    use super::*;

    const OWN: Incarnation = Incarnation(2);

    fn key(number: u64) -> SegmentKey {
        let segment = SegmentId::from_parts(Timestamp::from_millis(1_700_000_000_000), number.into());
        let topic = TopicId::from_parts(Timestamp::EPOCH, 7);
        let on = TopicPartition { topic, partition: PartitionIndex(3) };
        let merged = (number.is_multiple_of(3)).then_some(on);
        // Some were written before the last restore.
        SegmentKey { incarnation: Incarnation(1 + number % 2), segment, merged }
    }

    proptest! {
        /// Goal: whatever is known and whatever is there, each object is judged as it should be, and each live one that is not
        /// there is missing. Method: objects that are known, or not, live or dead, there or not, cut or not.
        #[test]
        fn the_comparison_goes_both_ways(
            objects in proptest::collection::vec((0..3_u8, any::<bool>(), 0..3_u64), 0..60),
        ) {
            let mut known = Known::new(OWN);
            for (number, (is, ..)) in (0..).zip(&objects) {
                match is {
                    0 => known.insert(Some(SegmentNumber(number)), &key(number), 100, true),
                    1 => known.insert(Some(SegmentNumber(number)), &key(number), 100, false),
                    _ => {}
                }
            }
            let mut missing = BTreeSet::new();
            for (number, (is, there, cut)) in (0..).zip(&objects) {
                if !there {
                    missing.extend((*is == 0).then_some(SegmentNumber(number)));
                    continue;
                }
                let (key, cut) = (key(number), cut / 2);
                let verdict = known.see(&key.to_string(), 100 - cut);
                let right = match (is, key.incarnation) {
                    (0, _) if cut > 0 => Verdict::WrongSize { number: Some(SegmentNumber(number)) },
                    (0, _) => Verdict::Live,
                    (1, _) => Verdict::Dead,
                    (_, OWN) => Verdict::Unknown(key.segment),
                    _ => Verdict::Earlier,
                };
                prop_assert_eq!(verdict, right, "{}", key);
            }
            prop_assert_eq!(known.unseen().collect::<BTreeSet<_>>(), missing);
        }
    }

    #[test]
    fn what_is_not_a_segment_is_told_apart() {
        let mut known = Known::new(OWN);
        let live = key(1);
        known.insert(Some(SegmentNumber(1)), &live, 5, true);
        let archive = |incarnation| ArchiveKey { incarnation, first: LogIndex(1), last: LogIndex(9) };
        let snapshot = SnapshotKey { incarnation: Incarnation(1), last: LogIndex(9) };
        let part = SnapshotPartKey { snapshot, attempt: 7, part: 0 };
        let on = key(3).merged.unwrap_or_else(|| unreachable!("every third one is merged"));
        let page = PageKey { incarnation: OWN, on, page: PageId::from_parts(Timestamp::EPOCH, 1) };
        let other_page = PageKey { page: PageId::from_parts(Timestamp::EPOCH, 2), ..page };
        known.insert_page(page, true);
        let moved = SegmentKey { merged: key(3).merged, ..live };
        for (key, verdict) in [
            (BOOTSTRAP.to_owned(), Verdict::Cluster),
            (INCARNATION.to_owned(), Verdict::Cluster),
            (archive(OWN).to_string(), Verdict::Backup),
            (BackupOffKey { incarnation: OWN, term: 3, applied: LogIndex(9) }.to_string(), Verdict::Backup),
            (archive(Incarnation(3)).to_string(), Verdict::Later),
            (snapshot.to_string(), Verdict::Backup),
            (part.to_string(), Verdict::Backup),
            (SegmentKey { incarnation: Incarnation(3), ..key(2) }.to_string(), Verdict::Later),
            (moved.to_string(), Verdict::Unknown(live.segment)),
            (format!("{live}.bak"), Verdict::NotOurs),
            (page.to_string(), Verdict::Live),
            (other_page.to_string(), Verdict::UnknownPage(other_page)),
            ("notes.txt".to_owned(), Verdict::NotOurs),
            ("2/archive/notes.txt".to_owned(), Verdict::NotOurs),
        ] {
            assert_eq!(known.see(&key, 5), verdict, "{key}");
        }
        assert_eq!(known.unseen().collect::<Vec<_>>(), [SegmentNumber(1)], "it lies under its own key alone");
    }
}
