//! Verification: holds what the metadata core knows and what lies in the bucket against each other, both ways. Changes nothing.
//!
//! ```text
//!  manifests ─▶ which objects are known ─▶ list the bucket ─▶ what is missing, cut, left over
//!  manifests, page by page, with slices ─▶ footers, or whole objects ─▶ what contradicts, what is damaged
//! ```
//!
//! The log goes on meanwhile: segments are committed, merged, and deleted. So whatever looks wrong is asked for again, and counts
//! only if its manifest is still the same: an object that is referred to now was referred to when it was looked at, since
//! what has died never lives again.
//!
//! Memory: some 70 bytes for each object that the metadata core knows, a page of slices, and the objects that are read at
//! the moment (half a GiB of them).

mod compare;
mod examine;
mod listing;
mod objects;
mod pages;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use carnax_core::id::{PageId, SegmentId, SegmentNumber, TopicId, TopicPartition};
use carnax_core::limits::{FIND_ORPHANS_MAX, MANIFEST_ROWS_MAX};
use carnax_core::metadata::{FindOrphans, ListDead, ListManifests, ListTopics, ManifestList};
use carnax_core::object_key::{PageKey, SegmentKey};
use carnax_core::problem;
use carnax_object_store::{ListedObject, ObjectStore, ObjectStoreError};
use carnax_platform::network::Network;
use futures::{StreamExt, TryStreamExt};
use tokio::sync::Semaphore;

use self::compare::{Known, Verdict};
use crate::config::CallSettings;
use crate::metadata_client::MetadataClient;

pub use report::{Checked, Depth, Heap, Problem, ProblemKind, Records, Report, Unreferenced};

/// Bytes of objects that are in memory at the same time, one object at least.
const OBJECT_MEMORY_BYTES: usize = 512 * 1024 * 1024;
/// How long the metadata core may take for a page: with slices it looks at every one of them.
const CALL_TIME: Duration = Duration::from_secs(120);
const TRY_TIME: Duration = Duration::from_secs(30);
/// Topics in one question for their names.
const TOPICS_PAGE: u32 = 1_000;
/// Missing and cut objects of which it is told which records they cost.
const DESCRIBED_MAX: u64 = 200;

/// What is verified, and how.
#[derive(Debug, Clone)]
pub struct VerifySettings {
    /// Where metadata nodes listen.
    pub metadata: Vec<String>,
    /// How closely objects are looked at.
    pub depth: Depth,
    /// Requests to the object store at the same time, at least 1.
    pub concurrency: usize,
}

/// How far a verification is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub step: Step,
    /// How much of it is done.
    pub done: u64,
    /// How much there is to do; 0 if that is not known.
    pub total: u64,
    /// Problems so far.
    pub problems: u64,
}

/// The steps of a verification, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Asks which objects there should be; counts objects.
    Manifests,
    /// Lists the bucket; counts runs of keys.
    Listing,
    /// Looks into the objects; counts bytes.
    Objects,
}

/// Why a verification could not be ended. It says nothing about the log then.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The metadata core could not answer.
    #[error("the metadata core did not answer")]
    Metadata(#[from] problem::Problem),
    /// An address of a metadata node is none.
    #[error("metadata nodes are not named right")]
    Addresses(#[source] std::io::Error),
    /// The bucket could not be listed.
    #[error("the object store did not answer")]
    ObjectStore(#[from] ObjectStoreError),
}

/// A verification under way.
struct Verification<'a> {
    client: MetadataClient,
    object_store: Arc<dyn ObjectStore>,
    depth: Depth,
    concurrency: usize,
    memory: Arc<Semaphore>,
    tell: &'a (dyn Fn(Progress) + Send + Sync),
    report: Report,
    known: Known,
    /// Segments whose objects are known to be missing or cut.
    settled: BTreeSet<SegmentNumber>,
    /// Objects that only manifest pages know, and that have another size.
    paged_wrong: BTreeSet<SegmentId>,
    /// Partitions with manifest pages that cannot be read.
    unread: BTreeSet<TopicPartition>,
}

impl fmt::Debug for Verification<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verification").field("depth", &self.depth).finish_non_exhaustive()
    }
}

/// Verifies a cluster and its bucket, and tells how it is getting on.
///
/// Segments that are committed after it has begun are not looked into. Dropping the future ends it.
///
/// # Errors
/// See [`VerifyError`]. What is wrong with the log is no error: it is in the report.
pub async fn verify(
    settings: &VerifySettings,
    network: Arc<dyn Network>,
    object_store: Arc<dyn ObjectStore>,
    tell: &(dyn Fn(Progress) + Send + Sync),
) -> Result<Report, VerifyError> {
    let calls = CallSettings { deadline: CALL_TIME, try_timeout: TRY_TIME, topic_cache: CALL_TIME };
    let client = MetadataClient::new(network, &settings.metadata, calls).map_err(VerifyError::Addresses)?;
    let first = manifests(&client, SegmentNumber(0), false).await?;
    let mut verification = Verification {
        client,
        object_store,
        depth: settings.depth,
        concurrency: settings.concurrency.max(1),
        memory: Arc::new(Semaphore::new(OBJECT_MEMORY_BYTES / 1024)),
        tell,
        report: Report::new(first.incarnation, first.log_time, settings.depth),
        known: Known::new(first.incarnation),
        settled: BTreeSet::new(),
        paged_wrong: BTreeSet::new(),
        unread: BTreeSet::new(),
    };
    let end = first.end;
    verification.learn(first).await?;
    // An object that is paged out meanwhile is known by then, from before or from its page.
    verification.learn_pages().await?;
    verification.learn_dead().await?;
    verification.compare(end).await?;
    if settings.depth != Depth::Listing {
        verification.look_into(end).await?;
    }
    verification.look_into_pages().await?;
    verification.name_topics().await?;
    Ok(verification.report)
}

/// A page of manifests.
async fn manifests(
    client: &MetadataClient,
    from: SegmentNumber,
    slices: bool,
) -> Result<ManifestList, problem::Problem> {
    client.query(ListManifests { from, rows: MANIFEST_ROWS_MAX, slices }).await
}

impl Verification<'_> {
    fn progress(&self, step: Step, done: u64, total: u64) {
        (self.tell)(Progress { step, done, total, problems: self.report.problem_count });
    }

    /// Takes in which objects there should be.
    async fn learn(&mut self, first: ManifestList) -> Result<(), VerifyError> {
        let mut page = first;
        loop {
            for manifest in &page.manifests {
                self.known.insert(Some(manifest.number), &manifest.key, manifest.size, true);
                self.report.checked.segments += 1;
                self.report.checked.bytes += manifest.size;
            }
            self.progress(Step::Manifests, self.report.checked.segments, 0);
            let Some(next) = page.next else { return Ok(()) };
            page = manifests(&self.client, next, false).await?;
        }
    }

    async fn learn_dead(&mut self) -> Result<(), VerifyError> {
        let mut after = None;
        loop {
            let page = self.client.query(ListDead { after, limit: MANIFEST_ROWS_MAX }).await?;
            for dead in &page.objects {
                self.known.insert(Some(dead.number), &dead.key, dead.size, false);
            }
            for dead in &page.pages {
                self.learn_dead_page(dead).await;
            }
            after = page.objects.last().map(|dead| (dead.died_at, dead.number));
            if !page.more {
                return Ok(());
            }
        }
    }

    /// Lists the bucket, and finds out what is missing and what is left over. Segments from `end` on came later.
    async fn compare(&mut self, end: SegmentNumber) -> Result<(), VerifyError> {
        let runs = listing::runs(self.report.incarnation);
        let (total, mut done) = (runs.len() as u64, 0);
        let store = Arc::clone(&self.object_store);
        let pages = futures::stream::iter(runs).map(|run| listing::pages(Arc::clone(&store), run).boxed());
        let mut pages = pages.flatten_unordered(self.concurrency);
        let (mut unknown, mut young, mut unknown_pages) = (Vec::new(), Vec::new(), Vec::new());
        while let Some((page, last)) = pages.try_next().await? {
            for object in page {
                self.see(object, &mut unknown, &mut unknown_pages).await?;
            }
            if unknown.len() >= FIND_ORPHANS_MAX {
                self.find_orphans(&mut unknown, &mut young).await?;
            }
            done += u64::from(last);
            self.progress(Step::Listing, done, total);
        }
        self.find_orphans(&mut unknown, &mut young).await?;
        let orphan_pages = self.find_orphan_pages(&unknown_pages).await?;
        // What was committed while the bucket was listed is young no more.
        let since = manifests(&self.client, end, false).await?;
        let checked = self.report.checked;
        self.learn(since).await?;
        self.learn_pages().await?;
        self.learn_dead().await?;
        self.report.checked = checked;
        for (id, object, why) in young {
            let merged = object.key.parse::<SegmentKey>().ok().and_then(|key| key.merged);
            if merged.is_some_and(|on| self.unread.contains(&on)) {
                // A page may refer to it: the page is the problem.
            } else if !self.known.has(id) {
                self.report.put(why, &object.key, object.size);
            } else if self.known.see(&object.key, object.size) == Verdict::Unknown(id) {
                self.report.put(Unreferenced::NotOurs, &object.key, object.size);
            }
        }
        for (key, object) in unknown_pages.into_iter().filter(|(key, _)| !self.known.has_page(key)) {
            let orphan = orphan_pages.contains(&key.page);
            let why = if orphan { Unreferenced::Orphan } else { Unreferenced::Young };
            self.report.put(why, &object.key, object.size);
        }
        let missing: Vec<SegmentNumber> = self.known.unseen().filter(|number| *number < end).collect();
        for number in missing {
            let detail = |size| format!("{size} bytes that were committed are not there");
            self.confirm(number, ProblemKind::Missing, detail).await?;
        }
        Ok(())
    }

    /// Sorts an object of the listing; `unknown` gets those that the metadata core has to be asked about.
    async fn see(
        &mut self,
        object: ListedObject,
        unknown: &mut Vec<(SegmentId, ListedObject)>,
        unknown_pages: &mut Vec<(PageKey, ListedObject)>,
    ) -> Result<(), VerifyError> {
        let ListedObject { key, size } = &object;
        self.report.bucket.count(*size);
        match self.known.see(key, *size) {
            Verdict::Live | Verdict::Cluster => {}
            Verdict::Backup => self.report.backup.count(*size),
            Verdict::Dead => self.report.put(Unreferenced::Dead, key, *size),
            Verdict::Earlier => self.report.put(Unreferenced::EarlierIncarnation, key, *size),
            Verdict::Later => self.report.put(Unreferenced::LaterIncarnation, key, *size),
            Verdict::NotOurs => self.report.put(Unreferenced::NotOurs, key, *size),
            Verdict::Unknown(id) => unknown.push((id, object)),
            Verdict::UnknownPage(key) => unknown_pages.push((key, object)),
            Verdict::WrongSize { number: None } => {
                self.paged_wrong.extend(key.parse::<SegmentKey>().map(|key| key.segment).ok());
            }
            Verdict::WrongSize { number: Some(number) } => {
                let detail = |right| format!("{size} bytes are there, {right} were committed");
                self.confirm(number, ProblemKind::WrongSize, detail).await?;
            }
        }
        Ok(())
    }

    /// Asks which objects are orphans, if no manifest page refers to them; the others are young, or were committed lately.
    async fn find_orphans(
        &mut self,
        unknown: &mut Vec<(SegmentId, ListedObject)>,
        judged: &mut Vec<(SegmentId, ListedObject, Unreferenced)>,
    ) -> Result<(), VerifyError> {
        for some in std::mem::take(unknown).chunks(FIND_ORPHANS_MAX) {
            let candidates = some.iter().map(|(id, _)| *id).collect();
            let incarnation = self.report.incarnation;
            let question = FindOrphans { incarnation, candidates, on: None, pages: Vec::new() };
            let orphans = self.client.query(question).await?.orphans;
            for (id, object) in some {
                let orphan = orphans.binary_search(id).is_ok();
                let why = if orphan { Unreferenced::Orphan } else { Unreferenced::Young };
                judged.push((*id, object.clone(), why));
            }
        }
        Ok(())
    }

    /// Asks which manifest pages are orphans.
    async fn find_orphan_pages(
        &self,
        unknown: &[(PageKey, ListedObject)],
    ) -> Result<BTreeSet<PageId>, VerifyError> {
        let mut orphans = BTreeSet::new();
        for some in unknown.chunks(FIND_ORPHANS_MAX) {
            let pages = some.iter().map(|(key, _)| *key).collect();
            let incarnation = self.report.incarnation;
            let question = FindOrphans { incarnation, candidates: Vec::new(), on: None, pages };
            orphans.extend(self.client.query(question).await?.orphan_pages);
        }
        Ok(orphans)
    }

    /// Reports a problem with a whole object, if something still refers to it.
    async fn confirm(
        &mut self,
        number: SegmentNumber,
        kind: ProblemKind,
        detail: impl Fn(u64) -> String,
    ) -> Result<(), VerifyError> {
        // What the first ones cost is told; the question takes long where there is much.
        let slices = self.report.problem_count < DESCRIBED_MAX;
        let page = self.client.query(ListManifests { from: number, rows: 1, slices }).await?;
        if let Some(manifest) = page.manifests.first().filter(|manifest| manifest.number == number) {
            self.report.add(Problem::of(manifest, kind, detail(manifest.size)));
            self.settled.insert(number);
        }
        Ok(())
    }

    /// Gives topics their names.
    async fn name_topics(&mut self) -> Result<(), VerifyError> {
        let all = self.report.problems.iter().flat_map(|problem| &problem.records);
        let mut wanted: BTreeSet<TopicId> = all.map(|records| records.topic_id).collect();
        let (mut names, mut after) = (BTreeMap::new(), None);
        while !wanted.is_empty() {
            let question = ListTopics { prefix: String::new(), after: after.take(), limit: TOPICS_PAGE };
            let page = self.client.query(question).await?;
            after = page.topics.last().map(|topic| topic.name.clone());
            for topic in page.topics {
                if wanted.remove(&topic.topic_id) {
                    names.insert(topic.topic_id, topic.name.to_string());
                }
            }
            if !page.more {
                break;
            }
        }
        for records in self.report.problems.iter_mut().flat_map(|problem| &mut problem.records) {
            records.topic = names.get(&records.topic_id).cloned();
        }
        Ok(())
    }
}
