//! A log with its bucket, both as small as they can be, and what the log should hold.

use std::collections::BTreeMap;

use carnax_core::id::{LogIndex, PageId, SessionId, TopicId};
use carnax_core::manifest_page::ManifestPage;
use carnax_core::metadata::{
    FetchFrom, FetchPlan, FindDead, ForgetDead, MergePlan, PagePlan, PageReplaced, PlanMerge, PlanPage,
    PlannedSlice, ReplaceByPage, SegmentOutcome, UnitOutcome,
};
use carnax_core::object_key::{PageKey, SegmentKey};
use carnax_core::offset::Offset;
use carnax_core::problem::Problem;
use carnax_core::time::Timestamp;
use carnax_metadata_state::{Command, Reply, answer};
use proptest::prelude::*;

use super::seen::Seen;
use crate::bucket::{Bucket, GRACE, HEADER, RECORD, Record, Rewritten};
use crate::rounds::Rounds;
use crate::support::{
    Cluster, INCARNATION, bytes_of, create, plan, read_back, segment, slice, topic_id, trim,
};
use crate::writer::set;

/// Partitions of the topic that is not compacted; the one that is comes behind them.
pub(super) const DENSE: u32 = 3;
pub(super) const COMPACTED: u32 = DENSE;
pub(super) const PARTITIONS: u32 = DENSE + 1;
pub(super) const RETENTION: i64 = 400_000;
const TOMBSTONES: i64 = 30_000;
const KEYS: u64 = 3;
/// The whole log is in the archive.
pub(super) const EVERYTHING: LogIndex = LogIndex(u64::MAX);

#[derive(Debug, Clone)]
pub(super) enum Step {
    /// Records for some partitions, in one segment.
    Append(Vec<(u32, u32)>),
    /// Segments of one partition, which are merged at once, several times; then a page is planned.
    Age(u32),
    /// Two workers plan the same merge; one carries it out, and the other some time later.
    Race(u32),
    /// One more merge is planned.
    PlanMerge,
    /// The oldest plan is carried out, or its first part alone, however much has happened since.
    Merge {
        all: bool,
    },
    /// The same of paging.
    PlanPage,
    Page,
    /// A round of key compaction is planned, of which an object takes so many slices.
    PlanRound(usize),
    /// The next object of the oldest round, or its end.
    Compact,
    /// A round, at once.
    Round,
    Retain,
    Trim {
        partition: u32,
        percent: u64,
    },
    /// A reader plans, and reads much later.
    PlanFetch {
        partition: u32,
        percent: u64,
    },
    Fetch,
    Collect,
    Restart,
    Wait(i64),
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let appends = proptest::collection::vec((0..PARTITIONS, 1..20_u32), 1..4);
    let step = prop_oneof![
        8 => appends.prop_map(Step::Append),
        2 => (0..DENSE).prop_map(Step::Age),
        1 => (0..PARTITIONS).prop_map(Step::Race),
        3 => (1..20_u32).prop_map(|count| Step::Append(vec![(COMPACTED, count)])),
        2 => (1..5_usize).prop_map(Step::PlanRound),
        4 => Just(Step::Compact),
        2 => Just(Step::Round),
        3 => Just(Step::PlanMerge),
        3 => any::<bool>().prop_map(|all| Step::Merge { all }),
        2 => Just(Step::PlanPage),
        2 => Just(Step::Page),
        2 => Just(Step::Retain),
        1 => (0..PARTITIONS, 0..=100_u64).prop_map(|(partition, percent)| Step::Trim { partition, percent }),
        2 => (0..PARTITIONS, 0..=100_u64).prop_map(|(partition, percent)| Step::PlanFetch { partition, percent }),
        2 => Just(Step::Fetch),
        2 => Just(Step::Collect),
        1 => Just(Step::Restart),
        3 => (1..120_000_i64).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 1..120)
}

pub(super) struct World {
    pub(super) cluster: Cluster,
    pub(super) session: SessionId,
    pub(super) commits: u64,
    pub(super) topic: TopicId,
    pub(super) bucket: Bucket,
    /// What each offset holds, by partition.
    pub(super) model: Vec<Vec<Record>>,
    /// Where a trim has moved the log start.
    pub(super) trimmed: Vec<u64>,
    pub(super) records: u64,
    /// Manifest pages in the bucket.
    pub(super) pages: BTreeMap<PageKey, ManifestPage>,
    pub(super) merges: Vec<(MergePlan, i64)>,
    pub(super) paging: Vec<PagePlan>,
    pub(super) fetches: Vec<(u32, FetchPlan, i64)>,
    pub(super) rounds: Rounds,
    pub(super) paged: usize,
    pub(super) seen: Seen,
}

/// The topic of a partition, and its index there.
fn place(partition: u32) -> (&'static str, u32) {
    if partition == COMPACTED { ("k", 0) } else { ("t", partition) }
}

impl World {
    pub(super) fn new() -> Self {
        let mut cluster = Cluster::new();
        let settings = [
            ("merge.slices", Some("12")),
            ("page.slices", Some("2")),
            ("delete.grace.ms", Some("60000")),
            ("compact.interval.ms", Some("1000")),
        ];
        cluster.one(set(&settings)).unwrap();
        let config = [("retention.ms", "400000")];
        cluster.one(create("t", topic_id(7), PARTITIONS, &config)).unwrap();
        let config = [
            ("cleanup.policy", "compact,delete"),
            ("retention.ms", "400000"),
            ("delete.retention.ms", "30000"),
            ("min.compaction.lag.ms", "500"),
            ("min.cleanable.dirty.ratio", "0.0001"),
        ];
        cluster.one(create("k", topic_id(8), 1, &config)).unwrap();
        let session = cluster.open_session();
        let partitions = PARTITIONS as usize;
        Self {
            cluster,
            session,
            commits: 0,
            topic: topic_id(7),
            bucket: Bucket::default(),
            model: vec![Vec::new(); partitions],
            trimmed: vec![0; partitions],
            records: 0,
            pages: BTreeMap::new(),
            merges: Vec::new(),
            paging: Vec::new(),
            fetches: Vec::new(),
            rounds: Rounds::default(),
            paged: 0,
            seen: Seen::default(),
        }
    }

    pub(super) fn step(&mut self, step: &Step) {
        match step {
            Step::Append(parts) => self.append(parts),
            Step::Age(partition) => {
                let waiting = std::mem::take(&mut self.merges);
                for _ in 0..4 {
                    (0..12).for_each(|_| self.append(&[(*partition, 1)]));
                    self.step(&Step::PlanMerge);
                    self.merge(true);
                    self.merges.clear();
                }
                self.merges = waiting;
                self.step(&Step::PlanPage);
            }
            Step::Race(partition) => {
                (0..12).for_each(|_| self.append(&[(*partition, 1)]));
                self.step(&Step::PlanMerge);
                self.step(&Step::PlanMerge);
                let newest = self.merges.pop();
                self.merges.splice(0..0, newest);
                self.merge(true);
            }
            Step::PlanMerge => {
                let now = Timestamp::from_millis(self.cluster.now);
                let plan = answer::plan_merge(&self.cluster.state, &PlanMerge { after: None }, now).unwrap();
                if !plan.parts.is_empty() {
                    self.merges.push((plan, self.cluster.now));
                }
            }
            Step::Merge { all } => self.merge(*all),
            Step::PlanPage => {
                let now = Timestamp::from_millis(self.cluster.now);
                let plan = answer::plan_page(&self.cluster.state, &PlanPage { after: None }, now).unwrap();
                if plan.part.is_some() {
                    self.paging.push(plan);
                }
            }
            Step::Page => self.page(),
            Step::PlanRound(per_object) => self.rounds.plan(&self.cluster, &self.bucket, *per_object),
            Step::Compact => self.rounds.compact(&mut self.cluster, &mut self.bucket),
            Step::Round => self.round(),
            Step::Retain => self.retain(),
            Step::Trim { partition, percent } => {
                let before = self.offset(*partition, *percent);
                let (topic, index) = place(*partition);
                self.cluster.one(trim(topic, index, before)).unwrap();
                let trimmed = &mut self.trimmed[*partition as usize];
                *trimmed = before.max(*trimmed);
            }
            Step::PlanFetch { partition, percent } => {
                let from = FetchFrom::Offset(Offset(self.offset(*partition, *percent)));
                if let Ok(plan) = self.plan(*partition, from) {
                    self.fetches.push((*partition, plan, self.cluster.now));
                }
            }
            Step::Fetch => self.fetch(),
            Step::Collect => self.collect(),
            Step::Restart => self.cluster.state = read_back(&bytes_of(&self.cluster.state)).unwrap(),
            Step::Wait(millis) => self.cluster.now += millis,
        }
    }

    pub(super) fn offset(&self, partition: u32, percent: u64) -> u64 {
        self.model[partition as usize].len() as u64 * percent / 100
    }

    /// A round of key compaction from its plan to its end.
    fn round(&mut self) {
        let waiting = std::mem::take(&mut self.rounds.under_way);
        self.rounds.plan(&self.cluster, &self.bucket, 2);
        while !self.rounds.under_way.is_empty() {
            self.rounds.compact(&mut self.cluster, &mut self.bucket);
        }
        self.rounds.under_way = waiting;
    }

    fn plan(&self, partition: u32, from: FetchFrom) -> Result<FetchPlan, Problem> {
        let (topic, index) = place(partition);
        self.cluster.plan(topic, index, from)
    }

    pub(super) fn append(&mut self, parts: &[(u32, u32)]) {
        let id = self.bucket.new_id(&self.cluster);
        let (mut units, mut object) = (Vec::new(), Vec::new());
        for (partition, count) in parts {
            let start = HEADER + object.len() as u64 * RECORD;
            let timestamp = self.cluster.now - i64::from(*count);
            let topic = if *partition == COMPACTED { topic_id(8) } else { self.topic };
            let length = u64::from(*count) * RECORD;
            units.push(slice(topic, place(*partition).1, start, length, *count, timestamp));
            let model = &mut self.model[*partition as usize];
            for _ in 0..*count {
                self.records += 1;
                let key = u8::try_from(self.records % KEYS).unwrap();
                let value = (!self.records.is_multiple_of(4)).then_some(self.records);
                let record = Record { offset: model.len() as u64, key, value, timestamp };
                object.push(Some(record));
                model.push(record);
            }
        }
        self.bucket.objects.insert(SegmentKey::appended(INCARNATION, id), object);
        self.commits += 1;
        let reply = self.cluster.commit(self.session, self.commits, vec![segment(id, units)]).unwrap();
        let SegmentOutcome::Decided(outcomes) = &reply.outcomes[0] else { panic!("{reply:?}") };
        assert!(outcomes.iter().all(|outcome| matches!(outcome, UnitOutcome::Accepted { .. })));
    }

    pub(super) fn merge(&mut self, all: bool) {
        if self.merges.is_empty() {
            return;
        }
        let (mut plan, planned) = self.merges.remove(0);
        if !all {
            plan.parts.truncate(1);
        }
        let mut rewritten = Vec::new();
        for part in plan.parts {
            let Some(records) = self.bucket.read_all(&part.slices) else {
                // It was replaced or dropped so long ago that a reader of the plan may not expect it.
                assert!(self.cluster.now - planned >= GRACE);
                return;
            };
            rewritten.push(Rewritten { on: part.on, slices: part.slices, records });
        }
        let replaced = self.bucket.replace(&mut self.cluster, &rewritten);
        self.seen.merges_lost += replaced.iter().filter(|replaced| !**replaced).count();
    }

    pub(super) fn page(&mut self) {
        if self.paging.is_empty() {
            return;
        }
        let part = self.paging.remove(0).part.unwrap();
        let page = PageId::from_bytes(self.bucket.new_id(&self.cluster).to_bytes());
        let key = PageKey { incarnation: INCARNATION, on: part.on, page };
        let slices = part.slices.iter().map(|source| source.slice).collect();
        let written = ManifestPage::new(part.on, slices).unwrap();
        let size = written.encode().len() as u64;
        self.pages.insert(key, ManifestPage::decode(&written.encode()).unwrap());
        let request = ReplaceByPage {
            incarnation: INCARNATION,
            page,
            size,
            on: part.on,
            base_offset: part.slices.first().unwrap().slice.base_offset,
            end_offset: part.slices.last().unwrap().slice.end_offset,
            sources: part.slices.iter().map(|source| source.segment).collect(),
        };
        match self.cluster.one(Command::ReplaceByPage(request)) {
            Ok(Reply::PageReplaced(PageReplaced { replaced })) => self.paged += usize::from(replaced),
            other => panic!("{other:?}"),
        }
    }

    /// The slices of a plan, those of its page included; none if the page is gone.
    pub(super) fn slices_of(&self, plan: &FetchPlan) -> Option<Vec<PlannedSlice>> {
        let Some(page) = &plan.page else { return Some(plan.slices.clone()) };
        assert_eq!(plan.slices, []);
        let slices = self.pages.get(&page.key)?.slices().iter();
        Some(slices.filter(|slice| slice.end_offset > plan.start).copied().collect())
    }

    pub(super) fn retain(&mut self) {
        let now = Timestamp::from_millis(self.cluster.now);
        let before: Vec<u64> = (0..PARTITIONS).map(|partition| self.log_start(partition)).collect();
        let partitions = answer::due_retention(&self.cluster.state, now, 100);
        let due = partitions.len() as u64;
        match self.cluster.one(Command::Retain { partitions }) {
            Ok(Reply::Retained { moved }) => {
                assert_eq!(moved, due);
                self.seen.retained += moved;
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(answer::due_retention(&self.cluster.state, now, 100), []);
        for (partition, before) in (0..PARTITIONS).zip(before) {
            let gone = &self.model[partition as usize][..usize::try_from(self.log_start(partition)).unwrap()];
            let gone = gone.get(usize::try_from(before).unwrap()..).unwrap_or_default();
            assert!(gone.iter().all(|record| self.cluster.now - record.timestamp > RETENTION));
        }
    }

    pub(super) fn log_start(&self, partition: u32) -> u64 {
        let (topic, index) = place(partition);
        let request = plan(topic, index, FetchFrom::Earliest, 1, 1);
        answer::plan_fetch(&self.cluster.state, &request).unwrap().log_start.0
    }

    /// The oldest plan is read.
    pub(super) fn fetch(&mut self) {
        if self.fetches.is_empty() {
            return;
        }
        let (partition, plan, planned) = self.fetches.remove(0);
        let in_time = self.cluster.now - planned < GRACE;
        let Some(slices) = self.slices_of(&plan) else {
            assert!(!in_time, "a page was deleted that a reader needed");
            return;
        };
        self.seen.read_late += usize::from(!in_time);
        for slice in &slices {
            let Some(records) = self.bucket.read(slice) else {
                assert!(!in_time, "an object was deleted that a reader needed");
                continue;
            };
            let is_dead = !self.live_slices(partition).iter().any(|live| live.segment == slice.segment);
            self.seen.read_dead += usize::from(in_time && is_dead);
            self.check_slice(partition, slice, records);
        }
    }

    /// What a slice holds is what was appended; where keys are not compacted, all of it.
    fn check_slice(&self, partition: u32, slice: &PlannedSlice, records: &[Option<Record>]) {
        let offsets =
            usize::try_from(slice.base_offset.0).unwrap()..usize::try_from(slice.end_offset.0).unwrap();
        let model = &self.model[partition as usize][offsets];
        let records: Vec<Record> = records.iter().flatten().copied().collect();
        if partition == COMPACTED {
            let known: Vec<Record> =
                model.iter().filter(|record| records.contains(record)).copied().collect();
            assert_eq!(records, known, "each at its offset, in order");
        } else {
            assert_eq!(records, model);
        }
    }

    pub(super) fn collect(&mut self) {
        let now = Timestamp::from_millis(self.cluster.now);
        let dead =
            answer::find_dead(&self.cluster.state, &FindDead { limit: 1_000 }, now, EVERYTHING).unwrap();
        let objects = dead.objects.iter().map(|object| (object.died_at, object.number)).collect();
        let pages = dead.pages.iter().map(|page| (page.died_at, page.key.page)).collect();
        for object in &dead.objects {
            assert!(self.bucket.objects.remove(&object.key).is_some(), "{object:?}");
        }
        for dead in &dead.pages {
            let page = self.pages.remove(&dead.key).expect("a page dies once");
            for slice in page.slices().iter().filter(|_| dead.owns_slices) {
                assert!(self.bucket.objects.remove(&slice.segment).is_some(), "{slice:?}");
            }
        }
        self.seen.deleted += dead.objects.len();
        self.seen.pages_deleted += dead.pages.len();
        self.cluster.one(Command::ForgetDead(ForgetDead { objects, pages })).unwrap();
    }

    /// Everything from the log start on is there and is what was appended.
    pub(super) fn check(&self) {
        for partition in 0..PARTITIONS {
            let model = &self.model[partition as usize];
            let start = Offset(self.log_start(partition));
            let (mut next, mut kept) = (start, Vec::new());
            assert!(next.0 >= self.trimmed[partition as usize]);
            for slice in self.live_slices(partition) {
                assert!(slice.base_offset <= next && next < slice.end_offset);
                let records = self.bucket.read(&slice).expect("what is live is there");
                self.check_slice(partition, &slice, records);
                if partition == COMPACTED {
                    kept.extend(records.iter().flatten().filter(|record| record.offset >= start.0));
                }
                next = slice.end_offset;
            }
            assert_eq!(next.0, model.len() as u64);
            if partition == COMPACTED {
                self.check_keys(start, &kept);
            }
        }
    }

    /// The newest record of each key is there, if it was not trimmed; a tombstone may be gone once its time is over.
    fn check_keys(&self, start: Offset, kept: &[Record]) {
        let newest = |records: &[Record]| -> BTreeMap<u8, Record> {
            records.iter().map(|record| (record.key, *record)).collect()
        };
        let found = newest(kept);
        for (key, last) in newest(&self.model[COMPACTED as usize]) {
            let is_over = last.value.is_none() && self.cluster.now - last.timestamp >= TOMBSTONES;
            match found.get(&key) {
                Some(found) => assert_eq!(*found, last, "key {key}"),
                None => assert!(last.offset < start.0 || is_over, "key {key}: {last:?} is gone"),
            }
        }
    }

    /// From the log start on, plan after plan.
    pub(super) fn live_slices(&self, partition: u32) -> Vec<PlannedSlice> {
        let mut slices: Vec<PlannedSlice> = Vec::new();
        let mut from = FetchFrom::Earliest;
        loop {
            let plan = self.plan(partition, from).unwrap();
            slices.extend(self.slices_of(&plan).expect("a live page is there"));
            let end = slices.last().map_or(plan.high_watermark, |slice| slice.end_offset);
            if end == plan.high_watermark {
                return slices;
            }
            from = FetchFrom::Offset(end);
        }
    }

    /// Pages that the state refers to.
    pub(super) fn live_pages(&self) -> Vec<PageKey> {
        let mut pages = Vec::new();
        for partition in 0..PARTITIONS {
            for slice in self.live_slices(partition) {
                let from = FetchFrom::Offset(slice.base_offset.max(Offset(self.log_start(partition))));
                pages.extend(self.plan(partition, from).unwrap().page.map(|page| page.key));
            }
        }
        pages.dedup();
        pages.sort_unstable();
        pages
    }

    /// Quiet: what is dead is gone, and nothing else.
    pub(super) fn settle(&mut self) {
        self.merges.clear();
        self.paging.clear();
        self.rounds.under_way.clear();
        self.cluster.now += 2 * GRACE;
        self.collect();
        let mut live: Vec<SegmentKey> = Vec::new();
        for partition in 0..PARTITIONS {
            live.extend(self.live_slices(partition).iter().map(|slice| slice.segment));
        }
        // Those before the log start, too, that share a live page.
        for page in self.live_pages() {
            live.extend(self.pages[&page].slices().iter().map(|slice| slice.segment));
        }
        live.sort_unstable();
        live.dedup();
        assert_eq!(self.bucket.objects.keys().copied().collect::<Vec<_>>(), live);
        assert_eq!(self.pages.keys().copied().collect::<Vec<_>>(), self.live_pages());
    }
}
