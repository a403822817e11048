//! A log with its bucket, both as small as they can be, and what the log should hold.

use std::collections::BTreeMap;

use carnax_core::id::{LogIndex, PageId, SessionId, TopicId};
use carnax_core::manifest_page::ManifestPage;
use carnax_core::metadata::{
    FetchFrom, FetchPlan, FindDead, ForgetDead, MergePlan, PagePlan, PageReplaced, PlanMerge, PlanPage,
    PlannedSlice, ReplaceByPage, ReplaceSlices, ReplacedPart, SegmentOutcome, UnitOutcome,
};
use carnax_core::object_key::{PageKey, SegmentKey};
use carnax_core::offset::{ByteRange, Offset};
use carnax_core::time::Timestamp;
use carnax_metadata_state::{Command, Reply, answer};
use proptest::prelude::*;

use crate::support::{
    Cluster, INCARNATION, bytes_of, create, plan, read_back, segment, slice, topic_id, trim,
};
use crate::writer::set;

pub(super) const PARTITIONS: u32 = 3;
pub(super) const GRACE: i64 = 60_000;
pub(super) const RETENTION: i64 = 400_000;
/// Bytes of a record in an object.
pub(super) const RECORD: u64 = 10;
pub(super) const HEADER: u64 = 8;
/// The whole log is in the archive.
pub(super) const EVERYTHING: LogIndex = LogIndex(u64::MAX);

#[derive(Debug, Clone)]
pub(super) enum Step {
    /// Records for some partitions, in one segment.
    Append(Vec<(u32, u32)>),
    /// Segments of one partition, which are merged at once, several times; then a page is planned.
    Age(u32),
    /// One more merge is planned.
    PlanMerge,
    /// The oldest plan is carried out, or its first part alone, however much has happened since.
    Merge {
        all: bool,
    },
    /// The same of paging.
    PlanPage,
    Page,
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
        2 => (0..PARTITIONS).prop_map(Step::Age),
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

/// A record, as the model knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) number: u64,
    pub(super) timestamp: i64,
}

pub(super) struct World {
    pub(super) cluster: Cluster,
    pub(super) session: SessionId,
    pub(super) commits: u64,
    pub(super) topic: TopicId,
    /// What the objects hold, record by record.
    pub(super) bucket: BTreeMap<SegmentKey, Vec<Record>>,
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
    pub(super) merged: usize,
    pub(super) paged: usize,
}

impl World {
    pub(super) fn new() -> Self {
        let mut cluster = Cluster::new();
        let settings =
            [("merge.slices", Some("12")), ("page.slices", Some("2")), ("delete.grace.ms", Some("60000"))];
        cluster.one(set(&settings)).unwrap();
        let config = [("retention.ms", "400000")];
        cluster.one(create("t", topic_id(7), PARTITIONS, &config)).unwrap();
        let session = cluster.open_session();
        let partitions = PARTITIONS as usize;
        Self {
            cluster,
            session,
            commits: 0,
            topic: topic_id(7),
            bucket: BTreeMap::new(),
            model: vec![Vec::new(); partitions],
            trimmed: vec![0; partitions],
            records: 0,
            pages: BTreeMap::new(),
            merges: Vec::new(),
            paging: Vec::new(),
            fetches: Vec::new(),
            merged: 0,
            paged: 0,
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
            Step::Retain => self.retain(),
            Step::Trim { partition, percent } => {
                let before = self.offset(*partition, *percent);
                self.cluster.one(trim("t", *partition, before)).unwrap();
                let trimmed = &mut self.trimmed[*partition as usize];
                *trimmed = before.max(*trimmed);
            }
            Step::PlanFetch { partition, percent } => {
                let from = FetchFrom::Offset(Offset(self.offset(*partition, *percent)));
                if let Ok(plan) = self.cluster.plan("t", *partition, from) {
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

    pub(super) fn append(&mut self, parts: &[(u32, u32)]) {
        let id = self.cluster.segment(u128::from(self.records) + 1);
        let (mut units, mut object) = (Vec::new(), Vec::new());
        for (partition, count) in parts {
            let start = HEADER + object.len() as u64 * RECORD;
            let timestamp = self.cluster.now - i64::from(*count);
            units.push(slice(self.topic, *partition, start, u64::from(*count) * RECORD, *count, timestamp));
            for _ in 0..*count {
                self.records += 1;
                let record = Record { number: self.records, timestamp };
                object.push(record);
                self.model[*partition as usize].push(record);
            }
        }
        self.bucket.insert(SegmentKey::appended(INCARNATION, id), object);
        self.commits += 1;
        let reply = self.cluster.commit(self.session, self.commits, vec![segment(id, units)]).unwrap();
        let SegmentOutcome::Decided(outcomes) = &reply.outcomes[0] else { panic!("{reply:?}") };
        assert!(outcomes.iter().all(|outcome| matches!(outcome, UnitOutcome::Accepted { .. })));
    }

    /// What a planned slice holds, if its object is there.
    pub(super) fn read(&self, slice: &PlannedSlice) -> Option<&[Record]> {
        let from = usize::try_from((slice.bytes.start - HEADER) / RECORD).unwrap();
        let count = usize::try_from(slice.bytes.length / RECORD).unwrap();
        self.bucket.get(&slice.segment)?.get(from..from + count)
    }

    pub(super) fn merge(&mut self, all: bool) {
        if self.merges.is_empty() {
            return;
        }
        let (mut plan, planned) = self.merges.remove(0);
        if !all {
            plan.parts.truncate(1);
        }
        let on = plan.parts.iter().map(|part| part.on);
        self.merged += 1;
        let id = self.cluster.segment((1 << 60) + self.merged as u128);
        let key = SegmentKey::rewritten(INCARNATION, id, on);
        let (mut object, mut parts) = (Vec::new(), Vec::new());
        for part in &plan.parts {
            let start = HEADER + object.len() as u64 * RECORD;
            for source in &part.slices {
                let Some(records) = self.read(&source.slice) else {
                    // It was replaced or dropped so long ago that a reader of the plan may not expect it.
                    assert!(self.cluster.now - planned >= GRACE);
                    return;
                };
                object.extend_from_slice(records);
            }
            let (first, last) = (part.slices.first().unwrap(), part.slices.last().unwrap());
            let length = HEADER + object.len() as u64 * RECORD - start;
            parts.push(ReplacedPart {
                on: part.on,
                base_offset: first.slice.base_offset,
                end_offset: last.slice.end_offset,
                sources: part.slices.iter().map(|source| source.segment).collect(),
                bytes: ByteRange { start, length },
                max_timestamp: part.slices.iter().map(|source| source.slice.max_timestamp).max().unwrap(),
            });
        }
        let size = HEADER + object.len() as u64 * RECORD;
        self.bucket.insert(key, object);
        let request = ReplaceSlices { incarnation: INCARNATION, segment: id, size, parts };
        match self.cluster.one(Command::ReplaceSlices(request)) {
            Ok(Reply::SlicesReplaced(reply)) => assert_eq!(reply.replaced.len(), plan.parts.len()),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn page(&mut self) {
        if self.paging.is_empty() {
            return;
        }
        let part = self.paging.remove(0).part.unwrap();
        self.merged += 1;
        let page =
            PageId::from_parts(Timestamp::from_millis(self.cluster.now), (1 << 61) + self.merged as u128);
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
            Ok(Reply::Retained { moved }) => assert_eq!(moved, due),
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
        let request = plan("t", partition, FetchFrom::Earliest, 1, 1);
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
        for slice in &slices {
            let Some(records) = self.read(slice) else {
                assert!(!in_time, "an object was deleted that a reader needed");
                continue;
            };
            let offsets =
                usize::try_from(slice.base_offset.0).unwrap()..usize::try_from(slice.end_offset.0).unwrap();
            assert_eq!(records, &self.model[partition as usize][offsets]);
        }
    }

    pub(super) fn collect(&mut self) {
        let now = Timestamp::from_millis(self.cluster.now);
        let dead =
            answer::find_dead(&self.cluster.state, &FindDead { limit: 1_000 }, now, EVERYTHING).unwrap();
        let objects = dead.objects.iter().map(|object| (object.died_at, object.number)).collect();
        let pages = dead.pages.iter().map(|page| (page.died_at, page.key.page)).collect();
        for object in &dead.objects {
            assert!(self.bucket.remove(&object.key).is_some(), "{object:?}");
        }
        for dead in &dead.pages {
            let page = self.pages.remove(&dead.key).expect("a page dies once");
            for slice in page.slices().iter().filter(|_| dead.owns_slices) {
                assert!(self.bucket.remove(&slice.segment).is_some(), "{slice:?}");
            }
        }
        self.cluster.one(Command::ForgetDead(ForgetDead { objects, pages })).unwrap();
    }

    /// Everything from the log start on is there and is what was appended.
    pub(super) fn check(&self) {
        for partition in 0..PARTITIONS {
            let model = &self.model[partition as usize];
            let mut next = Offset(self.log_start(partition));
            assert!(next.0 >= self.trimmed[partition as usize]);
            for slice in self.live_slices(partition) {
                assert!(slice.base_offset <= next && next < slice.end_offset);
                let records = self.read(&slice).expect("what is live is there");
                let offsets = slice.base_offset.0..slice.end_offset.0;
                let offsets = usize::try_from(offsets.start).unwrap()..usize::try_from(offsets.end).unwrap();
                assert_eq!(records, &model[offsets]);
                next = slice.end_offset;
            }
            assert_eq!(next.0, model.len() as u64);
        }
    }

    /// From the log start on, plan after plan.
    pub(super) fn live_slices(&self, partition: u32) -> Vec<PlannedSlice> {
        let mut slices: Vec<PlannedSlice> = Vec::new();
        let mut from = FetchFrom::Earliest;
        loop {
            let plan = self.cluster.plan("t", partition, from).unwrap();
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
                pages.extend(self.cluster.plan("t", partition, from).unwrap().page.map(|page| page.key));
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
        assert_eq!(self.bucket.keys().copied().collect::<Vec<_>>(), live);
        assert_eq!(self.pages.keys().copied().collect::<Vec<_>>(), self.live_pages());
    }
}
